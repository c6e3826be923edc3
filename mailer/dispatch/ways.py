"""The ways of this moment: routing's order, joined with what each transport says about being open.

``Ways`` answers the schedule (which lanes are open), the queue (how many conversations a way takes) and the workers
(admission, delivery). ``configure`` swaps the configuration in one assignment: a reader sees the old one or the new one
whole, so no lock is needed. How it fails: a way that a stored message remembers and that is no longer configured counts
as open, so that the message comes up and is routed anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mailer.config.schema import Config
from mailer.dispatch.round import Rules
from mailer.events import DirectStatus
from mailer.mail.envelope import Recipient
from mailer.mail.outcome import Transport
from mailer.mail.render import Sign
from mailer.routing import LOCAL, Router, direct_domain, ways_of_lane
from mailer.spool.store import Stored
from mailer.transport.local import LocalFiles
from mailer.transport.providers import Admission, Provider, ProviderSet

if TYPE_CHECKING:  # not imported where it is off: it brings DNS along
    from mailer.transport.direct import DirectDelivery

WORKERS_PER_COUNT = 4
"""At most this many threads per ``workerCount``, when workers wait on slow peers."""
FIRST_WAIT_SECONDS = 300.0
"""Between the first round and the second (spec 2, ``retry.failedRetryInterval``)."""


@dataclass(frozen=True)
class Setting:
    """One configuration and what is derived from it."""

    config: Config
    router: Router
    rules: Rules


class Ways:
    """See the module."""

    def __init__(self, config: Config, providers: ProviderSet, local: LocalFiles, rules: Rules) -> None:
        self._providers = providers
        self._local = local
        self.direct: DirectDelivery | None = None  # given before the configuration that asks for it
        self.setting = Setting(config, Router(config), rules)
        self.sign: Sign | None = None  # set before anything is delivered, and anew with each configuration

    def __repr__(self) -> str:
        return f"Ways({self.setting.router!r})"

    def configure(self, config: Config, rules: Rules) -> None:
        """Take a new configuration."""
        self.setting = Setting(config, Router(config), rules)

    @property
    def config(self) -> Config:
        return self.setting.config

    def names(self, recipient: Recipient, message_id: str) -> tuple[str, ...]:
        return self.setting.router.ways(recipient, message_id)

    # For the schedule and the queue.

    def lane(self, recipients: Sequence[Recipient]) -> str:
        return self.setting.router.lane(recipients)

    def first_way(self, stored: Stored, now: float) -> str:
        names = self.names(stored.envelope.owed[0], stored.envelope.id) if stored.envelope.owed else ()
        return next((name for name in names if self.opens_at(name, now) <= now), names[0] if names else "")

    def open_way(self, stored: Stored, now: float) -> str | None:
        envelope = stored.envelope
        for name in self.setting.router.ways(envelope.recipients[0], envelope.id):
            if self.opens_at(name, now) <= now:
                return name
        return None if self.lane_opens_at(stored.lane, now) > now else self.first_way(stored, now)

    def first_ways(self, lane: str, now: float) -> Sequence[str]:
        router = self.setting.router
        ranked = router.ranked(lane) or [""]  # as ``first_way`` says of what no provider serves
        names = [name for name in ranked if self.opens_at(name, now) <= now] or ranked
        return names[:1] if router.is_uniform else names

    def lane_opens_at(self, lane: str, now: float) -> float:
        return min((self.opens_at(name, now) for name in ways_of_lane(lane)), default=now)

    def is_expiring(self, stored: Stored, now: float) -> bool:
        return now - stored.envelope.accepted_at >= self.setting.config.retry.max_age

    def limit_of(self, way: str) -> int:
        """How many conversations may run with a way at once: half of all threads, so that one stalled peer starves nobody."""
        half = max(1, self.setting.config.worker_count * WORKERS_PER_COUNT // 2)
        domain = direct_domain(way)
        if domain is not None and self.direct is not None:
            return min(half, self.direct.limit_of(domain))
        provider = self._providers.get(way)
        if provider is None or not provider.config.max_connections:
            return half
        return min(half, provider.config.max_connections)

    def opens_at(self, way: str, now: float) -> float:
        """``now`` when the way may be tried, else the Unix time at which to look again."""
        provider = self._providers.by_name.get(way)
        if provider is not None:
            return provider.open_at(now)
        domain = direct_domain(way)
        return now if domain is None or self.direct is None else self.direct.open_at(domain, now)

    # For the workers.

    def admit(self, way: str, wanted: int, now: float, is_forced: bool) -> tuple[Transport | None, Admission]:
        """Reserve an attempt for up to ``wanted`` recipients; must be followed by a delivery or by ``cancel``.

        There is no transport (None) when the way is no longer configured.
        """
        provider = self._providers.by_name.get(way)
        if provider is not None:
            return provider, provider.admit(wanted, now, is_forced)
        config, domain = self.setting.config, direct_domain(way)
        if domain is not None:
            if self.direct is None or not config.direct_delivery.enabled:
                return None, Admission(0)
            admission = self.direct.admit(domain, wanted, now, is_forced)
            return self.direct.transport(domain) if admission.granted else None, admission
        is_local = way == LOCAL and not config.forward_providers and not config.direct_delivery.enabled
        return self._local if is_local else None, Admission(wanted)

    def cancel(self, way: str, admission: Admission, now: float) -> None:
        """The admitted attempt does not take place."""
        provider, domain = self._providers.get(way), direct_domain(way)
        if provider is not None:
            provider.release(admission, now)
        elif domain is not None and self.direct is not None:
            self.direct.release(domain, admission, now)

    def is_open_somewhere(self, now: float) -> bool:
        """Whether any mail could leave now."""
        providers: list[Provider] = list(self._providers)
        if any(p.open_at(now) <= now for p in providers):
            return True
        direct = self.direct_status(now)
        return not providers if direct is None else direct.closed < direct.domains or not direct.domains

    def direct_status(self, now: float) -> DirectStatus | None:
        """How direct delivery stands; None where it is off."""
        is_off = self.direct is None or not self.setting.config.direct_delivery.enabled
        return None if self.direct is None or is_off else self.direct.status(now)


@dataclass
class WaysNow:
    """The ways for one message at one moment: what ``Round`` asks.

    ``is_forced``: the last chance of an expiring message, which an open breaker does not deny. ``denied``: ways that
    turned out closed after all when asked to admit, by the time at which to look again.
    """

    ways: Ways
    message_id: str
    now: float
    is_forced: bool = False
    denied: dict[str, float] = field(default_factory=dict)

    def names(self, recipient: Recipient) -> Sequence[str]:
        return self.ways.setting.router.ways(recipient, self.message_id)

    def closed_until(self, way: str) -> float | None:
        if self.denied and way in self.denied:
            return self.denied[way]
        if self.is_forced:
            return None
        opens_at = self.ways.opens_at(way, self.now)
        return opens_at if opens_at > self.now else None

    def batch_size(self, way: str) -> int:
        if way == LOCAL:
            return 10**9
        config = self.ways.config
        return 1 if config.bounce.verp else max(1, config.batch_size)  # each has a sender of its own
