"""Which addresses our mail comes from: those that this machine's packets towards the internet carry.

No threads, no locks; never fails. Connecting a datagram socket sends nothing: the kernel only looks its routes up.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket

from mailer.dns.places import IpAddress, is_public

_ELSEWHERE = ((socket.AF_INET, "198.41.0.4"), (socket.AF_INET6, "2001:503:ba3e::2:30"))
"""Addresses that are surely on the internet: those of a.root-servers.net."""


def own_addresses(ipv4_only: bool) -> tuple[IpAddress, ...]:
    """The source address for each family that has a way out; empty on a machine without a network."""
    found: list[IpAddress] = []
    for family, elsewhere in _ELSEWHERE:
        if family is socket.AF_INET6 and ipv4_only:
            continue
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as asking:
            asking.connect((elsewhere, 53))
            source = ipaddress.ip_address(asking.getsockname()[0].partition("%")[0])
            if source.version == 4 or is_public(source):  # private IPv4 is behind NAT; private IPv6 has no way out (places.py)
                found.append(source)
    return tuple(found)
