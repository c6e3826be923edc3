"""What the Go program of the same purpose does wrongly (spec 7), each by its number, over the whole process.

G6 (DKIM), the report to the sender of G3 and ``retryCount`` of G11 come with direct delivery.
"""

from __future__ import annotations

import base64
import smtplib
import socket
import threading
from pathlib import Path

import pytest

from tests.support.relay import FAST_RETRIES, Relay, eventually, submit
from tests.support.upstream import Behaviour, Disconnect, Login, Stall, Upstream

PASSWORD = "s3cret-pa55word"
SESSIONS = 20
MESSAGES_A_SESSION = 100


def test_g1_message_answered_with_250_survives_a_kill(tmp_path: Path) -> None:
    with Upstream() as upstream:
        upstream.on("connect", Disconnect())
        with Relay(tmp_path, [upstream]) as relay:
            with relay.connect() as client:
                ids = [submit(client, f"number {n}") for n in range(20)]
            relay.kill()
            upstream.on("connect")
            relay.start()
            relay.http("/admin/retry-failed", "POST")  # some had their first round before the kill
            messages = upstream.wait_for(20)
        assert len(set(ids)) == 20
        assert {n for n in range(20) for m in messages if f"number {n}\r\n".encode() in m.data} == set(range(20))


def test_g2_message_that_no_way_took_is_parked_counted_as_failed_and_retried(tmp_path: Path) -> None:
    with Upstream() as upstream:
        upstream.on("dot", "451 4.3.0 busy")
        with Relay(tmp_path, [upstream]) as relay:
            message_id = relay.send("parked")
            relay.wait_for_line(f"message.parked id={message_id}")
            eventually(lambda: len(relay.parked()) == 1, "the parked file")
            [parked] = relay.parked()
            assert (parked["ID"], parked["From"], parked["To"]) == (message_id, "from@example.com", ["to@example.org"])
            assert b"parked\r\n" in base64.b64decode(parked["Data"])
            metrics = relay.metrics()
            assert (metrics["failed_emails"], metrics["successful_emails"], metrics["total_emails"]) == (1, 0, 1)
            upstream.on("dot")
            status, answer = relay.http("/admin/retry-failed", "POST")
            assert (status, answer["status"], answer["count"]) == (200, "ok", 1)
            assert b"parked\r\n" in upstream.wait_for(1)[0].data
            eventually(lambda: relay.metrics()["successful_emails"] == 1, "the message's success")
            assert relay.metrics()["failed_emails"] == 0
            eventually(lambda: relay.parked() == [], "the end of the parked file")


def test_g3_each_recipient_has_a_fate_of_its_own(tmp_path: Path) -> None:
    with Upstream() as upstream:
        upstream.on("rcpt", {"bad@example.org": "550 5.1.1 no such user", "later@example.org": "450 4.2.1 greylisted"})
        with Relay(tmp_path, [upstream]) as relay:
            message_id = relay.send(to=["good@example.org", "bad@example.org", "later@example.org"])
            relay.wait_for_line(f"message.parked id={message_id} owed=1")
            assert upstream.wait_for(1)[0].recipients == ("good@example.org",)
            eventually(lambda: len(relay.parked()) == 1, "the parked file")
            assert relay.parked()[0]["To"] == ["later@example.org"]
            upstream.on("rcpt")
            relay.http("/admin/retry-failed", "POST")
            assert upstream.wait_for(2)[1].recipients == ("later@example.org",)
            relay.wait_for_line(f"message.finished id={message_id} delivered=2 failed=1")
            metrics = relay.metrics()
            assert (metrics["successful_emails"], metrics["failed_emails"]) == (0, 1)


def test_g4_messages_of_one_sender_in_one_moment_each_get_a_file(tmp_path: Path) -> None:
    with Relay(tmp_path) as relay:
        with relay.connect() as client:
            ids = {submit(client, f"number {n}", sender="dir/x@example.com") for n in range(10)}
        eventually(lambda: len(relay.files("", "*.eml")) == 10, "ten files")
        assert {path.stem for path in relay.files("", "*.eml")} == ids
        bodies = b"".join(path.read_bytes() for path in relay.files("", "*.eml"))
        assert all(f"number {n}\r\n".encode() in bodies for n in range(10))


def test_g5_parked_message_is_retried_by_the_running_configuration_over_all_ways_and_expires(tmp_path: Path) -> None:
    with Upstream() as first, Upstream() as second:
        first.on("dot", "451 4.3.0 busy")
        retry = {**FAST_RETRIES, "failedRetryInterval": 1, "maxAttempts": 3}
        with Relay(tmp_path, [first], retry=retry) as relay:
            given_up = relay.send("never taken")
            relay.wait_for_line(f"message.given_up id={given_up}")
            relay.wait_for_line(f"message.finished id={given_up} delivered=0 failed=1")
            eventually(lambda: [p.stem for p in relay.files("dead", "*.json")] == [given_up], "the dead file")
            assert relay.parked() == []
            taken = relay.send("taken by the second")
            relay.wait_for_line(f"message.parked id={taken}")
            relay.configure(forwardProviders=[{"host": p.host, "port": p.port} for p in (first, second)])
            relay.signal(1)
            assert b"taken by the second\r\n" in second.wait_for(1)[0].data


