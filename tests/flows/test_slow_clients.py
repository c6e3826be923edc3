"""Clients that begin and never end: thousands of half-open sessions hold up nobody, and the limits let others in again."""

from __future__ import annotations

import contextlib
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.relay import WAIT_SECONDS, Relay, eventually
from tests.support.upstream import Upstream

HALF_OPEN = 2000
OWN_FILES = 200  # of the test itself, beside its half-open sessions
FEW = 50

BEGINNINGS = (
    (),
    (b"EHLO slow.test\r\n", b"MAIL FROM:<slow@exam"),
    (b"EHLO slow.test\r\n", b"MAIL FROM:<slow@example.com>\r\n", b"RCPT TO:<to@example.org>\r\n", b"DATA\r\n", b"Subject: slo"),
)
"""How far a slow client gets: the greeting, the middle of a line, the middle of a message. A reply follows each but the last
piece of the latter two."""


@pytest.fixture
def _open_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < HALF_OPEN + OWN_FILES:
        pytest.skip(f"this system allows {hard} open files: too few for {HALF_OPEN} sessions")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, HALF_OPEN + OWN_FILES) if soft >= 0 else soft, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def half_open(relay: Relay, number: int) -> socket.socket:
    """A session that is begun, up to where its client falls silent."""
    client = socket.create_connection(("127.0.0.1", relay.smtp_port), WAIT_SECONDS)
    assert client.recv(1000).startswith(b"220 ")
    for piece in BEGINNINGS[number % len(BEGINNINGS)]:
        client.sendall(piece)
        if piece.endswith(b"\r\n"):
            assert client.recv(1000)[:1] in b"23"
    return client


@contextlib.contextmanager
def half_open_sessions(relay: Relay, count: int) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(contextlib.closing(half_open(relay, number))) for number in range(count)]


def greeting(relay: Relay) -> bytes:
    with socket.create_connection(("127.0.0.1", relay.smtp_port), WAIT_SECONDS) as client:
        return client.recv(1000)


@pytest.mark.usefixtures("_open_files")
@pytest.mark.parametrize("processes", [1, 2])
def test_two_thousand_half_open_sessions_hold_up_nobody(tmp_path: Path, processes: int) -> None:
    settings = {"maxConnections": HALF_OPEN + 10, "processes": processes}
    with Upstream() as upstream, Relay(tmp_path, [upstream], **settings) as relay:
        with half_open_sessions(relay, HALF_OPEN):
            began = time.monotonic()
            message_id = relay.send("from one who is quick")
            answered = time.monotonic() - began
            [message] = upstream.wait_for(1)
            arrived = time.monotonic() - began
            print(f"{HALF_OPEN} half-open sessions: 250 in {answered:.3f} s, at the upstream in {arrived:.3f} s")
            assert message_id.encode() in message.data
            assert relay.http("/livez")[0] == 200
        relay.send("after them")
        upstream.wait_for(2)
        assert relay.terminate() == 0


def test_sessions_over_the_limit_are_told_so_and_a_place_that_is_left_is_given_again(tmp_path: Path) -> None:
    with Upstream() as upstream, Relay(tmp_path, [upstream], maxConnections=FEW) as relay:
        with half_open_sessions(relay, FEW) as sessions:
            for _ in range(FEW):
                assert greeting(relay).startswith(b"421 4.7.0 ")
            assert relay.http("/livez")[0] == 200
            sessions[0].close()
            eventually(lambda: greeting(relay).startswith(b"220 "), "a place")
        eventually(lambda: greeting(relay).startswith(b"220 "), "the other places")
        relay.send("after them")
        upstream.wait_for(1)


def test_sessions_that_stay_silent_make_room_by_themselves(tmp_path: Path) -> None:
    limits = {"idleTimeout": 1}
    with Upstream() as upstream, Relay(tmp_path, [upstream], maxConnections=FEW, limits=limits) as relay:
        with half_open_sessions(relay, FEW) as sessions:
            endings = [rest_of(session) for session in sessions]
            assert [ending for ending in endings if b"421 4.4.2 " not in ending] == []
            eventually(lambda: greeting(relay).startswith(b"220 "), "a place")
            relay.send("after them")
            upstream.wait_for(1)


def rest_of(session: socket.socket) -> bytes:
    """What the server says until it hangs up."""
    said = b""
    while piece := session.recv(1000):
        said += piece
    return said
