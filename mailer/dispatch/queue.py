"""The queue between the schedule and the workers: bounded, and fair between ways and between senders.

``FairQueue`` is a ``queue.Queue`` whose ``_get`` does not take the oldest job but the next in turn: the way with the
fewest conversations has the next one (equal ones take turns), and within a way senders take turns. So neither a slow
provider nor one sender's 100,000 messages hold up the rest: turns alone would let a provider that takes 4 s a message
collect all workers, one at each of its turns. It also owns the slots: how many conversations run with each way, at most
``limit`` of it. A job whose way has no free slot is not given out, so no worker ever waits for a connection.

There are as many ways as providers, or as domains that mail goes to directly, so nothing here looks at all of them: those
that can give out a job stand in a heap by whose turn it is.

One lock, ``mutex`` of ``queue.Queue``, guards everything here. ``not_empty`` is notified when a job can be taken and a
``take`` waits for one: a job came for a way with a free slot, or the first slot of a way with waiting jobs came free.
``put`` and ``get`` of the base class are not used; ``offer`` never waits and ``take`` waits with a time-out.
"""

from __future__ import annotations

import math
import queue
import time
from collections import deque
from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

from mailer.mail.content import Content, MemoryContent
from mailer.spool.store import Stored

if TYPE_CHECKING:
    from mailer.dispatch.ledger import Message

SENDER_SHARE = 0.25
"""The part of the queue that one sender's messages for one way may fill; the rest of them waits on disk."""
WAY_SHARE = 0.75
"""The part of the queue that messages for one way may fill."""
LOW_WATER = 0.1
"""When a way's jobs fill less than this part of the queue, the schedule is asked for more."""
MAX_KEPT_CONTENT_BYTES = 16 * 1024 * 1024
"""Content kept in memory by all queued jobs together; a job beyond it reads its content back when its turn comes."""
IDLE_WAYS = 64
"""Ways without a job that are remembered; beyond it they are forgotten, since mail may go to any number of domains."""


class Job:
    """A message in memory, on its way to a worker. ``way`` is the one that it is to be tried at next.

    ``content`` is None when it has to be read from the spool or the parked file; ``kept_bytes`` of it are in memory.
    ``message`` is set once the message is in workers' hands: then the job is a branch of what is done with it, begun for
    the recipients with the indexes ``begun_for``.
    """

    __slots__ = ("begun_for", "content", "kept_bytes", "message", "sender", "stored", "way")

    def __init__(self, stored: Stored, way: str, content: Content | None = None) -> None:
        self.stored = stored
        self.way = way
        self.content = content
        self.sender = stored.envelope.sender.text
        self.kept_bytes = len(content.data) if isinstance(content, MemoryContent) else 0
        self.message: Message | None = None
        self.begun_for: Sequence[int] = ()

    def __repr__(self) -> str:
        return f"Job({self.stored.envelope.id}, way={self.way!r}, kept_bytes={self.kept_bytes})"


Place = tuple[int, int, str]
"""Where a way stands in line: fewest conversations first, of equals the longest without a turn; its name."""


class _Lane:
    """The jobs for one way, by sender, and the slots taken there. It can give out a job when it has one and a slot is free:
    ``size > 0 and busy < limit``; then it has a ``place``. ``turns``: the lines of all senders with a job, that whose turn is
    next first. ``turn``: when it had its last, in numbers that only grow."""

    __slots__ = ("busy", "limit", "place", "senders", "size", "turn", "turns", "way")

    def __init__(self, way: str, limit: int, turn: int) -> None:
        self.way = way
        self.limit = limit
        self.busy = 0
        self.size = 0
        self.turn = turn
        self.place: Place | None = None
        self.senders: dict[str, deque[Job]] = {}
        self.turns: deque[deque[Job]] = deque()


