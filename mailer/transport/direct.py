"""Delivery to the recipients' own mail servers: all domains that mail goes to, each a ``Destination``.

``_lock`` guards the tables of destinations; a destination's locks may be taken while it is held, never the other way round,
and it is not held while a server is talked to or a callback runs. ``step`` belongs to one service thread. Bounded: at most
``MAX_DESTINATIONS`` are known; those that nobody uses and nothing keeps mail from are forgotten, and if there is none such, a
further domain has to wait.
"""

from __future__ import annotations

import itertools
import math
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass

from mailer.config.schema import Config
from mailer.dns.lookup import Dns
from mailer.events import DirectStatus, Hub
from mailer.mail.outcome import Transport
from mailer.transport import https
from mailer.transport.admission import BUSY, Admission
from mailer.transport.destination import FIRST_CONVERSATIONS, Destination, Means
from mailer.transport.manners import Book, Site
from mailer.transport.mx import RouteFinder
from mailer.transport.peer import system_trust_store
from mailer.transport.tls import TrustStore
from mailer.transport.tls_policy import Policies

STEP_SECONDS = 1.0  # between looks at idle connections, which live for five
MAX_DESTINATIONS = 10_000
"""Domains known at a time; some 2 KB each."""
MAX_KEPT = 100
"""Domains with idle connections: each costs a file descriptor, and 1,024 of them are the usual limit."""
FORGET_SECONDS = 900.0
"""A domain that was not used for so long is begun with anew: three times the longest that a breaker stays open."""
FULL_WAIT_SECONDS = 60.0  # for a domain for which there is no place
LOOK_AT = 100  # of the longest unused, when one is to be forgotten: those behind them were used later


def listens_nowhere() -> Collection[tuple[str, int]]:
    return ()


@dataclass(frozen=True)
class Surroundings:
    """What direct delivery takes from outside: the clock (Unix time), where the certificates to trust are, on which
    addresses and ports this program itself listens (mail for those would go round in circles), and where MTA-STS policies
    are fetched."""

    clock: Callable[[], float] = time.time
    trust_store: TrustStore = system_trust_store
    listens_on: Callable[[], Collection[tuple[str, int]]] = listens_nowhere
    https_port: int = https.PORT


