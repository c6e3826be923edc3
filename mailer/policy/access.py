"""Who may connect: decides by the peer's address alone, before anything is read (spec 2, ``security``).

No threads, no locks: an ``Access`` is a value. An address that cannot be read is not admitted.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Access:
    """Loopback peers always; those in ``networks``; and anybody only where neither rule was set.

    ``networks`` narrows even without ``local_only``: a list of trusted networks that trusted everybody else as well
    would make an open relay of a listener without a login.
    """

    local_only: bool
    networks: tuple[Network, ...] = ()

    def admits(self, address: str) -> bool:
        """Whether a peer with this IP address may speak to us."""
        if is_loopback(address):
            return True
        if not self.networks:
            return not self.local_only
        ip = _parse(address)
        return ip is not None and any(ip.version == network.version and ip in network for network in self.networks)


def is_loopback(address: str) -> bool:
    """Whether the peer is this machine, over the loopback interface: 127.0.0.0/8 or ::1."""
    if address in ("127.0.0.1", "::1"):
        return True
    ip = _parse(address)
    return ip is not None and ip.is_loopback


def plain_address(address: str) -> str:
    """The address as it is compared, counted and logged: an IPv4 peer of an IPv6 socket loses its ``::ffff:``."""
    if ":" not in address:
        return address
    ip = _parse(address)
    return str(ip) if ip is not None else address


def _parse(address: str) -> _IPAddress | None:
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])  # fe80::1%eth0: the zone is this machine's own business
    except ValueError:
        return None
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    return ip
