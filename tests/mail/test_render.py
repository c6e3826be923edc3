"""What goes out: re-encoded, then From as the peer wants it, then signed; each form made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailer.mail.address import Address
from mailer.mail.content import Content, FileContent, MemoryContent, with_head
from mailer.mail.envelope import NULL_SENDER, Envelope, Options, Recipient
from mailer.mail.outcome import MailerError
from mailer.mail.render import Unrenderable, make_render

UMLAUTS = "Grüße aus Köln\r\n".encode()
LONG = b"x" * 1500 + b" y\r\n"
SHOP = Address.parse("shop@shop.test")


def read(content: Content) -> bytes:
    return b"".join(content.chunks())


def message(body: bytes, *fields: bytes) -> bytes:
    return b"".join(field + b"\r\n" for field in (b"From: a@x.test", *fields)) + b"\r\n" + body


def in_file(folder: Path, data: bytes) -> FileContent:
    path = folder / "content"
    path.write_bytes(data)
    return FileContent(path, len(data))


def envelope(**options: bool) -> Envelope:
    recipient = Recipient(0, Address("b", "x.test"))
    return Envelope("0123456789abcdefg", NULL_SENDER, (recipient,), 0, 0.0, Options(**options))  # type: ignore[arg-type]
    # (only flags are set here)


PEER_8BIT = frozenset({"8BITMIME", "SIZE"})
PEER_7BIT = frozenset({"SIZE"})


def test_a_peer_that_takes_8_bits_gets_the_original() -> None:
    content = MemoryContent(message(UMLAUTS))
    assert make_render(envelope(), content)(PEER_8BIT) is content


def test_a_peer_with_smtputf8_takes_8_bits() -> None:
    content = MemoryContent(message(UMLAUTS))
    assert make_render(envelope(smtputf8=True), content)(frozenset({"SMTPUTF8"})) is content


def test_a_peer_that_takes_7_bits_gets_a_form_of_its_own_made_once() -> None:
    render = make_render(envelope(), MemoryContent(message(UMLAUTS)))
    first = render(PEER_7BIT)
    assert read(first).isascii()
    assert render(frozenset()) is first


def test_ascii_goes_to_every_peer_as_it_is() -> None:
    content = MemoryContent(message(b"hello\r\n"))
    assert make_render(envelope(), content)(PEER_7BIT) is content


def test_long_lines_are_broken_for_every_peer() -> None:
    render = make_render(envelope(has_long_lines=True), MemoryContent(message(LONG + UMLAUTS, b"Subject: x")))
    assert max(map(len, read(render(PEER_8BIT)).split(b"\r\n"))) <= 998
    assert render(PEER_8BIT) is render(PEER_8BIT)
    assert read(render(PEER_7BIT)).isascii()


def test_a_file_that_was_cut_is_an_error_of_ours(tmp_path: Path) -> None:
    content = in_file(tmp_path, message(UMLAUTS))
    content.path.write_bytes(b"cut")
    with pytest.raises(Unrenderable, match="0123456789abcdefg"):
        make_render(envelope(), content)(PEER_7BIT)


def signed(content: Content) -> Content:
    """The form that was to be signed, named in the signature."""
    data = read(content)
    return with_head(b"Signature: %d %b\r\n" % (data.isascii(), data.split(b"\r\n")[0]), 0, content)


def test_the_signature_is_made_of_what_is_sent() -> None:
    render = make_render(envelope(), MemoryContent(message(UMLAUTS)), signed)
    assert read(render(PEER_8BIT)) == b"Signature: 0 From: a@x.test\r\n" + message(UMLAUTS)
    assert read(render(PEER_7BIT)).startswith(b"Signature: 1 From: a@x.test\r\n")
    assert read(render(PEER_7BIT, SHOP)).startswith(b"Signature: 1 From: shop@shop.test\r\nFrom: shop@shop.test\r\nReply-To:")


def test_each_form_is_signed_once() -> None:
    times: list[Content] = []

    def counted(content: Content) -> Content:
        times.append(content)
        return signed(content)

    render = make_render(envelope(), MemoryContent(message(b"hello\r\n")), counted)
    assert render(PEER_8BIT) is render(PEER_8BIT)
    assert render(PEER_8BIT, SHOP) is render(PEER_8BIT, SHOP)
    assert len(times) == 2


def test_what_cannot_be_signed_is_not_sent_and_is_asked_for_again() -> None:
    faults = [MailerError("no key"), OSError("no disk")]

    def refuse(content: Content) -> Content:
        if faults:
            raise faults.pop(0)
        return content

    render = make_render(envelope(), MemoryContent(message(b"hello\r\n")), refuse)
    with pytest.raises(MailerError, match="no key"):
        render(PEER_8BIT)
    with pytest.raises(Unrenderable, match="no disk"):
        render(PEER_8BIT)
    assert read(render(PEER_8BIT)) == message(b"hello\r\n")
