"""Which message is brought into memory, and when: a heap of due times over the spool's backlog.

``Schedule`` owns the set of messages in memory (``held``), the heap of due times to come, and the filling of the
``FairQueue``. Its ``step`` runs in one service thread; the other methods are called by sessions, workers and the
spool's writer. ``_lock`` guards everything that changes and is never held over I/O.

Memory stays bounded and the backlog does not: the heap keeps about ``HEAP_SIZE`` due times; those later than
``_horizon`` are known to the spool alone and read when the heap runs dry.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Protocol

from mailer.dispatch.queue import FairQueue, Job
from mailer.dispatch.room import Room
from mailer.mail.content import Content
from mailer.spool.store import Holder, Store, Stored

HEAP_SIZE = 1000
FETCH_SIZE = 200
"""Rows read at once: enough to keep the workers busy, few enough to share the spool's reader."""
LOOK_SECONDS = 30.0
"""The spool is looked at this often whatever is known: a clock may have jumped."""
LOOK_WHEN_FULL_SECONDS = 1.0
EXPIRY_CHECK_SECONDS = 60.0
MIN_WAIT_SECONDS = 0.001


class Planner(Protocol):
    """What the schedule asks about ways."""

    def first_way(self, stored: Stored, now: float) -> str:
        """The way that the message would be tried at now (an open one if there is any)."""
        ...

    def open_way(self, stored: Stored, now: float) -> str | None:
        """``first_way`` of a new message; None when its lane is closed."""
        ...

    def first_ways(self, lane: str, now: float) -> Sequence[str]:
        """The ways that ``first_way`` may name for a message of that lane."""
        ...

    def lane_opens_at(self, lane: str, now: float) -> float:
        """``now`` when a way of the lane is open, else the Unix time at which to look again."""
        ...

    def is_expiring(self, stored: Stored, now: float) -> bool:
        """Whether the message is so old that it is due even though its ways are closed."""
        ...


