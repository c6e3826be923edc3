"""What the sender hears of a message's fate, over the whole process (spec 4, "Given up"; RFC 3461, 3464, 3834)."""

from __future__ import annotations

import contextlib
import email
import re
import smtplib
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import Any

import flufl.bounce
import pytest

from tests.support.internet import Internet
from tests.support.relay import FAST_RETRIES, Relay, eventually, submit
from tests.support.upstream import EXTENSIONS, Behaviour, Stall, Transaction, Upstream

SENDER = "from@example.com"
GOOD, BAD, LATER = (f"{name}@example.org" for name in ("good", "bad", "later"))
BUSY = "451 4.3.2 not now"
REFUSALS = {BAD: "550 5.1.1 no such user", LATER: BUSY}
TWO_ROUNDS = {**FAST_RETRIES, "maxAttempts": 2, "failedRetryInterval": 1}


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        server.on("rcpt", REFUSALS)
        yield server


def relay_to(folder: Path, upstream: Upstream, **settings: Any) -> Relay:
    bounce = {"enabled": True, **settings.pop("bounce", {})}
    return Relay(folder, [upstream], **{"bounce": bounce, "processes": 1, **settings})


def send_asking(relay: Relay, *asked: tuple[str, str], mail: str = "", sender: str = SENDER, header: str = "") -> str:
    """Submit a message with DSN parameters, each recipient with its own; the id."""
    with relay.connect() as client:
        client.ehlo()
        for line in (f"MAIL FROM:<{sender}> {mail}", *(f"RCPT TO:<{to}> {wish}" for to, wish in asked)):
            code, reply = client.docmd(line.strip())
            assert code == 250, reply
        text = f"From: {SENDER}\r\nMessage-ID: <original@example.com>\r\n{header}Subject: test\r\n\r\nthe body\r\n"
        code, reply = client.data(text.encode())
        assert code == 250, reply
    return reply.decode().split()[-1]


def reports_of(upstream: Upstream) -> list[Transaction]:
    return [m for m in upstream.messages if not m.sender]


def wait_for_reports(upstream: Upstream, count: int = 1) -> list[Message]:
    upstream.wait_until(lambda: sum(not t.sender for t in upstream.transactions) >= count)
    assert all(report.recipients == (SENDER,) for report in reports_of(upstream))
    return [email.message_from_bytes(report.data) for report in reports_of(upstream)]


def failed_in(report: Message) -> set[str]:
    return {address.decode() for address in flufl.bounce.all_failures(report)[1]}


def delayed_in(report: Message) -> set[str]:
    return {address.decode() for address in flufl.bounce.all_failures(report)[0]}


def fields_of(report: Message) -> str:
    """The part for programs."""
    parts = [part for part in report.walk() if part.get_content_type() == "message/delivery-status"]
    return "".join(str(block) for block in parts[0].get_payload())


def nothing_is_left(relay: Relay) -> bool:
    metrics = relay.metrics()
    return bool(metrics["queued_emails"] == metrics["parked_emails"] == 0)


def finished_without_report(relay: Relay, upstream: Upstream, message_id: str) -> None:
    """A report is stored before its message's end is told, so none comes after it."""
    relay.wait_for_line(f"message.finished id={message_id}")
    assert "report.stored" not in relay.output
    assert reports_of(upstream) == []


def test_a_refused_recipient_is_reported_at_once_while_the_others_were_delivered(tmp_path: Path, upstream: Upstream) -> None:
    with relay_to(tmp_path, upstream, processes=2) as relay:
        message_id = relay.send(to=[GOOD, BAD])
        [report] = wait_for_reports(upstream)
        assert failed_in(report) == {BAD}
        assert "Status: 5.1.1" in fields_of(report)
        assert "Remote-MTA: dns; 127.0.0.1" in fields_of(report)
        assert GOOD not in fields_of(report)
        assert report["From"] == "Mail Delivery System <MAILER-DAEMON@relay.test>"
        assert report["In-Reply-To"] == f"<{message_id}@relay.test>"
        relay.wait_for_line(f"message.finished id={message_id} delivered=1 failed=1")
        assert relay.metrics()["total_emails"] == 1  # the report is not counted


