"""Delivery reports as content: compared with golden files, and read by two parsers that are not ours.

``python -m tests.mail.test_report`` writes the golden files anew; look at what changed before they are committed.
"""

from __future__ import annotations

import base64
import email
from email import policy
from email.message import EmailMessage
from pathlib import Path

import flufl.bounce
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailer.mail.address import Address
from mailer.mail.content import FileContent, MemoryContent
from mailer.mail.dsn import Dsn, Wish
from mailer.mail.envelope import Envelope, Options, Recipient, State
from mailer.mail.fate import Action, Fate, Kind, Report
from mailer.mail.outcome import Reply
from mailer.mail.recode import Form, recode
from mailer.mail.report import MAX_HEADER_BYTES, MAX_RETURNED_BYTES, compose
from mailer.mail.report_status import MAX_DETAILED, status_of
from mailer.mail.report_words import MAX_NAMED

GOLDEN = Path(__file__).parent / "bounces"
ACCEPTED_AT = 1_800_000_000.0
ENDED_AT = ACCEPTED_AT + 90
ORIGINAL = b"From: App <from@example.com>\r\nMessage-ID: <one.two@example.com>\r\nSubject: Hello\r\n\r\nBody of it.\r\n"
NO_USER = Reply(550, "5.1.1", "<b@example.org>: no such user here")
BUSY = Reply(451, "4.4.1", "connection timed out")


def recipient(index: int, address: str, reply: Reply | None = NO_USER, attempts: int = 1) -> Recipient:
    return Recipient(index, Address.parse(address, True), State.FAILED, attempts, "upstream", reply, ACCEPTED_AT + 60)


def report_of(
    *recipients: Recipient, kind: Kind = Kind.FAILURE, content: bytes = ORIGINAL, language: str = "en", **options: object
) -> Report:
    sender = Address.parse(str(options.pop("sender", "from@example.com")), True)
    action = {Kind.FAILURE: Action.FAILED, Kind.DELAY: Action.DELAYED, Kind.SUCCESS: Action.RELAYED}[kind]
    said = Options(**options)  # type: ignore[arg-type]
    return Report(
        id=f"0m7q4tz3v9k2c5xya-{kind.value}",
        kind=kind,
        envelope=Envelope("0m7q4tz3v9k2c5xya", sender, recipients, len(content), ACCEPTED_AT, said),
        content=MemoryContent(content),
        fates=[Fate(r, action, "mx.example.org" if r.attempts else "") for r in recipients],
        hostname="relay.test",
        sender=Address.parse("MAILER-DAEMON@relay.test"),
        language=language,
        at=ENDED_AT,
        until=ACCEPTED_AT + 432_000,
    )


WISHED = Dsn("FULL", "env+2B1", (("b@example.org", Wish("FAILURE", "rfc822;B+2Bx@example.net")),)).to_text()
CASES = {
    "refused": report_of(recipient(0, "b@example.org"), client="127.0.0.1"),
    "given-up": report_of(recipient(0, "b@example.org", BUSY), recipient(1, "c@example.org", None, 0), client="2001:db8::1"),
    "whole-message": report_of(recipient(0, "b@example.org"), dsn=WISHED),
    "delayed": report_of(recipient(0, "b@example.org", BUSY), kind=Kind.DELAY, dsn=WISHED),
    "relayed": report_of(recipient(0, "b@example.org", Reply(250, "2.1.5", "queued")), kind=Kind.SUCCESS),
    "chinese": report_of(recipient(0, "b@example.org"), language="zh"),
    "two-languages": report_of(recipient(0, "b@example.org", BUSY), kind=Kind.DELAY, language="both"),
    "smtputf8": report_of(
        recipient(0, "用户@例子.example"),
        content="From: <发件人@example.com>\r\nSubject: 你好\r\n\r\nhello\r\n".encode(),
        sender="发件人@example.com",
        smtputf8=True,
        dsn=Dsn(wishes=(("用户@例子.example", Wish("", "utf-8;\\x{7528}\\x{6237}@example.org")),)).to_text(),
    ),
}


def data_of(report: Report) -> bytes:
    return b"".join(compose(report)[1].chunks())


def parsed(report: Report) -> EmailMessage:
    message = email.message_from_bytes(data_of(report), policy=policy.default)
    assert isinstance(message, EmailMessage)
    return message