def test_g7_failed_starttls_is_never_followed_by_a_login_or_mail_on_that_connection(tmp_path: Path) -> None:
    with Upstream(Behaviour(login=Login("app", PASSWORD), announce=("STARTTLS",))) as upstream, Upstream() as second:
        upstream.on("starttls", "454 4.7.0 TLS not available")
        provider = {"host": upstream.host, "port": upstream.port, "username": "app", "password": PASSWORD, "tls": "required"}
        with Relay(tmp_path, [provider, {"host": second.host, "port": second.port}]) as relay:
            relay.send("over the second")
            second.wait_for(1)
        assert "STARTTLS" in upstream.verbs()
        assert not {"AUTH", "MAIL"} & set(upstream.verbs())


def test_g8_final_is_final_and_waiting_for_a_retry_holds_no_worker(tmp_path: Path) -> None:
    with Upstream() as upstream, Upstream() as second:
        upstream.on("rcpt", {"gone@example.org": "550 5.1.1 no such user", "busy@example.org": "450 4.2.1 busy"})
        retry = {"attemptsPerProvider": 3, "baseDelay": 60_000, "maxDelay": 60_000}
        with Relay(tmp_path, [upstream, second], retry=retry, workerCount=1) as relay:
            gone = relay.send(to="gone@example.org")
            relay.wait_for_line(f"message.finished id={gone} delivered=0 failed=1")
            assert upstream.verbs().count("RCPT") == 1
            assert second.connections <= 1  # the login check at start
            for _ in range(5):
                relay.send(to="busy@example.org")
            relay.wait_for_line("delivery.attempt .*450", count=5)
            relay.send("goes at once")
            assert b"goes at once\r\n" in upstream.wait_for(1)[0].data


def test_g9_recipient_that_got_the_message_never_gets_it_again(tmp_path: Path) -> None:
    with Upstream() as upstream:
        everybody = [f"user{n}@example.org" for n in range(10)]
        upstream.on("mail", None, None, "451 4.3.0 busy")
        with Relay(tmp_path, [upstream], batchSize=2) as relay:
            message_id = relay.send(to=everybody)
            relay.wait_for_line(f"message.parked id={message_id} owed=6")
            relay.kill()
            upstream.on("mail")
            relay.start()
            relay.http("/admin/retry-failed", "POST")
            relay.wait_for_line(f"message.finished id={message_id} delivered=10 failed=0")
        got = [recipient for m in upstream.messages for recipient in m.recipients]
        assert sorted(got) == sorted(everybody)


def test_g10_health_tells_the_truth(tmp_path: Path) -> None:
    with Upstream() as upstream:
        with Relay(tmp_path, [upstream]) as relay:
            assert relay.health()["status"] == "ok"
            upstream.on("connect", Disconnect())
            upstream.hang_up()
            for _ in range(6):
                relay.send()
            relay.wait_for_line("breaker")
            eventually(lambda: relay.health()["status"] == "degraded", "degraded health")
            eventually(lambda: relay.health()["failed_emails"] + relay.health()["queued_emails"] == 6, "six messages owed")


def test_g11_environment_overrides_the_file_and_the_global_rate_limit_holds(tmp_path: Path) -> None:
    environ = {"MAILER_RATE_LIMITS_GLOBAL_MAX_PER_HOUR": "4"}
    relay = Relay(tmp_path, rateLimits={"enabled": True, "globalMaxPerHour": 1000})
    with relay.start(environ):
        with relay.connect() as client:
            for n in range(4):
                submit(client, sender=f"sender{n}@example.com")
            assert client.mail("another@example.com")[0] == 451
        assert "max_per_hour=4" in relay.wait_for_line("limits.reached")
        assert relay.terminate() == 0
    with relay.start(environ), relay.connect() as client:
        client.ehlo()
        assert client.mail("another@example.com")[0] == 451, "the counts survive a restart"


def test_g11_continue_on_error_false_stops_at_the_batch_with_a_refused_recipient(tmp_path: Path) -> None:
    with Upstream() as upstream:
        upstream.on("rcpt", {"bad@example.org": "550 5.1.1 no such user"})
        with Relay(tmp_path, [upstream], batchSize=1, continueOnError=False) as relay:
            message_id = relay.send(to=["good@example.org", "bad@example.org", "third@example.org"])
            relay.wait_for_line(f"message.finished id={message_id} delivered=1 failed=2")
        assert [m.recipients for m in upstream.messages] == [("good@example.org",)]