def test_a_refused_recipient_is_reported_while_another_is_parked_and_given_up_later_on_its_own(
    tmp_path: Path, upstream: Upstream
) -> None:
    with relay_to(tmp_path, upstream, retry=TWO_ROUNDS) as relay:
        message_id = relay.send(to=[BAD, LATER])
        [report] = wait_for_reports(upstream)
        assert failed_in(report) == {BAD}
        relay.wait_for_line(f"message.parked id={message_id}")
        relay.http("/admin/retry-failed", "POST")
        reports = wait_for_reports(upstream, 2)
        assert [failed_in(report) for report in reports] == [{BAD}, {LATER}]
        assert "Status: 4.3.2" in fields_of(reports[1])
        relay.wait_for_line(f"message.finished id={message_id} delivered=0 failed=2")


def test_what_was_not_tried_because_of_another_refusal_is_reported_with_it(tmp_path: Path, upstream: Upstream) -> None:
    with relay_to(tmp_path, upstream, batchSize=1, continueOnError=False) as relay:
        relay.send(to=[BAD, GOOD, LATER])
        [report] = wait_for_reports(upstream)
        assert failed_in(report) == {BAD, GOOD, LATER}
        assert "x-mailer; 550 5.0.0 not tried" in fields_of(report)


@pytest.mark.parametrize("wish", ["NOTIFY=NEVER", "NOTIFY=SUCCESS,DELAY"])
def test_nobody_hears_of_a_failure_who_did_not_want_to(tmp_path: Path, upstream: Upstream, wish: str) -> None:
    with relay_to(tmp_path, upstream) as relay:
        finished_without_report(relay, upstream, send_asking(relay, (BAD, wish)))


def test_a_message_from_nobody_and_a_report_are_never_reported(tmp_path: Path, upstream: Upstream) -> None:
    upstream.on("rcpt", {**REFUSALS, SENDER: "550 5.1.1 no such sender"})
    with relay_to(tmp_path, upstream) as relay:
        finished_without_report(relay, upstream, relay.send(to=BAD, sender=""))
        relay.wait_for_line("report.none .* the message has no sender")
        relay.send(to=BAD)
        relay.wait_for_line("report.stored")
        relay.wait_for_line("report.none .* nobody is told of a report")
        relay.wait_for_line(r"message.finished id=\S+-failed-\S+ delivered=0 failed=1")
        assert relay.output.count("report.stored") == 1


def test_no_reports_at_all_where_they_are_switched_off(tmp_path: Path, upstream: Upstream) -> None:
    with relay_to(tmp_path, upstream, bounce={"enabled": False}) as relay:
        finished_without_report(relay, upstream, send_asking(relay, (BAD, ""), (GOOD, "NOTIFY=SUCCESS")))


def test_a_message_removed_by_hand_is_not_reported(tmp_path: Path, upstream: Upstream) -> None:
    with relay_to(tmp_path, upstream) as relay:
        message_id = relay.send(to=LATER)
        relay.wait_for_line(f"message.parked id={message_id}")
        eventually(lambda: bool(relay.files("failed")), "the parked file")
        relay.files("failed")[0].unlink()
        relay.http("/admin/retry-failed", "POST")
        finished_without_report(relay, upstream, message_id)


def test_success_is_told_of_where_the_next_server_does_not_tell(tmp_path: Path, upstream: Upstream) -> None:
    with relay_to(tmp_path, upstream) as relay:
        send_asking(relay, (GOOD, "NOTIFY=SUCCESS ORCPT=rfc822;first@example.net"), ("x@example.org", ""), mail="ENVID=mine")
        [report] = wait_for_reports(upstream)
        fields = fields_of(report)
        assert "Action: relayed" in fields
        assert "Original-Recipient: rfc822; first@example.net" in fields
        assert "Original-Envelope-Id: mine" in fields
        assert "x@example.org" not in fields


def test_success_is_left_to_a_server_that_takes_the_wish_over_and_failure_is_not(tmp_path: Path) -> None:
    with Upstream(Behaviour(extensions=(*EXTENSIONS, "DSN"))) as upstream, relay_to(tmp_path, upstream) as relay:
        upstream.on("rcpt", lambda argument: REFUSALS[BAD] if argument.startswith(BAD) else None)
        message_id = send_asking(relay, (GOOD, "NOTIFY=SUCCESS,FAILURE"), (BAD, "NOTIFY=SUCCESS,FAILURE"))
        [report] = wait_for_reports(upstream)
        assert failed_in(report) == {BAD}
        relay.wait_for_line(f"message.finished id={message_id} delivered=1 failed=1")
        assert relay.output.count("report.stored") == 1