def parts_of(report: Report) -> list[EmailMessage]:
    return [part for part in parsed(report).iter_parts() if isinstance(part, EmailMessage)]


def text_of(report: Report) -> str:
    return str(parts_of(report)[0].get_content())


def fields_of(report: Report) -> list[list[tuple[str, str]]]:
    """The fields for programs, block by block."""
    blocks = parts_of(report)[1].get_payload()
    return [[(name, str(value)) for name, value in block.items()] for block in blocks]  # type: ignore[union-attr]


@pytest.mark.parametrize("name", CASES)
def test_a_report_is_as_its_golden_file(name: str) -> None:
    assert data_of(CASES[name]) == (GOLDEN / f"{name}.eml").read_bytes()


@pytest.mark.parametrize("name", sorted(set(CASES) - {"smtputf8"}))
def test_both_parsers_find_who_failed_and_who_is_delayed(name: str) -> None:
    report = CASES[name]
    wanted = {str(f.recipient.address).encode() for f in report.fates} if report.kind is not Kind.SUCCESS else set()
    if name in {"whole-message", "delayed"}:
        wanted = {b"B+x@example.net"}  # the address that the sender wrote to
    delayed, failed = flufl.bounce.all_failures(email.message_from_bytes(data_of(report)))
    assert (delayed if report.kind is Kind.DELAY else failed) == wanted
    assert (failed if report.kind is Kind.DELAY else delayed) == set()
    finals = [value for block in fields_of(report) for key, value in block if key == "Final-Recipient"]
    assert finals == [f"rfc822; {f.recipient.address}" for f in report.fates]


def test_a_report_comes_from_nobody_and_says_that_a_machine_wrote_it() -> None:
    envelope, content = compose(CASES["refused"])
    assert not envelope.sender
    assert [str(r.address) for r in envelope.recipients] == ["from@example.com"]
    assert envelope.options == Options(body="7BIT", is_report=True)
    assert envelope.size == content.size
    message = parsed(CASES["refused"])
    assert message["From"].addresses[0].addr_spec == "MAILER-DAEMON@relay.test"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["References"] == message["In-Reply-To"] == "<one.two@example.com>"
    assert message["Message-ID"] == f"<{CASES['refused'].id}@relay.test>"
    assert message["Content-Type"].params["report-type"] == "delivery-status"


def test_the_chinese_part_reads_back() -> None:
    for name in ("chinese", "two-languages"):
        words = text_of(CASES[name])
        assert "relay.test 的邮件程序" in words
        assert "<b@example.org>" in words
    assert str(parsed(CASES["chinese"])["Subject"]) == "邮件无法投递"
    assert str(parsed(CASES["two-languages"])["Subject"]) == "Mail is delayed / 邮件投递延迟"
    assert "could not be delivered yet" in text_of(CASES["two-languages"])


def test_addresses_beyond_ascii_stand_as_they_are_in_the_global_forms() -> None:
    report = CASES["smtputf8"]
    envelope, _ = compose(report)
    assert envelope.options.smtputf8
    assert envelope.options.body == "8BITMIME"
    message = email.message_from_bytes(data_of(report))
    types = [part.get_content_type() for part in message.get_payload()]  # type: ignore[union-attr]
    assert types == ["text/plain", "message/global-delivery-status", "message/global-headers"]
    assert "Original-Recipient: utf-8; 用户@example.org\r\nFinal-Recipient: utf-8; 用户@例子.example".encode() in data_of(report)


def test_an_original_address_beyond_ascii_has_its_code_points_in_a_report_in_ascii() -> None:
    dsn = Dsn(wishes=(("b@example.org", Wish("", "utf-8;\\x{7528}@example.org")),)).to_text()
    report = report_of(recipient(0, "b@example.org"), dsn=dsn)
    assert ("Original-Recipient", "utf-8; \\x{7528}@example.org") in fields_of(report)[1]


def test_a_peer_without_8bitmime_gets_the_global_parts_encoded() -> None:
    report = report_of(recipient(0, "用户@例子.example"), content="Subject: 你好\r\n\r\n".encode(), smtputf8=True)
    recoded = recode(compose(report)[1], Form(seven_bit=True))
    assert recoded.left == ()
    data = b"".join(recoded.content.chunks())
    assert data.isascii()
    status = data.split(b"\r\n--=_")[2].partition(b"\r\n\r\n")
    assert status[0].endswith(b"Content-Transfer-Encoding: base64")
    assert "utf-8; 用户@例子.example\r\n".encode() in base64.b64decode(status[2])


