from __future__ import annotations

import ipaddress
import socket

import pytest

from mailer.dns.places import can_reach, is_here, is_public, parse_ip


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8",
        "2001:4860:4860::8888",
        "::ffff:8.8.8.8",
        "64:ff9b::8.8.8.8",
        "2002:808:808::1",  # 6to4 of 8.8.8.8
    ],
)
def test_what_anybody_can_reach_is_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "0.1.2.3",
        "192.0.2.1",
        "198.18.0.1",
        "224.0.0.1",
        "239.1.1.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::10.0.0.1",
        "64:ff9b::127.0.0.1",
        "64:ff9b:1::8.8.8.8",
        "2002:7f00:1::1",
        "2002:a00:1::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "2001:db8::1",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "fc00::1",
        "fd12:3456::1",
        "ff02::1",
        "ff0e::1",
    ],
)
def test_what_is_private_special_or_hidden_in_ipv6_is_not(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


def test_the_machine_knows_its_own_addresses() -> None:
    assert is_here(ipaddress.ip_address("127.0.0.1"))
    assert is_here(ipaddress.ip_address("127.0.0.7"))
    assert is_here(ipaddress.ip_address("::1"))
    assert not is_here(ipaddress.ip_address("192.0.2.1"))
    assert not is_here(ipaddress.ip_address("2001:db8::1"))


def test_an_address_of_an_interface_is_here() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.41.0.4", 9))
        except OSError:
            pytest.skip("this machine has no interface but loopback")
        assert is_here(ipaddress.ip_address(probe.getsockname()[0]))


def test_loopback_can_be_reached_from_loopback() -> None:
    assert can_reach(ipaddress.ip_address("127.0.0.1"))


def test_what_is_no_ip_address_is_none() -> None:
    assert parse_ip("mx.test") is None
    assert parse_ip("192.0.2.1") == ipaddress.ip_address("192.0.2.1")
