"""MX, PTR and EHLO as findings."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from mailer.config.schema import Config, DirectDeliveryConfig
from mailer.doctor.blocklists import dnsbl
from mailer.doctor.finding import Finding, Status
from mailer.doctor.names import mx, ptr
from mailer.doctor.origin import own_addresses
from tests.doctor.cases import make_case
from tests.support.nameserver import Nameserver

PTR_NAME = "1.2.0.192.in-addr.arpa"


@pytest.fixture
def nameserver() -> Iterator[Nameserver]:
    with Nameserver({"mail.example.test": {"A": "192.0.2.1"}, "mx.example.test": {"A": "192.0.2.2"}}) as running:
        yield running


def test_an_mx_that_has_an_address_is_ok(nameserver: Nameserver) -> None:
    nameserver.add("example.test", "MX", "20 backup.example.test", "10 mx.example.test")
    nameserver.add("backup.example.test", "AAAA", "2001:db8::2")
    found = mx(make_case(Config(), nameserver))
    assert (found.status, found.text) == (Status.OK, "example.test: mx.example.test (10), backup.example.test (20)")


@pytest.mark.parametrize(
    ("records", "status", "word"),
    [
        ((), Status.FAILED, "neither MX nor address"),
        (("0 .",), Status.FAILED, "null MX"),
        (("0 .", "10 mx.example.test"), Status.FAILED, "beside"),
        (("10 gone.example.test",), Status.FAILED, "gone.example.test"),
        (("10 mx.example.test", "20 gone.example.test"), Status.WARNING, "gone.example.test"),
    ],
)
def test_an_mx_that_leads_nowhere_is_told(nameserver: Nameserver, records: tuple[str, ...], status: Status, word: str) -> None:
    nameserver.add("example.test", "TXT", '"it exists"')
    if records:
        nameserver.add("example.test", "MX", *records)
    found = mx(make_case(Config(), nameserver))
    assert (found.status, word in found.text) == (status, True)
    assert found.do


def test_a_domain_with_an_address_alone_is_a_warning(nameserver: Nameserver) -> None:
    assert mx(make_case(Config(), nameserver, domain="mail.example.test")).status is Status.WARNING


def test_a_domain_that_does_not_exist_fails(nameserver: Nameserver) -> None:
    assert "does not exist" in mx(make_case(Config(), nameserver, domain="nosuch.test")).text


def test_dns_that_does_not_answer_is_told_as_such(nameserver: Nameserver) -> None:
    nameserver.refuse("example.test")
    found = mx(make_case(Config(), nameserver))
    assert (found.status, "SERVFAIL" in found.text, "nameservers" in found.do) == (Status.FAILED, True, True)


def ptr_of(nameserver: Nameserver, ehlo: str = "mail.example.test") -> Finding:
    config = Config(direct_delivery=DirectDeliveryConfig(enabled=True, ehlo_domain=ehlo))
    return ptr(make_case(config, nameserver))


def test_an_address_whose_name_leads_back_and_stands_in_ehlo_is_ok(nameserver: Nameserver) -> None:
    nameserver.add(PTR_NAME, "PTR", "Mail.Example.Test.")
    assert ptr_of(nameserver).status is Status.OK
    assert ptr_of(nameserver, "MAIL.example.test").status is Status.OK


def test_an_address_without_a_name_fails(nameserver: Nameserver) -> None:
    found = ptr_of(nameserver)
    assert (found.status, "no name (PTR)" in found.text) == (Status.FAILED, True)


def test_a_name_that_leads_elsewhere_fails(nameserver: Nameserver) -> None:
    nameserver.add(PTR_NAME, "PTR", "mx.example.test")
    assert "does not lead back" in ptr_of(nameserver).text


def test_ehlo_with_another_name_of_the_address_is_a_warning(nameserver: Nameserver) -> None:
    nameserver.add(PTR_NAME, "PTR", "host1.hoster.test")
    nameserver.add("host1.hoster.test", "A", "192.0.2.1")
    found = ptr_of(nameserver)
    assert (found.status, "ehloDomain to host1.hoster.test" in found.do) == (Status.WARNING, True)


def test_ehlo_with_the_name_of_another_address_fails(nameserver: Nameserver) -> None:
    nameserver.add(PTR_NAME, "PTR", "mail.example.test")
    assert ptr_of(nameserver, "mx.example.test").status is Status.FAILED


@pytest.mark.parametrize("ehlo", ["localhost", "vm", "[192.0.2.1]"])
def test_ehlo_without_a_full_name_fails(nameserver: Nameserver, ehlo: str) -> None:
    assert "no full name" in ptr_of(nameserver, ehlo).text


def test_a_machine_without_a_network_fails(nameserver: Nameserver) -> None:
    assert ptr(make_case(Config(), nameserver, addresses=())).status is Status.FAILED


def test_an_address_on_a_blocklist_fails_with_the_list_s_reason(nameserver: Nameserver) -> None:
    nameserver.add("1.2.0.192.bl.spamcop.net", "A", "127.0.0.2")
    nameserver.add("1.2.0.192.bl.spamcop.net", "TXT", '"see https://bl.test/192.0.2.1"')
    found = dnsbl(make_case(Config(), nameserver))
    assert (found.status, "see https://bl.test/192.0.2.1" in found.text) == (Status.FAILED, True)


def test_an_address_on_no_blocklist_is_ok(nameserver: Nameserver) -> None:
    assert dnsbl(make_case(Config(), nameserver)).status is Status.OK
    assert nameserver.count("1.2.0.192.zen.spamhaus.org", "A") == 1


def test_an_ipv6_address_is_asked_for_by_its_nibbles(nameserver: Nameserver) -> None:
    dnsbl(make_case(Config(), nameserver, addresses=("2001:db8::1",)))
    nibbles = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2"
    assert nameserver.count(f"{nibbles}.zen.spamhaus.org", "A") == 1


def test_a_list_that_refuses_the_resolver_is_not_taken_for_a_listing(nameserver: Nameserver) -> None:
    nameserver.add("1.2.0.192.zen.spamhaus.org", "A", "127.255.255.254")
    assert dnsbl(make_case(Config(), nameserver)).status is Status.WARNING


def test_our_own_addresses_are_of_this_machine() -> None:
    for address in own_addresses(ipv4_only=False):
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        with socket.socket(family) as probe:
            probe.bind((str(address), 0))
            assert probe.getsockname()[0] == str(address)
    assert all(address.version == 4 for address in own_addresses(ipv4_only=True))
