"""What happens, as values, and the Hub that tells subscribers: metrics and whoever else listens.

Publishing calls each subscriber in the publisher's thread, so a subscriber only notes what it was told: no I/O, no
waiting, and must not raise.

Events are values, though not frozen: three are made for each message, and freezing makes one four times as dear. Nobody
changes one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mailer.mail.outcome import Reply


@dataclass(slots=True)
class MessageAccepted:
    """A message is durable and its 250 is about to be sent. ``commit_seconds``: how long it waited for the disk."""

    id: str
    recipients: int
    size: int
    is_report: bool
    commit_seconds: float


@dataclass(slots=True)
class AttemptEnded:
    """One conversation with one way is over. ``reply`` is the one that decided; ``seconds`` the time taken.

    ``queue_seconds``: from acceptance to the start of the message's first attempt, None for later ones.
    """

    id: str
    way: str
    delivered: int
    deferred: int
    refused: int
    reply: Reply
    seconds: float
    queue_seconds: float | None


@dataclass(slots=True)
class MessageParked:
    """A round ended with recipients owed: the message is now a file in ``emails/failed``."""

    id: str


@dataclass(slots=True)
class MessageFinished:
    """Every recipient has its final state. ``seconds``: from acceptance."""

    id: str
    delivered: int
    failed: int
    is_report: bool
    seconds: float


@dataclass(slots=True)
class SubmissionRefused:
    """A client was told no. ``reason`` is one of a small fixed set: access, auth, rate, size, recipients, address,
    content, disk, connections, protocol."""

    reason: str


@dataclass(slots=True)
class BreakerChanged:
    """A provider's breaker went to ``"open"``, ``"probing"`` or ``"closed"``."""

    provider: str
    state: str


@dataclass(frozen=True, slots=True)
class ProviderStatus:
    """How a provider stands at this moment: for metrics, health and the admin API; not an event.

    ``breaker`` is ``"closed"``, ``"open"`` or ``"probing"``; ``open_at`` is the Unix time at which a closed way may be
    tried again, None when the provider can be tried now; ``why_closed`` is ``"breaker"``, ``"quota"``, ``"delay"`` or empty.
    ``hour_used`` and ``day_used`` count recipients against the quota, and stay 0 where no quota is set.
    """

    name: str
    breaker: str
    why_closed: str
    open_at: float | None
    connections: int
    hour_used: int
    day_used: int
    last_delivered_at: float | None


@dataclass(frozen=True, slots=True)
class DirectStatus:
    """How direct delivery stands at this moment; not an event.

    ``domains``: those that mail went to of late; ``closed`` of them cannot be tried now (breaker, delay); ``connections`` are
    open to all of them together.
    """

    domains: int
    closed: int
    connections: int


Event = MessageAccepted | AttemptEnded | MessageParked | MessageFinished | SubmissionRefused | BreakerChanged
Subscriber = Callable[[Event], None]


class Hub:
    """Tells every subscriber every event, in the publisher's thread.

    Subscribers are set once, before the threads start, so the list needs no lock.
    """

    def __init__(self) -> None:
        self._subscribers: tuple[Subscriber, ...] = ()

    def subscribe(self, subscriber: Subscriber) -> None:
        self._subscribers = (*self._subscribers, subscriber)

    def publish(self, event: Event) -> None:
        for subscriber in self._subscribers:
            subscriber(event)
