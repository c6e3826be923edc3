"""What the names in DNS say about the domain and this machine: where mail for it goes, and whether our address is who we say.

No threads, no locks; asks DNS. Never fails: what DNS does not say is a finding.
"""

from __future__ import annotations

import ipaddress
import socket

from mailer.dns.lookup import Answer, Dns, Status
from mailer.dns.places import IpAddress, is_public
from mailer.doctor.case import Case
from mailer.doctor.finding import Finding, failed, ok, warning, worst_of

MAX_HOSTS = 10  # of a domain that are looked up
MAX_NAMES = 10  # of an address that are looked up
CHECK_NAMESERVERS = "check dns.nameservers, or /etc/resolv.conf, and the domain's own nameservers"


def mx(case: Case) -> Finding:
    """Whether replies and reports find their way back, and whether the domain says that it has mail at all."""
    domain = case.domain
    answer = case.dns.mx(domain)
    if answer.status is Status.FAILED:
        return failed(f"{domain}: {answer.why}", CHECK_NAMESERVERS)
    if answer.status is Status.NO_SUCH_NAME:
        return failed(f"{domain} does not exist in DNS", "check its spelling and whether it is still registered")
    hosts = sorted(answer.records)
    if any(not host for _, host in hosts):
        if len(hosts) > 1:  # RFC 7505 3: no other record may stand beside it
            return failed(f"{domain} has a null MX beside other MX records", "remove the one whose host is a dot")
        text = f"{domain} has a null MX: it takes no mail, and many servers refuse mail from it (RFC 7505 4.2)"
        return failed(text, "publish the MX of your mail server, or send from another domain")
    if not hosts:
        if addresses_of(case.dns, domain):
            return warning(f"{domain} has no MX; mail for it goes to its own address", "publish an MX that names the mail server")
        return failed(f"{domain} has neither MX nor address: no reply can reach it", "publish an MX record")
    dead = [host for _, host in hosts[:MAX_HOSTS] if not addresses_of(case.dns, host)]
    shown = ", ".join(f"{host} ({preference})" for preference, host in hosts[:MAX_HOSTS])
    if dead:
        judge = failed if len(dead) == len(hosts) else warning
        return judge(f"{domain}: no address for {', '.join(dead)}", "publish A or AAAA for it, or take it out of the MX records")
    return ok(f"{domain}: {shown}")


def ptr(case: Case) -> Finding:
    """Whether each of our addresses has a name that leads back to it, and whether EHLO says that name (RFC 1912 2.1)."""
    if not case.addresses:
        return failed("this machine has no way to the internet", "set up its network, or name its public address with --address")
    name = case.ehlo_name
    if name.startswith("[") or "." not in name:
        to_do = "set directDelivery.ehloDomain (or hostname) to the name of this machine's public address"
        return failed(f"EHLO says {name}, which is no full name", to_do)
    return worst_of(_named(case, address, name) for address in case.addresses)


def _named(case: Case, address: IpAddress, ehlo: str) -> Finding:
    if not case.has_given_addresses and not is_public(address):
        return warning(f"{address} is private, so others see another address", "name the public one: mailer doctor --address …")
    answer = case.dns.ptr(str(address))
    if answer.status is Status.FAILED:
        return failed(f"{address}: {answer.why}", CHECK_NAMESERVERS)
    names = answer.records[:MAX_NAMES]
    if not names:
        to_do = f"let whoever gives you the address set its PTR to {ehlo}: many servers refuse mail from an address without"
        return failed(f"{address} has no name (PTR)", to_do)
    confirmed = [name for name in names if leads_to(case.dns, name, address)]
    if not confirmed:
        to_do = f"publish an address record for {names[0]}, or have the PTR set to {ehlo}"
        return failed(f"{address} is called {names[0]}, which does not lead back to it", to_do)
    if ehlo.lower().rstrip(".") in confirmed:
        return ok(f"{address} is {ehlo}, there and back, and EHLO says so")
    if leads_to(case.dns, ehlo, address):
        to_do = f"set directDelivery.ehloDomain to {confirmed[0]}, or have the PTR set to {ehlo}"
        return warning(f"{address} is called {confirmed[0]}, but EHLO says {ehlo}", to_do)
    to_do = f"set directDelivery.ehloDomain to {confirmed[0]}, or publish the address for {ehlo}"
    return failed(f"EHLO says {ehlo}, which does not lead to {address}", to_do)


def leads_to(dns: Dns, name: str, address: IpAddress) -> bool:
    """Whether ``name`` has ``address`` in DNS."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    return any(ipaddress.ip_address(found) == address for found in dns.addresses(name, family).records)


def addresses_of(dns: Dns, name: str) -> tuple[str, ...]:
    """The addresses of a host, IPv4 first."""
    answers: list[Answer[str]] = [dns.addresses(name, family) for family in (socket.AF_INET, socket.AF_INET6)]
    return tuple(address for answer in answers for address in answer.records)
