"""Which ways a recipient's mail may leave by, and in which order (spec 4, "Order of ways").

A ``Router`` is an immutable reading of one configuration: no threads, no locks, no knowledge of which way is open at
this moment. A reload makes a new one, so the way is chosen anew at each attempt.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mailer.config.schema import Config, ProviderConfig
from mailer.mail.envelope import Recipient
from mailer.mail.outcome import DIRECT_PREFIX

LOCAL = "local"
"""The way into ``emails/*.eml``, taken only where neither direct delivery nor a provider is enabled."""

_MANY_DOMAINS = f"{DIRECT_PREFIX}*"
"""In the lane of a message to several domains: as a lane of each set of domains would be, there would be too many."""

LANE_SEPARATOR = "\x1f"
MAX_CACHED_DOMAINS = 10_000


class _Serving(NamedTuple):
    """What serves one recipient domain: providers, first choice first; all its ways by name, the domain's own servers before
    them; and the lane of mail for that domain alone."""

    providers: tuple[ProviderConfig, ...]
    names: tuple[str, ...]
    lane: str


class Router:
    """The ways of one configuration.

    ``ways`` names them for one recipient of one message, first choice first; an empty tuple means that no provider
    serves the recipient's domain, so that it waits.
    """

    def __init__(self, config: Config) -> None:
        self._providers = tuple(sorted(config.forward_providers, key=lambda p: p.priority))
        self._is_direct = config.direct_delivery.enabled
        self._has_weights = any(p.weight is not None for p in self._providers)
        self._rank = {p.name: rank for rank, p in enumerate(self._providers)}
        self.is_uniform = not self._is_direct and not self._has_weights and not any(p.domains for p in self._providers)
        """Whether all mail has the same ways in the same order."""
        self._by_domain: dict[str, _Serving] = {}

    def __repr__(self) -> str:
        names = ["direct"] if self._is_direct else []
        return f"Router({', '.join(names + [p.name for p in self._providers]) or LOCAL})"

    def ways(self, recipient: Recipient, message_id: str) -> tuple[str, ...]:
        """The names of the ways for this recipient, in the order in which a round tries them.

        Among equal priorities, providers with a weight share the load: which comes first is drawn by the message's id,
        so that all attempts of one message agree.
        """
        domain = recipient.address.domain_key
        serving = self._by_domain.get(domain) or self._find_serving(domain)
        if not self._has_weights:
            return serving.names
        drawn = tuple(p.name for p in _share_by_weight(serving.providers, message_id))
        return (serving.names[0], *drawn) if self._is_direct else drawn

    def lane(self, recipients: Sequence[Recipient]) -> str:
        """The ways that could carry any of these recipients, as one word: messages of one lane wait for the same ways."""
        if len(recipients) == 1:
            domain = recipients[0].address.domain_key
            return (self._by_domain.get(domain) or self._find_serving(domain)).lane
        if not self._providers and not self._is_direct:
            return LOCAL
        domains = {r.address.domain_key for r in recipients}
        names = {name for domain in domains for name in self._names(domain)}
        if self._is_direct and len(domains) > 1:
            names = {_MANY_DOMAINS, *(name for name in names if not name.startswith(DIRECT_PREFIX))}
        return _joined(names)

    def ranked(self, lane: str) -> list[str]:
        """The ways of a lane, first choice first; those that are no longer configured come last."""
        last = len(self._rank)
        return sorted(
            ways_of_lane(lane), key=lambda name: -1 if name.startswith(DIRECT_PREFIX) else self._rank.get(name, last)
        )

    def _names(self, domain: str) -> tuple[str, ...]:
        return (self._by_domain.get(domain) or self._find_serving(domain)).names

    def _find_serving(self, domain: str) -> _Serving:
        providers = tuple(p for p in self._providers if not p.domains or domain in p.domains)
        names = tuple(p.name for p in providers)
        if self._is_direct:
            names = (DIRECT_PREFIX + domain, *names)
        elif not self._providers:
            names = (LOCAL,)
        serving = _Serving(providers, names, _joined(names))
        if len(self._by_domain) >= MAX_CACHED_DOMAINS:
            self._by_domain = {}  # replaced, not cleared: another thread may be reading the old one
        self._by_domain[domain] = serving
        return serving


def _joined(names: Iterable[str]) -> str:
    return LANE_SEPARATOR.join(sorted(names))


def direct_domain(way: str) -> str | None:
    """The recipient domain of a way to a domain's own servers; None for any other way."""
    return way[len(DIRECT_PREFIX) :] if way.startswith(DIRECT_PREFIX) else None


def ways_of_lane(lane: str) -> tuple[str, ...]:
    """The names that ``Router.lane`` joined."""
    return tuple(lane.split(LANE_SEPARATOR)) if lane else ()


def _share_by_weight(providers: Sequence[ProviderConfig], message_id: str) -> list[ProviderConfig]:
    """The same providers with the weighted ones of each priority drawn anew among the places that they hold."""
    result = list(providers)
    for priority in {p.priority for p in providers}:
        places = [i for i, p in enumerate(providers) if p.priority == priority and p.weight is not None]
        drawn = sorted((providers[i] for i in places), key=lambda p: _draw(p, message_id))
        for place, provider in zip(places, drawn, strict=True):
            result[place] = provider
    return result


def _draw(provider: ProviderConfig, message_id: str) -> float:
    """An exponential variate of rate ``weight``: the smallest of several is each one's in proportion to its weight."""
    if not provider.weight:
        return math.inf
    digest = hashlib.blake2b(f"{message_id}/{provider.name}".encode(), digest_size=4).digest()
    uniform = (int.from_bytes(digest, "big") + 1) / (2**32 + 1)
    return -math.log(uniform) / provider.weight
