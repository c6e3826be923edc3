"""The listener over real sockets: ports, limits of connections, access, its end."""

from __future__ import annotations

import ipaddress
import smtplib
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mailer.config.schema import Config, LimitsConfig, SecurityConfig
from mailer.events import SubmissionRefused
from mailer.smtp.listener import addresses_of, explain
from mailer.smtp.server import ListenError
from tests.smtp.script import HEAD
from tests.smtp.serving import BASE, WAIT_SECONDS, Client, Served, free_port, serve

ROOT = Path(__file__).parents[2]
BEGIN = (b"EHLO client.example", b"MAIL FROM:<a@example.com>", b"RCPT TO:<b@example.org>", b"DATA")
LAN = SecurityConfig(allow_local_only=True, allowed_networks=(ipaddress.ip_network("192.0.2.0/24"),), require_auth=False)


def until(condition: Callable[[], bool]) -> None:
    ticker = threading.Event()
    for _ in range(2000):
        if condition():
            return
        ticker.wait(0.01)
    raise AssertionError("it did not come to be")


def begin(served: Served, client: Client) -> None:
    """Go as far as the 354 to DATA."""
    client.say(*BEGIN)
    assert [client.reply()[:3] for _ in range(5)] == ["220", "250", "250", "250", "354"]
    until(lambda: bool(served.intake.writers))


def test_an_ordinary_client_delivers_a_message() -> None:
    with serve() as served:
        with smtplib.SMTP("127.0.0.1", served.server.port, timeout=WAIT_SECONDS) as client:
            assert client.sendmail("a@example.com", ["b@example.org"], "Subject: hello\n\n.dot\n") == {}
        [(envelope, content)] = served.intake.messages
        assert [str(r.address) for r in envelope.recipients] == ["b@example.org"]
        assert content.endswith(b"Subject: hello\r\n\r\n.dot\r\n")
        assert b"for <b@example.org>;\r\n" in content