@pytest.mark.parametrize("asked", ["FULL", "HDRS", ""])
def test_the_message_comes_back_as_ret_asks(asked: str) -> None:
    report = report_of(recipient(0, "b@example.org"), dsn=Dsn(asked).to_text())
    original = parts_of(report)[2]
    assert original.get_content_type() == ("message/rfc822" if asked == "FULL" else "text/rfc822-headers")
    assert (b"Body of it.\r\n\r\n--" in data_of(report)) is (asked == "FULL")


def test_a_large_message_and_one_that_is_merely_late_come_back_as_their_header() -> None:
    dsn = Dsn("FULL").to_text()
    large = report_of(recipient(0, "b@example.org"), content=ORIGINAL + b"x\r\n" * MAX_RETURNED_BYTES, dsn=dsn)
    late = report_of(recipient(0, "b@example.org"), kind=Kind.DELAY, dsn=dsn)
    for report in (large, late):
        assert parts_of(report)[2].get_content_type() == "text/rfc822-headers"
        assert b"Body of it." not in data_of(report)
    assert len(data_of(large)) < 4096


def test_a_header_without_end_is_cut_off_between_two_lines() -> None:
    report = report_of(recipient(0, "b@example.org"), content=b"X-Long: y\r\n" * MAX_HEADER_BYTES)
    header = data_of(report).partition(b"Header of the message\r\n\r\n")[2].partition(b"\r\n\r\n--=_")[0]
    assert MAX_HEADER_BYTES - 12 <= len(header) <= MAX_HEADER_BYTES
    assert set(header.split(b"\r\n")) == {b"X-Long: y"}


@pytest.mark.parametrize("content", [b"", b"x" * 2 * MAX_HEADER_BYTES])
def test_a_message_without_a_header_that_can_be_shown_has_none_enclosed(content: bytes) -> None:
    assert len(parts_of(report_of(recipient(0, "b@example.org"), content=content))) == 2


def test_many_recipients_are_all_named_for_programs_and_some_for_people() -> None:
    count = MAX_DETAILED + 5
    report = report_of(*(recipient(n, f"user{n}@example.org") for n in range(count)))
    blocks = fields_of(report)[1:]
    assert len(blocks) == count
    assert [name for name, _ in blocks[-1]] == ["Final-Recipient", "Action", "Status"]
    assert text_of(report).count("@example.org>\r\n") == MAX_NAMED
    assert f"and {count - MAX_NAMED} more" in text_of(report)


@pytest.mark.parametrize(
    ("action", "reply", "status"),
    [
        (Action.FAILED, Reply(550, "", "no"), "5.0.0"),
        (Action.FAILED, Reply(554, "5.7.1", "no"), "5.7.1"),
        (Action.FAILED, Reply(451, "", "later"), "4.0.0"),
        (Action.FAILED, BUSY, "4.4.1"),
        (Action.FAILED, None, "4.4.7"),
        (Action.DELAYED, None, "4.0.0"),
        (Action.DELAYED, Reply(554, "5.7.1", "policy"), "4.7.1"),
        (Action.DELIVERED, Reply(250, "", "ok"), "2.0.0"),
        (Action.RELAYED, Reply(250, "2.1.5", "ok"), "2.1.5"),
    ],
)
def test_the_status_fits_the_action_and_what_was_said(action: Action, reply: Reply | None, status: str) -> None:
    assert status_of(action, reply) == status


def test_what_the_report_encloses_cannot_end_its_part() -> None:
    report = report_of(recipient(0, "b@example.org"))
    boundary = parsed(report).get_boundary()
    hostile = report_of(recipient(0, "b@example.org"), content=f"Subject: x\r\n--{boundary}--\r\n\r\n".encode())
    assert [part.get_content_type() for part in parts_of(hostile)][1:] == ["message/delivery-status", "text/rfc822-headers"]
    assert parsed(hostile).get_boundary() != boundary


