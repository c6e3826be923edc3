"""The queue between the schedule and the workers: bounded, and fair between ways and between senders.

``FairQueue`` is a ``queue.Queue`` whose ``_get`` does not take the oldest job but the next in turn: the way with the
fewest conversations has the next one (equal ones take turns), and within a way senders take turns. So neither a slow
provider nor one sender's 100,000 messages hold up the rest: turns alone would let a provider that takes 4 s a message
collect all workers, one at each of its turns. It also owns the slots: how many conversations run with each way, at most
``limit`` of it. A job whose way has no free slot is not given out, so no worker ever waits for a connection.

One lock, ``mutex`` of ``queue.Queue``, guards everything here. ``not_empty`` is notified when a job can be taken: a job
came for a way with a free slot, or a slot of a way with waiting jobs came free. ``put`` and ``get`` of the base class
are not used; ``offer`` never waits and ``take`` waits with a time-out.
"""

from __future__ import annotations

import functools
import math
import queue
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mailer.mail.content import Content, MemoryContent
from mailer.spool.store import Stored

SENDER_SHARE = 0.25
"""The part of the queue that one sender's messages for one way may fill; the rest of them waits on disk."""
WAY_SHARE = 0.75
"""The part of the queue that messages for one way may fill."""
LOW_WATER = 0.1
"""When a way's jobs fill less than this part of the queue, the schedule is asked for more."""
MAX_KEPT_CONTENT_BYTES = 16 * 1024 * 1024
"""Content kept in memory by all queued jobs together; a job beyond it reads its content back when its turn comes."""


@dataclass(slots=True)
class Job:
    """A message in memory, on its way to a worker. ``way`` is the one that it is to be tried at next.

    ``content`` is None when it has to be read from the spool or the parked file.
    """

    stored: Stored
    way: str
    content: Content | None = None

    @property
    def kept_bytes(self) -> int:
        return self.content.size if isinstance(self.content, MemoryContent) else 0


class _Lane:
    """The jobs for one way, by sender, and the slots taken there."""

    __slots__ = ("busy", "limit", "senders", "size")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.busy = 0
        self.size = 0
        self.senders: OrderedDict[str, deque[Job]] = OrderedDict()

    @property
    def is_ready(self) -> bool:
        return self.size > 0 and self.busy < self.limit