def test_messages_over_lasting_sessions_arrive_whole_once_and_under_their_own_id() -> None:
    """G14: 20 sessions at once, each sending over and over."""
    sessions, each = 20, 25

    def send(number: int, port: int) -> None:
        with smtplib.SMTP("127.0.0.1", port, timeout=WAIT_SECONDS) as client:
            for message in range(each):
                text = f"Subject: {number}-{message}\r\n\r\n" + f"{number}-{message} " * 300 + "\r\n"
                client.sendmail(f"s{number}@example.com", [f"r{message}@example.org"], text)

    with serve() as served:
        threads = [threading.Thread(target=send, args=(number, served.server.port)) for number in range(sessions)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        messages = served.intake.messages
        assert len(messages) == sessions * each
        assert len({envelope.id for envelope, _ in messages}) == sessions * each
        for envelope, content in messages:
            name = f"{str(envelope.sender)[1:].partition('@')[0]}-{str(envelope.recipients[0].address)[1:].partition('@')[0]}"
            assert content.endswith(f"Subject: {name}\r\n\r\n".encode() + f"{name} ".encode() * 300 + b"\r\n")
            assert f" id {envelope.id}\r\n".encode() in content


def test_pipelined_commands_are_answered_in_order() -> None:
    with serve() as served:
        client = served.client()
        client.say(*BEGIN)
        assert [client.reply()[:3] for _ in range(5)] == ["220", "250", "250", "250", "354"]
        client.say(b"x", b".", b"NOOP", b"QUIT")
        assert [client.reply()[:3] for _ in range(4)] == ["250", "250", "221", ""]


def test_the_body_behind_a_refused_data_is_dropped_with_the_connection() -> None:
    with serve() as served:
        client = served.client()
        client.reply()
        client.say(b"EHLO x", b"MAIL FROM:<a@b>", b"RCPT TO:<bad>", b"DATA", b"RSET", *BEGIN[1:], b"evil", b".")
        codes = [client.reply()[:9] for _ in range(5)]
        assert codes == ["250 HELP", "250 2.1.0", "553 5.1.3", "554 5.5.1", "421 4.7.0"]
        assert client.reply() == ""
        assert served.intake.messages == []


# --- limits and access


def test_connections_beyond_the_limit_are_turned_away_until_one_ends() -> None:
    with serve(replace(BASE, max_connections=2)) as served:
        first, second = served.client(), served.client()
        assert first.reply()[:3] == second.reply()[:3] == "220"
        third = served.client()
        assert third.reply().startswith("421 4.7.0")
        assert third.reply() == ""
        until(lambda: SubmissionRefused("connections") in served.events)
        first.ask(b"QUIT")
        until(lambda: served.server.sessions == 1)
        assert served.client().reply()[:3] == "220"


def test_one_address_beyond_loopback_has_a_limit_of_its_own() -> None:
    config = replace(BASE, security=LAN, limits=LimitsConfig(connections_per_address=2))
    with serve(config) as served:
        clients = [served.client_from("192.0.2.7") for _ in range(3)]
        assert [client.reply()[:9] for client in clients] == ["220 mx.ex", "220 mx.ex", "421 4.7.0"]
        other = served.client_from("192.0.2.8")
        assert other.reply()[:3] == "220"
        clients[0].ask(b"QUIT")
        until(lambda: served.server.sessions == 2)
        assert served.client_from("::ffff:192.0.2.7").reply()[:3] == "220"
        assert [served.client().reply()[:3] for _ in range(3)] == ["220"] * 3


def test_a_stranger_is_dropped_before_anything_is_read() -> None:
    with serve(replace(BASE, security=LAN)) as served:
        ours, theirs = socket.socketpair()
        ours.settimeout(WAIT_SECONDS)
        ours.sendall(b"EHLO x\r\n" * 10)
        served.server._receive(theirs, "198.51.100.1", implicit_tls=False)
        assert Client(ours).reply().startswith("554 5.7.1")
        assert served.server.sessions == 0
        assert served.events == [SubmissionRefused("access")]


def test_a_connection_that_says_nothing_leaves_no_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG"), serve() as served:
        caplog.clear()
        for _ in range(3):
            served.client().close()
        client = served.client()
        client.reply()
        client.close()
        until(lambda: served.server.sessions == 0)
        assert caplog.messages == []


# --- ports


def test_a_taken_port_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        served = Served(replace(BASE, smtp_port=taken.getsockname()[1]))
        with pytest.raises(ListenError, match="taken by another process"):
            served.server.start()


def test_a_failed_start_leaves_no_port_open(tmp_path: Path) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        served = Served(replace(BASE, smtp_port=port))
        served.server._config = replace(served.server._config, tls=replace(BASE.tls, implicit_port=taken.getsockname()[1]))
        with pytest.raises(ListenError):
            served.server.start()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_port_without_the_right_says_what_to_do() -> None:
    text = explain("127.0.0.1", 25, PermissionError(13, "Permission denied"))
    for advice in ("127.0.0.1:25", "AmbientCapabilities=CAP_NET_BIND_SERVICE", "net.ipv4.ip_unprivileged_port_start=25", "2525"):
        assert advice in text
    assert "setcap" not in text


def test_an_address_of_another_machine_says_so() -> None:
    with pytest.raises(ListenError, match="smtpHost"):
        Served(replace(BASE, smtp_host="192.0.2.1", security=LAN)).server.start()


@pytest.mark.parametrize("host", ["no such host", "does-not-exist.invalid", "a" * 300])
def test_a_host_that_is_none_says_so(host: str) -> None:
    with pytest.raises(ListenError):
        addresses_of(host)


@pytest.mark.parametrize(
    ("host", "address"), [("127.0.0.1", "127.0.0.1"), ("localhost", "127.0.0.1"), ("::1", "::1"), ("127.0.0.2", "127.0.0.2")]
)
def test_it_listens_where_it_is_told(host: str, address: str) -> None:
    with serve(replace(BASE, smtp_host=host)) as served:
        assert served.client(address).reply().startswith("220 mx.example ")


@pytest.mark.parametrize(("host", "addresses"), [("0.0.0.0", ["127.0.0.1"]), ("::", ["127.0.0.1", "::1"])])
def test_it_listens_everywhere_where_networks_are_allowed(host: str, addresses: list[str]) -> None:
    with serve(replace(BASE, smtp_host=host, security=LAN)) as served:
        for address in addresses:
            assert served.client(address).reply()[:3] == "220"


def test_it_listens_on_loopback_alone_where_only_loopback_is_let_in(caplog: pytest.LogCaptureFixture) -> None:
    with serve(Config(smtp_host="0.0.0.0", smtp_port=0, security=SecurityConfig(require_auth=False))) as served:
        [listener] = served.server._listeners
        assert listener.socket.getsockname()[0] == "127.0.0.1"
    assert "smtp.loopback_only" in caplog.text


def test_a_socket_from_the_service_manager_stands_in_for_the_port() -> None:
    inherited = socket.create_server(("127.0.0.1", 0))
    port = inherited.getsockname()[1]
    served = Served(replace(BASE, smtp_port=free_port()))
    served.server.start([inherited])
    assert served.server.port == port
    assert served.client().reply()[:3] == "220"
    served.server.stop_accepting()
    assert served.server.close_sessions(WAIT_SECONDS)


def test_new_sessions_go_by_a_new_configuration() -> None:
    with serve() as served:
        old = served.client()
        old.reply()
        served.server.configure(replace(BASE, hostname="new.example", max_message_size=4711))
        assert served.client().reply() == "220 new.example ESMTP mailer"
        assert old.ask(b"HELO x") == "250 mx.example"


# --- its end


def test_idle_sessions_are_told_and_ended() -> None:
    with serve() as served:
        idle, amid = served.client(), served.client()
        assert idle.reply()[:3] == amid.reply()[:3] == "220"
        amid.ask(*BEGIN[:3])
        done = served.client()
        begin(served, done)
        assert done.ask(b".").startswith("250 2.0.0")
        served.server.stop_accepting()
        assert served.server.close_sessions(WAIT_SECONDS)
        assert done.reply().startswith("421 4.3.2")
        assert idle.reply().startswith("421 4.3.2")
        assert amid.reply().startswith("421 4.3.2")
        assert idle.reply() == amid.reply() == ""


def test_a_message_under_way_may_come_to_its_end() -> None:
    with serve() as served:
        client = served.client()
        begin(served, client)
        client.sock.sendall(HEAD + b"half of it")
        closing = threading.Thread(target=served.server.close_sessions, args=(WAIT_SECONDS,))
        closing.start()
        [wire] = served.server._wires
        until(lambda: wire.is_ending)
        client.say(b" and the rest", b".")
        assert client.reply().startswith("250 2.0.0 Ok: queued")
        assert client.reply().startswith("421 4.3.2")
        closing.join(WAIT_SECONDS)
        assert served.intake.contents[0].endswith(b"half of it and the rest\r\n")


def test_a_session_that_does_not_end_is_cut_off() -> None:
    with serve() as served:
        client = served.client()
        begin(served, client)
        client.say(b"and then nothing")
        assert served.server.close_sessions(0.05) is False
        assert client.reply() == ""
        until(lambda: served.server.sessions == 0)
        assert served.intake.messages == []


def test_a_delayed_guess_does_not_hold_up_the_stop() -> None:
    with serve() as served:
        waiter = threading.Thread(target=served.server._services.pause, args=(1000.0,))
        waiter.start()
        served.server.close_sessions(WAIT_SECONDS)
        waiter.join(WAIT_SECONDS)
        assert not waiter.is_alive()


EXHAUSTION = """
import logging, resource, socket, sys, time
sys.path.insert(0, sys.argv[1])
from tests.smtp.serving import BASE, serve
logging.basicConfig(stream=sys.stdout, level=logging.WARNING)
with serve() as served:
    resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))
    clients = []
    for _ in range(60):
        sock = socket.socket() if len(clients) < 40 else None
        if sock is None:
            break
        try:
            sock.connect(("127.0.0.1", served.server.port))
        except OSError:
            break
        clients.append(sock)
    began = time.process_time()
    time.sleep(1.0)
    used = time.process_time() - began
    for sock in clients:
        sock.close()
    greeting = served.client().reply()
    print("used", used, "greeting", greeting)
    assert greeting.startswith("220"), greeting
    assert used < 0.5, used
"""


def test_running_out_of_descriptors_neither_kills_it_nor_spins() -> None:
    """In a process of its own, whose limit is then so low that accept fails while 40 clients are connected."""
    done = subprocess.run(
        [sys.executable, "-c", EXHAUSTION, str(ROOT)], capture_output=True, text=True, timeout=60, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("smtp.accept_failed") == 1
