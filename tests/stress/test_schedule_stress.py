"""Sessions, workers and the schedule over one spool: every message is in one worker's hands at a time, and comes to its end.

Half of the messages are deferred once, so each is carried once or twice, never more; the queue is far too small, so most
of them wait on disk, are read, and may be accepted, delivered or deferred while they are being read.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path

from mailer.dispatch.queue import FairQueue, Job
from mailer.dispatch.schedule import Schedule
from mailer.mail.address import Address
from mailer.mail.content import MemoryContent
from mailer.mail.envelope import Envelope, Recipient, State
from mailer.service import Service
from mailer.spool.sqlite import SqliteSpool
from mailer.spool.store import Record, Stored
from tests.dispatch.test_schedule import Ways
from tests.stress.together import WAIT_SECONDS, together

SESSIONS = WORKERS = 4
MESSAGES = 120  # of each session
QUEUE_SIZE = 16
LANES = ("a", "b")


class House:
    """The dispatching half, with workers that do nothing but write down whom they had."""

    def __init__(self, folder: Path) -> None:
        self.spool = SqliteSpool.open(folder)
        self.queue = FairQueue(QUEUE_SIZE, lambda way: 2)
        self.schedule = Schedule(self.spool, self.queue, Ways(), self.wake)
        self.service = Service("schedule-stress", self.schedule)
        self.service.start()
        self.lock = threading.Lock()  # guards the next two
        self.in_hand: set[str] = set()
        self.carried: Counter[str] = Counter()
        self.ended = threading.Semaphore(0)
        self.is_over = threading.Event()

    def wake(self) -> None:
        self.service.wake()

    def submit(self, number: int) -> None:
        sender, recipients = Address(f"s{number}", "example.com"), (Recipient(0, Address("to", "example.org")),)
        for round_number in range(MESSAGES):
            lane = LANES[round_number % 2]
            envelope = Envelope(f"m{number}-{round_number}", sender, recipients, 5, time.time())
            content = MemoryContent(b"hello")
            self.schedule.expect(envelope.id)
            self.spool.submit(envelope, content, lane)
            self.schedule.admit_new(Stored(envelope, lane, due_at=envelope.accepted_at), content, envelope.accepted_at)

    def work(self) -> None:
        while (job := self.queue.take(WAIT_SECONDS)) is not None:
            self.schedule.refill_if_low(job.way)
            self.carry(job)
            self.queue.leave(job.way)

    def carry(self, job: Job) -> None:
        name = job.stored.envelope.id
        with self.lock:
            assert name not in self.in_hand, f"{name} is in two hands"
            self.in_hand.add(name)
            self.carried[name] += 1
            is_deferred = self.carried[name] == 1 and int(name.rpartition("-")[2]) % 4 < 2
        due_at = time.time() if is_deferred else None
        state = State.RETRYING if is_deferred else State.SUCCESS
        with self.lock:
            self.in_hand.remove(name)
        self.spool.record(Record(name, state, due_at, at=time.time()), lambda: self.let_go(name, due_at))

    def let_go(self, name: str, due_at: float | None) -> None:
        self.schedule.release(name, due_at)
        if due_at is None:
            self.ended.release()

    def end(self) -> None:
        for _ in range(SESSIONS * MESSAGES):
            assert self.ended.acquire(timeout=WAIT_SECONDS), f"{self.schedule!r} {self.queue!r}"
        self.is_over.set()
        self.queue.close()

    def disturb(self) -> None:
        """What reloads, breakers and ``/admin/retry-failed`` do."""
        while not self.is_over.wait(0.002):
            self.schedule.look_again()
            self.schedule.call_again(None)
            self.queue.forget_limits()


def test_no_message_is_in_two_hands_and_each_comes_to_its_end(tmp_path: Path) -> None:
    house = House(tmp_path)
    together([*[partial(house.submit, n) for n in range(SESSIONS)], *[house.work] * WORKERS, house.end, house.disturb])
    house.service.stop()
    assert house.service.join(WAIT_SECONDS)
    assert house.carried == Counter(
        {f"m{s}-{n}": 2 if n % 4 < 2 else 1 for s in range(SESSIONS) for n in range(MESSAGES)}
    )
    assert house.queue.room == QUEUE_SIZE
    totals = house.spool.totals()
    assert (totals.queued, totals.successful) == (0, SESSIONS * MESSAGES)
    house.spool.close()
