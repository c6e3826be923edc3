"""From as a provider wants it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailer.mail.address import Address
from mailer.mail.content import MAX_HEADER_BYTES, Content, MemoryContent
from mailer.mail.outcome import MailerError
from mailer.mail.rewrite import rewrite_from

ADDRESS = Address.parse("shop@shop.test")


class Pieces:
    """Content in given pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = pieces
        self.size = sum(map(len, pieces))

    def chunks(self) -> Iterator[bytes]:
        yield from self._pieces


def rewritten(content: bytes | Content) -> bytes:
    body: Content = MemoryContent(content) if isinstance(content, bytes) else content
    result = rewrite_from(body, ADDRESS)
    data = b"".join(result.chunks())
    assert result.size == len(data)
    return data


def first_line(value: bytes) -> bytes:
    return rewritten(b"From:" + value + b"\r\n\r\n").split(b"\r\nReply-To:")[0]


def test_from_is_replaced_and_kept_in_reply_to() -> None:
    assert rewritten(b"To: b@x.test\r\nFrom: Ann <a@client.test>\r\nSubject: s\r\n\r\nbody\r\n") == (
        b"To: b@x.test\r\nFrom: Ann <shop@shop.test>\r\nReply-To: Ann <a@client.test>\r\nSubject: s\r\n\r\nbody\r\n"
    )


def test_a_reply_to_that_is_there_stays() -> None:
    assert rewritten(b"From: a@client.test\r\nREPLY-TO: r@client.test\r\n\r\nbody\r\n") == (
        b"From: shop@shop.test\r\nREPLY-TO: r@client.test\r\n\r\nbody\r\n"
    )


def test_sender_goes_and_other_fields_stay_byte_for_byte() -> None:
    assert rewritten(b"Sender: x@client.test\r\nX-A: 1\r\n 2\r\n\t3\r\nFrom: a@client.test\r\n\r\n") == (
        b"X-A: 1\r\n 2\r\n\t3\r\nFrom: shop@shop.test\r\nReply-To: a@client.test\r\n\r\n"
    )


def test_a_second_from_goes() -> None:
    assert rewritten(b"From: a@x.test\r\nfrom : ceo@bank.test\r\n\r\n") == b"From: shop@shop.test\r\nReply-To: a@x.test\r\n\r\n"


def test_a_missing_from_is_added() -> None:
    rest = b"Subject: s\r\n\r\nFrom: not a header\r\n"
    assert rewritten(rest) == b"From: shop@shop.test\r\n" + rest
    assert rewritten(b"\r\nbody\r\n") == b"From: shop@shop.test\r\n\r\nbody\r\n"


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (b" a@x.test", b"From: shop@shop.test"),
        (b" <a@x.test>", b"From: shop@shop.test"),
        (b" Ann Other <a@x.test>", b"From: Ann Other <shop@shop.test>"),
        (b' "Other, Ann" <a@x.test>', b'From: "Other, Ann" <shop@shop.test>'),
        (b' "A <x> B" <a@x.test>', b'From: "A <x> B" <shop@shop.test>'),
        (b" a@x.test (Ann Other)", b"From: Ann Other <shop@shop.test>"),
        (b" J. Smith <a@x.test>", b'From: "J. Smith" <shop@shop.test>'),
        (b" =?utf-8?q?J=C3=BCrgen?= M. <a@x.test>", b"From: =?utf-8?q?J=C3=BCrgen?= M. <shop@shop.test>"),
        ("Jürgen <a@x.test>".encode(), "From: Jürgen <shop@shop.test>".encode()),
        (b" Ann\r\n Other\r\n <a@x.test>", b"From: Ann Other <shop@shop.test>"),
        (b" a@x.test, Bob <b@x.test>", b'From: "a@x.test, Bob" <shop@shop.test>'),
        (b' Evil" <a@x.test>', b'From: "Evil\\"" <shop@shop.test>'),
        (b" " + b"n" * 600 + b" <a@x.test>", b"From: shop@shop.test"),
        (b" " + b"n" * 60 + b" <a@x.test>", b"From: " + b"n" * 60 + b"\r\n <shop@shop.test>"),
        (b"", b"From: shop@shop.test"),
    ],
)
def test_display_names(value: bytes, line: bytes) -> None:
    assert first_line(value).rstrip(b"\r\n") == line


def test_a_folded_from_stays_folded_in_reply_to() -> None:
    assert b"\r\nReply-To: Ann\r\n\t<a@x.test>\r\n\r\n" in rewritten(b"From: Ann\r\n\t<a@x.test>\r\n\r\n")


def test_content_in_pieces_is_the_same() -> None:
    whole = b"From: Ann <a@client.test>\r\nSubject: s\r\n\r\n" + b"body\r\n" * 100
    for cut in range(1, 60):
        assert rewritten(Pieces(whole[:cut], whole[cut : cut + 3], whole[cut + 3 :])) == rewritten(whole)


def test_an_endless_header_block_is_refused() -> None:
    with pytest.raises(MailerError, match="header block"):
        rewritten(b"X: y\r\n" * (MAX_HEADER_BYTES // 5))


@given(st.binary(max_size=300).map(lambda b: b.replace(b"\r", b"").replace(b"\n", b"\r\n ")))
def test_no_value_of_from_adds_a_header_or_ends_the_block(value: bytes) -> None:
    data = rewritten(b"From:" + value + b"\r\nTo: b@x.test\r\n\r\nbody\r\n")
    block, _, body = data.partition(b"\r\n\r\n")
    names = [line.partition(b":")[0] for line in block.split(b"\r\n") if line[:1] not in (b" ", b"\t")]
    assert names in ([b"From", b"Reply-To", b"To"], [b"From", b"To"])
    assert body == b"body\r\n"
    assert data.startswith(b"From: ")
    assert b"shop@shop.test" in data.partition(b"\r\nReply-To:")[0]