class DirectDelivery:
    """``configure`` applies a configuration; the first one is given at the start.

    ``on_limit_changed(way, limit)``: so many conversations may run with a domain at once now. ``on_breaker_closed(way)``.
    Both are called without a lock held, from the thread that found out.
    """

    def __init__(self, config: Config, hub: Hub, surroundings: Surroundings) -> None:
        self.on_limit_changed: Callable[[str, int], None] | None = None
        self.on_breaker_closed: Callable[[str], None] | None = None
        self._hub = hub
        self._surroundings = surroundings
        self._lock = threading.Lock()  # guards all below
        self._destinations: OrderedDict[str, Destination] = OrderedDict()  # the longest unused first
        self._kept: OrderedDict[str, Destination] = OrderedDict()  # those with an idle connection
        self._sites: dict[str, Site] = {}  # by name: as many as there are rules
        self._config = config
        self._dns = Dns(config.dns.nameservers, config.dns.timeout)
        self.policies = Policies(config, self._dns, surroundings.trust_store, surroundings.clock, surroundings.https_port)
        self._means = self._means_of(config)

    def __repr__(self) -> str:
        with self._lock:
            return f"DirectDelivery(destinations={len(self._destinations)}, kept={len(self._kept)})"

    def configure(self, config: Config) -> None:
        """Take on a configuration. Destinations keep their breakers and windows; connections are opened anew."""
        if config.dns != self._config.dns:
            self._dns = Dns(config.dns.nameservers, config.dns.timeout)
        self._dns.forget()  # a reload is also how one says that something was put right
        self.policies.configure(config, self._dns)
        self._config = config
        means = self._means_of(config)
        with self._lock:
            self._means = means
        for destination in self._all():
            destination.means = means
            destination.tend(math.inf)

    def _means_of(self, config: Config) -> Means:
        direct = config.direct_delivery
        return Means(
            hostname=direct.ehlo_domain or config.hostname,
            book=Book(direct.domains),
            routes=RouteFinder(self._dns, direct, self._surroundings.listens_on, random.Random()),  # noqa: S311 - no secret
            policies=self.policies,
            clock=self._surroundings.clock,
            hub=self._hub,
            site_of=self._site_of,
            kept=self._note_kept,
            limit_changed=self._tell_limit,
            breaker_closed=self._tell_closed,
        )

    # the ways

    def transport(self, domain: str) -> Transport:
        """The way to the domain's servers. ``deliver`` makes one pass over them."""
        return self._get(domain) or self._add(domain)

    def admit(self, domain: str, wanted: int, now: float, forced: bool = False) -> Admission:
        """Reserve a conversation with the domain; must be followed by a delivery, or by ``release``."""
        while True:
            destination = self._get(domain, is_used=True)
            if destination is None:
                if not self._make_room(now):
                    return Admission(0, now + FULL_WAIT_SECONDS, BUSY)
                destination = self._add(domain)
            admission = destination.admit(wanted, now, forced)
            if admission is not None:
                return admission  # else it was forgotten at this moment, and is begun with anew

    def release(self, domain: str, admission: Admission, now: float) -> None:
        """What was admitted did not take place."""
        destination = self._get(domain)
        if destination is not None and admission.granted:
            destination.release(admission, now)

    def open_at(self, domain: str, now: float) -> float:
        """``now`` when the domain may be tried, else the Unix time to look again."""
        destination = self._get(domain)
        return now if destination is None else destination.open_at(now)

    def limit_of(self, domain: str) -> int:
        """How many conversations there may be with the domain at once now."""
        destination = self._get(domain)
        if destination is not None:
            return destination.limit
        return min(FIRST_CONVERSATIONS, self._means.book.manners(domain).connections)

    def status(self, now: float) -> DirectStatus:
        destinations = self._all()
        closed = sum(destination.open_at(now) > now for destination in destinations)
        return DirectStatus(len(destinations), closed, sum(destination.connections for destination in destinations))

    def close_all_breakers(self) -> None:
        """Close open breakers, forget named delays and what DNS said: someone knows better."""
        self._dns.forget()
        for destination in self._all():
            destination.clear()

    def _get(self, domain: str, is_used: bool = False) -> Destination | None:
        with self._lock:
            destination = self._destinations.get(domain)
            if is_used and destination is not None:
                self._destinations.move_to_end(domain)
            return destination

    def _add(self, domain: str) -> Destination:
        with self._lock:
            destination = self._destinations.get(domain)
            if destination is None:
                destination = self._destinations[domain] = Destination(domain, self._means)
            return destination

    def _all(self) -> list[Destination]:
        with self._lock:
            return list(self._destinations.values())

    # care

    def step(self, now: float) -> float:
        """Close idle connections, and forget domains that are no longer used. Returns seconds until the next look."""
        with self._lock:
            kept = list(self._kept.items())
        for domain, destination in kept:
            if not destination.tend(now):
                with self._lock:
                    self._kept.pop(domain, None)
        self._forget(now, FORGET_SECONDS, LOOK_AT)
        return STEP_SECONDS

    def close(self) -> None:
        """Close what is idle; deliveries under way finish."""
        for destination in self._all():
            destination.close()

    def _make_room(self, now: float) -> bool:
        """Whether one more destination can be known; if need be one that is idle is forgotten."""
        with self._lock:
            if len(self._destinations) < MAX_DESTINATIONS:
                return True
        return self._forget(now, 0.0, 1) == 1

    def _forget(self, now: float, unused_seconds: float, at_most: int) -> int:
        """Forget destinations that are idle, and were not used for so long. Returns how many."""
        gone: list[Destination] = []
        with self._lock:
            for destination in list(itertools.islice(self._destinations.values(), LOOK_AT)):
                if len(gone) == at_most or 0 <= now - destination.used_at < unused_seconds:
                    break
                if destination.retire(now):
                    del self._destinations[destination.domain]
                    gone.append(destination)
                else:
                    self._destinations.move_to_end(destination.domain)  # to be looked at again after the others
        for destination in gone:
            destination.close()
        return len(gone)

    # what destinations ask and tell

    def _site_of(self, name: str) -> Site | None:
        if not name:
            return None
        with self._lock:
            return self._sites.setdefault(name, Site())

    def _note_kept(self, destination: Destination) -> None:
        surplus = None
        with self._lock:
            self._kept[destination.domain] = destination
            self._kept.move_to_end(destination.domain)
            if len(self._kept) > MAX_KEPT:
                _, surplus = self._kept.popitem(last=False)
        if surplus is not None:
            surplus.tend(math.inf)

    def _tell_limit(self, way: str, limit: int) -> None:
        if self.on_limit_changed is not None:
            self.on_limit_changed(way, limit)

    def _tell_closed(self, way: str) -> None:
        if self.on_breaker_closed is not None:
            self.on_breaker_closed(way)
