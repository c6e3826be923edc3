"""What any thread hands to the spool's writer: arrivals, records, chores and usage, in the order they came.

One lock guards all of it and is held for an append only. Who waits for its commit waits on a bare lock of its own, which
the writer's thread releases: nothing cheaper wakes exactly one thread. Fails with ``SpoolError`` once closed.

A new message rouses the writer, since a client waits for it. A record has nobody waiting: it rides in the commit of the
next message, or in one a moment later (``RIDE_SECONDS``), so that a message costs half a commit less. Only when the
writer has nothing to do, or when many records wait, does a record rouse it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from mailer.spool.batch import ArrivalRows, Batch, ChangeRows
from mailer.spool.store import SpoolError, Told
from mailer.window import Bucket

RIDE_SECONDS = 0.002  # how long a record waits for company: as long as a commit takes on most disks
MANY_CHANGES = 8  # so many records wait no longer: with one worker, 4 may not be durable yet; with five, 20


class Gate:
    """Where one thread waits until the writer has settled what it handed over."""

    __slots__ = ("_lock", "error", "is_settled")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self.error: SpoolError | None = None
        self.is_settled = False

    def settle(self, error: SpoolError | None = None) -> None:
        """Let the waiter go; only the first call counts. Called by one thread alone."""
        if not self.is_settled:
            self.error, self.is_settled = error, True
            self._lock.release()

    def wait(self) -> None:
        """Block until settled; raises the error if there was one. To be called once."""
        self._lock.acquire()
        if self.error is not None:
            raise self.error


class Arrival(Gate):
    """A new message on its way into the database, and who waits for it."""

    __slots__ = ("rows",)

    def __init__(self, rows: ArrivalRows) -> None:
        self._lock = threading.Lock()  # as Gate's own does: one call less for each message
        self._lock.acquire()
        self.error = None
        self.is_settled = False
        self.rows = rows


class AnnouncedArrival:
    """A new message on its way into the database, nobody waiting: ``told`` hears of it, once, in the writer's thread."""

    __slots__ = ("is_settled", "rows", "token", "told")

    def __init__(self, rows: ArrivalRows, token: object, told: Told) -> None:
        self.rows = rows
        self.token = token
        self.told = told
        self.is_settled = False

    def settle(self, error: SpoolError | None = None) -> None:
        if not self.is_settled:
            self.is_settled = True
            self.told([(self.token, error)])


def settle_all(arrivals: Iterable[Arrival | AnnouncedArrival]) -> None:
    """These are durable. Who announced several hears of them at once: that costs one wake-up instead of one each."""
    announced: dict[Told, list[tuple[Any, SpoolError | None]]] = {}
    for arrival in arrivals:
        if isinstance(arrival, AnnouncedArrival):
            arrival.is_settled = True
            announced.setdefault(arrival.told, []).append((arrival.token, None))
        else:
            arrival.settle()
    for told, outcomes in announced.items():
        told(outcomes)


class Chore(Protocol):
    """Work in small steps that rides in the commits of others: promotion, purge."""

    def step(self, batch: Batch) -> None:
        """Do one bounded piece within the transaction."""
        ...

    def committed(self) -> bool:
        """The piece is durable. True when there is no more to do."""
        ...

    def failed(self, error: SpoolError) -> None:
        """It was not; there will be no further step."""
        ...


@dataclass(slots=True)
class Group:
    """What the writer took at once."""

    arrivals: list[Arrival | AnnouncedArrival] = field(default_factory=list)
    changes: list[ChangeRows] = field(default_factory=list)
    chores: list[Chore] = field(default_factory=list)
    usage: dict[str, list[Bucket]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.arrivals or self.changes or self.chores or self.usage)

    def fail(self, error: SpoolError) -> None:
        """Tell everyone who still waits."""
        for arrival in self.arrivals:
            arrival.settle(error)
        for chore in self.chores:
            chore.failed(error)
        self.chores = []


