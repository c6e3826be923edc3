"""The session: what a client says and is told, byte strings in and replies out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mailer.events import SubmissionRefused
from mailer.spool.store import SpoolError, SpoolFull
from tests.smtp.script import EHLO, HEAD, MAIL, NOW, RCPT, START, Setting, added, codes, converse

# --- accepting


def test_a_message_is_accepted_with_all_that_was_said_of_it() -> None:
    setting = Setting()
    replies = converse(
        EHLO + b"MAIL FROM:<a@example.com> BODY=8BITMIME SIZE=10 SMTPUTF8 AUTH=<>\r\n",
        b"RCPT TO:<b@example.org>\r\nRCPT TO:<c@example.org>\r\nDATA\r\n" + HEAD + b"..body\r\n.\r\nQUIT\r\n",
        setting=setting,
    )
    [(envelope, content)] = setting.intake.messages
    assert codes(replies) == ["220", "250", "250 2.1.0", "250 2.1.5", "250 2.1.5", "354", "250 2.0.0", "221 2.0.0"]
    assert replies[-2] == f"250 2.0.0 Ok: queued as {envelope.id}"
    assert str(envelope.sender) == "a@example.com"
    assert [(r.index, str(r.address)) for r in envelope.recipients] == [(0, "b@example.org"), (1, "c@example.org")]
    assert (envelope.options.body, envelope.options.smtputf8, envelope.options.client) == ("8BITMIME", True, "127.0.0.1")
    assert not envelope.options.has_long_lines
    assert envelope.size == len(content)
    assert envelope.accepted_at == NOW
    assert added(content) == HEAD + b".body\r\n"
    assert f" with UTF8SMTP id {envelope.id};\r\n".encode() in content
    assert b"for <" not in content


def test_each_message_of_a_session_stands_for_itself() -> None:
    setting = Setting()
    message = MAIL + RCPT + b"DATA\r\n" + HEAD + b"one\r\n.\r\n"
    converse(EHLO + message + message.replace(b"one", b"two") + b"QUIT\r\n", setting=setting)
    first, second = setting.intake.messages
    assert added(first[1]).endswith(b"one\r\n")
    assert added(second[1]).endswith(b"two\r\n")
    assert first[0].id != second[0].id


def test_a_recipient_named_twice_gets_one_copy() -> None:
    setting = Setting()
    replies = converse(
        EHLO + MAIL + RCPT + b"RCPT TO:<b@EXAMPLE.org>\r\nRCPT TO:<B@example.org>\r\nDATA\r\n\r\n.\r\n", setting=setting
    )
    assert codes(replies)[3:6] == ["250 2.1.5"] * 3
    assert [str(r.address) for r in setting.intake.messages[0][0].recipients] == ["b@example.org", "B@example.org"]


def test_the_null_sender_may_send_but_not_receive() -> None:
    setting = Setting()
    replies = converse(EHLO + b"MAIL FROM:<>\r\nRCPT TO:<>\r\n" + RCPT + b"DATA\r\n.\r\n", setting=setting)
    assert codes(replies)[2:] == ["250 2.1.0", "553 5.1.3", "250 2.1.5", "354", "250 2.0.0"]
    assert not setting.intake.messages[0][0].sender


def test_postmaster_without_a_domain_is_ours() -> None:
    setting = Setting()
    converse(EHLO + MAIL + b"RCPT TO:<PostMaster>\r\nDATA\r\n.\r\n", setting=setting)
    assert str(setting.intake.messages[0][0].recipients[0].address) == "PostMaster@mx.example"


def test_a_recipient_that_was_heard_before_is_judged_by_the_rules_of_its_own_session() -> None:
    postmaster, umlaut = b"RCPT TO:<Postmaster>\r\n", "RCPT TO:<ü@example.org>\r\n".encode()
    for hostname in ("one.example", "two.example", "one.example"):
        setting = Setting()
        setting.config = replace(setting.config, hostname=hostname)
        converse(EHLO + MAIL + postmaster + b"DATA\r\n.\r\n", setting=setting)
        assert str(setting.intake.messages[0][0].recipients[0].address) == f"Postmaster@{hostname}"
    for _ in range(2):
        assert codes(converse(EHLO + b"MAIL FROM:<a@example.com> SMTPUTF8\r\n" + umlaut))[-1] == "250 2.1.5"
        assert codes(converse(EHLO + MAIL + umlaut))[-1] == "553 5.1.3"


def test_a_sender_that_was_heard_before_needs_ehlo_for_its_parameters_all_the_same() -> None:
    odd = b"MAIL FROM:<a@example.com> AUTH=<>\r\n"
    for _ in range(2):
        assert codes(converse(EHLO + odd))[-1] == "250 2.1.0"
        assert codes(converse(b"HELO client.example\r\n" + odd))[-1] == "555 5.5.4"


def test_helo_is_plain_smtp() -> None:
    setting = Setting()
    replies = converse(b"HELO client.example\r\n" + MAIL + RCPT + b"DATA\r\n" + HEAD + b".\r\n", setting=setting)
    assert replies[1] == "250 mx.example"
    assert b" with SMTP id " in setting.intake.contents[0]


def test_what_is_not_canonical_is_made_so() -> None:
    setting = Setting()
    converse(START + b"Date: d\nMessage-ID: i\r\n\nbody\rmore\r\n.\r\n", setting=setting)
    assert added(setting.intake.contents[0]) == b"Date: d\r\nMessage-ID: i\r\n\r\nbody\r\nmore\r\n"


@pytest.mark.parametrize("size", [0, 10, 8_000, 8_192, 65_536, 70_000, 1_000_000])
def test_messages_of_all_sizes_arrive_byte_for_byte(size: int) -> None:
    setting = Setting()
    body = (b"0123456789" * 7 + b"\r\n") * (size // 72 + 1)
    converse(START, HEAD + body + b".\r\n", setting=setting)
    assert added(setting.intake.contents[0]) == HEAD + body


def test_a_header_block_that_spans_pieces_is_stamped_once() -> None:
    setting = Setting()
    head = b"X-Filler: " + b"y" * 90 + b"\r\n"
    content = head * 3000 + b"Bcc: secret@example.com\r\n" + HEAD + b"body\r\n"
    converse(START, content + b".\r\n", setting=setting)
    assert added(setting.intake.contents[0]) == content.replace(b"Bcc: secret@example.com\r\n", b"")


@pytest.mark.parametrize(("length", "is_long"), [(998, False), (999, True), (70_000, True), (1_048_576, True)])
def test_long_lines_are_noticed(length: int, is_long: bool) -> None:
    setting = Setting()
    body = b"short\r\n" * 50 + b"x" * length + b"\r\n" + b"short\r\n" * 50
    replies = converse(START, HEAD + body + b".\r\n", setting=setting)
    assert replies[-1].startswith("250 2.0.0")
    assert setting.intake.messages[0][0].options.has_long_lines is is_long
    assert added(setting.intake.contents[0]) == HEAD + body


# --- refusing


def test_a_message_over_the_limit_is_refused_at_its_real_end() -> None:
    setting = Setting()
    setting.config = replace(setting.config, max_message_size=1000)
    just_fits = b"x" * 998 + b"\r\n"
    replies = converse(
        START, just_fits + b".\r\n" + MAIL + RCPT + b"DATA\r\n", b"x" + just_fits + b".\r\nNOOP\r\n", setting=setting
    )
    assert codes(replies)[5:] == ["250 2.0.0", "250 2.1.0", "250 2.1.5", "354", "552 5.3.4", "250 2.0.0"]
    assert len(setting.intake.messages) == 1
    assert SubmissionRefused("size") in setting.events


def test_a_message_far_beyond_the_limit_ends_the_session_and_is_not_kept() -> None:
    setting = Setting()
    setting.config = replace(setting.config, max_message_size=100_000)
    replies = converse(START, *([b"x" * 70 + b"\r\n"] * 100_000), setting=setting)
    assert codes(replies)[-1] == "421 4.3.4"
    assert setting.intake.messages == []
    [writer] = setting.intake.writers
    assert writer.is_discarded
    assert writer.size <= 100_000 + 1000


def test_a_line_over_max_line_length_is_refused_at_the_real_end() -> None:
    setting = Setting()
    setting.config = replace(setting.config, max_line_length=2000)
    replies = converse(START, HEAD + b"x" * 2001 + b"\r\n.\r\nNOOP\r\n", setting=setting)
    assert codes(replies)[-2:] == ["550 5.6.0", "250 2.0.0"]


def test_a_mail_loop_is_refused() -> None:
    replies = converse(START, b"Received: x\r\n" * 101 + b"\r\n.\r\n")
    assert codes(replies)[-1] == "554 5.4.6"


def test_an_endless_header_block_is_refused() -> None:
    replies = converse(START, b"X: y\r\n" * 200_000 + b"\r\n.\r\n")
    assert codes(replies)[-1] == "552 5.3.4"


@pytest.mark.parametrize(("error", "code"), [(SpoolFull("full"), "452 4.3.1"), (SpoolError("broken"), "451 4.3.0")])
@pytest.mark.parametrize("when", ["write_error", "accept_error"])
def test_a_spool_that_cannot_take_it_is_a_temporary_refusal(error: SpoolError, code: str, when: str) -> None:
    setting = Setting()
    setattr(setting.intake, when, error)
    replies = converse(START, HEAD + b"body\r\n.\r\nNOOP\r\n", setting=setting)
    assert codes(replies)[-2:] == [code, "250 2.0.0"]
    assert setting.intake.writers[0].is_discarded
    assert SubmissionRefused("disk") in setting.events


def test_a_fault_of_ours_ends_this_session_with_421() -> None:
    setting = Setting()
    setting.intake.accept_error = ZeroDivisionError("a bug")
    replies = converse(START, HEAD + b".\r\nNOOP\r\n", setting=setting)
    assert codes(replies)[-1] == "421 4.3.0"
    assert "bug" not in replies[-1]


def test_a_client_that_leaves_amid_a_message_leaves_nothing_behind() -> None:
    setting = Setting().with_rate_limits(max_per_hour=1)
    converse(START, HEAD + b"half a mess", setting=setting)
    assert setting.intake.messages == []
    assert setting.intake.writers[0].is_discarded
    assert setting.windows.counts("sender:a@example.com", NOW) == (0, 0)


def test_rate_limits_count_what_was_accepted() -> None:
    setting = Setting().with_rate_limits(max_per_hour=2)
    message = MAIL + RCPT + b"DATA\r\n.\r\n"
    replies = converse(EHLO + MAIL + b"RSET\r\n" + MAIL + b"EHLO x\r\n" + message * 2 + MAIL.upper(), setting=setting)
    assert codes(replies)[-1] == "451 4.7.1"
    assert len(setting.intake.messages) == 2
    assert setting.events.count(SubmissionRefused("rate")) == 1
    assert codes(converse(EHLO + b"MAIL FROM:<other@example.com>\r\n", setting=setting))[-1] == "250 2.1.0"


def test_a_refused_message_gives_its_room_back() -> None:
    setting = Setting().with_rate_limits(max_per_hour=1)
    replies = converse(START + b"\0\r\n.\r\n" + MAIL + RCPT + b"DATA\r\n.\r\n", setting=setting)
    assert codes(replies)[5:] == ["550 5.6.0", "250 2.1.0", "250 2.1.5", "354", "250 2.0.0"]


def test_too_many_recipients_are_put_off() -> None:
    setting = Setting()
    setting.config = replace(setting.config, max_recipients=2)
    many = b"".join(b"RCPT TO:<r%d@example.org>\r\n" % number for number in range(4))
    replies = converse(EHLO + MAIL + many + b"RCPT TO:<r1@example.org>\r\nDATA\r\n.\r\n", setting=setting)
    assert codes(replies)[3:] == ["250 2.1.5", "250 2.1.5", "452 4.5.3", "452 4.5.3", "250 2.1.5", "354", "250 2.0.0"]
    assert len(setting.intake.messages[0][0].recipients) == 2


def test_bad_commands_end_the_session_but_bad_addresses_do_not() -> None:
    setting = Setting().with_limits(bad_commands=3)
    replies = converse(EHLO + MAIL + b"RCPT TO:<bad>\r\n" * 10 + b"FOO\r\n" * 10, setting=setting)
    assert codes(replies)[-4:] == ["500 5.5.1", "500 5.5.1", "500 5.5.1", "421 4.7.0"]
    assert len(replies) == len(converse(EHLO + MAIL)) + 14


def test_what_a_browser_sends_is_not_executed() -> None:
    replies = converse(b"POST / HTTP/1.1\r\nHost: localhost:2525\r\n\r\n" + START + b".\r\n")
    assert codes(replies) == ["220", "421 4.7.0"]


@pytest.mark.parametrize("before", [EHLO, EHLO + MAIL, EHLO + MAIL + b"RCPT TO:<bad>\r\n"])
def test_a_message_sent_behind_a_refused_data_is_never_executed(before: bytes) -> None:
    setting = Setting()
    blind = b"DATA\r\nRSET\r\n" + MAIL + RCPT + b"DATA\r\n" + HEAD + b".\r\n"
    replies = converse(before + blind, setting=setting)
    assert codes(replies)[-2][0] == "5"
    assert codes(replies)[-1] == "421 4.7.0"
    assert setting.intake.messages == []


def test_a_message_that_comes_late_behind_a_refused_data_is_not_executed_either() -> None:
    setting = Setting()
    replies = converse(EHLO + b"DATA\r\n", b"Subject: x\r\n\r\n" + MAIL + RCPT + b"DATA\r\n.\r\n", setting=setting)
    assert codes(replies)[-3:] == ["503 5.5.1", "500 5.5.1", "421 4.7.0"]
    assert setting.intake.messages == []


def test_a_client_that_waits_for_the_refusal_of_data_goes_on() -> None:
    setting = Setting()
    replies = converse(EHLO + b"DATA\r\n", b"RSET\r\n", b"FOO\r\n", MAIL + RCPT + b"DATA\r\n", b".\r\n", setting=setting)
    assert codes(replies)[2:] == ["503 5.5.1", "250 2.0.0", "500 5.5.1", "250 2.1.0", "250 2.1.5", "354", "250 2.0.0"]


# --- log lines


def test_a_connection_that_says_nothing_leaves_no_line(caplog: pytest.LogCaptureFixture) -> None:
    setting = Setting()
    with caplog.at_level("DEBUG"):
        converse(setting=setting)
        converse(400.0, setting=setting)
    assert caplog.text == ""
    assert setting.events == []


def test_one_line_a_message_and_one_a_refusal(caplog: pytest.LogCaptureFixture) -> None:
    setting = Setting()
    with caplog.at_level("INFO"):
        converse(EHLO + MAIL + b"RCPT TO:<x y@z>\r\n" + RCPT + b"DATA\r\n" + HEAD + b".\r\n", setting=setting)
    [refused, accepted] = caplog.messages
    assert refused.startswith("smtp.refused client=127.0.0.1 verb=RCPT reason=address code=553 status=5.1.3 from=a@example.com")
    [(envelope, content)] = setting.intake.messages
    assert accepted == (
        f"smtp.accepted id={envelope.id} from=a@example.com to=b@example.org size={len(content)} client=127.0.0.1"
    )
