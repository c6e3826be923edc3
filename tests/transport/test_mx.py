"""The way to a domain's mail servers, with a real nameserver behind it."""

from __future__ import annotations

import random
import socket
from collections import Counter
from collections.abc import Iterator
from ipaddress import IPv6Address

import pytest

from mailer.config.sections import DirectDeliveryConfig
from mailer.dns.lookup import Dns
from mailer.dns.places import can_reach
from mailer.mail.outcome import Reply, Stage, Verdict
from mailer.transport.mx import MAX_ADDRESSES, MAX_HOSTS, HostAddresses, MailHost, Route, RouteFinder
from tests.support.nameserver import Nameserver

PATIENT_SECONDS = 20.0
PUBLIC = "198.41.0.4"  # a root server's; nothing is sent there


@pytest.fixture
def nameserver() -> Iterator[Nameserver]:
    with Nameserver() as running:
        yield running


def finder(
    nameserver: Nameserver,
    *,
    listens_on: tuple[tuple[str, int], ...] = (),
    private: bool = True,
    ipv4_only: bool = False,
    seed: int = 1,
) -> RouteFinder:
    settings = DirectDeliveryConfig(allow_private=private, ipv4_only=ipv4_only)
    return RouteFinder(Dns([nameserver.address], PATIENT_SECONDS), settings, lambda: listens_on, random.Random(seed))


def route(found: Route | Verdict) -> Route:
    assert isinstance(found, Route), found
    return found


def names(found: Route | Verdict) -> list[str]:
    return [host.name for host in route(found).hosts]


def places(found: HostAddresses | Reply) -> list[str]:
    assert isinstance(found, HostAddresses), found
    return [address[0] for _, address in found.addresses]


def refusal(found: Route | Verdict) -> tuple[Stage, int, str]:
    assert isinstance(found, Verdict), found
    return found.stage, found.reply.code, found.reply.enhanced


# the order of servers


def test_servers_are_tried_in_the_order_of_their_preference(nameserver: Nameserver) -> None:
    nameserver.add("example.test", "MX", "30 c.test", "10 a.test", "20 b.test")
    found = route(finder(nameserver).find("example.test"))
    assert found.hosts == (MailHost("a.test", 10), MailHost("b.test", 20), MailHost("c.test", 30))
    assert (found.is_implicit, found.is_authentic) == (False, False)


def test_equals_come_in_random_order(nameserver: Nameserver) -> None:
    nameserver.add("example.test", "MX", "10 a.test", "10 b.test", "5 first.test")
    finding = finder(nameserver)
    orders = Counter(tuple(names(finding.find("example.test"))) for _ in range(100))
    assert set(orders) == {("first.test", "a.test", "b.test"), ("first.test", "b.test", "a.test")}
    assert min(orders.values()) > 20


def test_a_server_named_twice_is_tried_once_at_its_best(nameserver: Nameserver) -> None:
    nameserver.add("example.test", "MX", "10 a.test", "20 b.test", "30 a.test")
    assert names(finder(nameserver).find("example.test")) == ["a.test", "b.test"]


def test_of_too_many_servers_the_best_are_tried(nameserver: Nameserver) -> None:
    nameserver.add("example.test", "MX", *(f"{n} mx{n}.test" for n in range(50, 0, -1)))
    assert names(finder(nameserver).find("example.test")) == [f"mx{n}.test" for n in range(1, MAX_HOSTS + 1)]


def test_an_alias_of_a_domain_has_the_servers_of_that_domain(nameserver: Nameserver) -> None:
    nameserver.add("alias.test", "CNAME", "example.test")
    nameserver.add("example.test", "MX", "10 a.test")
    assert names(finder(nameserver).find("alias.test")) == ["a.test"]


def test_a_domain_beyond_ascii_is_found(nameserver: Nameserver) -> None:
    nameserver.add("xn--bcher-kva.test", "MX", "10 a.test")
    assert names(finder(nameserver).find("bücher.test")) == ["a.test"]


# domains without servers