def test_long_lines_of_the_original_are_left_to_the_re_encoding() -> None:
    content = b"Subject: x\r\nX-Long: " + b"y" * 2000 + b"\r\n\r\nBody of it.\r\n"
    envelope, composed = compose(report_of(recipient(0, "b@example.org"), content=content, has_long_lines=True))
    assert envelope.options.has_long_lines
    recoded = b"".join(recode(composed, Form(short_lines=True)).content.chunks())
    assert max(map(len, recoded.split(b"\r\n"))) <= 998
    assert recoded.replace(b"=\r\n", b"").count(b"y" * 2000) == 1


def test_a_reference_that_is_no_message_id_is_not_repeated() -> None:
    for hostile in (b"<a b@c>", b"<a@b>\r\n <c@d>", b"none", b"<" + b"x" * 950 + b"@y>"):
        report = report_of(recipient(0, "b@example.org"), content=b"Message-ID: " + hostile + b"\r\n\r\n")
        assert parsed(report)["References"] is None


def test_a_report_on_mail_that_requires_tls_requires_it_too() -> None:
    assert compose(report_of(recipient(0, "b@example.org"), require_tls=True))[0].options.require_tls


def test_an_original_that_cannot_be_read_is_an_os_error(tmp_path: Path) -> None:
    report = report_of(recipient(0, "b@example.org"))
    object.__setattr__(report, "content", FileContent(tmp_path / "gone", 10))
    with pytest.raises(OSError, match="gone"):
        compose(report)


HOSTILE = st.text(st.one_of(st.sampled_from("\r\n\t\0:;=<>-. \u2028\u0085"), st.characters(codec="utf-8")), max_size=1500)


@given(said=HOSTILE, envelope_id=HOSTILE, original=HOSTILE, remote=HOSTILE, language=st.sampled_from(["en", "zh", "both"]))
def test_nothing_that_strangers_say_adds_a_line_a_field_or_a_part(
    said: str, envelope_id: str, original: str, remote: str, language: str
) -> None:
    wish = Wish("", f"rfc822;{original}")
    dsn = Dsn("", envelope_id, (("b@example.org", wish),)).to_text()
    report = report_of(recipient(0, "b@example.org", Reply(550, "5.1.1", said)), dsn=dsn, language=language)
    report.fates[0:] = [report.fates[0]._replace(remote=remote)]  # type: ignore[index]
    data = data_of(report)
    assert data.isascii()
    assert max(map(len, data.split(b"\r\n"))) <= 998
    assert b"\n" not in data.replace(b"\r\n", b"")
    assert b"\r" not in data.replace(b"\r\n", b"")
    types = ["text/plain", "message/delivery-status", "text/rfc822-headers"]
    assert [part.get_content_type() for part in parts_of(report)] == types
    message_fields, recipient_fields = ([name for name, _ in block] for block in fields_of(report))
    assert [name for name in message_fields if name != "Original-Envelope-Id"] == ["Reporting-MTA", "Arrival-Date"]
    assert [name for name in recipient_fields if name not in ("Original-Recipient", "Remote-MTA")] == [
        "Final-Recipient", "Action", "Status", "Diagnostic-Code", "Last-Attempt-Date"
    ]  # fmt: skip
    header = [name for name, _ in parsed(report).items()]
    assert header == [
        "Date", "From", "To", "Subject", "Message-ID", "In-Reply-To", "References", "Auto-Submitted", "MIME-Version",
        "Content-Type",
    ]  # fmt: skip


@given(content=st.binary(max_size=600))
def test_whatever_the_original_is_the_report_has_its_own_parts(content: bytes) -> None:
    canonical = b"\r\n".join(content.replace(b"\r", b"\n").split(b"\n"))
    report = report_of(recipient(0, "b@example.org"), content=canonical)
    types = [part.get_content_type() for part in parts_of(report)]
    assert types in (["text/plain", "message/delivery-status"], ["text/plain", "message/delivery-status", "text/rfc822-headers"])
    assert flufl.bounce.all_failures(email.message_from_bytes(data_of(report)))[1] == {b"b@example.org"}


def test_of_a_message_without_a_header_no_line_of_the_body_is_taken_for_one() -> None:
    report = report_of(recipient(0, "b@example.org"), content=b"\r\nsecret\r\n\r\nmore\r\n")
    assert b"secret" not in data_of(report)


if __name__ == "__main__":
    for case, of_case in CASES.items():
        (GOLDEN / f"{case}.eml").write_bytes(data_of(of_case))
