"""Sender addresses as a provider wants them."""

from __future__ import annotations

import pytest

from mailer.config.schema import ProviderConfig
from mailer.mail.address import Address, AddressError
from mailer.mail.content import Content, MemoryContent
from mailer.transport.rewrite import Rewriter

CONTENT = MemoryContent(b"From: a@x.test\r\n\r\n")


def rewriter_for(**settings: str) -> Rewriter:
    rewriter = Rewriter.of(ProviderConfig(host="h", port=25, **settings))  # type: ignore[arg-type]  # (texts only)
    assert rewriter is not None
    return rewriter


def unchanged(extensions: frozenset[str], header_from: Address | None = None) -> Content:
    assert header_from is None
    return CONTENT


def test_the_envelope_sender_is_replaced_but_never_the_null_sender() -> None:
    rewriter = rewriter_for(envelope_from="out@shop.test")
    assert str(rewriter.sender(Address.parse("a@client.test"))) == "out@shop.test"
    assert not rewriter.sender(Address("", ""))
    assert rewriter.render(unchanged)(frozenset()) is CONTENT


def test_the_address_for_from_is_asked_of_whoever_renders() -> None:
    asked: list[tuple[frozenset[str], Address | None]] = []

    def render(extensions: frozenset[str], header_from: Address | None = None) -> Content:
        asked.append((extensions, header_from))
        return CONTENT

    rewriter_for(header_from="shop@shop.test").render(render)(frozenset({"SIZE"}))
    assert asked == [(frozenset({"SIZE"}), Address.parse("shop@shop.test"))]


def test_nothing_configured_rewrites_nothing_and_no_address_is_an_error() -> None:
    assert Rewriter.of(ProviderConfig(host="h", port=25)) is None
    with pytest.raises(AddressError):
        Rewriter.of(ProviderConfig(host="h", port=25, header_from="a@b>\r\nBcc: x"))