def test_a_domain_without_mx_records_is_its_own_server(nameserver: Nameserver) -> None:
    nameserver.add("example.test", "A", "127.0.0.2")
    found = route(finder(nameserver).find("example.test"))
    assert (found.hosts, found.is_implicit) == ((MailHost("example.test", 0),), True)


def test_a_null_mx_is_final(nameserver: Nameserver) -> None:
    nameserver.add("example.test", "MX", "0 .")
    nameserver.add("example.test", "A", "127.0.0.2")
    assert refusal(finder(nameserver).find("example.test")) == (Stage.RCPT, 556, "5.1.10")


def test_a_null_mx_beside_servers_means_nothing(nameserver: Nameserver) -> None:
    nameserver.add("example.test", "MX", "0 .", "10 a.test")
    assert names(finder(nameserver).find("example.test")) == ["a.test"]


@pytest.mark.parametrize("domain", ["gone.test", "a..test", "not a domain"])
def test_a_domain_that_does_not_exist_is_final(nameserver: Nameserver, domain: str) -> None:
    assert refusal(finder(nameserver).find(domain)) == (Stage.RCPT, 550, "5.1.2")


def test_a_domain_with_neither_server_nor_address_is_final(nameserver: Nameserver) -> None:
    nameserver.add("example.test", "TXT", '"v=spf1 -all"')
    assert refusal(finder(nameserver).find("example.test")) == (Stage.RCPT, 550, "5.1.2")


def test_a_domain_with_ipv6_alone_exists_even_where_ipv6_is_not_used(nameserver: Nameserver) -> None:
    nameserver.add("example.test", "AAAA", "::1")
    finding = finder(nameserver, ipv4_only=True)
    [host] = route(finding.find("example.test")).hosts
    refused = finding.addresses(host)
    assert isinstance(refused, Reply)
    assert refused.is_transient


@pytest.mark.parametrize("rcode", ["SERVFAIL", "REFUSED"])
def test_a_nameserver_in_trouble_is_temporary(nameserver: Nameserver, rcode: str) -> None:
    nameserver.refuse("example.test", rcode)
    assert refusal(finder(nameserver).find("example.test")) == (Stage.CONNECT, 451, "4.4.3")


def test_a_domain_without_mx_records_whose_address_cannot_be_looked_up_is_temporary(nameserver: Nameserver) -> None:
    nameserver.add("example.test", "TXT", '"x"')
    nameserver.refuse("example.test", kind="AAAA")
    assert refusal(finder(nameserver).find("example.test")) == (Stage.CONNECT, 451, "4.4.3")


def test_servers_of_which_none_is_a_name_are_temporary_and_not_replaced_by_the_domain(nameserver: Nameserver) -> None:
    nameserver.add("example.test", "MX", "10 192.0.2.1")
    nameserver.add("example.test", "A", "127.0.0.2")
    assert refusal(finder(nameserver).find("example.test")) == (Stage.CONNECT, 451, "4.4.3")


def test_mail_for_localhost_is_not_sent_unless_private_addresses_are_allowed(nameserver: Nameserver) -> None:
    [host] = route(finder(nameserver, private=False).find("localhost")).hosts
    assert isinstance(finder(nameserver, private=False).addresses(host), Reply)
    assert "127.0.0.1" in places(finder(nameserver).addresses(host))


# address literals


@pytest.mark.parametrize(
    ("domain", "address"), [("[127.0.0.3]", "127.0.0.3"), ("[IPv6:::1]", "::1"), ("[ipv6:2001:DB8::1]", "2001:db8::1")]
)
def test_an_address_literal_is_its_own_server(nameserver: Nameserver, domain: str, address: str) -> None:
    found = route(finder(nameserver).find(domain))
    assert found.hosts == (MailHost(address, 0),)
    assert nameserver.count() == 0


