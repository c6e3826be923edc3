"""What single values may be."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from mailer.config import kinds, names
from mailer.config.kinds import Kind, Misfit
from mailer.config.secret import Secret

GOOD: list[tuple[Kind, object, object]] = [
    (kinds.Text(), "  a b ", "a b"),
    (kinds.Text(), "", ""),
    (names.HostText(), "smtp.example.com", "smtp.example.com"),
    (names.HostText(), "mail_server", "mail_server"),
    (names.HostText(), "[::1]", "::1"),
    (names.HostText(), "2001:DB8::1", "2001:db8::1"),
    (names.DomainText(), "Example.COM.", "example.com"),
    (names.DomainText(), "bücher.example", "xn--bcher-kva.example"),
    (names.EhloText(), "[192.0.2.1]", "[192.0.2.1]"),
    (names.AddressText(), "a.b@example.com", "a.b@example.com"),
    (names.NameserverText(), "9.9.9.9", "9.9.9.9"),
    (names.NameserverText(), "127.0.0.1:5353", "127.0.0.1:5353"),
    (names.NameserverText(), "::1", "::1"),
    (names.NameserverText(), "[::1]:5353", "[::1]:5353"),
    (kinds.Flag(), True, True),
    (kinds.Integer(0), 0, 0),
    (kinds.Integer(1, unset=0), -5, None),
    (kinds.Choice(("a", "b")), " B ", "b"),
    (kinds.Choice(("a", "b")), "", None),
    (kinds.NetworkText(), "10.0.0.0/8", ipaddress.ip_network("10.0.0.0/8")),
    (kinds.NetworkText(), "192.0.2.7", ipaddress.ip_network("192.0.2.7/32")),
    (kinds.NetworkText(), "fd00::/8", ipaddress.ip_network("fd00::/8")),
    (kinds.FolderPath(), "/var/lib", Path("/var/lib")),
]
BAD: list[tuple[Kind, object]] = [
    (kinds.Text(), 5),
    (kinds.Text(), "a\r\nb"),
    (kinds.Text(), "a\x00"),
    (kinds.Text(), "\ud800"),
    (kinds.Text(), "x" * 5000),
    (names.HostText(), "smtp://example.com"),
    (names.HostText(), "example.com:587"),
    (names.HostText(), "a b"),
    (names.HostText(), "[example.com]"),
    (names.HostText(), "-example.com"),
    (names.HostText(), "::1::"),
    (names.DomainText(), "a@example.com"),
    (names.DomainText(), "[127.0.0.1]"),
    (names.DomainText(), "*.example.com"),
    (names.EhloText(), "under_score"),
    (names.AddressText(), "A <a@example.com>"),
    (names.AddressText(), "example.com"),
    (names.NameserverText(), "dns.example"),
    (names.NameserverText(), "9.9.9.9:0"),
    (names.NameserverText(), "9.9.9.9:"),
    (names.NameserverText(), "9.9.9.9:99999"),
    (names.NameserverText(), "[::1]5353"),
    (kinds.Flag(), 1),
    (kinds.Flag(), "true"),
    (kinds.Integer(0), True),
    (kinds.Integer(0), 1.0),
    (kinds.Integer(0), "1"),
    (kinds.Integer(0), -1),
    (kinds.Integer(0), 2**31),
    (kinds.Integer(1, 65535), 65536),
    (kinds.Integer(1, 65535, unset=0), 65536),
    (kinds.Choice(("a", "b")), "c"),
    (kinds.Choice(("a", "b")), ["a"]),
    (kinds.NetworkText(), "10.0.0.1/8"),
    (kinds.NetworkText(), "10.0.0.0/33"),
    (kinds.NetworkText(), 10),
    (kinds.SecretText(), 12345),
    (kinds.SecretText(), "two\nlines"),
    (kinds.SecretText(), "nul\x00"),
    (kinds.SecretText(), "\udc80"),
]


@pytest.mark.parametrize(("kind", "value", "kept"), GOOD)
def test_value_is_kept_as(kind: Kind, value: object, kept: object) -> None:
    assert kind.accept(value) == kept


@pytest.mark.parametrize(("kind", "value"), BAD)
def test_value_does_not_fit(kind: Kind, value: object) -> None:
    with pytest.raises(Misfit, match=r"\w"):
        kind.accept(value)


def test_a_secret_is_kept_as_it_is() -> None:
    accepted = kinds.SecretText().accept(" spaces stay ")
    assert isinstance(accepted, Secret)
    assert accepted.reveal() == " spaces stay "


def test_a_network_with_host_bits_names_the_one_that_was_meant() -> None:
    with pytest.raises(Misfit, match=r"10\.0\.0\.0/8"):
        kinds.NetworkText().accept("10.0.0.1/8")


@pytest.mark.parametrize(("text", "value"), [("true", True), ("1", True), ("YES", True), ("off", False), ("0", False)])
def test_truth_in_an_environment_variable(text: str, value: bool) -> None:
    assert kinds.Flag().from_text(text) is value


@pytest.mark.parametrize("text", ["", "maybe", "2", "tru"])
def test_what_is_no_truth_in_an_environment_variable(text: str) -> None:
    with pytest.raises(Misfit):
        kinds.Flag().from_text(text)


def test_integers_in_environment_variables_are_decimal_digits() -> None:
    assert kinds.Integer().from_text(" 25 ") == 25
    assert kinds.Integer().from_text("-1") == -1
    for text in ("0x19", "2_5", "٢٥", "25.0", "tcp://10.0.0.1:25", "9" * 30):
        with pytest.raises(Misfit):
            kinds.Integer().from_text(text)
