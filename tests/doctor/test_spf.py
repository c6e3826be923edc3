"""SPF as receivers work it out, against a nameserver on loopback."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

import pytest

from mailer.doctor.spf import Outcome, Result, asked_of, evaluate
from tests.doctor.cases import dns_of
from tests.support.nameserver import Nameserver


@pytest.fixture
def nameserver() -> Iterator[Nameserver]:
    with Nameserver({"mail.example.test": {"A": "192.0.2.1", "AAAA": "2001:db8::1"}}) as running:
        yield running


def outcome_of(nameserver: Nameserver, record: str, address: str = "192.0.2.1") -> Outcome:
    """``record`` empty: what the nameserver knows already."""
    if record:
        nameserver.add("example.test", "TXT", f'"{record}"')
    return evaluate(dns_of(nameserver), asked_of(ipaddress.ip_address(address), "example.test", "mail.example.test"))


@pytest.mark.parametrize(
    ("record", "address", "result"),
    [
        ("v=spf1 ip4:192.0.2.1 -all", "192.0.2.1", Result.PASS),
        ("v=spf1 ip4:192.0.2.0/30 -all", "192.0.2.4", Result.FAIL),
        ("v=spf1 ip6:2001:db8::/32 -all", "2001:db8::1", Result.PASS),
        ("v=spf1 ip4:192.0.2.1 -all", "2001:db8::1", Result.FAIL),
        ("v=spf1 ~all", "192.0.2.1", Result.SOFTFAIL),
        ("v=spf1 ?all", "192.0.2.1", Result.NEUTRAL),
        ("v=spf1", "192.0.2.1", Result.NEUTRAL),
        ("v=spf1 a:mail.example.test -all", "192.0.2.1", Result.PASS),
        ("v=spf1 a:mail.example.test/24 -all", "192.0.2.77", Result.PASS),
        ("v=spf1 a:mail.example.test//64 -all", "2001:db8::77", Result.PASS),
        ("v=spf1 a:mail.example.test//64 -all", "192.0.2.77", Result.FAIL),
        ("v=spf1 -a:mail.example.test +all", "192.0.2.1", Result.FAIL),
    ],
)
def test_a_term_matches_the_address_or_the_next_is_asked(
    nameserver: Nameserver, record: str, address: str, result: Result
) -> None:
    assert outcome_of(nameserver, record, address).result is result


def test_mx_stands_for_the_addresses_of_all_mail_servers(nameserver: Nameserver) -> None:
    nameserver.add("example.test", "MX", "10 other.example.test", "20 mail.example.test")
    nameserver.add("other.example.test", "A", "192.0.2.9")
    assert outcome_of(nameserver, "v=spf1 mx -all")[:2] == (Result.PASS, "mx")


def test_more_than_ten_mail_servers_are_an_error(nameserver: Nameserver) -> None:
    nameserver.add("example.test", "MX", *(f"10 mx{number}.example.test" for number in range(11)))
    assert outcome_of(nameserver, "v=spf1 mx -all").result is Result.PERMERROR


def test_exists_asks_for_the_name_that_its_macros_make(nameserver: Nameserver) -> None:
    nameserver.add("1.2.0.192.spf.example.test", "A", "127.0.0.2")
    assert outcome_of(nameserver, "v=spf1 exists:%{ir}.spf.%{d} -all").result is Result.PASS


def test_exists_asks_for_ipv4_whatever_connects(nameserver: Nameserver) -> None:
    nameserver.add("yes.example.test", "A", "127.0.0.2")
    assert outcome_of(nameserver, "v=spf1 exists:yes.%{d} -all", "2001:db8::1").result is Result.PASS


@pytest.mark.parametrize(
    ("included", "result"),
    [
        ("v=spf1 ip4:192.0.2.1 -all", Result.PASS),
        ("v=spf1 -all", Result.SOFTFAIL),
        ("v=spf1 ip4:192.0.2.300", Result.PERMERROR),
        ("other text", Result.PERMERROR),
    ],
)
def test_only_a_pass_of_what_is_included_matches(nameserver: Nameserver, included: str, result: Result) -> None:
    nameserver.add("_spf.other.test", "TXT", f'"{included}"')
    assert outcome_of(nameserver, "v=spf1 include:_spf.other.test ~all").result is result


def test_redirect_decides_where_no_term_matches(nameserver: Nameserver) -> None:
    nameserver.add("_spf.other.test", "TXT", '"v=spf1 ip4:192.0.2.1 -all"')
    assert outcome_of(nameserver, "v=spf1 redirect=_spf.other.test").result is Result.PASS


def test_redirect_to_nothing_is_an_error(nameserver: Nameserver) -> None:
    assert outcome_of(nameserver, "v=spf1 redirect=_spf.other.test").result is Result.PERMERROR


def test_macros_of_an_included_record_see_its_own_domain(nameserver: Nameserver) -> None:
    nameserver.add("_spf.other.test", "TXT", '"v=spf1 exists:%{d}.list.test -all"')
    nameserver.add("_spf.other.test.list.test", "A", "127.0.0.2")
    assert outcome_of(nameserver, "v=spf1 include:_spf.other.test -all").result is Result.PASS


def test_ptr_wants_a_name_that_leads_back(nameserver: Nameserver) -> None:
    nameserver.add("1.2.0.192.in-addr.arpa", "PTR", "forged.example.test", "mail.example.test")
    assert outcome_of(nameserver, "v=spf1 ptr -all").result is Result.PASS
    nameserver.remove("mail.example.test", "A")
    assert outcome_of(nameserver, "").result is Result.FAIL


def test_an_include_of_itself_ends_after_ten_lookups(nameserver: Nameserver) -> None:
    outcome = outcome_of(nameserver, "v=spf1 include:example.test -all")
    assert outcome.result is Result.PERMERROR
    assert "more than 10 look-ups" in outcome.by


@pytest.mark.parametrize(("count", "result"), [(10, Result.PASS), (11, Result.PERMERROR)])
def test_ten_lookups_are_allowed_and_no_more(nameserver: Nameserver, count: int, result: Result) -> None:
    nameserver.add("other.example.test", "A", "192.0.2.9")
    record = "v=spf1 " + "a:other.example.test " * (count - 1) + "a:mail.example.test -all"
    nameserver.add("example.test", "TXT", f'"{record[:200]}" "{record[200:]}"')
    assert outcome_of(nameserver, "").result is result


@pytest.mark.parametrize(("count", "result"), [(2, Result.PASS), (3, Result.PERMERROR)])
def test_two_lookups_may_find_nothing_and_no_more(nameserver: Nameserver, count: int, result: Result) -> None:
    nothing = " ".join(f"a:nothing{number}.example.test" for number in range(count))
    assert outcome_of(nameserver, f"v=spf1 {nothing} a:mail.example.test -all").result is result


def test_a_nameserver_in_trouble_is_a_temporary_error(nameserver: Nameserver) -> None:
    nameserver.refuse("mail.example.test")
    assert outcome_of(nameserver, "v=spf1 a:mail.example.test -all").result is Result.TEMPERROR


def test_two_records_are_an_error_and_none_is_none(nameserver: Nameserver) -> None:
    assert outcome_of(nameserver, "").result is Result.NONE
    nameserver.add("example.test", "TXT", '"v=spf1 -all"', '"v=spf1 +all"')
    outcome = evaluate(dns_of(nameserver), asked_of(ipaddress.ip_address("192.0.2.1"), "example.test", "mail.example.test"))
    assert outcome.result is Result.PERMERROR


def test_a_record_in_pieces_is_read_as_one(nameserver: Nameserver) -> None:
    nameserver.add("example.test", "TXT", '"v=spf1 ip4:192" ".0.2.1 -all"', '"other=text"')
    assert outcome_of(nameserver, "").result is Result.PASS
