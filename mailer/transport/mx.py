"""Which servers take the mail of a domain, in which order, and where they are (RFC 5321 5.1, RFC 7505).

No threads and no lock of its own: any thread may ask, and waits for DNS in it (dns/lookup.py). What DNS says is a value: a Route,
or a Verdict that says why there is none, and Replies for hosts that may not be used. Nothing is sent to find out whether
this machine has IPv6 or is the one that an address belongs to: the kernel's routes say both.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

from mailer.config.sections import DirectDeliveryConfig
from mailer.dns.lookup import Answer, Dns, Status
from mailer.dns.places import A_PUBLIC_IPV6, IpAddress, can_reach, is_here, is_public, parse_ip, unmapped
from mailer.mail.outcome import Reply, Stage, Verdict
from mailer.transport.dial import SocketAddress, interleaved

MAX_HOSTS = 10  # of one domain; the best of more
MAX_ADDRESSES = 8  # of one host

FAMILIES = (socket.AF_INET6, socket.AF_INET)
NULL_MX = ""


class MailHost(NamedTuple):
    """A mail server's name, or its address where the domain was an address literal."""

    name: str
    preference: int


class Route(NamedTuple):
    """``hosts`` in the order to try. ``is_authentic``: a validating resolver vouches for them. ``is_implicit``: the domain
    names no mail server, and is its own."""

    domain: str
    hosts: tuple[MailHost, ...]
    is_authentic: bool
    is_implicit: bool


class HostAddresses(NamedTuple):
    addresses: tuple[SocketAddress, ...]
    is_authentic: bool


