"""What the web asks of the program, as a protocol; ``app.py`` implements it.

No threads, no locks of its own: every method is called from several threads at once, must be quick and must not wait for
the network. A method may raise MailerError or OSError: the caller of the page is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mailer.events import DirectStatus, ProviderStatus
from mailer.spool.store import Totals


class Application(Protocol):
    """The running program, as the web sees it."""

    @property
    def version(self) -> str: ...

    @property
    def started_at(self) -> float:
        """Unix time."""
        ...

    def totals(self) -> Totals:
        """The spool's counts of messages."""
        ...

    def failed_files(self) -> int:
        """How many files are in ``emails/failed``."""
        ...

    def disk_free_bytes(self) -> int:
        """Free space where ``dataDir`` is, for us (not for root)."""
        ...

    def why_not_accepting(self) -> str:
        """Why mail cannot be accepted now, in words for an operator; empty when it can."""
        ...

    def why_not_ready(self) -> str:
        """Why no traffic should come here: the spool cannot write, deliveries stand still, a drain has begun; or empty."""
        ...

    def no_way_open(self) -> bool:
        """Whether every configured way is closed at this moment (breaker, quota, delay)."""
        ...

    def oldest_due_seconds(self, now: float) -> float:
        """How long the message that has been due the longest has been due; 0 when none is."""
        ...

    def provider_statuses(self) -> Sequence[ProviderStatus]: ...

    def direct_status(self) -> DirectStatus | None:
        """How direct delivery stands; None where it is off."""
        ...

    def metrics_text(self, openmetrics: bool) -> tuple[str, bytes]:
        """Content-Type and text: ``observe.metrics.Metrics.exposition``."""
        ...

    def retry_failed(self) -> int:
        """Close all breakers and make every parked message due now; returns how many."""
        ...