def test_success_in_local_files_is_told_of_as_delivery_and_the_report_is_a_file_too(tmp_path: Path) -> None:
    with Relay(tmp_path, bounce={"enabled": True}, processes=1) as relay:
        message_id = send_asking(relay, (GOOD, "NOTIFY=SUCCESS"), mail="RET=FULL")
        relay.wait_for_line(rf"report.stored id=\S+ of={message_id} kind=delivered recipients=1")
        emails = relay.data / "emails"
        eventually(lambda: len(list(emails.glob("*.eml"))) == 2, "two files")
        [path] = emails.glob("*-delivered-*.eml")
        report = email.message_from_bytes(path.read_bytes())
        assert report["Return-Path"] == "<>"
        assert "Action: delivered" in fields_of(report)
        assert "the body" not in path.read_text()  # RET is about failures alone


def test_the_message_comes_back_whole_where_that_was_asked(tmp_path: Path, upstream: Upstream) -> None:
    with relay_to(tmp_path, upstream, bounce={"language": "both", "from": "postmaster@example.com"}) as relay:
        send_asking(relay, (BAD, ""), mail="RET=FULL")
        [report] = wait_for_reports(upstream)
        [original] = [part for part in report.walk() if part.get_content_type() == "message/rfc822"]
        assert "the body" in str(original)
        words = report.get_payload(0).get_payload(decode=True).decode()  # type: ignore[union-attr]
        assert "could not be delivered" in words
        assert "邮件无法投递" in words
        assert report["From"] == "Mail Delivery System <postmaster@example.com>"
        assert report["References"] == "<original@example.com>"


def test_a_late_message_is_warned_of_once(tmp_path: Path, upstream: Upstream) -> None:
    retry = {**FAST_RETRIES, "attemptsPerProvider": 1, "failedRetryInterval": 1}
    with relay_to(tmp_path, upstream, retry=retry, bounce={"delayWarning": 1}) as relay:
        message_id = relay.send(to=LATER)
        [report] = wait_for_reports(upstream)
        assert delayed_in(report) == {LATER}
        assert failed_in(report) == set()
        assert "Will-Retry-Until" in fields_of(report)
        since = len(relay.lines)
        relay.wait_for_line(f"message.parked id={message_id}", since, count=2)
        upstream.on("rcpt")
        relay.wait_for_line(f"message.finished id={message_id} delivered=1 failed=0")
        assert len(reports_of(upstream)) == 1


@pytest.mark.parametrize(
    ("wish", "header"),
    [
        ("NOTIFY=FAILURE", ""),
        ("", "Precedence: bulk\r\n"),
        ("", "List-Id: <list.example.org>\r\n"),
        ("", "Auto-Submitted: auto-generated\r\n"),
    ],
)
def test_lists_machines_and_who_did_not_ask_are_not_warned_but_hear_of_a_failure(
    tmp_path: Path, upstream: Upstream, wish: str, header: str
) -> None:
    retry = {**TWO_ROUNDS, "attemptsPerProvider": 1, "maxAttempts": 3}
    with relay_to(tmp_path, upstream, retry=retry, bounce={"delayWarning": 1}) as relay:
        send_asking(relay, (LATER, wish), header=header)
        [report] = wait_for_reports(upstream)
        assert failed_in(report) == {LATER}
        relay.wait_for_line("report.stored")
        assert relay.output.count("report.stored") == 1


def test_a_message_that_no_way_serves_is_warned_of_and_given_up(tmp_path: Path, upstream: Upstream) -> None:
    provider = {"host": upstream.host, "port": upstream.port, "domains": ["example.com"]}
    retry = {**FAST_RETRIES, "failedRetryInterval": 1, "maxAge": 3}
    with Relay(tmp_path, [provider], bounce={"enabled": True, "delayWarning": 1}, retry=retry, processes=1) as relay:
        relay.send(to=LATER)
        warning, failure = wait_for_reports(upstream, 2)
        assert delayed_in(warning) == failed_in(failure) == {LATER}
        assert "Status: 4.4.7" in fields_of(failure)


def test_with_verp_each_recipient_has_a_sender_that_names_it(tmp_path: Path, upstream: Upstream) -> None:
    with relay_to(tmp_path, upstream, bounce={"verp": True}) as relay:
        message_id = relay.send(to=[GOOD, BAD, "x@example.net"])
        [report] = wait_for_reports(upstream)
        assert failed_in(report) == {BAD}
        relay.wait_for_line(f"message.finished id={message_id} delivered=2 failed=1")
        senders = {m.sender: m.recipients for m in upstream.messages if m.sender}
        assert senders == {
            "from+good=example.org@example.com": (GOOD,),
            "from+x=example.net@example.com": ("x@example.net",),
        }


