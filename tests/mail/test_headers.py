"""The header block as it leaves us: what is added, what is dropped, and that nothing else changes."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailer.mail import headers
from mailer.mail.address import Address
from mailer.mail.headers import MAX_HEADER_BYTES, HeaderTooLarge, MailLoop, Trace, format_date, is_complete, stamp

AT = 1_700_000_000.0
TRACE = Trace("0123456789abcdefg", "mx.example", "client.example", "192.0.2.7", "ESMTPSA", Address.parse("b@example.org"), AT)
RECEIVED = (
    b"Received: from client.example ([192.0.2.7])\r\n"
    b"\tby mx.example with ESMTPSA id 0123456789abcdefg\r\n"
    b"\tfor <b@example.org>;\r\n"
    b"\tTue, 14 Nov 2023 22:13:20 +0000\r\n"
)
MESSAGE_ID = b"Message-ID: <0123456789abcdefg@mx.example>\r\n"
DATE = b"Date: Tue, 14 Nov 2023 22:13:20 +0000\r\n"
COMPLETE = b"Date: yesterday\r\nMessage-Id: <x@y>\r\nSubject: hello\r\n"


def trace(**changes: object) -> Trace:
    return TRACE._replace(**changes)  # type: ignore[arg-type]


def test_received_is_added_on_top_and_nothing_else_changes() -> None:
    content = COMPLETE + b"X-Odd:no space\r\n folded \r\n\r\nbody\r\n.dot\r\n"
    assert stamp(content, TRACE) == RECEIVED + content


def test_missing_date_and_message_id_are_added() -> None:
    content = b"Subject: hello\r\n\r\nbody\r\n"
    assert stamp(content, TRACE) == RECEIVED + MESSAGE_ID + DATE + content


def test_a_field_in_the_body_is_no_header_field() -> None:
    content = b"Subject: hello\r\n\r\nDate: x\r\nMessage-ID: y\r\nBcc: z@example.com\r\n"
    assert stamp(content, TRACE) == RECEIVED + MESSAGE_ID + DATE + content


@pytest.mark.parametrize("name", [b"Bcc", b"BCC", b"bcc", b"Bcc ", b"Bcc\t", b"Resent-Bcc"])
def test_bcc_is_dropped_with_its_folded_lines(name: bytes) -> None:
    bcc = name + b": secret@example.com,\r\n\tmore@example.com,\r\n  last@example.com\r\n"
    for content in (bcc + COMPLETE, COMPLETE + bcc, b"To: a@b\r\n" + bcc + COMPLETE + bcc):
        assert stamp(content + b"\r\nbody\r\n", TRACE) == RECEIVED + content.replace(bcc, b"") + b"\r\nbody\r\n"


@pytest.mark.parametrize("field", [b"Return-Path: <forged@example.com>\r\n", b"return-path:\r\n <forged@example.com>\r\n"])
def test_return_path_is_dropped(field: bytes) -> None:
    assert stamp(field + COMPLETE + field + b"\r\nbody\r\n" + field, TRACE) == RECEIVED + COMPLETE + b"\r\nbody\r\n" + field


@pytest.mark.parametrize(
    "again", [b"Date: today\r\n", b"DATE : today\r\n", b"Message-ID:\r\n <2@y>\r\n", b"message-id: <2@y>\r\n\t(x)\r\n"]
)
def test_of_date_and_message_id_the_first_is_kept(again: bytes) -> None:
    assert stamp(COMPLETE + again + b"X-Other: a\r\n b\r\n" + again + b"\r\n", TRACE) == (
        RECEIVED + COMPLETE + b"X-Other: a\r\n b\r\n" + b"\r\n"
    )


@pytest.mark.parametrize("empty", [b":\r\n", b": \t \r\n", b" :\r\n \r\n\t\r\n"])
def test_an_empty_date_or_message_id_is_as_good_as_missing(empty: bytes) -> None:
    subject = b"Subject: s\r\n"
    assert stamp(b"Date" + empty + subject + b"Message-Id" + empty + b"\r\n", TRACE) == (
        RECEIVED + MESSAGE_ID + DATE + subject + b"\r\n"
    )
    assert stamp(b"Date" + empty + COMPLETE + b"Message-ID" + empty + b"\r\n", TRACE) == RECEIVED + COMPLETE + b"\r\n"


def test_a_message_id_that_is_folded_below_its_name_is_kept() -> None:
    content = b"Date: d\r\nMessage-ID:\r\n \r\n <long@example.com>\r\n\r\nbody\r\n"
    assert stamp(content, TRACE) == RECEIVED + content


@pytest.mark.parametrize("field", [b"From: a@example.com\r\n", b"Subject: s\r\n", b"Resent-Date: d\r\n", b"To: b@x.org\r\n"])
def test_other_fields_may_be_repeated(field: bytes) -> None:
    content = COMPLETE + field + field + b"\r\n"
    assert stamp(content, TRACE) == RECEIVED + content


@pytest.mark.parametrize("field", [b"Subject: kept,\r\n\tand kept\r\n", b"X-Other: kept,\r\n\tand kept\r\n"])
def test_the_folded_lines_of_a_field_behind_bcc_stay(field: bytes) -> None:
    bcc = b"Bcc: secret@example.com,\r\n\tmore@example.com\r\n"
    assert stamp(COMPLETE + bcc + field + b"\r\n", TRACE) == RECEIVED + COMPLETE + field + b"\r\n"


def test_a_field_whose_name_only_begins_like_bcc_stays() -> None:
    content = COMPLETE + b"Bcc-Note: kept\r\nX-Bcc: kept\r\n\r\n"
    assert stamp(content, TRACE) == RECEIVED + content


@pytest.mark.parametrize(
    "body", [b"just text\r\n", b" indented\r\n", b"two words: no field\r\n", b": no name\r\n", b"\x80: x\r\n", b""]
)
def test_a_message_without_a_header_block_gets_an_empty_line(body: bytes) -> None:
    assert stamp(body, TRACE) == RECEIVED + MESSAGE_ID + DATE + b"\r\n" + body


def test_a_body_that_follows_its_header_at_once_gets_an_empty_line() -> None:
    assert stamp(COMPLETE + b"and the text\r\nBcc: stays, it is body\r\n", TRACE) == (
        RECEIVED + COMPLETE + b"\r\n" + b"and the text\r\nBcc: stays, it is body\r\n"
    )


def test_bcc_is_dropped_also_where_an_empty_line_is_missing() -> None:
    assert stamp(b"Bcc: s@example.com\r\n" + COMPLETE + b"text\r\n", TRACE) == RECEIVED + COMPLETE + b"\r\ntext\r\n"


def test_a_message_that_begins_with_its_empty_line_has_an_empty_header_block() -> None:
    assert stamp(b"\r\nbody\r\n", TRACE) == RECEIVED + MESSAGE_ID + DATE + b"\r\nbody\r\n"


def test_a_header_block_alone_is_a_message() -> None:
    assert stamp(COMPLETE, TRACE) == RECEIVED + COMPLETE


def test_for_is_written_for_one_recipient_only() -> None:
    assert b"for <" not in stamp(COMPLETE, trace(recipient=None))


def test_an_ipv6_client_is_written_as_a_literal() -> None:
    stamped = stamp(COMPLETE, trace(client_address="2001:db8::7"))
    assert stamped.startswith(b"Received: from client.example ([IPv6:2001:db8::7])\r\n")


@pytest.mark.parametrize(
    "name", ["x) evil", "a\r\nBcc: b", "", "a b", "(comment", "ünï", "a" * 300, "x;y", "<x>", "-", "[1.2.3.4", "a\tb", 'x"y']
)
def test_a_client_name_that_is_no_domain_is_not_written(name: str) -> None:
    assert stamp(COMPLETE, trace(client_name=name)).startswith(b"Received: from [192.0.2.7] ([192.0.2.7])\r\n")


@pytest.mark.parametrize("name", ["localhost", "my_host", "[127.0.0.1]", "[IPv6:::1]", "WIN-ABC", "a.b.c"])
def test_names_that_clients_really_give_are_written(name: str) -> None:
    assert stamp(COMPLETE, trace(client_name=name)).startswith(f"Received: from {name} (".encode())


def test_no_hostname_or_address_can_break_a_line() -> None:
    stamped = stamp(b"\r\n", trace(hostname="a\r\nX: y", client_address="1.2.3.4\r\nX: y"))
    assert b"X: y" not in stamped
    assert b"Message-ID: <0123456789abcdefg@localhost>\r\n" in stamped


def test_a_hundred_received_fields_pass_and_more_are_a_loop() -> None:
    field = b"rEceived: from a by b; then\r\n"
    stamp(field * headers.MAX_RECEIVED_FIELDS + b"\r\n", TRACE)
    with pytest.raises(MailLoop):
        stamp(field * (headers.MAX_RECEIVED_FIELDS + 1) + b"\r\n", TRACE)


@pytest.mark.parametrize("line", [b"X-Filler: " + b"x" * 100 + b"\r\n", b"X: " + b"y" * 70_000 + b"\r\n"])
def test_a_header_block_beyond_its_bound_is_refused(line: bytes) -> None:
    block = line * (MAX_HEADER_BYTES // len(line) + 1)
    for content in (block, block + b"\r\nbody\r\n", block + b"X-Cut: in the mid", block + b"cut before its colon"):
        with pytest.raises(HeaderTooLarge):
            stamp(content, TRACE)


def test_a_large_body_without_a_header_block_is_no_large_header_block() -> None:
    body = b"just text, \r\n" * (MAX_HEADER_BYTES // 10)
    assert stamp(body, TRACE).endswith(b"\r\n\r\n" + body)


def test_complete_means_that_the_empty_line_was_seen() -> None:
    assert is_complete(b"A: b\r\n\r\n")
    assert is_complete(b"\r\n")
    assert not is_complete(b"A: b\r\n")
    assert not is_complete(b"A: b\r\n\r")


def test_dates_are_english_and_two_digits_wide() -> None:
    assert format_date(0) == "Thu, 01 Jan 1970 00:00:00 +0000"
    assert format_date(951_782_400) == "Tue, 29 Feb 2000 00:00:00 +0000"


@given(st.integers(0, 4_000_000_000))
def test_dates_read_back_as_they_were(at: int) -> None:
    parsed = time.strptime(format_date(at), "%a, %d %b %Y %H:%M:%S +0000")
    assert parsed[:6] == time.gmtime(at)[:6]


PARTS = st.sampled_from(
    [
        b"\r\n",
        b"Subject: x\r\n",
        b" folded\r\n",
        b"\tfolded\r\n",
        b"text\r\n",
        b"Bcc: s\r\n",
        b"Date: d\r\n",
        b"Date:\r\n",
        b"Message-ID: i\r\n",
        b"A:\r\n",
        b"a b: c\r\n",
        b":\r\n",
    ]
)


@given(st.lists(PARTS, max_size=12).map(b"".join))
def test_what_is_stamped_always_has_a_header_block_without_bcc_and_its_body_unchanged(content: bytes) -> None:
    stamped = stamp(content, TRACE)
    assert stamped.startswith(RECEIVED)
    head, separator, body = stamped[len(RECEIVED) :].partition(b"\r\n\r\n")
    for line in head.removesuffix(b"\r\n").split(b"\r\n"):
        assert line[:1] in (b" ", b"\t") or b":" in line
        assert not line.lower().startswith(b"bcc")
    assert content.endswith(body)
    assert separator or content.count(b":")
    assert head.count(b"Date:") == 1
    assert head.count(b"Message-ID:") == 1


@given(st.lists(PARTS, max_size=12).map(b"".join))
def test_stamping_twice_adds_received_only(content: bytes) -> None:
    once = stamp(content, TRACE)
    assert stamp(once, TRACE) == RECEIVED + once