def test_g11_small_queue_and_few_workers_deliver_a_backlog_larger_than_both(tmp_path: Path) -> None:
    with Upstream() as upstream, Relay(tmp_path, [upstream], workerCount=2, queueSize=3) as relay:
        with relay.connect() as client:
            for n in range(60):
                submit(client, f"number {n}")
        assert len(upstream.wait_for(60)) == 60
        eventually(lambda: relay.health()["queued_emails"] == 0, "an empty queue")
        assert len({m.data for m in upstream.messages}) == 60


def test_g11_processing_timeout_ends_a_conversation_that_stalls(tmp_path: Path) -> None:
    with Upstream() as upstream, Upstream() as second:
        upstream.on("mail", Stall())
        stalling = {"host": upstream.host, "port": upstream.port, "timeout": 300}
        settings = {"processingTimeout": 1, "retry": {"attemptsPerProvider": 1}}
        with Relay(tmp_path, [stalling, {"host": second.host, "port": second.port}], **settings) as relay:
            relay.send("over the second")
            assert b"over the second\r\n" in second.wait_for(1)[0].data


def test_g11_log_all_emails_keeps_a_copy_of_every_accepted_message(tmp_path: Path) -> None:
    with Relay(tmp_path, security={"requireAuth": False, "logAllEmails": True}) as relay:
        relay.send("From here to the archive")
        relay.terminate()
        [archive] = relay.files("archive", "*.mbox")
        assert b"\n>From here to the archive" in archive.read_bytes()


def test_g12_taken_http_port_ends_the_program_and_says_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        relay = Relay(tmp_path, healthCheckPort=port)
        relay.launch()
        assert relay.wait() != 0
        assert str(port) in relay.output
        assert "healthCheckPort" in relay.output
        assert "ready" not in relay.output


def test_g12_admin_calls_of_foreign_pages_are_refused(tmp_path: Path) -> None:
    with Relay(tmp_path) as relay:
        for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
            status, body = relay.http("/admin/retry-failed", "POST", headers)
            assert (status, body["status"]) == (403, "error")


def test_g13_neither_content_nor_passwords_reach_the_log(tmp_path: Path) -> None:
    with Upstream(Behaviour(login=Login("app", PASSWORD))) as upstream:
        provider = {"host": upstream.host, "port": upstream.port, "username": "app", "password": PASSWORD}
        settings = {"defaultUsername": "listener", "defaultPassword": "l1stener-secret", "logging": {"level": "debug"}}
        with Relay(tmp_path, [provider], security={"requireAuth": True}, **settings) as relay:
            with relay.connect() as client:
                with pytest.raises(smtplib.SMTPAuthenticationError):
                    client.login("listener", "wr0ng-secret")
                client.login("listener", "l1stener-secret")
                submit(client, "the-content-of-the-message")
            upstream.wait_for(1)
            upstream.on("auth", "535 5.7.8 bad credentials")
            upstream.hang_up()
            with relay.connect() as client:
                client.login("listener", "l1stener-secret")
                submit(client)
            relay.wait_for_line("535")
            relay.terminate()
        for secret in (PASSWORD, "l1stener-secret", "wr0ng-secret", "the-content-of-the-message"):
            assert secret not in relay.output
            assert base64.b64encode(secret.encode()).decode() not in relay.output


def test_g14_every_message_arrives_whole_once_and_under_its_own_id(tmp_path: Path) -> None:
    with Upstream() as upstream, Relay(tmp_path, [upstream]) as relay:
        ids: dict[str, str] = {}
        lock = threading.Lock()

        def session(number: int) -> None:
            with relay.connect() as client:
                for n in range(MESSAGES_A_SESSION):
                    text = f"message {number}.{n}" + "\r\nx" * (n * 37 % 1000)
                    message_id = submit(client, text, f"to{number}.{n}@example.org", f"from{number}@example.com")
                    with lock:
                        ids[f"{number}.{n}"] = message_id

        threads = [threading.Thread(target=session, args=(n,)) for n in range(SESSIONS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        total = SESSIONS * MESSAGES_A_SESSION
        assert len(set(ids.values())) == total
        arrived = upstream.wait_for(total, 60)
        assert len(arrived) == total
        for transaction in arrived:
            key = transaction.recipients[0].removeprefix("to").removesuffix("@example.org")
            number, n = key.split(".")
            assert transaction.sender == f"from{number}@example.com"
            head, body = transaction.data.split(b"\r\n\r\n")
            assert body == b"message %s%s\r\n" % (key.encode(), b"\r\nx" * (int(n) * 37 % 1000))
            assert b" id " + ids[key].encode() in head
