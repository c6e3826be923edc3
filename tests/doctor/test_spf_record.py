"""SPF records, read strictly."""

from __future__ import annotations

import ipaddress

import pytest

from mailer.doctor.spf_macro import Asked
from mailer.doctor.spf_record import SpfSyntaxError, is_record, parse


@pytest.mark.parametrize(
    ("text", "kind", "domain", "prefix4", "prefix6"),
    [
        ("v=spf1 a", "a", "", 32, 128),
        ("v=spf1 A:mail.example.test", "a", "mail.example.test", 32, 128),
        ("v=spf1 a/24", "a", "", 24, 128),
        ("v=spf1 a//64", "a", "", 32, 64),
        ("v=spf1 mx:example.test/24//64", "mx", "example.test", 24, 64),
        ("v=spf1 include:_spf.example.test", "include", "_spf.example.test", 32, 128),
        ("v=spf1 exists:%{ir}.%{v}._spf.%{d2}", "exists", "%{ir}.%{v}._spf.%{d2}", 32, 128),
        ("v=spf1 ptr", "ptr", "", 32, 128),
        ("v=spf1 a:example.test.", "a", "example.test.", 32, 128),
    ],
)
def test_a_mechanism_has_its_domain_and_prefixes(text: str, kind: str, domain: str, prefix4: int, prefix6: int) -> None:
    [found] = parse(text).mechanisms
    assert (found.kind, found.domain, found.prefix4, found.prefix6) == (kind, domain, prefix4, prefix6)


def test_qualifiers_networks_and_redirect_are_read() -> None:
    record = parse("v=spf1  -ip4:192.0.2.0/24 ~ip6:2001:db8::/32 ?all redirect=_spf.example.test  ")
    assert [mechanism.qualifier for mechanism in record.mechanisms] == ["-", "~", "?"]
    assert record.mechanisms[0].network == ipaddress.ip_network("192.0.2.0/24")
    assert record.mechanisms[1].network == ipaddress.ip_network("2001:db8::/32")
    assert record.redirect == "_spf.example.test"


def test_modifiers_that_nobody_knows_are_passed_over() -> None:
    assert parse("v=spf1 moo.cow-far_out=man:dog/cat%{d} -all").mechanisms[0].kind == "all"


@pytest.mark.parametrize(
    "text",
    [
        "v=spf1 ipv4:192.0.2.1",
        "v=spf1 ip4",
        "v=spf1 ip4:",
        "v=spf1 ip4:192.0.2.256",
        "v=spf1 ip4:192.0.2.0/33",
        "v=spf1 ip4:192.0.2.0/024",
        "v=spf1 ip4:192.0.2.0/255.255.255.0",
        "v=spf1 ip4:2001:db8::1",
        "v=spf1 ip6:fe80::1%eth0",
        "v=spf1 all:example.test",
        "v=spf1 include",
        "v=spf1 include:",
        "v=spf1 include:localhost",
        "v=spf1 exists:example.test/24",
        "v=spf1 a/33",
        "v=spf1 a//129",
        "v=spf1 a:",
        "v=spf1 a:example.123",
        "v=spf1 aexample.test",
        "v=spf1 exists:%{x}.example.test",
        "v=spf1 exists:%z.example.test",
        "v=spf1 exists:%{d0}.example.test",
        "v=spf1 redirect=a.test redirect=b.test",
        "v=spf1 redirect=",
        "v=spf1 +",
        "v=spf1 a\tmx",
        "v=spf1 a:ex\x1bample.test",
    ],
)
def test_one_wrong_term_makes_the_record_an_error(text: str) -> None:
    with pytest.raises(SpfSyntaxError):
        parse(text)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [("v=spf1", True), ("V=SPF1 -all", True), ("v=spf10 -all", False), (" v=spf1", False), ("v=spf1\t-all", False)],
)
def test_the_version_ends_with_a_space_or_the_record(text: str, verdict: bool) -> None:
    assert is_record(text) is verdict


V4 = Asked(ipaddress.ip_address("192.0.2.3"), "strong-bad", "email.example.com", "mail.example.net")
V6 = Asked(ipaddress.ip_address("2001:db8::cb01"), "strong-bad", "email.example.com", "mail.example.net")


@pytest.mark.parametrize(
    ("text", "expanded"),
    [  # RFC 7208 7.4
        ("%{s}", "strong-bad@email.example.com"),
        ("%{o}", "email.example.com"),
        ("%{d}", "email.example.com"),
        ("%{d4}", "email.example.com"),
        ("%{d3}", "email.example.com"),
        ("%{d2}", "example.com"),
        ("%{d1}", "com"),
        ("%{dr}", "com.example.email"),
        ("%{d2r}", "example.email"),
        ("%{l}", "strong-bad"),
        ("%{l-}", "strong.bad"),
        ("%{lr}", "strong-bad"),
        ("%{lr-}", "bad.strong"),
        ("%{l1r-}", "strong"),
        ("%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com"),
        ("%{lr-}.lp._spf.%{d2}", "bad.strong.lp._spf.example.com"),
        ("%{d2}.trusted-domains.example.net", "example.com.trusted-domains.example.net"),
        ("%{h}", "mail.example.net"),
        ("%{S}", "strong-bad%40email.example.com"),
        ("a%%b%_c%-d", "a%b c%20d"),
    ],
)
def test_macros_expand_as_the_standard_shows(text: str, expanded: str) -> None:
    assert V4.expand(text, "email.example.com") == expanded


def test_an_ipv6_address_expands_to_its_nibbles() -> None:
    nibbles = "1.0.b.c.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2"
    assert V6.expand("%{ir}.%{v}._spf.%{d2}", "email.example.com") == f"{nibbles}.ip6._spf.example.com"


@pytest.mark.parametrize(
    "domain", ["%{s}" * 4000 + ".test", "a." + "a" * 16_000 + "!", "%{" * 8000, "/1" * 8000, "a" * 16_000, "." * 16_000]
)
def test_a_hostile_record_costs_no_more_than_its_length(domain: str) -> None:
    """Well within the time that a test has, where squares and cubes of its length are not."""
    try:
        record = parse(f"v=spf1 a:{domain}")
    except SpfSyntaxError:
        return
    assert len(V4.expand(record.mechanisms[0].domain, "email.example.com")) <= 253


def test_a_name_that_became_too_long_loses_labels_from_its_left() -> None:
    expanded = V4.expand("%{d}." * 20 + "example.com", "email.example.com")
    assert len(expanded) <= 253
    assert expanded.endswith(".example.com")