def test_one_report_tells_of_all_domains_that_refused_in_a_round_and_goes_to_the_senders_own_server(tmp_path: Path) -> None:
    with Internet() as internet:
        [good], [mixed], [home] = (internet.domain(f"{name}.test") for name in ("good", "mixed", "home"))
        internet.dns.add("null.test", "MX", "0 .")
        mixed.on("rcpt", {"gone@mixed.test": "550 5.1.1 no such user"})
        direct = {"enabled": True, "port": internet.port, "allowPrivate": True}
        dns = {"nameservers": [internet.dns.address], "timeout": 2}
        with Relay(tmp_path, directDelivery=direct, dns=dns, bounce={"enabled": True}, processes=1) as relay:
            people = ["a@good.test", "gone@mixed.test", "b@null.test", "c@none.test"]
            message_id = relay.send(to=people, sender="app@home.test")
            [told] = home.wait_for(1)
            assert (told.sender, told.recipients) == ("", ("app@home.test",))
            report = email.message_from_bytes(told.data)
            assert failed_in(report) == {"gone@mixed.test", "b@null.test", "c@none.test"}
            assert re.findall(r"Status: (\S+)", fields_of(report)) == ["5.1.1", "5.1.10", "5.1.2"]
            relay.wait_for_line(f"message.finished id={message_id} delivered=1 failed=3")
            assert len(good.messages) == 1


DEATHS = ["before submit 2", "after submit 2", "before cleared", "after cleared"]
"""Around the end of the round: the report's submission, the second of the run; then the record that ends the message."""


@pytest.mark.parametrize("death", DEATHS)
def test_a_crash_around_the_end_of_the_round_loses_no_report_and_repeats_none(
    tmp_path: Path, upstream: Upstream, death: str
) -> None:
    upstream.on("mail", lambda sender: None if sender else Stall("250 2.1.0 ok"))  # the report waits for the next life
    relay = relay_to(tmp_path, upstream)
    relay.start(dies=death)
    with contextlib.suppress(smtplib.SMTPServerDisconnected):  # it died before the 250 was read
        relay.send(to=BAD)
    relay.wait()
    upstream.release()
    with relay.start():
        eventually(lambda: nothing_is_left(relay) and bool(reports_of(upstream)), "the end of every message")
        assert relay.output.count("report.stored") <= 1
        assert [failed_in(report) for report in wait_for_reports(upstream)] == [{BAD}]


def test_crashes_under_load_lose_no_report_and_make_none_a_second_time(tmp_path: Path, upstream: Upstream) -> None:
    refusals = {**FAST_RETRIES, "attemptsPerProvider": 1, "failedRetryInterval": 1}
    with relay_to(tmp_path, upstream, retry=refusals) as relay:
        sent: set[str] = set()
        for _ in range(4):
            with relay.connect() as client:
                sent |= {submit(client, to=[GOOD, BAD, f"user{n}@example.org"]) for n in range(25)}
            relay.kill()  # somewhere in the middle of attempts, reports and ends
            relay.start()
        eventually(lambda: nothing_is_left(relay) and len(told_of(upstream)) >= len(sent), "the reports")
        assert relay.terminate() == 0
        told = told_of(upstream)
        assert {of for of, _ in told} == sent
        assert len(told) == len(sent), "a report was made twice"


def told_of(upstream: Upstream) -> set[tuple[str, str]]:
    """The ids of messages, each with that of a report on it. A report that was delivered twice, as any mail may be, is one."""
    messages = [email.message_from_bytes(report.data) for report in reports_of(upstream)]
    return {(str(m["In-Reply-To"])[1:].partition("@")[0], str(m["Message-ID"])) for m in messages}


@pytest.mark.parametrize("processes", [1, 2])
def test_reports_take_room_in_the_global_limit(tmp_path: Path, upstream: Upstream, processes: int) -> None:
    limits = {"enabled": True, "globalMaxPerHour": 2}
    with relay_to(tmp_path, upstream, processes=processes, rateLimits=limits) as relay:
        send_asking(relay, (BAD, ""))
        wait_for_reports(upstream)

        def is_refused() -> bool:
            with relay.connect() as client:
                client.ehlo()
                return client.mail(SENDER)[0] == 451

        eventually(is_refused)
