"""Which ways a recipient's mail may leave by, and in which order (spec 4, "Order of ways").

A ``Router`` is an immutable reading of one configuration: no threads, no locks, no knowledge of which way is open at
this moment. A reload makes a new one, so the way is chosen anew at each attempt.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence

from mailer.config.schema import Config, ProviderConfig
from mailer.mail.envelope import Recipient

LOCAL = "local"
"""The way into ``emails/*.eml``, taken only where neither direct delivery nor a provider is enabled."""

LANE_SEPARATOR = "\x1f"
MAX_CACHED_DOMAINS = 10_000


class Router:
    """The ways of one configuration.

    ``ways`` names them for one recipient of one message, first choice first; an empty tuple means that no provider
    serves the recipient's domain, so that it waits.
    """

    def __init__(self, config: Config) -> None:
        self._providers = tuple(sorted(config.forward_providers, key=lambda p: p.priority))
        self._has_weights = any(p.weight is not None for p in self._providers)
        self._rank = {p.name: rank for rank, p in enumerate(self._providers)}
        self.is_uniform = not self._has_weights and not any(p.domains for p in self._providers)
        """Whether all mail has the same ways in the same order."""
        self._by_domain: dict[str, tuple[ProviderConfig, ...]] = {}

    def __repr__(self) -> str:
        return f"Router({', '.join(p.name for p in self._providers) or LOCAL})"

    def ways(self, recipient: Recipient, message_id: str) -> tuple[str, ...]:
        """The names of the ways for this recipient, in the order in which a round tries them.

        Among equal priorities, providers with a weight share the load: which comes first is drawn by the message's id,
        so that all attempts of one message agree.
        """
        if not self._providers:
            return (LOCAL,)
        serving = self._serving(recipient.address.domain_key)
        if not self._has_weights:
            return tuple(p.name for p in serving)
        return tuple(p.name for p in _share_by_weight(serving, message_id))

    def lane(self, recipients: Iterable[Recipient]) -> str:
        """The ways that could carry any of these recipients, as one word: messages of one lane wait for the same ways."""
        if not self._providers:
            return LOCAL
        names = {p.name for r in recipients for p in self._serving(r.address.domain_key)}
        return LANE_SEPARATOR.join(sorted(names))

    def ranked(self, lane: str) -> list[str]:
        """The ways of a lane, first choice first; those that are no longer configured come last."""
        return sorted(ways_of_lane(lane), key=lambda name: self._rank.get(name, len(self._rank)))

    def _serving(self, domain: str) -> tuple[ProviderConfig, ...]:
        serving = self._by_domain.get(domain)
        if serving is None:
            serving = tuple(p for p in self._providers if not p.domains or domain in p.domains)
            if len(self._by_domain) >= MAX_CACHED_DOMAINS:
                self._by_domain = {}  # replaced, not cleared: another thread may be reading the old one
            self._by_domain[domain] = serving
        return serving


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
