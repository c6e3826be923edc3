"""``processes`` 2: the SMTP sessions in a process of their own. To the outside nothing differs; either may die."""

from __future__ import annotations

import contextlib
import os
import signal
import smtplib
import socket
from pathlib import Path

import pytest

from mailer.mail.content import LARGE_BYTES
from tests.support.certificates import issue, make_ca
from tests.support.relay import Relay, eventually
from tests.support.upstream import Stall, Upstream


def listening_process(relay: Relay) -> int:
    """The pid of the process that holds the SMTP port: the child of the one that was started, or its child's."""
    found = children_of(relay.pid)
    while children := [child for pid in found for child in children_of(pid)]:
        found = children
    [pid] = found
    return pid


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def can_connect(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


def mail(relay: Relay) -> str:
    """The reply to MAIL."""
    with relay.connect() as client:
        client.ehlo()
        code, text = client.mail("from@example.com")
        return f"{code} {text.decode()}"


@pytest.mark.parametrize("size", [10, LARGE_BYTES + 1000, 3_000_000])
def test_message_of_any_size_arrives_whole(tmp_path: Path, size: int) -> None:
    text = "\r\n".join(["0123456789" * 7] * (size // 72 + 1))
    with Upstream() as upstream, Relay(tmp_path, [upstream], processes=2) as relay:
        message_id = relay.send(text)
        [message] = upstream.wait_for(1)
        assert message.data.endswith(text.encode() + b"\r\n")
        assert message_id.encode() in message.data
        relay.wait_for_line(f"smtp.accepted id={message_id} .*client=127.0.0.1")
        assert listening_process(relay) != relay.pid
        assert relay.metrics()["total_emails"] >= 0
        assert relay.terminate() == 0


def test_drain_ends_both_processes_and_the_message_under_way_is_kept(tmp_path: Path) -> None:
    with Upstream() as upstream:
        relay = Relay(tmp_path, [upstream], processes=2)
        with relay:
            listening = listening_process(relay)
            with relay.connect() as client:
                client.ehlo()
                client.mail("a@example.com")
                assert relay.terminate() == 0
                with contextlib.suppress(smtplib.SMTPServerDisconnected, OSError):
                    code, _ = client.noop()
                    assert code == 421
            assert not is_alive(listening)
            assert not can_connect(relay.smtp_port)
            assert "stop.done code=0" in relay.output


def test_death_of_the_listening_process_ends_the_program_with_an_error_and_loses_nothing(tmp_path: Path) -> None:
    with Upstream() as upstream:
        upstream.on("rcpt", "450 4.2.1 busy")
        relay = Relay(tmp_path, [upstream], processes=2)
        with relay:
            kept = relay.send("kept")
            os.kill(listening_process(relay), signal.SIGKILL)
            assert relay.wait() == os.EX_SOFTWARE
            relay.wait_for_line(r"CRITICAL front\.lost pid=")
        upstream.on("rcpt")
        with relay:
            relay.http("/admin/retry-failed", "POST")
            assert any(kept.encode() in message.data for message in upstream.wait_for(1))


def test_death_of_the_main_process_ends_the_listening_one(tmp_path: Path) -> None:
    with Upstream() as upstream, Relay(tmp_path, [upstream], processes=2) as relay:
        listening = listening_process(relay)
        relay.kill()
        eventually(lambda: not is_alive(listening), "the end of the listening process")
        eventually(lambda: not can_connect(relay.smtp_port), "the closing of the port")
        assert not is_alive(listening)


def test_message_is_not_confirmed_before_it_is_durable(tmp_path: Path) -> None:
    """The main process is stopped, so nothing can be made durable: no 250 comes until it goes on."""
    with Upstream() as upstream, Relay(tmp_path, [upstream], processes=2) as relay:
        with relay.connect() as client:
            client.ehlo()
            client.mail("a@example.com")
            client.rcpt("b@example.org")
            client.putcmd("data")
            assert client.getreply()[0] == 354
            relay.signal(signal.SIGSTOP)
            client.send(b"Subject: x\r\n\r\nwaits\r\n.\r\n")
            assert client.sock is not None
            client.sock.settimeout(0.5)
            with pytest.raises(TimeoutError):
                client.sock.recv(1)
            relay.signal(signal.SIGCONT)
            client.sock.settimeout(30)
            assert client.sock.recv(100).startswith(b"250 2.0.0 Ok: queued as ")
        assert b"waits\r\n" in upstream.wait_for(1)[0].data


def test_rate_limit_is_counted_kept_over_a_restart_and_changed_by_a_reload(tmp_path: Path) -> None:
    relay = Relay(tmp_path, rateLimits={"enabled": True, "maxPerHour": 2}, processes=2)
    with relay:
        relay.send("one")
        relay.send("two")
        assert mail(relay).startswith("451 4.7.1")
        _, text = relay.http("/metrics", headers={"Accept": "text/plain"})
        assert "mailer_rate_limit_hits_total 1.0" in text
        assert relay.terminate() == 0
    with relay:
        assert mail(relay).startswith("451 4.7.1")
        relay.configure(rateLimits={"enabled": True, "maxPerHour": 3})
        relay.signal(signal.SIGHUP)
        relay.wait_for_line(r"reload\.done")
        relay.send("three")


def test_taken_port_is_told_and_ends_the_start(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        relay = Relay(tmp_path, processes=2, smtpPort=port)
        relay.launch()
        assert relay.wait() == os.EX_TEMPFAIL
        assert f"mailer: cannot listen on 127.0.0.1:{port}: the port is taken" in relay.output


def test_stalled_provider_does_not_keep_sessions_waiting(tmp_path: Path) -> None:
    with Upstream() as upstream:
        upstream.on("data", Stall())
        with Relay(tmp_path, [upstream], processes=2) as relay:
            ids = {relay.send(f"message {number}") for number in range(20)}
            assert len(ids) == 20
            assert relay.health()["queued_emails"] == 20


def test_starttls_and_login_work_in_the_listening_process(tmp_path: Path) -> None:
    certificate = issue(make_ca(tmp_path), "localhost")
    relay = Relay(
        tmp_path,
        processes=2,
        defaultUsername="app",
        defaultPassword="secret",
        security={"requireAuth": True, "logAllEmails": False},
        tls={"certFile": str(certificate.cert_file), "keyFile": str(certificate.key_file)},
    )
    with relay, relay.connect() as client:
        client.ehlo()
        client.starttls()
        client.login("app", "secret")
        assert client.mail("a@example.com")[0] == 250