class RouteFinder:
    """``listens_on``: the addresses and ports of this program's own listeners. ``draw``: for the order among equals."""

    def __init__(
        self,
        dns: Dns,
        settings: DirectDeliveryConfig,
        listens_on: Callable[[], Collection[tuple[str, int]]],
        draw: random.Random,
    ) -> None:
        self._dns = dns
        self._settings = settings
        self._listens_on = listens_on
        self._draw = draw

    def find(self, domain: str) -> Route | Verdict:
        """The way to ``domain``, or why there is none: at Stage.RCPT it is final, at Stage.CONNECT it may come back."""
        if domain.startswith("["):
            return self._without_loop(_literal_route(domain))
        said = self._dns.mx(domain)
        if said.status is Status.FAILED:
            return _try_later(f"mail servers of {domain} cannot be found: {said.why}")
        if said.status is not Status.FOUND:
            return self._implicit(domain, said)
        if {host for _, host in said.records} == {NULL_MX}:
            return _final(556, "5.1.10", f"{domain} accepts no mail (null MX)")  # RFC 7505 3, 4.2
        hosts = self._in_order((preference, host) for preference, host in said.records if host != NULL_MX)
        if not hosts:
            return _try_later(f"{domain} names no usable mail server")
        return self._without_loop(Route(domain, hosts, said.is_authentic, False))

    def addresses(self, host: MailHost) -> HostAddresses | Reply:
        """Where ``host`` is, the family to try first in front; or why it may not be used."""
        literal = parse_ip(host.name)
        if literal is not None:
            return self._usable(host.name, [literal], False)
        answers = [self._dns.addresses(host.name, family) for family in self._families()]
        if not any(answer.records for answer in answers) and len(answers) < len(FAMILIES):
            answers.append(self._dns.addresses(host.name, socket.AF_INET6))  # to know what is the matter with it
        found = [address for answer in answers for text in answer.records if (address := parse_ip(text)) is not None]
        if found:
            return self._usable(host.name, found, all(answer.is_authentic for answer in answers))
        failed = next((answer for answer in answers if answer.status is Status.FAILED), None)
        if failed is not None:
            return Reply.received(451, f"4.4.3 address of {host.name} cannot be found: {failed.why}")
        return Reply(550, "5.4.4", f"{host.name} has no address")

    def _implicit(self, domain: str, said: Answer[tuple[int, str]]) -> Route | Verdict:
        """RFC 5321 5.1: a domain without MX records that has an address is its own mail server."""
        answers = [self._dns.addresses(domain, family) for family in FAMILIES]
        if any(answer.status is Status.FOUND for answer in answers):
            return self._without_loop(Route(domain, (MailHost(said.name, 0),), said.is_authentic, True))
        for answer in answers:
            if answer.status is Status.FAILED:
                return _try_later(f"address of {domain} cannot be found: {answer.why}")
        if said.status is Status.NO_SUCH_NAME:
            return _final(550, "5.1.2", f"domain {domain} does not exist")
        return _final(550, "5.1.2", f"domain {domain} has neither a mail server nor an address")

    def _in_order(self, records: Iterable[tuple[int, str]]) -> tuple[MailHost, ...]:
        """The best hosts by preference, equals in random order (RFC 5321 5.1), each once."""
        best: dict[str, int] = {}
        for preference, host in records:
            best[host] = min(preference, best.get(host, preference))
        hosts = [MailHost(name, preference) for name, preference in best.items()]
        self._draw.shuffle(hosts)
        hosts.sort(key=lambda host: host.preference)
        return tuple(hosts[:MAX_HOSTS])

    def _families(self) -> Sequence[socket.AddressFamily]:
        if self._settings.ipv4_only or not (self._settings.allow_private or can_reach(A_PUBLIC_IPV6)):
            return (socket.AF_INET,)
        return FAMILIES

    def _usable(self, name: str, found: Sequence[IpAddress], is_authentic: bool) -> HostAddresses | Reply:
        """Those of the addresses found that mail may go to."""
        port = self._settings.port
        allowed = [address for address in map(unmapped, found) if self._settings.allow_private or is_public(address)]
        if not allowed:
            return Reply(550, "5.4.4", f"{name} has a private or special address ({found[0]}), which no mail goes to")
        strangers = [address for address in allowed if not self._is_own(address)]
        if not strangers:
            return Reply(554, "5.4.6", f"{name} ({allowed[0]} port {port}) is this server itself")
        within_reach = [a for a in strangers if not (a.version == 6 and (self._settings.ipv4_only or not can_reach(a)))]
        if not within_reach:
            return Reply(451, "4.4.4", f"{name} has IPv6 addresses only, and IPv6 is not to be had here")
        # Families in turn before the rest is cut off, so that many of one leave room to the other.
        places = interleaved([_socket_address(address, port) for address in within_reach])
        return HostAddresses(tuple(places[:MAX_ADDRESSES]), is_authentic)

    def _without_loop(self, route: Route | Verdict) -> Route | Verdict:
        """``route`` up to the host that is this program itself: with that one all of equal or worse preference are dropped,
        since they would only send the mail back here (RFC 5321 5.1)."""
        if isinstance(route, Verdict) or not self._may_loop():
            return route
        for host in route.hosts:
            found = self.addresses(host)
            if isinstance(found, Reply) and found.enhanced == "5.4.6":
                better = tuple(other for other in route.hosts if other.preference < host.preference)
                if not better:
                    return _final(554, "5.4.6", f"mail for {route.domain} loops back: {found.text}")
                return route._replace(hosts=better)
        return route

    def _may_loop(self) -> bool:
        """Whether any listener can be met at all: otherwise nothing needs to be looked up for it."""
        for text, port in self._listens_on():
            address = parse_ip(text)
            is_out_of_reach = address is not None and address.is_loopback and not self._settings.allow_private
            if port == self._settings.port and not is_out_of_reach:
                return True
        return False

    def _is_own(self, address: IpAddress) -> bool:
        for text, port in self._listens_on():
            listener = parse_ip(text)
            if port != self._settings.port:
                continue
            if address == listener or ((listener is None or listener.is_unspecified) and is_here(address)):
                return True
        return False


def _literal_route(domain: str) -> Route | Verdict:
    """RFC 5321 4.1.3: ``[192.0.2.1]`` or ``[IPv6:2001:db8::1]``."""
    inner = domain[1:-1] if domain.endswith("]") else ""
    is_tagged = inner[:5].lower() == "ipv6:"
    address = parse_ip(inner[5:] if is_tagged else inner)
    if address is None or address.version != (6 if is_tagged else 4) or "%" in inner:
        return _final(550, "5.1.2", f"{domain} is not an address that mail can be sent to")
    return Route(domain, (MailHost(str(address), 0),), False, True)


def _socket_address(address: IpAddress, port: int) -> SocketAddress:
    if address.version == 4:
        return socket.AF_INET, (str(address), port)
    return socket.AF_INET6, (str(address), port, 0, 0)


def _final(code: int, enhanced: str, text: str) -> Verdict:
    return Verdict(Stage.RCPT, Reply(code, enhanced, text))


def _try_later(text: str) -> Verdict:
    return Verdict(Stage.CONNECT, Reply.received(451, f"4.4.3 {text}"))
