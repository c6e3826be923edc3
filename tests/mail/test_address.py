"""Addresses: what is one, what is none, and that what is accepted is written back unchanged."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailer.mail.address import (
    MAX_ADDRESS_OCTETS,
    MAX_LOCAL_PART_OCTETS,
    NULL_SENDER,
    Address,
    AddressError,
    is_domain,
)

GOOD = [
    "a@b",
    "user@example.com",
    "first.last+tag@sub.example.co.uk",
    "!#$%&'*+-/=?^_`{|}~@example.com",
    "a@xn--bcher-kva.example",
    "a@1.2.3.4.example",
    "a@3com.com",
    '"quoted"@example.com',
    '"with space"@example.com',
    '"a@b"@example.com',
    '"semi;colon,comma"@example.com',
    r'"back\\slash"@example.com',
    r'"quote\"inside"@example.com',
    r'"\a\ "@example.com',
    '"."@example.com',
    "a@[127.0.0.1]",
    "a@[IPv6:::1]",
    "a@[IPv6:2001:db8::7]",
    "a@[ipv6:::ffff:1.2.3.4]",
    "a@[tag:content]",
    "x" * 64 + "@example.com",
    "a@" + ".".join(["d" * 63] * 3) + "." + "d" * 60,
    "Postmaster@example.com",
]
GOOD_UTF8 = [
    "ü@example.com",
    "用户@例子.广告",
    "a@bücher.example",
    '"ü ü"@example.com',
    "δοκιμή@παράδειγμα.δοκιμή",
    "😀@example.com",
]
BAD = [
    "",
    "a",
    "@",
    "a@",
    "@b",
    "a b@c",
    "a@b c",
    " a@b",
    "a@b ",
    "a@@b",
    "a@b@c",
    ".a@b",
    "a.@b",
    "a..b@c",
    "a@.b",
    "a@b.",
    "a@b..c",
    "a@-b",
    "a@b-",
    "a@b_c",
    "a@" + "d" * 64,
    "a@" + "d." * 130 + "d",
    "x" * 65 + "@b",
    "foo> ORCPT=x",
    "a@b> SIZE=1",
    "<a@b>",
    "a@b>",
    "a@b\r\nRCPT TO:<c@d>",
    "a@b\n",
    "a\r@b",
    "a\n@b",
    "a\0@b",
    "a\t@b",
    '"a\r"@b',
    '"a\n"@b',
    '"a\0"@b',
    '"a\tb"@b',
    '"a@b',
    '"a"b@c',
    'a"b"@c',
    '""@b',
    '"a""b"@c',
    '"a>b"@c',
    '"<a"@c',
    r'"a\"@c',
    '"a\\\r"@b',
    '"a\\>"@b',
    "a,b@c",
    "a;b@c",
    "a:b@c",
    "(comment)a@b",
    "a@b(comment)",
    "a@[127.0.0.1",
    "a@127.0.0.1]",
    "a@[127.0.0.256]",
    "a@[1.2.3]",
    "a@[]",
    "a@[",
    "a@[IPv6:]",
    "a@[IPv6:fe80::1%eth0]",
    "a@[IPv6:127.0.0.1]",
    "a@[tag:]",
    "a@[:x]",
    "a@[tag:a b]",
    "a@[tag:a>b]",
    "a@[tag:a]b]",
    "a@[tag:\r\n]",
    "a@[127.0.0.1]x",
    "a@[[1.2.3.4]]",
    "@a,@b:user@c",
    "user%\x7f@b",
]
BAD_UTF8 = [
    "ü\u200b@b",
    "a@b\u2028c",
    "a\u00a0b@c",
    "a\u0085@b",
    "\ufeffa@b",
    "a@b\u3000",
    "a\u202eb@c",
    "a@b\u00ad.c",
    "a\ud800@b",
    "ü" * 33 + "@b",
]


@pytest.mark.parametrize("text", GOOD)
def test_an_address_is_written_back_as_it_was(text: str) -> None:
    for smtputf8 in (False, True):
        address = Address.parse(text, smtputf8)
        assert str(address) == text
        assert address.to_path() == f"<{text}>".encode()
        assert not address.needs_smtputf8
        assert address


@pytest.mark.parametrize("text", GOOD_UTF8)
def test_characters_beyond_ascii_need_smtputf8(text: str) -> None:
    address = Address.parse(text, smtputf8=True)
    assert str(address) == text
    assert address.needs_smtputf8
    with pytest.raises(AddressError, match="SMTPUTF8"):
        Address.parse(text)


@pytest.mark.parametrize("text", BAD)
@pytest.mark.parametrize("smtputf8", [False, True])
def test_what_is_no_address_is_refused(text: str, smtputf8: bool) -> None:
    with pytest.raises(AddressError) as error:
        Address.parse(text, smtputf8)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("text", BAD_UTF8)
def test_invisible_characters_and_too_many_octets_are_refused(text: str) -> None:
    with pytest.raises(AddressError) as error:
        Address.parse(text, smtputf8=True)
    assert str(error.value).isprintable()


def test_lengths_are_counted_in_octets() -> None:
    domain = ".".join(["d" * 49] * 5)
    just_fits = "l" * (MAX_ADDRESS_OCTETS - 1 - len(domain)) + "@" + domain
    assert len(just_fits) == MAX_ADDRESS_OCTETS
    assert str(Address.parse(just_fits)) == just_fits
    with pytest.raises(AddressError):
        Address.parse("l" + just_fits)
    Address.parse("ü" * (MAX_LOCAL_PART_OCTETS // 2) + "@b", smtputf8=True)


def test_a_label_beyond_ascii_is_limited_too() -> None:
    with pytest.raises(AddressError):
        Address.parse("a@" + "ü" * 64 + ".example", smtputf8=True)


@pytest.mark.parametrize(
    ("domain", "key"),
    [("Example.COM", "example.com"), ("BÜCHER.example", "xn--bcher-kva.example"), ("[IPv6:ABCD::1]", "[ipv6:abcd::1]")],
)
def test_domains_are_compared_in_lower_case_and_ascii(domain: str, key: str) -> None:
    assert Address.parse(f"a@{domain}", smtputf8=True).domain_key == key


def test_a_domain_without_an_ascii_form_still_has_a_key() -> None:
    assert Address("a", "ü" * 300).domain_key == "ü" * 300


@pytest.mark.parametrize("domain", ["good。evil.example", "good．evil", "ａ＠ｂ", "℀", "ü⒈example", "ü＞"])
def test_a_domain_whose_signs_appear_only_when_it_is_folded_is_refused(domain: str) -> None:
    with pytest.raises(AddressError):
        Address.parse(f"a@{domain}", smtputf8=True)


def test_the_null_sender_is_false_and_written_as_an_empty_path() -> None:
    assert not NULL_SENDER
    assert NULL_SENDER.to_path() == b"<>"
    assert str(NULL_SENDER) == ""


@pytest.mark.parametrize("text", ["localhost", "mx.example.com", "[127.0.0.1]", "[IPv6:::1]"])
def test_what_ehlo_takes(text: str) -> None:
    assert is_domain(text)


@pytest.mark.parametrize("text", ["", "a_b", "a b", "a\r\nb", "[1.2.3.4", "ü", "-a", "a.", "a" * 64, "a." * 128, "[]"])
def test_what_ehlo_does_not_take(text: str) -> None:
    assert not is_domain(text)


# --- properties

ALPHABET = st.sampled_from('ab1.@@"\\<>[]: \t\r\n\0,;=-_%()IPv6:üß\u200b\u2028\x7f\x85😀' + "'")
TEXTS = st.text(ALPHABET, max_size=40) | st.text(max_size=40)


def parsed(text: str, smtputf8: bool) -> tuple[Address | None, str]:
    try:
        return Address.parse(text, smtputf8), ""
    except AddressError as error:
        return None, str(error)


@given(TEXTS, st.booleans())
@example("foo> ORCPT=x", True)
@example('"\\"@b', False)
def test_no_input_yields_a_second_parameter_or_line(text: str, smtputf8: bool) -> None:
    address, reason = parsed(text, smtputf8)
    if address is None:
        assert reason.isprintable()
        return
    path = address.to_path()
    assert str(address) == text
    assert path == b"<" + text.encode() + b">"
    inside = path[1:-1]
    assert not re.search(rb"[\x00-\x1f\x7f<>]", inside)
    outside_quotes = re.sub(rb'^"(?:[^"\\]|\\.)*"', b"", inside)
    assert b" " not in outside_quotes
    assert b'"' not in outside_quotes
    assert len(inside) <= MAX_ADDRESS_OCTETS
    assert Address.parse(str(address), smtputf8) == address


ATOMS = st.text("abcXYZ019!#$%&'*+-/=?^_`{|}~", min_size=1, max_size=12)
DOT_STRINGS = st.lists(ATOMS, min_size=1, max_size=4).map(".".join)
QUOTED_CHARACTERS = st.sampled_from([*"ab 1@,;:.()[]", '\\"', "\\\\", "\\ "])
QUOTED = st.lists(QUOTED_CHARACTERS, min_size=1, max_size=20).map(lambda parts: '"' + "".join(parts) + '"')
LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
DOMAINS = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
LITERALS = st.ip_addresses(v=4).map(lambda ip: f"[{ip}]") | st.ip_addresses(v=6).map(lambda ip: f"[IPv6:{ip}]")


@given(DOT_STRINGS | QUOTED, DOMAINS | LITERALS)
def test_every_address_of_the_grammar_is_accepted(local_part: str, domain: str) -> None:
    address = Address.parse(f"{local_part}@{domain}")
    assert (address.local_part, address.domain) == (local_part, domain)


@given(st.text(max_size=30))
def test_ehlo_takes_nothing_that_ends_a_line_or_a_word(text: str) -> None:
    if is_domain(text):
        assert text.isascii()
        assert text.isprintable()
        assert not set(text) & set(' <>()"\\;,')


@pytest.mark.parametrize(
    "text",
    ["a" * 100_000 + "@b", '"' + "a" * 100_000, '"' + "\\a" * 50_000, "a@" + "b-" * 50_000, "." * 100_000, "a@[" + "x:" * 50_000],
)
def test_long_input_is_refused_without_delay(text: str) -> None:
    """A pattern that backtracks would hang here, and the test's time-out would tell."""
    with pytest.raises(AddressError):
        Address.parse(text, smtputf8=True)
    assert not is_domain(text)