class Handover:
    """The queues between all threads and the writer's; ``wake`` rouses it."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._lock = threading.Lock()  # guards all below
        self._arrivals: list[Arrival | AnnouncedArrival] = []
        self._changes: list[ChangeRows] = []
        self._chores: list[Chore] = []
        self._usage: dict[str, list[Bucket]] = {}
        self._saving: dict[str, list[Bucket]] = {}
        self._is_closed = False
        self._is_idle = True  # the writer found nothing when it last looked, and will not look again by itself soon
        self._is_roused = False  # somebody has seen to it that the writer looks, and it has yet to look

    def __repr__(self) -> str:
        return f"Handover(arrivals={len(self._arrivals)}, changes={len(self._changes)}, closed={self._is_closed})"

    def arrive(self, rows: ArrivalRows) -> None:
        """Store a message; returns when it is durable. Raises SpoolFull, SpoolError."""
        arrival = Arrival(rows)
        self._put(arrival)
        arrival.wait()

    def announce(self, rows: ArrivalRows, token: object, told: Told) -> None:
        """Store a message without waiting. Raises SpoolError when closed; then ``told`` is not called."""
        self._put(AnnouncedArrival(rows, token, told))

    def _put(self, arrival: Arrival | AnnouncedArrival) -> None:
        with self._lock:
            if self._is_closed:
                raise _closed()
            self._arrivals.append(arrival)
            was_roused, self._is_roused = self._is_roused, True
        if not was_roused:
            self._wake()

    def change(self, change: ChangeRows) -> None:
        with self._lock:
            if self._is_closed:
                raise _closed()
            self._changes.append(change)
            must_rouse = not self._is_roused and (self._is_idle or len(self._changes) >= MANY_CHANGES)
            if must_rouse:
                self._is_roused = True
        if must_rouse:
            self._wake()

    def start(self, chore: Chore) -> None:
        with self._lock:
            if self._is_closed:
                raise _closed()
            self._chores.append(chore)
        self._wake()

    def put_usage(self, buckets: Iterable[Bucket]) -> None:
        by_name: dict[str, list[Bucket]] = {}
        for bucket in buckets:
            by_name.setdefault(bucket.name, []).append(bucket)
        if not by_name:
            return
        with self._lock:
            if self._is_closed:
                raise _closed()
            self._usage.update(by_name)
        self._wake()

    def usage_of(self, name: str) -> list[Bucket] | None:
        """The counts of ``name`` that are not in the database yet, or None."""
        with self._lock:
            found = self._usage.get(name) or self._saving.get(name)
        return None if found is None else list(found)

    def take(self, most_arrivals: int) -> Group:
        """All that waits, but at most so many arrivals. The usage in it is known here until ``saved`` or ``keep``."""
        with self._lock:
            if len(self._arrivals) <= most_arrivals:
                arrivals, self._arrivals = self._arrivals, []
            else:
                arrivals, self._arrivals = self._arrivals[:most_arrivals], self._arrivals[most_arrivals:]
            group = Group(arrivals, self._changes, self._chores, self._usage)
            self._changes, self._chores, self._usage = [], [], {}
            self._saving = group.usage
            self._is_idle, self._is_roused = not group, False
        return group

    def saved_usage(self, is_saved: bool) -> None:
        """The usage last taken is in the database; or it is not, and waits again unless there is a newer word."""
        with self._lock:
            if not is_saved:
                self._usage = {**self._saving, **self._usage}
            self._saving = {}

    def has_more(self) -> bool:
        """Whether something waits that should not wait for company."""
        with self._lock:
            return bool(self._arrivals or self._chores) or len(self._changes) >= MANY_CHANGES

    @property
    def is_closed(self) -> bool:
        with self._lock:
            return self._is_closed

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
        self._wake()


def _closed() -> SpoolError:
    return SpoolError("the spool is closed: mailer is stopping, or was told to")