class FairQueue(queue.Queue[Job]):
    """Jobs waiting for a worker, at most ``maxsize``.

    ``limit_of(way)`` says how many conversations may run with a way at once; it is asked when the way is first seen and
    after ``forget_limits``.
    """

    def __init__(self, maxsize: int, limit_of: Callable[[str], int]) -> None:
        super().__init__(maxsize)
        self._limit_of = limit_of
        self._way_share = max(1, math.ceil(maxsize * WAY_SHARE))
        self._sender_share = max(1, math.ceil(maxsize * SENDER_SHARE))

    def __repr__(self) -> str:
        return f"FairQueue(size={self._size}/{self.maxsize}, kept={self._kept_bytes})"

    def offer(self, job: Job) -> bool:
        """Take the job in, if there is room and its sender and way have not had their share; never waits."""
        sender = str(job.stored.envelope.sender)
        with self.mutex:
            lane = self._lane(job.way)
            if self._size >= self.maxsize or lane.size >= self._way_share:
                return False
            jobs = lane.senders.get(sender)
            if jobs is not None and len(jobs) >= self._sender_share:
                return False
            self._put(job)
            if lane.busy < lane.limit:
                self.not_empty.notify()
        return True

    def take(self, timeout_seconds: float) -> Job | None:
        """The next job in turn, its slot taken; None when none can be had within the time, or the queue is closed.

        ``leave`` its way afterwards.
        """
        with self.mutex:
            deadline = 0.0
            while not self._qsize():
                deadline = deadline or time.monotonic() + timeout_seconds
                remaining = deadline - time.monotonic()
                if remaining <= 0 or self._is_closed:
                    return None
                self.not_empty.wait(remaining)
            return None if self._is_closed else self._get()

    def leave(self, way: str) -> None:
        """Give back a slot."""
        with self.mutex:
            self._release(way)

    def change_way(self, job: Job, way: str) -> bool:
        """Give back the slot of the job's way and take one of ``way``. Without a free one the job waits here: False."""
        with self.mutex:
            self._release(job.way)
            job.way = way
            lane = self._lane(way)
            if lane.busy < lane.limit:
                lane.busy += 1
                return True
            self._put(job)
            return False

    def close(self) -> None:
        """Give out nothing more: every ``take``, waiting or to come, returns None."""
        with self.mutex:
            self._is_closed = True
            self.not_empty.notify_all()

    def forget_limits(self) -> None:
        """Ask ``limit_of`` anew for every way: the configuration has changed."""
        with self.mutex:
            for way, lane in list(self._lanes.items()):
                if lane.size == 0 and lane.busy == 0:
                    del self._lanes[way]
                else:
                    lane.limit = self._limit_of(way)
            self.not_empty.notify_all()

    def waiting_ids(self) -> set[str]:
        """The ids of the messages that no worker has taken yet."""
        with self.mutex:
            return {
                job.stored.envelope.id for lane in self._lanes.values() for jobs in lane.senders.values() for job in jobs
            }

    @property
    def room(self) -> int:
        with self.mutex:
            return self.maxsize - self._size

    @property
    def has_ready(self) -> bool:
        """Whether a job could be taken now."""
        with self.mutex:
            return self._qsize() > 0

    def free(self, way: str, sender: str) -> tuple[int, int]:
        """How many more jobs there are places for at that way: for all of its senders together, and for this one."""
        with self.mutex:
            lane = self._lanes.get(way)
            if lane is None:
                return self._way_share, self._sender_share
            return self._way_share - lane.size, self._sender_share - len(lane.senders.get(sender, ()))

    def is_low(self, way: str) -> bool:
        """Whether it is time to fetch more for that way."""
        with self.mutex:
            lane = self._lanes.get(way)
            return lane is None or lane.size <= self.maxsize * LOW_WATER

    # What queue.Queue calls with its mutex held.

    def _init(self, maxsize: int) -> None:  # noqa: ARG002 - queue.Queue's signature
        self._size = 0
        self._kept_bytes = 0
        self._is_closed = False
        self._lanes: OrderedDict[str, _Lane] = OrderedDict()

    def _qsize(self) -> int:
        """How many lanes have a job that can be taken now: what a waiting ``take`` waits for."""
        return sum(lane.is_ready for lane in self._lanes.values())

    def _put(self, item: Job) -> None:
        lane = self._lane(item.way)
        if self._kept_bytes + item.kept_bytes > MAX_KEPT_CONTENT_BYTES:
            item.content = None
        lane.senders.setdefault(str(item.stored.envelope.sender), deque()).append(item)
        lane.size += 1
        self._size += 1
        self._kept_bytes += item.kept_bytes

    def _get(self) -> Job:
        # Of equals min() takes the first, which had its turn the longest ago.
        way, lane = min((found for found in self._lanes.items() if found[1].is_ready), key=_conversations)
        self._lanes.move_to_end(way)
        sender, jobs = next(iter(lane.senders.items()))
        job = jobs.popleft()
        if jobs:
            lane.senders.move_to_end(sender)
        else:
            del lane.senders[sender]
        lane.size -= 1
        lane.busy += 1
        self._size -= 1
        self._kept_bytes -= job.kept_bytes
        return job

    def _lane(self, way: str) -> _Lane:
        lane = self._lanes.get(way)
        if lane is None:
            lane = self._lanes[way] = _Lane(max(1, self._limit_of(way)))
        return lane

    def _release(self, way: str) -> None:
        lane = self._lanes[way]
        lane.busy -= 1
        if lane.size:
            self.not_empty.notify()


class Room:
    """The places that were free in a queue, counted off while messages for them are looked for on disk.

    ``ways_of(lane)`` names the ways that a message of the lane may be tried at first: a place at any of them is one.
    ``lacking``: the ways at which something found no place. Owned by one thread; it reads the queue as it needs to know.
    """

    def __init__(self, queue: FairQueue, ways_of: Callable[[str], Sequence[str]]) -> None:
        self._queue = queue
        self._ways_of = functools.cache(ways_of)
        self.left = queue.room
        self.lacking: set[str] = set()
        self._ways: dict[str, int] = {}
        self._senders: dict[tuple[str, str], int] = {}

    def __repr__(self) -> str:
        return f"Room(left={self.left}, ways={self._ways}, lacking={sorted(self.lacking)})"

    def is_left(self, lane: str) -> bool:
        ways = self._ways_of(lane)
        if any(self._ways.get(way, 1) > 0 for way in ways):
            return self.left > 0
        self.lacking.update(ways)
        return False

    def take(self, lane: str, sender: str) -> bool:
        if self.left <= 0:
            return False
        for way in self._ways_of(lane):
            key = way, sender
            if key not in self._senders:
                of_way, self._senders[key] = self._queue.free(way, sender)
                self._ways.setdefault(way, of_way)
            if self._ways[way] > 0 and self._senders[key] > 0:
                self._ways[way] -= 1
                self._senders[key] -= 1
                self.left -= 1
                return True
        self.lacking.update(self._ways_of(lane))
        return False


def _conversations(found: tuple[str, _Lane]) -> int:
    return found[1].busy
