"""What any thread hands to the spool's writer: arrivals, records, chores and usage, in the order they came.

One lock guards all of it and is held for an append only. Who waits for its commit waits on a bare lock of its own, which
the writer's thread releases: nothing cheaper wakes exactly one thread. Fails with ``SpoolError`` once closed.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from mailer.spool.batch import ArrivalRows, Batch, ChangeRows
from mailer.spool.store import SpoolError
from mailer.window import Bucket


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
    """A new message on its way into the database."""

    __slots__ = ("rows",)

    def __init__(self, rows: ArrivalRows) -> None:
        super().__init__()
        self.rows = rows


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


@dataclass(frozen=True, slots=True)
class Change:
    rows: ChangeRows
    done: Callable[[], None]


@dataclass(slots=True)
class Group:
    """What the writer took at once."""

    arrivals: list[Arrival] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
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
        self._arrivals: deque[Arrival] = deque()
        self._changes: list[Change] = []
        self._chores: list[Chore] = []
        self._usage: dict[str, list[Bucket]] = {}
        self._saving: dict[str, list[Bucket]] = {}
        self._is_closed = False

    def __repr__(self) -> str:
        return f"Handover(arrivals={len(self._arrivals)}, changes={len(self._changes)}, closed={self._is_closed})"

    def arrive(self, rows: ArrivalRows) -> None:
        """Store a message; returns when it is durable. Raises SpoolFull, SpoolError."""
        arrival = Arrival(rows)
        with self._lock:
            self._refuse_when_closed()
            self._arrivals.append(arrival)
        self._wake()
        arrival.wait()

    def change(self, change: Change) -> None:
        with self._lock:
            self._refuse_when_closed()
            self._changes.append(change)
        self._wake()

    def start(self, chore: Chore) -> None:
        with self._lock:
            self._refuse_when_closed()
            self._chores.append(chore)
        self._wake()

    def put_usage(self, buckets: Iterable[Bucket]) -> None:
        by_name: dict[str, list[Bucket]] = {}
        for bucket in buckets:
            by_name.setdefault(bucket.name, []).append(bucket)
        if not by_name:
            return
        with self._lock:
            self._refuse_when_closed()
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
            count = min(len(self._arrivals), most_arrivals)
            group = Group([self._arrivals.popleft() for _ in range(count)], self._changes, self._chores, self._usage)
            self._changes, self._chores, self._usage = [], [], {}
            self._saving = group.usage
        return group

    def saved_usage(self, is_saved: bool) -> None:
        """The usage last taken is in the database; or it is not, and waits again unless there is a newer word."""
        with self._lock:
            if not is_saved:
                self._usage = {**self._saving, **self._usage}
            self._saving = {}

    def has_more(self) -> bool:
        with self._lock:
            return bool(self._arrivals or self._changes or self._chores)

    @property
    def is_closed(self) -> bool:
        with self._lock:
            return self._is_closed

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
        self._wake()

    def _refuse_when_closed(self) -> None:
        if self._is_closed:
            raise SpoolError("the spool is closed: mailer is stopping, or was told to")
