"""What TLS the recipients' servers must have: the user's word, DANE (RFC 7672), MTA-STS (RFC 8461), else opportunistic.

``Policies`` is asked once for a domain, the ``DomainPolicy`` once for each of its hosts, and a ``HostPolicy`` brings it about
(tls_session.py). DANE comes before MTA-STS (RFC 8461 2), and holds only what a validating resolver vouches for: the route,
the host's addresses and its TLSA records. A host whose TLSA records cannot be had is not used, since whoever can suppress
them can also stand in between (RFC 7672 2.1).

Any thread may ask; DNS and fetches are waited for in it. No lock of its own: what is configured is one value, replaced whole.
Fails with nothing: a host that must not be used is a Reply.
"""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable
from typing import NamedTuple

from mailer.config.schema import Config
from mailer.dns.lookup import Answer, Dns, Status, Tlsa
from mailer.dns.places import parse_ip
from mailer.mail.outcome import Reply
from mailer.transport import tlsa
from mailer.transport.https import PORT, Https
from mailer.transport.mx import MailHost, Route
from mailer.transport.sts import Mode, StsPolicy
from mailer.transport.sts_cache import STEP_SECONDS, StsCache
from mailer.transport.tls import Policy, TrustStore
from mailer.transport.tls_reporter import TlsReporter
from mailer.transport.tls_session import HostPolicy, Level
from mailer.transport.tlsrpt import Detail, PolicyName, Result, Tally
from mailer.transport.trust import Trust

__all__ = ["DomainPolicy", "HostPolicy", "Level", "Policies"]

SAVE_SECONDS = 60.0  # between records of what was counted: a crash forgets so much

_WANTED = {
    Policy.NONE: Level.CLEAR,
    Policy.OPPORTUNISTIC: Level.OPPORTUNISTIC,
    Policy.REQUIRED: Level.ENCRYPTED,
    Policy.VERIFIED: Level.VERIFIED,
}


_UNPROVEN = Reply(550, "5.7.30", "REQUIRETLS, and neither DNSSEC nor MTA-STS vouches for the domain's mail servers")
"""RFC 8689 8.2: whoever can forge MX records can lead to a server with a good certificate of its own."""


class _Settings(NamedTuple):
    dns: Dns
    port: int
    skips_verify: bool


class Policies:
    """The TLS policies of all domains. ``https_port``: where policies are fetched from; another than 443 in tests."""

    def __init__(
        self,
        config: Config,
        dns: Dns,
        trust_store: TrustStore,
        clock: Callable[[], float] = time.time,
        https_port: int = PORT,
    ) -> None:
        self.trust = Trust(trust_store)
        self.https = Https(self.addresses, trust_store, https_port)
        spool = config.data_dir / "spool"
        self.sts = StsCache(spool / "sts", self.txt, self.https, clock)
        self.tally = Tally(spool / "tlsrpt.json", clock)
        self.reporter = TlsReporter(self.tally, self.txt, self.https, random.Random())  # noqa: S311 - no secret
        self._sts_due = 0.0  # of the thread that calls ``step``
        self.sts.load()
        self.tally.load()
        self.configure(config, dns)

    def __repr__(self) -> str:
        return f"Policies({self.sts!r}, {self.tally!r})"

    def configure(self, config: Config, dns: Dns) -> None:
        """Take on a configuration with its DNS, and read the trust store anew."""
        direct = config.direct_delivery
        self._settings = _Settings(dns, direct.port, direct.insecure_skip_verify)
        self.sts.allow_private = direct.allow_private
        self.reporter.configure(config)
        self.trust.forget()

    def of(self, route: Route, require_tls: bool, wanted: Policy = Policy.OPPORTUNISTIC) -> DomainPolicy:
        """What holds for the servers of ``route``. ``wanted``: the user's ``tls`` for the domain; ``"none"`` overrides what the
        domain asks, the others add to it. ``require_tls`` overrides them all (RFC 8689 4.2.1). May ask DNS and fetch."""
        least = Level.VERIFIED if require_tls else _WANTED[wanted]
        if least is Level.CLEAR or route.domain.startswith("["):
            return DomainPolicy(self, route, _Asked(least), None)
        found = self.sts.find(route.domain)
        if found.failure is not None:
            self.tally.failure(PolicyName(route.domain, "sts"), Detail(found.failure, reason=found.why))
        unproven = None
        if require_tls and not route.is_authentic:
            unproven = _UNPROVEN if found.failure is None else Reply(451, "4.7.5", f"{_UNPROVEN.text}: {found.why}")
        return DomainPolicy(self, route, _Asked(least, unproven=unproven), found.policy)

    def of_report(self, route: Route) -> DomainPolicy:
        """For a report about TLS: it is delivered despite what it tells of, and its session is not told of (RFC 8460 3)."""
        return DomainPolicy(self, route, _Asked(Level.OPPORTUNISTIC, is_report=True), None)

    @property
    def skips_verify(self) -> bool:
        return self._settings.skips_verify

    # care

    def step(self, now: float) -> float:
        """Keep policies fresh, send what reports are due, and write down what was counted. Returns seconds until the next
        look."""
        if not 0 < self._sts_due - now <= STEP_SECONDS:
            self._sts_due = now + self.sts.step(now)
        wait = self.reporter.step(now)
        self.tally.save()
        return min(SAVE_SECONDS, wait)

    def close(self) -> None:
        """Write down what was counted."""
        self.tally.save()

    # what DNS says now

    def txt(self, name: str) -> Answer[str]:
        return self._settings.dns.txt(name)

    def tlsa(self, host: str) -> Answer[Tlsa]:
        """The TLSA records of a mail host (RFC 7672 2.2.3)."""
        return self._settings.dns.tlsa(f"_{self._settings.port}._tcp.{host}")

    def canonical(self, host: str) -> str:
        """The name that ``host`` is an alias of, or its own. It was asked for its addresses before, so DNS remembers."""
        return self._settings.dns.addresses(host, socket.AF_INET).name

    def addresses(self, host: str) -> list[str]:
        """All addresses of a host, IPv4 first: a web server that is there by IPv6 alone is rare, broken IPv6 is not."""
        families = (socket.AF_INET, socket.AF_INET6)
        return [address for family in families for address in self._settings.dns.addresses(host, family).records]


