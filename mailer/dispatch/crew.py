"""The worker threads: ``workerCount`` of them at work, and more while some wait on slow peers.

A worker that has been in one conversation for over ``STALL_SECONDS`` no longer counts, and another takes its place, up
to ``WORKERS_PER_COUNT`` times ``workerCount`` threads in all; with the queue's slots (one way holds at most half of
them) stalled peers starve nobody. ``Crew.step`` runs in a service thread of its own; ``_lock`` guards the list.
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
TAKE_SECONDS = 2.0
"""How long a worker waits for a job before it looks whether it should end."""
UNWRITABLE_SECONDS = 0.5


class _Worker:
    """The body of one worker thread. ``busy_since`` is monotonic, 0 while idle; read by the crew without a lock."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self.busy_since = 0.0

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
            crew.process(job)
        finally:
            self.busy_since = 0.0
            crew.moved_at = time.monotonic()
        return 0.0


class Crew:
    """Starts, grows, shrinks and ends the workers; see the module. ``process`` carries one job."""

    def __init__(
        self, store: Store, queue: FairQueue, schedule: Schedule, process: Callable[[Job], None], worker_count: int
    ) -> None:
        self.store = store
        self.queue = queue
        self.schedule = schedule
        self.process = process
        # When a worker last took or finished a job. Written without the lock: the last one wins, and any is right.
        self.moved_at = time.monotonic()
        self.is_shrinking = False  # there may be more workers than are wanted; set with the lock, read without it
        self._lock = threading.Lock()  # guards all below
        self._workers: dict[_Worker, Service] = {}
        self._count = worker_count
        self._wanted = worker_count
        self._started = 0
        self._stopping = False

    def __repr__(self) -> str:
        with self._lock:
            return f"Crew(workers={len(self._workers)}, wanted={self._wanted}, stopping={self._stopping})"

    def set_count(self, worker_count: int) -> None:
        """Take a new ``workerCount``; the next step grows or shrinks."""
        with self._lock:
            self._count = worker_count

    def step(self, now: float) -> float:  # noqa: ARG002 - the Stepper's signature; stalls are measured on the monotonic clock
        """Have as many workers as are wanted now."""
        stalled_before = time.monotonic() - STALL_SECONDS
        with self._lock:
            stalled = sum(0.0 < worker.busy_since < stalled_before for worker in self._workers)
            self._wanted = min(self._count + stalled, self._count * WORKERS_PER_COUNT)
            self.is_shrinking = self._stopping or len(self._workers) > self._wanted
            fresh = []
            while not self._stopping and len(self._workers) < self._wanted:
                worker = _Worker(self)
                self._started += 1
                service = self._workers[worker] = Service(f"worker-{self._started}", worker)
                fresh.append(service)
        for service in fresh:
            service.start()
        return CHECK_SECONDS

    def should_end(self, worker: _Worker) -> bool:
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
