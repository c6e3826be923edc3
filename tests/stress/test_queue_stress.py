"""Every job that the queue took in is given out once, and no way ever has more conversations than its slots."""

from __future__ import annotations

import random
import threading
from collections import Counter
from functools import partial

from mailer.dispatch.queue import FairQueue, Job
from mailer.mail.address import Address
from mailer.mail.content import MemoryContent
from mailer.mail.envelope import Envelope, Recipient
from mailer.spool.store import Stored
from tests.stress.together import WAIT_SECONDS, many, together

WAYS = ("a", "b", "c")
SLOTS = 2
SIZE = 40
PRODUCERS = CONSUMERS = 4
JOBS = 600  # of each producer
HOT_ROUNDS = 1500
CHANGES = 0.3  # the part of the jobs that go on to another way


class Hall:
    """Producers and consumers around one queue, and what they have seen."""

    def __init__(self) -> None:
        self.queue = FairQueue(SIZE, lambda way: SLOTS)
        self.lock = threading.Lock()  # guards all below
        self.offered: list[str] = []
        self.done: list[str] = []
        self.under_way: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.producers = PRODUCERS

    def produce(self, number: int) -> None:
        draw = random.Random(number)
        for round_number in range(JOBS):
            name = f"{number}-{round_number}"
            envelope = Envelope(name, Address(draw.choice("xyz"), "example.com"), (Recipient(0, Address("to", "x")),), 1, 0.0)
            job = Job(Stored(envelope, "lane"), draw.choice(WAYS), MemoryContent(b"x" * draw.choice((1, 1000))))
            while not self.queue.offer(job):
                assert self.queue.room >= -CONSUMERS  # what change_way put back is not turned away
            with self.lock:
                self.offered.append(name)
        with self.lock:
            self.producers -= 1

    def consume(self, number: int) -> None:
        draw = random.Random(-number)
        while True:
            job = self.queue.take(0.01)
            if job is None:
                with self.lock:
                    if self.producers == 0 and len(self.done) == PRODUCERS * JOBS:
                        return
                continue
            self._carry(job, draw)

    def _carry(self, job: Job, draw: random.Random) -> None:
        way, name = job.way, job.stored.envelope.id
        self._enter(way)
        if draw.random() < CHANGES:
            other = draw.choice(WAYS)
            self._exit(way)
            if not self.queue.change_way(job, other):
                return  # it waits in the queue, and is another's by now
            way = other
            self._enter(way)
        with self.lock:
            self.done.append(name)
        self._exit(way)
        self.queue.leave(way)

    def _enter(self, way: str) -> None:
        with self.lock:
            self.under_way[way] += 1
            self.most[way] = max(self.most[way], self.under_way[way])

    def _exit(self, way: str) -> None:
        with self.lock:
            self.under_way[way] -= 1


def test_every_job_is_given_out_once_and_no_way_has_more_than_its_slots() -> None:
    hall = Hall()
    together(
        [partial(hall.produce, n) for n in range(PRODUCERS)] + [partial(hall.consume, n) for n in range(1, 1 + CONSUMERS)]
    )
    assert sorted(hall.done) == sorted(hall.offered)
    assert len(set(hall.done)) == PRODUCERS * JOBS
    assert max(hall.most.values()) <= SLOTS
    assert (hall.queue.room, hall.queue.has_ready, hall.queue.waiting_ids()) == (SIZE, False, set())


def test_slots_and_room_balance() -> None:
    queue = FairQueue(SIZE, lambda way: 10**6)
    recipients = (Recipient(0, Address("to", "x")),)

    def use(number: int) -> None:
        for round_number in range(HOT_ROUNDS):
            envelope = Envelope("m", Address(f"s{number}", "x"), recipients, 1, 0.0)
            assert queue.offer(Job(Stored(envelope, "lane"), WAYS[0], MemoryContent(b"x")))
            job = queue.take(WAIT_SECONDS)
            assert job is not None
            if round_number % 2:
                assert queue.change_way(job, WAYS[1])
            queue.leave(job.way)

    many(use)
    assert (queue.room, queue.has_ready) == (SIZE, False)
    assert repr(queue) == f"FairQueue(size=0/{SIZE}, kept=0)"
    assert [lane.busy for lane in queue._lanes.values()] == [0, 0]


def test_nobody_sleeps_over_a_job_or_over_the_end() -> None:
    queue = FairQueue(SIZE, lambda way: SLOTS)
    answers = threading.Semaphore(0)
    jobs = 1000

    def consume() -> None:
        while (job := queue.take(WAIT_SECONDS)) is not None:
            queue.leave(job.way)
            answers.release()

    def produce() -> None:
        for number in range(jobs):
            envelope = Envelope(f"m{number}", Address("a", "x"), (Recipient(0, Address("to", "x")),), 1, 0.0)
            assert queue.offer(Job(Stored(envelope, "lane"), WAYS[number % 3]))
            assert answers.acquire(timeout=WAIT_SECONDS / 2), "a consumer sleeps over a job"
        queue.close()

    together([produce, *[consume] * CONSUMERS])
    assert queue.room == SIZE