class Schedule:
    """See the module. ``on_wake`` ends the wait of the thread that runs ``step``."""

    def __init__(self, store: Store, queue: FairQueue, planner: Planner, on_wake: Callable[[], None]) -> None:
        self._store = store
        self._queue = queue
        self._planner = planner
        self._on_wake = on_wake
        self._lock = threading.Lock()  # guards all below
        self._held: set[str] = set()
        self._released: set[str] = set()  # let go of since the fetch under way began
        self._is_fetching = False
        self._heap: list[float] = []
        self._horizon = float("-inf")  # due times up to here are in the heap; the first step reads them
        self._look_at = 0.0  # when to look for due messages in the spool, whatever the heap says
        self._more = False  # the spool has more that is due, and the queue took no more of it
        self._next_wake = 0.0
        self._expiry_check_at = 0.0
        self._called: dict[str, str | None] = {}  # in a worker's hands while others were made due: id → for whose sake
        self._recalled: list[tuple[str, str | None]] = []  # of those, the ones let go of since
        self._paused = False

    def __repr__(self) -> str:
        return f"Schedule(held={len(self._held)}, heap={len(self._heap)}, more={self._more}, look_at={self._look_at:.0f})"

    # Called by others.

    def expect(self, message_id: str) -> None:
        """A message is about to become durable: until ``admit_new`` or ``release`` says more, it is not fetched."""
        with self._lock:
            self._held.add(message_id)

    def admit_new(self, stored: Stored, content: Content, now: float) -> None:
        """An expected message is durable: straight to the queue if there is room, else it waits on disk."""
        way = None if self._paused else self._planner.open_way(stored, now)
        if way is not None and self._queue.offer(Job(stored, way, content)):
            return
        opens_at = self._planner.lane_opens_at(stored.lane, now)
        with self._lock:
            self._let_go(stored.envelope.id)
            if opens_at <= now:
                self._more = True
                # The queue may have run empty between the refusal and this: then no worker will ask for more.
                opens_at = now + LOOK_WHEN_FULL_SECONDS
            self._look_at = min(self._look_at, opens_at)
            is_early = self._look_at < self._next_wake
        if is_early:
            self._on_wake()

    def release(self, message_id: str, due_at: float | None) -> None:
        """The message leaves memory; what the spool says of it is durable. ``due_at``: when it wants to come back."""
        with self._lock:
            self._let_go(message_id)
            is_called = bool(self._called) and message_id in self._called
            if is_called:
                sake = self._called.pop(message_id)
                if due_at is not None:
                    self._recalled.append((message_id, sake))
            is_early = due_at is not None and (self._note_due(due_at) or is_called)
        if is_early:
            self._on_wake()

    def call_again(self, sake: str | None) -> None:
        """Others were made due (``Store.make_due``). What is in a worker's hands now will be recorded with the due time that
        its attempt leads to, as if nothing had happened; so it is looked at again once it is let go of."""
        waiting = self._queue.waiting_ids()
        with self._lock:
            self._called.update((message_id, sake) for message_id in self._held - waiting)

    def bring_up(self, message_id: str, now: float) -> bool:
        """Put a message in the queue whether it is due or not; False when it is in memory already, has ended, or there is no
        room. Its row is read once it is held: one read before may be that of a message that was delivered since."""
        with self._lock:
            if self._paused or message_id in self._held:
                return False
            self._held.add(message_id)
        stored: Stored | None = None
        try:
            stored = self._store.find(message_id)
        finally:
            if stored is None or stored.state.is_final:
                with self._lock:
                    self._let_go(message_id)
        return stored is not None and not stored.state.is_final and self._offer(stored, now)

    def look_again(self) -> None:
        """Something has changed: messages on disk became due, or a way opened."""
        with self._lock:
            self._look_at = 0.0
        self._on_wake()

    def refill_if_low(self, way: str) -> None:
        """Called by a worker that has taken a job of that way."""
        if self._more and self._queue.is_low(way):
            self.look_again()

    def pause(self) -> None:
        """Bring nothing more into memory: the end is near."""
        with self._lock:
            self._paused = True

    # The thread.

    def step(self, now: float) -> float:
        """Bring what is due into the queue. Returns seconds until there may be more to do."""
        with self._lock:
            if self._paused:
                return LOOK_SECONDS
            is_due = now >= self._look_at
            while self._heap and self._heap[0] <= now:
                heapq.heappop(self._heap)
                is_due = True
            recalled, self._recalled = self._recalled, []
            if is_due:
                # Before reading: whatever changes from here on sets them again.
                self._more = False
                self._look_at = now + LOOK_SECONDS
        for message_id, sake in recalled:
            self._recall(message_id, sake, now)
        if is_due:
            self._fill_queue(now)
        if not self._heap and self._horizon < float("inf"):
            self._fill_heap(now)
        with self._lock:
            self._next_wake = min([self._look_at, *self._heap[:1]])
            return max(MIN_WAIT_SECONDS, self._next_wake - now)

    def _recall(self, message_id: str, sake: str | None, now: float) -> None:
        row = self._store.find(message_id)
        if row is None or row.due_at is None or row.due_at <= now:
            return
        if row.holder is Holder.FILE if sake is None else sake in row.waits_for:
            self.bring_up(message_id, now)

    def _fill_queue(self, now: float) -> None:
        """Fetch due messages until the spool has no more, or the queue has no room for more.

        Only what was free at the beginning is filled: workers make room meanwhile, and one row after the other would be
        read. They ask for more once the queue is low.
        """
        shut: set[str] = set()
        look_at = min(now + LOOK_SECONDS, self._shut(self._store.lanes(), shut, now))
        if shut and now >= self._expiry_check_at:
            self._expiry_check_at = now + EXPIRY_CHECK_SECONDS
            self._fetch_expiring(now, shut)
        room = Room(self._queue, lambda lane: self._planner.first_ways(lane, now))
        while room.left > 0:
            fetched = self._fetch(now, min(room.left, FETCH_SIZE), shut, room)
            if fetched is None:
                break
            # A lane that has closed meanwhile: its messages would come back from the workers at once, and be read again.
            look_at = min(look_at, self._shut({stored.lane for stored in fetched}, shut, now))
            wanted = [stored for stored in fetched if stored.lane not in shut or self._put_back(stored)]
            refused = [stored for stored in wanted if not self._offer(stored, now)]
            if refused and len(refused) == len(wanted):  # sessions were faster, or the way is not the one expected
                room.lacking.update(self._planner.first_way(stored, now) for stored in refused)
                shut.update(stored.lane for stored in refused)
        is_full = room.left <= 0 or bool(room.lacking)
        with self._lock:
            self._more = self._more or is_full
            self._look_at = min(self._look_at, look_at, now + LOOK_WHEN_FULL_SECONDS if is_full else look_at)
        if is_full and self._has_drained(room.lacking):
            self.look_again()

    def _has_drained(self, lacking: Collection[str]) -> bool:
        """Whether workers took what was brought up before ``_more`` told them to ask for the rest."""
        room = self._queue.room
        if not lacking:
            return room == self._queue.maxsize
        return room > 0 and any(self._queue.is_low(way) for way in lacking)

    def _shut(self, lanes: Iterable[str], shut: set[str], now: float) -> float:
        """Add the lanes that are closed now to ``shut``. Returns when the first of them opens; infinity if none."""
        look_at = float("inf")
        for lane in lanes:
            opens_at = self._planner.lane_opens_at(lane, now)
            if opens_at > now:
                shut.add(lane)
                look_at = min(look_at, opens_at)
        return look_at

    def _fetch(self, now: float, limit: int, shut: set[str], room: Room | None = None) -> list[Stored] | None:
        """Due messages that are not in memory, held from here on; None when the spool has no more that there is room for.

        A row read here may be out of date: its message may be accepted, delivered, recorded and released while the
        read goes on. So what was released since the read began is dropped as well as what is held. All of a read may be
        dropped so: then there may well be more, which the next read finds.
        """
        with self._lock:
            self._released.clear()
            self._is_fetching = True
            held = frozenset(self._held)
        rows: list[Stored] = []
        try:
            rows = self._store.fetch_due(now, limit, held, shut, room)
        finally:
            with self._lock:
                fresh = [row for row in rows if row.envelope.id not in self._held and row.envelope.id not in self._released]
                self._held.update(row.envelope.id for row in fresh)
                self._is_fetching = False
        return fresh if rows else None

    def _offer(self, stored: Stored, now: float) -> bool:
        return self._queue.offer(Job(stored, self._planner.first_way(stored, now))) or self._put_back(stored)

    def _put_back(self, stored: Stored) -> bool:
        """Let go of a message that does not enter the queue; always False."""
        with self._lock:
            self._let_go(stored.envelope.id)
        return False

    def _fetch_expiring(self, now: float, shut: set[str]) -> None:
        """Messages of closed lanes that are so old that they get their last round all the same."""
        for stored in self._fetch(now, FETCH_SIZE, set()) or ():
            if stored.lane in shut and self._planner.is_expiring(stored, now):
                self._offer(stored, now)
            else:
                self._put_back(stored)

    def _fill_heap(self, now: float) -> None:
        with self._lock:
            self._horizon = float("inf")  # before reading: what is noted meanwhile goes into the heap
        times = self._store.next_due(now, HEAP_SIZE)
        with self._lock:
            self._heap = sorted({*self._heap, *times})
            if len(times) == HEAP_SIZE:
                self._horizon = min(self._horizon, times[-1])  # what came while we read may have cut the heap shorter

    # With the lock held.

    def _let_go(self, message_id: str) -> None:
        self._held.discard(message_id)
        if self._is_fetching:
            self._released.add(message_id)

    def _note_due(self, due_at: float) -> bool:
        """Whether the thread must be woken for it."""
        if due_at <= self._horizon:
            heapq.heappush(self._heap, due_at)
            if len(self._heap) >= 2 * HEAP_SIZE:
                self._heap = sorted(self._heap)[:HEAP_SIZE]
                self._horizon = self._heap[-1]
        return due_at < self._next_wake
