"""Who may connect."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailer.policy.access import Access, Network, is_loopback, plain_address


def networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.255.0.9", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("access", [Access(True), Access(False), Access(True, networks("10.0.0.0/8"))])
def test_loopback_is_always_admitted(address: str, access: Access) -> None:
    assert is_loopback(address)
    assert access.admits(address)


@pytest.mark.parametrize(
    "address", ["10.0.0.1", "192.168.0.1", "128.0.0.1", "::2", "::ffff:10.0.0.1", "fe80::1%eth0", "0.0.0.0", "::"]
)
def test_nobody_else_is_admitted_where_only_loopback_is(address: str) -> None:
    assert not is_loopback(address)
    assert not Access(True).admits(address)
    assert Access(False).admits(address)


def test_networks_are_admitted_and_nobody_beyond_them() -> None:
    for local_only in (True, False):
        access = Access(local_only, networks("10.1.0.0/16", "2001:db8::/32"))
        for inside in ("10.1.2.3", "::ffff:10.1.2.3", "2001:db8::7"):
            assert access.admits(inside)
        for outside in ("10.2.0.1", "2001:db9::7", "::ffff:10.2.0.1", "203.0.113.1"):
            assert not access.admits(outside)


@given(st.text(max_size=40))
def test_what_is_no_address_is_not_admitted(text: str) -> None:
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        assert not Access(True, networks("0.0.0.0/0", "::/0")).admits(text)
        assert not is_loopback(text)


def test_an_ipv4_peer_of_an_ipv6_socket_has_its_own_address() -> None:
    assert plain_address("::ffff:192.0.2.7") == "192.0.2.7"
    assert plain_address("2001:db8::7") == "2001:db8::7"
    assert plain_address("192.0.2.7") == "192.0.2.7"
    assert plain_address("nonsense:") == "nonsense:"