@pytest.mark.parametrize("domain", ["[x400:a=b]", "[]", "[127.0.0.1", "[IPv6:127.0.0.1]", "[2001:db8::1]", "[IPv6:fe80::1%eth0]"])
def test_a_literal_that_is_no_address_is_final(nameserver: Nameserver, domain: str) -> None:
    assert refusal(finder(nameserver).find(domain)) == (Stage.RCPT, 550, "5.1.2")


def test_a_literal_of_a_private_address_is_refused(nameserver: Nameserver) -> None:
    finding = finder(nameserver, private=False)
    refused = finding.addresses(MailHost("10.0.0.1", 0))
    assert refused == Reply(550, "5.4.4", "10.0.0.1 has a private or special address (10.0.0.1), which no mail goes to")


# addresses of servers


def test_a_server_has_the_port_of_the_configuration(nameserver: Nameserver) -> None:
    nameserver.add("a.test", "A", "127.0.0.2")
    settings = DirectDeliveryConfig(allow_private=True, port=2525)
    finding = RouteFinder(Dns([nameserver.address], PATIENT_SECONDS), settings, lambda: (), random.Random(1))
    assert finding.addresses(MailHost("a.test", 10)) == HostAddresses(((socket.AF_INET, ("127.0.0.2", 2525)),), False)


def test_a_server_that_is_an_alias_is_tolerated(nameserver: Nameserver) -> None:
    """RFC 2181 10.3 forbids it, and it is common."""
    nameserver.add("a.test", "CNAME", "b.test")
    nameserver.add("b.test", "A", "127.0.0.2")
    assert places(finder(nameserver).addresses(MailHost("a.test", 10))) == ["127.0.0.2"]


def test_ipv6_is_left_out_where_it_is_switched_off(nameserver: Nameserver) -> None:
    nameserver.add("a.test", "A", "127.0.0.2")
    nameserver.add("a.test", "AAAA", "::1")
    assert places(finder(nameserver, ipv4_only=True).addresses(MailHost("a.test", 10))) == ["127.0.0.2"]
    assert nameserver.count("a.test", "AAAA") == 0


def test_ipv6_comes_first_where_the_machine_has_a_way_to_it_and_not_at_all_where_it_has_none(nameserver: Nameserver) -> None:
    nameserver.add("a.test", "A", "127.0.0.2")
    nameserver.add("a.test", "AAAA", "::1", "2001:db8::1")
    expected = [*(address for address in ("::1", "2001:db8::1") if can_reach(IPv6Address(address))), "127.0.0.2"]
    found = places(finder(nameserver).addresses(MailHost("a.test", 10)))
    assert sorted(found) == sorted(expected)
    assert (":" in found[0]) == (len(expected) > 1)


def test_ipv6_that_stands_for_ipv4_is_taken_as_what_it_is(nameserver: Nameserver) -> None:
    nameserver.add("a.test", "AAAA", "::ffff:127.0.0.2")
    assert places(finder(nameserver).addresses(MailHost("a.test", 10))) == ["127.0.0.2"]
    looping = finder(nameserver, listens_on=(("127.0.0.2", 25),)).addresses(MailHost("a.test", 10))
    assert isinstance(looping, Reply)
    assert looping.enhanced == "5.4.6"


def test_no_more_addresses_are_tried_than_anybody_needs(nameserver: Nameserver) -> None:
    nameserver.add("a.test", "A", *(f"127.0.1.{n}" for n in range(1, 60)))
    assert len(places(finder(nameserver).addresses(MailHost("a.test", 10)))) == MAX_ADDRESSES


def test_many_addresses_of_one_family_leave_room_to_the_other(nameserver: Nameserver) -> None:
    if not can_reach(IPv6Address("fd00::1")):
        pytest.skip("this machine has no IPv6 but loopback")
    nameserver.add("a.test", "AAAA", *(f"fd00::{n:x}" for n in range(1, 20)))
    nameserver.add("a.test", "A", "127.0.0.2")
    assert places(finder(nameserver).addresses(MailHost("a.test", 10)))[1] == "127.0.0.2"


