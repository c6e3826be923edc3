"""What an IP address means: whether mail may go there, whether it is this machine, whether the machine has a way to it.

Pure but for the kernel's routing table, which is asked with datagram sockets that never send. No threads, no locks.
"""

from __future__ import annotations

import ipaddress
import socket

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

A_PUBLIC_IPV6 = ipaddress.IPv6Address("2001:7fe::53")  # a root server: stands for all of the Internet, and hears nothing

NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052 2.1: the last 32 bits are an IPv4 address
NEVER_PUBLIC = (
    ipaddress.IPv6Network("::/96"),  # IPv4-compatible (RFC 4291 2.5.5.1), and with it :: and ::1
    ipaddress.IPv6Network("64:ff9b:1::/48"),  # NAT64 within a network (RFC 8215)
    ipaddress.IPv6Network("2001::/32"),  # Teredo: leads to whatever IPv4 address is hidden in it
    ipaddress.IPv6Network("fec0::/10"),  # site-local (RFC 3879)
)


def parse_ip(text: str) -> IpAddress | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def unmapped(address: IpAddress) -> IpAddress:
    """The IPv4 address that an IPv4-mapped one stands for (RFC 4291 2.5.5.2), which is where packets to it go."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def is_public(address: IpAddress) -> bool:
    """Whether anybody's mail server may stand there; IPv6 that leads to an IPv4 address is judged by that."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour  # RFC 3056 2
        if address in NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if any(address in network for network in NEVER_PUBLIC):
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved)


def can_reach(address: IpAddress) -> bool:
    """Whether the machine has a route to ``address``; to a public one, whether it has a public address itself to come from:
    with a link-local or private one alone, packets leave and no answer ever comes back."""
    source = _source_for(address)
    return source is not None and (is_public(source) or not is_public(address))


def _source_for(address: IpAddress) -> IpAddress | None:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), 9))  # chooses route and source; a datagram socket sends nothing for it
            return parse_ip(probe.getsockname()[0].partition("%")[0])
    except OSError:
        return None


def is_here(address: IpAddress) -> bool:
    """Whether ``address`` is one of this machine's: then packets to it come from it. (Binding to it would ask the same, but
    says yes to every address where ``ip_nonlocal_bind`` is set.)"""
    return address.is_loopback or _source_for(address) == address
