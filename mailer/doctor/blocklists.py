"""Whether our addresses stand on public lists of senders of unwanted mail (RFC 5782): asked only where that was wished for,
since each question tells the list's owner who asks.

No threads, no locks; asks DNS. Never fails.
"""

from __future__ import annotations

import ipaddress
import socket

from mailer.dns.lookup import Status
from mailer.dns.places import IpAddress, is_public
from mailer.doctor.case import Case
from mailer.doctor.finding import Finding, failed, ok, warning, worst_of
from mailer.doctor.names import CHECK_NAMESERVERS

LISTS = ("zen.spamhaus.org", "bl.spamcop.net", "b.barracudacentral.org", "psbl.surriel.com")
"""Those that many receivers ask."""

_REFUSALS = ipaddress.ip_network("127.255.255.0/24")  # Spamhaus: the question came through a resolver that it does not serve
_LISTED = ipaddress.ip_network("127.0.0.0/8")  # RFC 5782 2.1


def dnsbl(case: Case) -> Finding:
    public = [address for address in case.addresses if case.has_given_addresses or is_public(address)]
    if not public:
        return warning("no public address of this machine is known", "name it: mailer doctor --dnsbl --address …")
    return worst_of(_listed(case, address, zone) for address in public for zone in LISTS)


def _listed(case: Case, address: IpAddress, zone: str) -> Finding:
    name = f"{address.reverse_pointer.removesuffix('.in-addr.arpa').removesuffix('.ip6.arpa')}.{zone}"
    answer = case.dns.addresses(name, socket.AF_INET)
    if answer.status is Status.FAILED:
        return warning(f"{zone}: {answer.why}", CHECK_NAMESERVERS)
    codes = [ipaddress.ip_address(code) for code in answer.records]
    if any(code in _REFUSALS for code in codes):
        return warning(f"{zone} does not answer the resolver that is asked", "ask through one of your own (dns.nameservers)")
    if any(code in _LISTED for code in codes):
        why = " ".join(case.dns.txt(name).records[:1])
        return failed(f"{address} is listed at {zone}: {why or 'no reason given'}", f"end the cause, then ask {zone} for removal")
    return ok(f"{address} is on none of {', '.join(LISTS)}")
