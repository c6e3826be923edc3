"""One message whose recipients have different ways: it takes all of them side by side, and none waits for another.

All is shown by order: a provider that says nothing until it is released, while mail through the others arrives.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows.rerouting import named
from tests.support.relay import Relay, eventually
from tests.support.upstream import Disconnect, Stall, Upstream

WAYS = 12


@pytest.fixture
def upstreams() -> Iterator[list[Upstream]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Upstream()) for _ in range(WAYS)]


def domain(number: int) -> str:
    return f"d{number}.example"


def providers(upstreams: list[Upstream]) -> list[dict[str, object]]:
    """One for each domain."""
    return [named(f"p{n}", upstream, domains=[domain(n)]) for n, upstream in enumerate(upstreams)]


def recipients(each: int = 2) -> list[str]:
    return [f"user{i}@{domain(n)}" for n in range(WAYS) for i in range(each)]


def wait_until_all_but(silent: list[Upstream], upstreams: list[Upstream]) -> None:
    for upstream in upstreams:
        if upstream not in silent:
            upstream.wait_for(1)


def test_ways_that_say_nothing_do_not_hold_up_the_other_recipients_of_a_message(
    tmp_path: Path, upstreams: list[Upstream]
) -> None:
    silent = upstreams[:4]
    for upstream in silent:
        upstream.on("mail", Stall("250 2.1.0 ok"))
    with Relay(tmp_path, providers(upstreams)) as relay:
        relay.send("to all", recipients())
        wait_until_all_but(silent, upstreams)
        assert [len(upstream.messages) for upstream in silent] == [0] * 4
        for upstream in silent:
            upstream.release()
        for upstream in upstreams:
            upstream.wait_for(1)
        eventually(lambda: relay.metrics()["successful_emails"] == 1, "the end of the message")
        assert sorted(to for u in upstreams for t in u.messages for to in t.recipients) == sorted(recipients())


def test_each_recipient_has_its_own_fate_though_all_are_tried_at_once(tmp_path: Path, upstreams: list[Upstream]) -> None:
    upstreams[3].on("rcpt", "550 5.1.1 no such user")
    upstreams[5].on("mail", *["451 4.3.0 busy"] * 50)
    with Relay(tmp_path, providers(upstreams), retry={"baseDelay": 1}) as relay:
        relay.send("to all", recipients())
        eventually(lambda: len(relay.parked()) == 1, "the parked message")
        assert sorted(relay.parked()[0]["To"]) == [f"user0@{domain(5)}", f"user1@{domain(5)}"]
        assert relay.parked()[0]["Rounds"] == 1
        upstreams[5].on("mail")
        relay.http("/admin/retry-failed", "POST")
        upstreams[5].wait_until(lambda: len(upstreams[5].messages) == 1)
        eventually(lambda: relay.metrics()["parked_emails"] == 0, "the end of the message")
        assert [len(upstream.messages) for upstream in upstreams] == [1] * 3 + [0] + [1] * (WAYS - 4)
        assert relay.metrics()["failed_emails"] == 1


def test_what_was_delivered_is_known_after_a_crash_while_others_are_under_way(
    tmp_path: Path, upstreams: list[Upstream]
) -> None:
    silent = upstreams[:2]
    for upstream in silent:
        upstream.on("mail", Stall("250 2.1.0 ok"))
    with Relay(tmp_path, providers(upstreams)) as relay:
        relay.send("to all", recipients())
        wait_until_all_but(silent, upstreams)
        relay.send("after it", f"user0@{domain(7)}")  # its outcome is recorded behind all of those above
        eventually(lambda: relay.metrics()["successful_emails"] == 1, "the end of the second message")
        relay.kill()
        for upstream in silent:
            upstream.release()
            upstream.hang_up()
        relay.start()
        for upstream in silent:
            upstream.wait_until(lambda upstream=upstream: any(t.accepted for t in upstream.messages))  # type: ignore[misc]
        eventually(lambda: relay.metrics()["successful_emails"] == 2, "the end of the first message")
        others = [len(upstream.messages) for upstream in upstreams[2:]]
        assert others == [1] * 5 + [2] + [1] * (WAYS - 8)


def test_connection_lost_at_one_way_leaves_the_others_alone(tmp_path: Path, upstreams: list[Upstream]) -> None:
    upstreams[0].on("mail", Disconnect(), Disconnect(reset=True), None)
    with Relay(tmp_path, providers(upstreams), retry={"baseDelay": 1}) as relay:
        relay.send("to all", recipients(1))
        eventually(lambda: relay.metrics()["successful_emails"] == 1, "the end of the message")
        assert [len(upstream.messages) for upstream in upstreams] == [1] * WAYS


def test_a_message_that_must_stop_at_the_first_refusal_goes_one_way_after_the_other(
    tmp_path: Path, upstreams: list[Upstream]
) -> None:
    upstreams[0].on("rcpt", Stall("550 5.1.1 no such user"))
    with Relay(tmp_path, providers(upstreams), continueOnError=False) as relay:
        relay.send("to all", recipients(1))
        upstreams[0].wait_until(lambda: "RCPT" in upstreams[0].verbs())
        upstreams[0].release()
        eventually(lambda: relay.metrics()["failed_emails"] == 1, "the end of the message")
        assert [len(upstream.messages) for upstream in upstreams] == [0] * WAYS