class _Asked(NamedTuple):
    """What the user or the message asks for. ``is_report``: no policy binds it, and nothing is counted. ``unproven``: why a
    server is not used that no policy of the domain names, if it is not."""

    least: Level
    is_report: bool = False
    unproven: Reply | None = None


class DomainPolicy:
    """What holds for one domain, for one delivery. ``sts``: what the domain asks for."""

    def __init__(self, policies: Policies, route: Route, asked: _Asked, sts: StsPolicy | None) -> None:
        self._policies = policies
        self._route = route
        self._least = asked.least
        self._is_report = asked.is_report
        self._unproven = asked.unproven
        self._sts = sts if sts is not None and sts.mode is not Mode.NONE else None

    def __repr__(self) -> str:
        return f"DomainPolicy({self._route.domain}, least={self._least.name}, sts={self._sts})"

    def of_host(self, host: MailHost, host_is_authentic: bool) -> HostPolicy | Reply:
        """What holds for one of its hosts; a Reply where the host must not be used. May ask DNS."""
        least = self._least
        if least is Level.CLEAR or self._is_report:
            return self._session(host, least, least)
        is_name = parse_ip(host.name) is None
        if self._route.is_authentic and host_is_authentic and is_name and tlsa.is_available():
            # RFC 7672 2.2.2: where the host is an alias, the records of the name that it stands for come first.
            for base in dict.fromkeys((self._policies.canonical(host.name), host.name)):
                answer = self._policies.tlsa(base)
                if answer.status is Status.FAILED:  # RFC 7672 2.1.2
                    self._count(PolicyName(self._route.domain, "tlsa"), Result.DNSSEC_INVALID, host, answer.why)
                    return Reply(451, "4.7.5", f"TLSA records of {base} cannot be had, so it is not used: {answer.why}")
                if answer.status is Status.FOUND and answer.is_authentic:
                    return self._by_dane(host._replace(name=base), host, answer)
        return self._by_sts(host, least)

    def _by_dane(self, base: MailHost, host: MailHost, answer: Answer[Tlsa]) -> HostPolicy | Reply:
        """``base``: under the name that the records are at."""
        domain = self._route.domain
        records = tlsa.usable(answer.records)
        if not records:  # RFC 7672 2.2: then TLS is a must, and no certificate can be asked for
            self._count(PolicyName(domain, "tlsa"), Result.TLSA_INVALID, host, "no TLSA record is usable")
            return self._by_sts(host, max(self._least, Level.ENCRYPTED))
        name = PolicyName(domain, "tlsa", tuple(map(tlsa.to_text, records)))
        policy = self._session(base, Level.DANE, Level.DANE, name, f"DANE of {base.name}")
        # RFC 7672 3.2.2: the route is authentic, so the name of the domain serves as well as the host's.
        return policy.with_records(records, tuple(dict.fromkeys((base.name, host.name, domain))))

    def _by_sts(self, host: MailHost, least: Level) -> HostPolicy | Reply:
        sts, domain = self._sts, self._route.domain
        if self._unproven is not None and (sts is None or not sts.allows(host.name)):
            return self._unproven
        if sts is None:
            return self._session(host, least, least, why="TLS is required" if least > Level.OPPORTUNISTIC else "")
        name = PolicyName(domain, "sts", tuple(sts.lines()), sts.mx)
        if not sts.allows(host.name):
            why = f"{host.name} is not among the mail servers in the MTA-STS policy of {domain}"
            self._count(name, Result.VALIDATION_FAILURE, host, why)
            if sts.mode is Mode.ENFORCE:  # RFC 8461 5
                return Reply(451, "4.7.5", f"{why}, so it is not used")
            return self._session(host, least, least)
        level = max(least, Level.VERIFIED)
        return self._session(host, level, level if sts.mode is Mode.ENFORCE else least, name, f"MTA-STS of {domain}")

    def _session(
        self, host: MailHost, level: Level, least: Level, name: PolicyName | None = None, why: str = ""
    ) -> HostPolicy:
        policies = self._policies
        if policies.skips_verify:
            level, least = min(level, Level.ENCRYPTED), min(least, Level.ENCRYPTED)
        name = name or PolicyName(self._route.domain)
        tally = None if self._is_report else policies.tally
        return HostPolicy(host.name, level, least, policies.trust, tally, name, why=why)

    def _count(self, name: PolicyName, result: Result, host: MailHost, why: str) -> None:
        self._policies.tally.failure(name, Detail(result, host.name, reason=why))