def test_a_private_address_is_not_used_unless_it_is_allowed(nameserver: Nameserver) -> None:
    nameserver.add("a.test", "A", "10.0.0.1", PUBLIC)
    nameserver.add("b.test", "A", "10.0.0.1")
    strict = finder(nameserver, private=False)
    assert places(strict.addresses(MailHost("a.test", 10))) == [PUBLIC]
    refused = strict.addresses(MailHost("b.test", 10))
    assert isinstance(refused, Reply)
    assert (refused.code, refused.enhanced) == (550, "5.4.4")
    assert places(finder(nameserver).addresses(MailHost("b.test", 10))) == ["10.0.0.1"]


def test_a_server_without_an_address_is_told_from_one_that_cannot_be_looked_up(nameserver: Nameserver) -> None:
    nameserver.refuse("broken.test")
    finding = finder(nameserver)
    gone, broken = finding.addresses(MailHost("gone.test", 10)), finding.addresses(MailHost("broken.test", 10))
    assert isinstance(gone, Reply)
    assert isinstance(broken, Reply)
    assert (gone.code, gone.enhanced) == (550, "5.4.4")
    assert (broken.code, broken.enhanced) == (451, "4.4.3")


def test_one_family_that_cannot_be_looked_up_does_not_hide_the_other(nameserver: Nameserver) -> None:
    nameserver.add("a.test", "A", "127.0.0.2")
    nameserver.refuse("a.test", kind="AAAA")
    assert places(finder(nameserver).addresses(MailHost("a.test", 10))) == ["127.0.0.2"]


def test_a_server_is_authentic_where_all_that_is_known_of_it_is() -> None:
    with Nameserver({"a.test": {"A": "127.0.0.2"}, "example.test": {"MX": "10 a.test"}}, vouches=True) as validating:
        finding = finder(validating)
        found = finding.addresses(MailHost("a.test", 10))
        assert isinstance(found, HostAddresses)
        assert found.is_authentic
        assert route(finding.find("example.test")).is_authentic


# loops


def test_a_server_that_is_this_one_is_dropped_with_all_of_equal_or_worse_preference(nameserver: Nameserver) -> None:
    nameserver.add("example.test", "MX", "10 better.test", "20 here.test", "20 equal.test", "30 worse.test")
    nameserver.add("here.test", "A", "127.0.0.5")
    for name in ("better.test", "equal.test", "worse.test"):
        nameserver.add(name, "A", "127.0.0.6")
    for seed in range(4):
        finding = finder(nameserver, listens_on=(("127.0.0.5", 25),), seed=seed)
        assert names(finding.find("example.test")) == ["better.test"]


def test_mail_for_a_domain_whose_best_server_is_this_one_is_returned(nameserver: Nameserver) -> None:
    nameserver.add("example.test", "MX", "10 here.test", "20 other.test")
    nameserver.add("here.test", "A", "127.0.0.5")
    nameserver.add("other.test", "A", "127.0.0.6")
    assert refusal(finder(nameserver, listens_on=(("127.0.0.5", 25),)).find("example.test")) == (Stage.RCPT, 554, "5.4.6")


def test_a_listener_on_all_addresses_is_met_at_each_of_them(nameserver: Nameserver) -> None:
    nameserver.add("example.test", "MX", "10 here.test")
    nameserver.add("here.test", "A", "127.0.0.77")
    assert refusal(finder(nameserver, listens_on=(("0.0.0.0", 25),)).find("example.test"))[2] == "5.4.6"
    assert names(finder(nameserver, listens_on=(("0.0.0.0", 2525),)).find("example.test")) == ["here.test"]


def test_nothing_is_looked_up_for_loops_where_no_listener_can_be_met(nameserver: Nameserver) -> None:
    nameserver.add("example.test", "MX", "10 here.test")
    finder(nameserver, listens_on=(("127.0.0.1", 2525),)).find("example.test")
    finder(nameserver, listens_on=(("127.0.0.1", 25), ("::1", 25)), private=False).find("example.test")
    assert nameserver.count(kind="MX") == nameserver.count() == 2
