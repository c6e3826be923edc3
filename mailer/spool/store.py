"""What a spool promises, as a protocol, so that another engine can stand behind it (docs/architecture.md).

The promises, in the order in which a message meets them:

- ``submit`` returns only when the message is durable: written, and fsync'd. If it raises, the message is not there.
- A message that was submitted is found by ``fetch_due`` until it is finished, whatever happens to the process.
- ``record`` never waits; its ``done`` is called once the record is durable. Records are written in the order given.
  While they cannot be written, ``writable`` is False and they are kept and tried again: none is ever dropped.
- Nothing here knows which messages are being delivered at this moment: SENDING lives in memory alone (``held``), so
  that a crash makes them what they were.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mailer.mail.content import Content
from mailer.mail.envelope import Envelope, Recipient, State
from mailer.mail.outcome import MailerError
from mailer.window import Bucket


class SpoolError(MailerError):
    """The spool could not do what was asked; the text says what, where and what to do."""


class SpoolFull(SpoolError):
    """No space is left on the spool's disk: the client is told 452 4.3.1 and may try again."""


class ContentLost(SpoolError):
    """The content of a stored message is missing or damaged; what was left of it is in ``emails/quarantine``."""


Told = Callable[[Sequence[tuple[Any, SpoolError | None]]], None]
"""Hears what became of announced messages, some at once: their tokens, each with None once it is durable, else with why it
is not there. Called in the spool's own thread; must be quick and must not raise."""


class Holder(enum.Enum):
    """Who holds a message's content (spec 4)."""

    SPOOL = 0
    FILE = 1  # emails/failed/<id>.json is the message; the spool keeps its status alone
    FILE_TO_CLEAR = 2  # finished, but the file is not known to be gone yet: finish that at start


@dataclass(slots=True)  # a value all the same; frozen, it would take four times as long to make
class Stored:
    """A message's row: what the spool knows of it but its content.

    ``lane`` is what routing called it when it was last written (``fetch_due``). ``rounds`` counts rounds that tried
    something. ``progress`` is the dispatcher's note about a round under way, JSON or empty; the spool never reads it.
    ``due_at`` is Unix time, None once finished. ``waits_for`` names the ways whose breaker kept it waiting.
    ``state`` is PENDING, RETRYING, SUCCESS or FAILED.
    """

    envelope: Envelope
    lane: str
    state: State = State.PENDING
    due_at: float | None = None
    rounds: int = 0
    progress: str = ""
    waits_for: tuple[str, ...] = ()
    holder: Holder = Holder.SPOOL
    finished_at: float | None = None


@dataclass(slots=True)  # a value all the same; frozen, it would take four times as long to make
class Record:
    """A change to one stored message, all of it in one transaction.

    ``recipients`` are those that changed (or are new: a hand-edited file may add some), with their new state.
    ``state`` is the message's: final ones need ``due_at`` None, and drop the content; Holder.FILE drops it as well.
    """

    id: str
    state: State
    due_at: float | None
    recipients: Sequence[Recipient] = ()
    rounds: int = 0
    progress: str = ""
    waits_for: Sequence[str] = ()
    holder: Holder = Holder.SPOOL
    lane: str | None = None  # None leaves it: the ways of the recipients still owed, as routing calls them now
    at: float = 0.0  # Unix time of the change


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts of messages that survive a restart; our own reports are not counted.

    ``queued``: unfinished and not parked. ``parked``: unfinished, in ``emails/failed``. ``successful``, ``failed``:
    finished. ``recipients``: of all messages accepted. ``processing_seconds``: from acceptance to SUCCESS, summed over
    ``successful``. ``queued_reports``: our own reports, unfinished.
    """

    queued: int = 0
    parked: int = 0
    successful: int = 0
    failed: int = 0
    recipients: int = 0
    processing_seconds: float = 0.0
    queued_reports: int = 0


class Room(Protocol):
    """How much whoever fetches has room for, counted off as the messages are found."""

    def is_left(self, lane: str) -> bool:
        """Whether there may be room for more of that lane; asked before each of its senders."""
        ...

    def take(self, lane: str, sender: str) -> bool:
        """Take the place of one message; False when there is none, which ends its sender's turns in this call."""
        ...


