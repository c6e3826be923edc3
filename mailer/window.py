"""Counting within sliding windows of an hour and a day: rate limits and provider quotas.

A window is kept as buckets (one minute for the hour, 20 minutes for the day), so nothing counted is forgotten early
and everything is forgotten at most one bucket late. One lock guards all counts of a ``Windows``. Bounded: beyond
``MAX_NAMES_IN_MEMORY`` names the least recently used leave memory, and are read back through ``load`` when next named.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

HOUR_SECONDS = 3600
DAY_SECONDS = 86400
_BUCKETS_AN_HOUR = 60
_BUCKETS_A_DAY = 72
MAX_NAMES_IN_MEMORY = 10_000


@dataclass(frozen=True, slots=True)
class Bucket:
    """A stored count: what was counted for ``name`` in the ``span`` seconds (of the hour's or the day's window) from
    Unix time ``start``."""

    name: str
    span: int
    start: int
    count: int


@dataclass(frozen=True, slots=True)
class Limits:
    """How many may be counted within an hour and within a day; 0 is no limit."""

    per_hour: int
    per_day: int


class _Window:
    """The buckets of one window of one name, oldest first."""

    __slots__ = ("buckets", "span", "total", "width")

    def __init__(self, width: int, buckets: int) -> None:
        self.width = width
        self.span = width // buckets
        self.buckets: deque[list[int]] = deque()
        self.total = 0

    def add(self, now: float, amount: int) -> None:
        """Count ``amount``, once ``expire`` was called."""
        start = int(now) // self.span * self.span
        # A clock set back must not make a bucket that sorts before its elders: the youngest bucket takes the count.
        if not self.buckets or self.buckets[-1][0] < start:
            self.buckets.append([start, 0])
        self.buckets[-1][1] += amount
        self.total += amount

    def take_back(self, amount: int) -> None:
        """Undo counting, in the youngest buckets first: what was counted may lie in an older one than the clock's."""
        for bucket in reversed(self.buckets):
            taken = min(amount, bucket[1])
            bucket[1] -= taken
            amount -= taken
            self.total -= taken
            if not amount:
                return

    def expire(self, now: float) -> None:
        oldest = now - self.width - self.span
        while self.buckets and self.buckets[0][0] <= oldest:
            self.total -= self.buckets.popleft()[1]
        # A clock set back by more than a window leaves counts in the future; they would block for as long again.
        while self.buckets and self.buckets[-1][0] > now + self.width:
            self.total -= self.buckets.pop()[1]


class Windows:
    """Counts by name over the last hour and the last day.

    ``load`` returns the stored buckets of a name that is not in memory.
    ``take_changes`` hands over what has changed since it was last called, for whoever stores it.
    """

    def __init__(self, load: Callable[[str], Iterable[Bucket]]) -> None:
        self._load = load
        self._lock = threading.Lock()  # guards all below
        self._windows: OrderedDict[str, tuple[_Window, _Window]] = OrderedDict()
        self._changed: set[str] = set()

    def __repr__(self) -> str:
        return f"Windows(names={len(self._windows)}, changed={len(self._changed)})"

    def take(self, name: str, amount: int, limits: Limits, now: float) -> int:
        """Count up to ``amount`` against ``limits``; returns how many fitted (0: the limit is reached)."""
        with self._opened(name, now) as (hour, day):
            granted = amount
            if limits.per_hour:
                granted = min(granted, limits.per_hour - hour.total)
            if limits.per_day:
                granted = min(granted, limits.per_day - day.total)
            if granted <= 0:
                return 0
            hour.add(now, granted)
            day.add(now, granted)
            self._changed.add(name)
            return granted

    def give_back(self, name: str, amount: int, now: float) -> None:
        """Take back what was counted and did not happen."""
        if amount > 0:
            with self._opened(name, now) as pair:
                for window in pair:
                    window.take_back(amount)
                self._changed.add(name)

    def counts(self, name: str, now: float) -> tuple[int, int]:
        """What is counted for ``name`` within the last hour and the last day."""
        with self._opened(name, now) as (hour, day):
            return hour.total, day.total

    def free_at(self, name: str, limits: Limits, now: float) -> float:
        """When at least one more fits within ``limits``: ``now``, or the Unix time at which enough has expired."""
        if not (limits.per_hour or limits.per_day):
            return now
        with self._opened(name, now) as (hour, day):
            times = [now]
            for window, limit in ((hour, limits.per_hour), (day, limits.per_day)):
                if limit and window.total >= limit:
                    over = window.total - limit + 1
                    for start, count in window.buckets:
                        over -= count
                        if over <= 0:
                            times.append(start + window.width + window.span)
                            break
            return max(times)

    def take_changes(self) -> list[Bucket]:
        """The buckets of every name that changed since the last call, whole, to be stored in place of the old ones."""
        with self._lock:
            changed, self._changed = self._changed, set()
            return [
                Bucket(name, window.span, start, count)
                for name in changed
                for window in self._windows[name]
                for start, count in window.buckets
            ]

    @contextlib.contextmanager
    def _opened(self, name: str, now: float) -> Iterator[tuple[_Window, _Window]]:
        """The windows of a name, under the lock; what is stored of them is read before, since no lock is held over I/O."""
        stored: list[Bucket] | None = None
        while True:
            with self._lock:
                pair = self._windows.get(name)
                if pair is None and stored is not None:
                    pair = self._windows[name] = _windows_from(stored)
                    self._forget_oldest()
                if pair is not None:
                    self._windows.move_to_end(name)
                    for window in pair:
                        window.expire(now)
                    yield pair
                    return
            stored = sorted(self._load(name), key=lambda bucket: bucket.start)

    def _forget_oldest(self) -> None:
        """Keep memory bounded. Names whose changes are not stored yet stay."""
        excess = len(self._windows) - MAX_NAMES_IN_MEMORY
        for name in list(itertools.islice(self._windows, max(0, excess))):
            if name not in self._changed:
                del self._windows[name]


def _windows_from(stored: Iterable[Bucket]) -> tuple[_Window, _Window]:
    """The hour's and the day's window as they were stored, oldest bucket first."""
    pair = (_Window(HOUR_SECONDS, _BUCKETS_AN_HOUR), _Window(DAY_SECONDS, _BUCKETS_A_DAY))
    for bucket in stored:
        for window in pair:
            if window.span == bucket.span and bucket.count > 0:
                window.buckets.append([bucket.start, bucket.count])
                window.total += bucket.count
    return pair