class FairQueue(queue.Queue[Job]):
    """Jobs waiting for a worker, at most ``maxsize`` of them taken in, and one a worker more that it put back.

    ``limit_of(way)`` says how many conversations may run with a way at once; it is asked when a way comes up that is not
    remembered, and after ``forget_limits``.
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
        with self.mutex:
            if self._size >= self.maxsize:  # first: a lane that never had a job would never be forgotten
                return False
            lane = self._lanes.get(job.way) or self._lane(job.way)
            if lane.size >= self._way_share:
                return False
            line = lane.senders.get(job.sender)
            if line is not None and len(line) >= self._sender_share:
                return False
            self._put(job)
            if self._takers_waiting and lane.place is not None:
                self.not_empty.notify()
        return True

    def take(self, timeout_seconds: float) -> Job | None:
        """The next job in turn, its slot taken; None when none can be had within the time, or the queue is closed.

        ``leave`` its way afterwards.
        """
        with self.mutex:
            if self._is_closed or not (self._qsize() or self._wait_until_ready(timeout_seconds)):
                return None
            return self._get()

    def leave(self, way: str) -> None:
        """Give back a slot."""
        with self.mutex:
            self._release(way)

    def change_way(self, job: Job, way: str) -> bool:
        """Give back the slot of the job's way and take one of ``way``. Without a free one the job waits here: False.

        It is put back even into a full queue, which then has less than no ``room``: nobody else would keep it.
        """
        with self.mutex:
            self._release(job.way)
            job.way = way
            lane = self._lane(way)
            if lane.busy < lane.limit:
                lane.busy += 1
                self._stand(lane)
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
                    lane.limit = max(1, self._limit_of(way))
                    self._stand(lane)
            self.not_empty.notify_all()

    def set_limit(self, way: str, limit: int) -> None:
        """So many conversations may run with that way from now on; those that do, go on."""
        with self.mutex:
            lane = self._lanes.get(way)
            if lane is not None and lane.limit != limit:
                lane.limit = max(1, limit)
                self._stand(lane)
                self.not_empty.notify_all()

    def waiting_ids(self) -> set[str]:
        """The ids of the messages that no worker has taken yet."""
        with self.mutex:
            jobs = (job for lane in self._lanes.values() for line in lane.turns for job in line)
            return {job.stored.envelope.id for job in jobs if job.message is None}

    @property
    def room(self) -> int:
        """Jobs that would still be taken in; below zero after jobs were put back into a full queue."""
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
        self._takers_waiting = 0
        self._lanes: dict[str, _Lane] = {}
        self._line: list[Place] = []  # a heap; places that their lanes have left stay until they come up
        self._ready = 0  # lanes with a place
        self._turn = 0  # the last number that was given out

    def _qsize(self) -> int:
        """How many lanes have a job that can be taken now: what a waiting ``take`` waits for."""
        return self._ready

    def _put(self, item: Job) -> None:
        lane = self._lanes.get(item.way) or self._lane(item.way)
        if self._kept_bytes + item.kept_bytes > MAX_KEPT_CONTENT_BYTES:
            item.content, item.kept_bytes = None, 0
        line = lane.senders.get(item.sender)
        if line is None:
            line = lane.senders[item.sender] = deque()
            lane.turns.append(line)
        line.append(item)
        lane.size += 1
        self._size += 1
        self._kept_bytes += item.kept_bytes
        if lane.place is None:
            self._stand(lane)

    def _get(self) -> Job:
        chosen = self._first_in_line()
        self._turn = chosen.turn = self._turn + 1
        line = chosen.turns[0]
        job = line.popleft()
        if not line:
            chosen.turns.popleft()
            del chosen.senders[job.sender]
        elif len(chosen.turns) > 1:
            chosen.turns.rotate(-1)
        chosen.size -= 1
        chosen.busy += 1
        self._stand(chosen)
        self._size -= 1
        self._kept_bytes -= job.kept_bytes
        return job

    def _first_in_line(self) -> _Lane:
        while self._line:
            place = heappop(self._line)
            lane = self._lanes.get(place[2])
            if lane is not None and lane.place is place:
                return lane
        raise queue.Empty

    def _stand(self, lane: _Lane) -> None:
        """Something of the lane has changed: have it stand where it belongs now, or leave the line."""
        if lane.size and lane.busy < lane.limit:
            if lane.place is None:
                self._ready += 1
            place = lane.place = (lane.busy, lane.turn, lane.way)
            heappush(self._line, place)
            if len(self._line) > 4 * self._ready + IDLE_WAYS:
                self._line = [lane.place for lane in self._lanes.values() if lane.place is not None]
                heapify(self._line)
        elif lane.place is not None:
            lane.place = None
            self._ready -= 1

    def _wait_until_ready(self, timeout_seconds: float) -> bool:
        """Wait for a job that can be taken. False when none came within the time, or the queue was closed."""
        deadline = time.monotonic() + timeout_seconds
        while not self._qsize():
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return False
            self._takers_waiting += 1
            self.not_empty.wait(remaining)
            self._takers_waiting -= 1
            if self._is_closed:
                return False
        return True

    def _lane(self, way: str) -> _Lane:
        lane = self._lanes.get(way)
        if lane is None:
            self._turn += 1
            lane = self._lanes[way] = _Lane(way, max(1, self._limit_of(way)), self._turn)
        return lane

    def _release(self, way: str) -> None:
        lane = self._lanes[way]
        had_free_slot = lane.busy < lane.limit  # then its jobs could be taken before, and who waits was told of them
        lane.busy -= 1
        if lane.size:
            self._stand(lane)
            if self._takers_waiting and not had_free_slot:
                self.not_empty.notify()
        elif lane.busy == 0 and len(self._lanes) > IDLE_WAYS:
            del self._lanes[way]