class ContentWriter(Protocol):
    """Takes the content of one message in pieces; keeps it in memory while small, in a file once large."""

    @property
    def size(self) -> int: ...

    def write(self, piece: bytes) -> None:
        """Append. Raises SpoolFull or SpoolError."""
        ...

    def finish(self) -> Content:
        """The content, durable if it is in a file. Raises SpoolFull or SpoolError."""
        ...

    def discard(self) -> None:
        """Forget it all; any number of times, also after ``finish`` when the content will not be submitted."""
        ...


class Store(Protocol):
    """The spool. Every method may be called from any thread."""

    @property
    def writable(self) -> bool:
        """Whether the last write succeeded. While False, no delivery may start (its record could not be kept)."""
        ...

    def new_content(self, message_id: str) -> ContentWriter: ...

    def submit(self, envelope: Envelope, content: Content, lane: str) -> None:
        """Store a new message, due now. Returns when it is durable. Raises SpoolFull, SpoolError (also when closed)."""
        ...

    def announce(self, envelope: Envelope, content: Content, lane: str, token: object, told: Told) -> None:
        """As ``submit``, without waiting: ``told`` hears later what became of it. Raises SpoolError when closed, and then it
        does not."""
        ...

    def adopt(self, stored: Stored) -> bool:
        """Store the row of a message whose content is a file in ``emails/failed``; durable on return.

        False when a message of that id is known already (nothing is written). Raises as ``submit``.
        """
        ...

    def record(self, record: Record, done: Callable[[], None]) -> None:
        """Queue a change; ``done`` is called in the spool's own thread once it is durable, and must be quick."""
        ...

    def fetch_due(
        self, now: float, limit: int, held: Collection[str], closed_lanes: Collection[str], room: Room | None = None
    ) -> list[Stored]:
        """Up to ``limit`` unfinished messages with ``due_at <= now`` that are not in ``held`` nor in ``closed_lanes``.

        Fair: lanes take turns, and within a lane senders take turns, over consecutive calls too; within a sender the
        longest due comes first. ``room`` is asked before a message is read. An empty list means that there is none, or
        none that there is room for.
        """
        ...

    def next_due(self, after: float, limit: int) -> list[float]:
        """The next due times later than ``after``, ascending, at most ``limit``, without repeats."""
        ...

    def oldest_due(self, now: float) -> float | None:
        """The due time of the message that has been due the longest, or None when none is due."""
        ...

    def lanes(self) -> list[str]:
        """The lanes of all unfinished messages."""
        ...

    def content(self, message_id: str) -> Content:
        """The content of a message that the spool holds. Raises ContentLost (after quarantining what is left)."""
        ...

    def find(self, message_id: str) -> Stored | None:
        """The row of a message, finished ones included for as long as their status is kept."""
        ...

    def held_by(self, holder: Holder) -> Iterator[Stored]:
        """The rows with that holder, read in pieces; rows that change meanwhile may or may not be seen."""
        ...

    def make_due(self, now: float, waits_for: str | None = None) -> int:
        """Make due now: what waits for that way, or (None) every parked message. Returns how many; durable on return."""
        ...

    def bring_forward(self, now: float, latest: float) -> int:
        """Make due now what waits until later than ``latest``: the clock was wrong. Returns how many; durable on return."""
        ...

    def save_usage(self, buckets: Iterable[Bucket]) -> None:
        """Queue counts of sliding windows for the next commit; does not wait."""
        ...

    def load_usage(self, name: str) -> list[Bucket]: ...

    def totals(self) -> Totals:
        """A snapshot from memory: costs nothing."""
        ...

    def purge(self, finished_before: float) -> int:
        """Forget finished messages older than that, in small steps. Returns how many."""
        ...

    def close(self) -> None:
        """Write what is queued, then stop. ``record`` after this raises SpoolError."""
        ...
