"""The worker threads: ``workerCount`` of them at work, and more while some wait on slow peers.

A worker that has been in one conversation for over ``STALL_SECONDS`` no longer counts, and another takes its place, up
to ``WORKERS_PER_COUNT`` times ``workerCount`` threads in all; with the queue's slots (one way holds at most half of
them) stalled peers starve nobody. One that waits for DNS or a connection to a server that may not exist (``Worker.dialing``)
does no work at all: it stands aside after ``DIAL_SECONDS``, and up to ``MAX_DIALING`` may. ``Crew.step`` runs in a service
thread of its own; ``_lock`` guards the list.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from mailer.dispatch.queue import FairQueue, Job
from mailer.dispatch.schedule import Schedule
from mailer.dispatch.ways import WORKERS_PER_COUNT
from mailer.service import Service
from mailer.spool.store import Store

STALL_SECONDS = 5.0
CHECK_SECONDS = 1.0
DIAL_SECONDS = 0.01
"""A connection that is not there after so long may be a while: most stand within it, and need no further thread."""
MAX_DIALING = 250
"""Threads beside those that count: so many dead servers at once hold up nobody, and a thread that waits costs 50 KiB."""
TAKE_SECONDS = 2.0
"""How long a worker waits for a job before it looks whether it should end."""
UNWRITABLE_SECONDS = 0.5


class Worker:
    """The body of one worker thread. ``busy_since`` and ``dialing_since`` are monotonic, 0 while idle and while not dialing;
    read by the crew without a lock."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self.busy_since = 0.0
        self.dialing_since = 0.0

    def dialing(self) -> None:
        """What comes next is no work but waiting for a server that may not be there."""
        if not self.dialing_since:
            self.dialing_since = time.monotonic()
            self._crew.look_closer()

    def working(self) -> None:
        """The server is there, and a conversation begins."""
        self.dialing_since = 0.0
        self.busy_since = self._crew.moved_at = time.monotonic()

    def step(self, now: float) -> float | None:  # noqa: ARG002 - the Stepper's signature; a worker asks no clock
        """Take one job and carry it."""
        crew = self._crew
        if crew.is_shrinking and crew.should_end(self):
            return None
        if not crew.store.writable:
            return UNWRITABLE_SECONDS  # no delivery starts whose record could not be kept (spec 4)
        job = crew.queue.take(TAKE_SECONDS)
        if job is None:
            return 0.0
        crew.schedule.refill_if_low(job.way)
        self.busy_since = crew.moved_at = time.monotonic()
        try:
            crew.process(job, self)
        finally:
            self.busy_since = self.dialing_since = 0.0
            crew.moved_at = time.monotonic()
        return 0.0


class Crew:
    """Starts, grows, shrinks and ends the workers; see the module. ``process`` carries one job for a worker; ``on_wake`` ends
    the wait of the thread that runs ``step``."""

    def __init__(
        self, store: Store, queue: FairQueue, schedule: Schedule, process: Callable[[Job, Worker], None], worker_count: int
    ) -> None:
        self.store = store
        self.queue = queue
        self.schedule = schedule
        self.process = process
        self.on_wake: Callable[[], None] = lambda: None
        # When a worker last took or finished a job. Written without the lock: the last one wins, and any is right.
        self.moved_at = time.monotonic()
        self.is_shrinking = False  # there may be more workers than are wanted; set with the lock, read without it
        self._lock = threading.Lock()  # guards all below
        self._workers: dict[Worker, Service] = {}
        self._count = worker_count
        self._wanted = worker_count
        self._started = 0
        self._stopping = False
        self._is_close = False  # some worker dials; read without the lock

    def __repr__(self) -> str:
        with self._lock:
            return f"Crew(workers={len(self._workers)}, wanted={self._wanted}, stopping={self._stopping})"

    def set_count(self, worker_count: int) -> None:
        """Take a new ``workerCount``; the next step grows or shrinks."""
        with self._lock:
            self._count = worker_count

    def step(self, now: float) -> float:  # noqa: ARG002 - the Stepper's signature; stalls are measured on the monotonic clock
        """Have as many workers as are wanted now."""
        now_monotonic = time.monotonic()
        with self._lock:
            dialing = [worker.dialing_since for worker in self._workers if worker.dialing_since]
            aside = min(MAX_DIALING, sum(since < now_monotonic - DIAL_SECONDS for since in dialing))
            stalled = sum(
                not worker.dialing_since and 0.0 < worker.busy_since < now_monotonic - STALL_SECONDS for worker in self._workers
            )
            self._wanted = min(self._count + stalled, self._count * WORKERS_PER_COUNT) + aside
            self._is_close = bool(dialing)
            self.is_shrinking = self._stopping or len(self._workers) > self._wanted
            fresh = []
            while not self._stopping and len(self._workers) < self._wanted:
                worker = Worker(self)
                self._started += 1
                service = self._workers[worker] = Service(f"worker-{self._started}", worker)
                fresh.append(service)
        for service in fresh:
            service.start()
        return DIAL_SECONDS if dialing else CHECK_SECONDS

    def look_closer(self) -> None:
        """A worker dials: see soon whether it still does."""
        if not self._is_close:
            self._is_close = True  # set without the lock: at worst the thread is woken once more, or looks a step later
            self.on_wake()

    def should_end(self, worker: Worker) -> bool:
        """Asked by an idle worker; True once, when there are more workers than wanted."""
        with self._lock:
            if self._stopping or len(self._workers) > self._wanted:
                self._workers.pop(worker, None)
                return True
            return False

    def seconds_without_progress(self) -> float:
        """How long jobs that could be taken, or are carried, have not moved; 0 when there are none."""
        return time.monotonic() - self.moved_at if self.busy or self.queue.has_ready else 0.0

    @property
    def busy(self) -> int:
        """How many workers carry a message at this moment."""
        with self._lock:
            return sum(worker.busy_since > 0.0 for worker in self._workers)

    def stop(self, timeout_seconds: float) -> bool:
        """Let every worker finish what it carries and end; False when some had not within the time."""
        with self._lock:
            self._stopping = self.is_shrinking = True
            services = list(self._workers.values())
        for service in services:
            service.stop()
        self.queue.close()
        deadline = time.monotonic() + timeout_seconds
        ended = [service.join(max(0.0, deadline - time.monotonic())) for service in services]
        return all(ended)
