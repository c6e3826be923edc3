"""SPF and DMARC as findings: what they mean for mail of ours, and what to publish."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from mailer.config.schema import Config, DirectDeliveryConfig, DkimConfig, DkimKeyConfig
from mailer.doctor.dmarc import parse, walk
from mailer.doctor.finding import Finding, Status, failed, ok
from mailer.doctor.sender import dmarc, spf
from tests.doctor.cases import dns_of, make_case
from tests.support.nameserver import Nameserver

DIRECT = DirectDeliveryConfig(enabled=True, ehlo_domain="mail.example.test")
GOOD, BAD = ok("in order"), failed("broken", "repair it")


@pytest.fixture
def nameserver() -> Iterator[Nameserver]:
    with Nameserver({"mail.example.test": {"A": "192.0.2.1"}}) as running:
        yield running


def spf_of(nameserver: Nameserver, record: str, **settings: Any) -> Finding:
    if record:
        nameserver.add("example.test", "TXT", f'"{record}"')
    return spf(make_case(Config(**({"direct_delivery": DIRECT} | settings)), nameserver))


def test_a_record_that_includes_us_is_ok(nameserver: Nameserver) -> None:
    found = spf_of(nameserver, "v=spf1 a:mail.example.test -all")
    assert found.status is Status.OK
    assert "1 of 10 look-ups" in found.text


def test_a_record_without_us_fails_and_is_shown_as_it_would_have_to_be(nameserver: Nameserver) -> None:
    found = spf_of(nameserver, "v=spf1 ip4:198.51.100.1 ~all")
    assert found.status is Status.FAILED
    assert '"v=spf1 ip4:192.0.2.1 ip4:198.51.100.1 ~all"' in found.do


def test_a_record_without_us_is_only_a_warning_where_providers_deliver(nameserver: Nameserver) -> None:
    found = spf_of(nameserver, "v=spf1 ip4:198.51.100.1 ~all", direct_delivery=DirectDeliveryConfig())
    assert found.status is Status.WARNING


def test_no_record_fails_with_one_to_publish(nameserver: Nameserver) -> None:
    found = spf_of(nameserver, "")
    assert found.status is Status.FAILED
    assert '"v=spf1 ip4:192.0.2.1 -all"' in found.do


def test_a_record_for_everybody_is_a_warning(nameserver: Nameserver) -> None:
    assert spf_of(nameserver, "v=spf1 +all").status is Status.WARNING


def test_the_worst_of_our_addresses_counts(nameserver: Nameserver) -> None:
    nameserver.add("example.test", "TXT", '"v=spf1 ip4:192.0.2.1 -all"')
    found = spf(make_case(Config(direct_delivery=DIRECT), nameserver, addresses=("192.0.2.1", "2001:db8::1")))
    assert found.status is Status.FAILED
    assert "2001:db8::1" in found.text
    assert "192.0.2.1 (" not in found.text


def test_an_address_behind_nat_is_not_taken_for_ours(nameserver: Nameserver) -> None:
    nameserver.add("example.test", "TXT", '"v=spf1 -all"')
    found = spf(make_case(Config(direct_delivery=DIRECT), nameserver, addresses=("10.0.0.7",), has_given_addresses=False))
    assert found.status is Status.WARNING
    assert "--address" in found.do


@pytest.mark.parametrize(("record", "status"), [("v=spf1 a -all", Status.OK), ("v=spf1 -all", Status.WARNING)])
def test_the_name_in_ehlo_must_not_forbid_our_reports(nameserver: Nameserver, record: str, status: Status) -> None:
    nameserver.add("mail.example.test", "TXT", f'"{record}"')
    found = spf_of(nameserver, "v=spf1 ip4:192.0.2.1 -all")
    assert (found.status, "for reports" in found.text) == (status, status is Status.WARNING)


def test_hostile_text_of_a_record_cannot_reach_the_terminal(nameserver: Nameserver) -> None:
    nameserver.add("example.test", "TXT", '"v=spf1 ip4:192.0.2.9 x\\027]0;gone\\007y"')
    found = spf_of(nameserver, "")
    assert found.status is Status.FAILED
    assert found.text.isprintable()
    assert found.do.isprintable()
    assert "\\x1b]0;gone\\x07" in found.text


def dmarc_of(nameserver: Nameserver, record: str, earlier: dict[str, Finding], **settings: Any) -> Finding:
    nameserver.add("_dmarc.example.test", "TXT", f'"{record}"')
    case = make_case(Config(**({"direct_delivery": DIRECT} | settings)), nameserver)
    return dmarc(case, earlier)


SIGNED = DkimConfig(enabled=True, domain="example.test")


@pytest.mark.parametrize(
    ("policy", "spf_finding", "dkim_finding", "status"),
    [
        ("reject", GOOD, GOOD, Status.OK),
        ("reject", BAD, GOOD, Status.OK),
        ("reject", GOOD, BAD, Status.WARNING),
        ("reject", BAD, BAD, Status.FAILED),
        ("quarantine", BAD, BAD, Status.FAILED),
        ("none", BAD, BAD, Status.WARNING),
    ],
)
def test_the_policy_is_met_by_spf_or_dkim(
    nameserver: Nameserver, policy: str, spf_finding: Finding, dkim_finding: Finding, status: Status
) -> None:
    found = dmarc_of(nameserver, f"v=DMARC1; p={policy}", {"spf": spf_finding, "dkim": dkim_finding}, dkim=SIGNED)
    assert found.status is status


@pytest.mark.parametrize(("mode", "status"), [("r", Status.OK), ("s", Status.FAILED)])
def test_a_signature_of_the_domain_above_is_aligned_unless_strictly(nameserver: Nameserver, mode: str, status: Status) -> None:
    nameserver.add("_dmarc.example.test", "TXT", f'"v=DMARC1; p=reject; adkim={mode}"')
    case = make_case(Config(direct_delivery=DIRECT, dkim=SIGNED), nameserver, domain="shop.example.test")
    assert dmarc(case, {"spf": BAD, "dkim": GOOD}).status is status


def test_a_signature_of_another_domain_is_not_aligned(nameserver: Nameserver) -> None:
    other = DkimConfig(enabled=True, domain="other.test")
    assert dmarc_of(nameserver, "v=DMARC1; p=reject", {"spf": BAD, "dkim": GOOD}, dkim=other).status is Status.FAILED


def test_a_key_for_the_domain_itself_makes_it_aligned(nameserver: Nameserver) -> None:
    both = DkimConfig(enabled=True, domain="other.test", keys=(DkimKeyConfig(domain="example.test"),))
    found = dmarc_of(nameserver, "v=DMARC1; p=reject; adkim=s", {"spf": BAD, "dkim": GOOD}, dkim=both)
    assert found.status is Status.OK


def test_no_record_is_a_warning_with_one_to_publish(nameserver: Nameserver) -> None:
    found = dmarc(make_case(Config(direct_delivery=DIRECT), nameserver), {})
    assert found.status is Status.WARNING
    assert "_dmarc.example.test" in found.do


def test_the_policy_for_subdomains_holds_for_a_subdomain(nameserver: Nameserver) -> None:
    nameserver.add("_dmarc.example.test", "TXT", '"v=DMARC1; p=none; sp=reject"')
    case = make_case(Config(direct_delivery=DIRECT), nameserver, domain="shop.example.test")
    found = dmarc(case, {"spf": BAD})
    assert (found.status, "asks for reject" in found.text) == (Status.FAILED, True)


@pytest.mark.parametrize("text", ["p=none; v=DMARC1", "v=DMARC2; p=none", "v=dmarc1; p=none", "v=spf1 -all", "", "v"])
def test_other_text_is_no_dmarc_record(text: str) -> None:
    assert parse(text) is None


def test_a_record_without_a_policy_fails(nameserver: Nameserver) -> None:
    assert dmarc_of(nameserver, "v=DMARC1; rua=mailto:a@b.test", {"spf": GOOD}).status is Status.FAILED


def test_several_records_count_as_none_of_them(nameserver: Nameserver) -> None:
    nameserver.add("_dmarc.example.test", "TXT", '"v=DMARC1; p=none"')
    assert dmarc_of(nameserver, "v=DMARC1; p=reject", {"spf": GOOD}).status is Status.FAILED


def test_a_public_suffix_that_has_a_record_is_no_organisation(nameserver: Nameserver) -> None:
    nameserver.add("_dmarc.test", "TXT", '"v=DMARC1; p=none; psd=y"')
    nameserver.add("_dmarc.example.test", "TXT", '"v=DMARC1; p=none"')
    assert walk(dns_of(nameserver), "a.shop.example.test").organisation == "example.test"


def test_a_domain_that_says_it_is_no_public_suffix_ends_the_walk(nameserver: Nameserver) -> None:
    nameserver.add("_dmarc.test", "TXT", '"v=DMARC1; p=none"')
    nameserver.add("_dmarc.example.test", "TXT", '"v=DMARC1; p=none; psd=n"')
    assert walk(dns_of(nameserver), "a.shop.example.test").organisation == "example.test"
    assert nameserver.count("_dmarc.test") == 0


def test_a_long_name_is_asked_about_eight_times_at_most(nameserver: Nameserver) -> None:
    walk(dns_of(nameserver), "a.b.c.d.e.f.g.h.i.j.example.test")
    assert nameserver.count() == 8
