"""Counts what the Hub tells, so that a scrape can ask: counters and histograms since the program's start.

Called in the publishers' threads. One lock guards all counts: an event costs one short hold of it (about a microsecond,
no allocation), which at ten thousand events a second is a hundredth of one processor; a cell per thread would save little
and tie counts to threads that come and go. Nothing here raises or waits.

Bounded: reasons are a fixed set, and names of ways come from the configuration alone; beyond ``MAX_PROVIDERS`` (a program
that was reloaded with ever new names) they count as ``other``. All domains that mail goes to directly count as ``direct``.
"""

from __future__ import annotations

import bisect
import threading
from collections import Counter
from dataclasses import dataclass, field

from mailer.events import (
    AttemptEnded,
    BreakerChanged,
    Event,
    MessageAccepted,
    MessageFinished,
    MessageParked,
    SubmissionRefused,
)
from mailer.mail.outcome import DIRECT_PREFIX

REFUSAL_REASONS = (
    "access",
    "address",
    "auth",
    "connections",
    "content",
    "disk",
    "protocol",
    "rate",
    "recipients",
    "size",
)
RATE_LIMITED = "rate"
OTHER = "other"
DIRECT = "direct"
MAX_PROVIDERS = 500

ATTEMPT_OUTCOMES = ("delivered", "partial", "deferred", "refused")
RECIPIENT_OUTCOMES = ("delivered", "deferred", "refused")
MESSAGE_OUTCOMES = ("delivered", "failed")

# Upper bounds in seconds. A commit is one fsync, 1 to 20 ms on most disks.
COMMIT_BOUNDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
# A conversation on loopback takes a millisecond; the longest allowed is processingTimeout, 300 s.
DELIVERY_BOUNDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
# From at once to days: retry.maxAge is five.
WAIT_BOUNDS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 21600.0, 86400.0, 432000.0)


class Histogram:
    """How many observations fell under each bound, and their sum. Guarded by whoever owns it."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect.bisect_left(self.bounds, seconds)] += 1
        if seconds > 0.0:  # less than nothing: a clock set back between two readings
            self.total += seconds

    def copy(self) -> Histogram:
        other = Histogram(self.bounds)
        other.counts = list(self.counts)
        other.total = self.total
        return other


@dataclass(slots=True)
class Counts:
    """Everything counted. ``attempts``, ``attempt_recipients``: by (provider, outcome); ``breaker_opened``: by provider."""

    accepted_messages: int = 0
    accepted_recipients: int = 0
    accepted_bytes: int = 0
    reports: int = 0
    parked: int = 0
    finished: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    attempts: Counter[tuple[str, str]] = field(default_factory=Counter)
    attempt_recipients: Counter[tuple[str, str]] = field(default_factory=Counter)
    breaker_opened: Counter[str] = field(default_factory=Counter)
    commit: Histogram = field(default_factory=lambda: Histogram(COMMIT_BOUNDS))
    queue: Histogram = field(default_factory=lambda: Histogram(WAIT_BOUNDS))
    processing: Histogram = field(default_factory=lambda: Histogram(WAIT_BOUNDS))
    delivery: dict[str, Histogram] = field(default_factory=dict)

    def copy(self) -> Counts:
        return Counts(
            self.accepted_messages,
            self.accepted_recipients,
            self.accepted_bytes,
            self.reports,
            self.parked,
            self.finished.copy(),
            self.refused.copy(),
            self.attempts.copy(),
            self.attempt_recipients.copy(),
            self.breaker_opened.copy(),
            self.commit.copy(),
            self.queue.copy(),
            self.processing.copy(),
            {provider: histogram.copy() for provider, histogram in self.delivery.items()},
        )


class Tally:
    """A subscriber of the Hub that counts. Our own reports count as such alone, their attempts like any other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _counts and _providers
        self._counts = Counts()
        self._providers: set[str] = set()

    def __repr__(self) -> str:
        return f"Tally(accepted={self._counts.accepted_messages}, parked={self._counts.parked}, {dict(self._counts.finished)})"

    def counts(self) -> Counts:
        """A copy, consistent in itself."""
        with self._lock:
            return self._counts.copy()

    def note(self, event: Event) -> None:
        """Count one event."""
        with self._lock:
            if isinstance(event, AttemptEnded):
                self._attempt(event)
            elif isinstance(event, MessageAccepted):
                self._accepted(event)
            elif isinstance(event, MessageFinished):
                if not event.is_report:
                    self._counts.finished["failed" if event.failed else "delivered"] += 1
                    self._counts.processing.observe(event.seconds)
            elif isinstance(event, SubmissionRefused):
                self._counts.refused[event.reason if event.reason in REFUSAL_REASONS else OTHER] += 1
            elif isinstance(event, MessageParked):
                self._counts.parked += 1
            elif isinstance(event, BreakerChanged) and event.state == "open":
                self._counts.breaker_opened[self._provider(event.provider)] += 1

    def _accepted(self, event: MessageAccepted) -> None:
        counts = self._counts
        counts.commit.observe(event.commit_seconds)
        if event.is_report:
            counts.reports += 1
            return
        counts.accepted_messages += 1
        counts.accepted_recipients += event.recipients
        counts.accepted_bytes += event.size

    def _attempt(self, event: AttemptEnded) -> None:
        counts = self._counts
        provider = self._provider(event.way)
        counts.attempts[provider, _outcome(event)] += 1
        if event.delivered:
            counts.attempt_recipients[provider, "delivered"] += event.delivered
        if event.deferred:
            counts.attempt_recipients[provider, "deferred"] += event.deferred
        if event.refused:
            counts.attempt_recipients[provider, "refused"] += event.refused
        if event.queue_seconds is not None:
            counts.queue.observe(event.queue_seconds)
        histogram = counts.delivery.get(provider)
        if histogram is None:
            histogram = counts.delivery[provider] = Histogram(DELIVERY_BOUNDS)
        histogram.observe(event.seconds)

    def _provider(self, name: str) -> str:
        if name not in self._providers:
            if name.startswith(DIRECT_PREFIX):
                return DIRECT
            if len(self._providers) >= MAX_PROVIDERS:
                return OTHER
            self._providers.add(name)
        return name


def _outcome(event: AttemptEnded) -> str:
    if event.delivered:
        return "partial" if event.deferred or event.refused else "delivered"
    return "deferred" if event.deferred else "refused"
