"""The schedule brings what is due into the queue: bounded, in time, never twice, and not what has no open way."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailer.dispatch.queue import FairQueue, Job
from mailer.dispatch.room import Room
from mailer.dispatch.schedule import HEAP_SIZE, LOOK_WHEN_FULL_SECONDS, Schedule
from mailer.mail.address import Address
from mailer.mail.content import MemoryContent
from mailer.mail.envelope import Envelope, Recipient, State
from mailer.spool.sqlite import SqliteSpool
from mailer.spool.store import Holder, Record, Stored

NOW = 1_700_000_000.0


class Ways:
    """A planner with one way a lane unless told otherwise; ``closed`` lanes open at the time given."""

    def __init__(self) -> None:
        self.closed: dict[str, float] = {}
        self.max_age = 10.0**9
        self.names: dict[str, list[str]] = {}
        self.first: dict[str, str] = {}

    def first_way(self, stored: Stored, now: float) -> str:
        return self.first.get(stored.lane, stored.lane)

    def open_way(self, stored: Stored, now: float) -> str | None:
        return self.first_way(stored, now) if self.lane_opens_at(stored.lane, now) <= now else None

    def first_ways(self, lane: str, now: float) -> list[str]:
        return self.names.get(lane, [lane])

    def lane_opens_at(self, lane: str, now: float) -> float:
        return max(now, self.closed.get(lane, 0.0))

    def is_expiring(self, stored: Stored, now: float) -> bool:
        return now - stored.envelope.accepted_at >= self.max_age


class Hall:
    """A schedule over a real spool and a real queue."""

    def __init__(self, folder: Path, queue_size: int = 100) -> None:
        self.spool = SqliteSpool.open(folder)
        self.queue = FairQueue(queue_size, lambda way: 1000)
        self.ways = Ways()
        self.woken = threading.Event()
        self.schedule = Schedule(self.spool, self.queue, self.ways, self.woken.set)

    def store(self, name: str, sender: str = "app", lane: str = "a", at: float = NOW) -> Stored:
        recipients = (Recipient(0, Address("to", "example.org")),)
        envelope = Envelope(name, Address(sender, "example.com"), recipients, 5, at)
        self.spool.submit(envelope, MemoryContent(b"hello"), lane)
        return Stored(envelope, lane, due_at=at)

    def record(self, name: str, state: State, due_at: float | None) -> None:
        done = threading.Event()
        self.spool.record(Record(name, state, due_at, at=NOW), done.set)
        assert done.wait(30)

    def queued(self) -> list[str]:
        names = []
        while (job := self.queue.take(0)) is not None:
            names.append(job.stored.envelope.id)
            self.queue.leave(job.way)
        return names


@pytest.fixture
def hall(tmp_path: Path) -> Iterator[Hall]:
    hall = Hall(tmp_path)
    yield hall
    hall.spool.close()


def test_backlog_of_an_earlier_life_is_brought_up_at_the_first_step(hall: Hall) -> None:
    for n in range(5):
        hall.store(f"m{n}")
    hall.schedule.step(NOW + 1)
    assert hall.queued() == [f"m{n}" for n in range(5)]


def test_what_is_in_memory_is_not_brought_up_again(hall: Hall) -> None:
    hall.store("m")
    hall.schedule.step(NOW + 1)
    hall.schedule.look_again()
    hall.schedule.step(NOW + 2)
    assert hall.queued() == ["m"]


def test_new_message_goes_straight_to_the_queue_with_its_content(hall: Hall) -> None:
    hall.schedule.expect("m")
    hall.schedule.admit_new(hall.store("m"), MemoryContent(b"hello"), NOW)
    job = hall.queue.take(0)
    assert job is not None
    assert job.content == MemoryContent(b"hello")


def test_expected_message_is_not_fetched_before_its_acceptance_is_over(hall: Hall) -> None:
    hall.schedule.expect("m")
    stored = hall.store("m")
    hall.schedule.step(NOW + 1)
    assert hall.queued() == []
    hall.schedule.admit_new(stored, MemoryContent(b"hello"), NOW)
    assert hall.queued() == ["m"]


def test_new_message_for_a_closed_lane_waits_on_disk_until_the_lane_opens(hall: Hall) -> None:
    hall.schedule.step(NOW)
    hall.ways.closed["a"] = NOW + 10
    hall.schedule.expect("m")
    hall.schedule.admit_new(hall.store("m"), MemoryContent(b"hello"), NOW)
    assert hall.queued() == []
    assert hall.schedule.step(NOW + 1) <= 9.0
    assert hall.queued() == []
    hall.schedule.step(NOW + 10)
    assert hall.queued() == ["m"]


def test_message_comes_back_when_it_is_due_and_not_before(hall: Hall) -> None:
    hall.store("m")
    hall.schedule.step(NOW + 1)
    assert hall.queued() == ["m"]
    hall.record("m", State.RETRYING, NOW + 5)
    hall.schedule.release("m", NOW + 5)
    assert hall.schedule.step(NOW + 2) == pytest.approx(3.0)
    assert hall.queued() == []
    hall.schedule.step(NOW + 5)
    assert hall.queued() == ["m"]


def test_due_time_earlier_than_the_next_look_wakes_the_thread(hall: Hall) -> None:
    hall.schedule.step(NOW)
    hall.woken.clear()
    hall.schedule.release("m", NOW + 0.5)
    assert hall.woken.is_set()


def test_finished_message_never_comes_back(hall: Hall) -> None:
    hall.store("m")
    hall.schedule.step(NOW + 1)
    assert hall.queued() == ["m"]
    hall.record("m", State.SUCCESS, None)
    hall.schedule.release("m", None)
    hall.schedule.look_again()
    hall.schedule.step(NOW + 100)
    assert hall.queued() == []


def test_row_that_was_read_before_its_message_was_finished_is_not_brought_up(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    """The race that would deliver a message twice: it is finished and let go of while the rows are being read."""
    hall.store("m")
    hall.schedule.step(NOW + 1)
    assert hall.queued() == ["m"]
    stale = hall.spool.find("m")
    assert stale is not None

    def read_slowly(*args: object) -> list[Stored]:
        hall.record("m", State.SUCCESS, None)
        hall.schedule.release("m", None)
        return [stale]

    monkeypatch.setattr(hall.spool, "fetch_due", read_slowly)
    hall.schedule.look_again()
    fetched = hall.schedule._fetch(NOW + 2, 10, set())
    assert fetched == []


def test_read_of_nothing_but_finished_messages_is_not_taken_for_the_end(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers may finish all that a short read brings while it goes on; what is behind it must not wait for the next look."""
    hall.store("m")
    hall.schedule.step(NOW + 1)
    assert hall.queued() == ["m"]
    stale = hall.spool.find("m")
    assert stale is not None
    hall.store("behind")
    read = hall.spool.fetch_due
    reads: list[int] = []

    def read_slowly(now: float, limit: int, held: set[str], shut: set[str], room: Room | None) -> list[Stored]:
        reads.append(limit)
        if len(reads) > 1:
            return read(now, limit, held, shut, room)
        hall.record("m", State.SUCCESS, None)
        hall.schedule.release("m", None)
        return [stale]

    monkeypatch.setattr(hall.spool, "fetch_due", read_slowly)
    hall.schedule.look_again()
    hall.schedule.step(NOW + 2)
    assert hall.queued() == ["behind"]


def test_lane_that_closes_while_its_messages_are_read_is_left_until_it_opens(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(5):
        hall.store(f"m{n}")
    read = hall.spool.fetch_due

    def close_then_read(now: float, limit: int, held: set[str], shut: set[str], room: Room | None) -> list[Stored]:
        hall.ways.closed["a"] = NOW + 10
        return read(now, limit, held, shut, room)

    monkeypatch.setattr(hall.spool, "fetch_due", close_then_read)
    assert hall.schedule.step(NOW + 1) <= 9.0
    assert hall.queued() == []
    hall.schedule.step(NOW + 10)
    assert len(hall.queued()) == 5


def test_sender_with_few_messages_is_not_behind_one_with_many(hall: Hall) -> None:
    for n in range(300):
        hall.store(f"bulk{n}", sender="bulk", at=NOW - 100)
    hall.store("alert", sender="alert")
    hall.schedule.step(NOW + 1)
    assert "alert" in hall.queued()[:2]


def test_backlog_larger_than_the_queue_is_brought_up_bit_by_bit_and_whole(tmp_path: Path) -> None:
    hall = Hall(tmp_path, queue_size=10)
    for n in range(95):
        hall.store(f"m{n:03}")
    seen: list[str] = []
    now = NOW
    while len(seen) < 95:
        now += 1
        hall.schedule.step(now)
        names = hall.queued()
        assert names, f"stuck after {len(seen)}"
        assert len(names) <= 10
        for name in names:
            hall.record(name, State.SUCCESS, None)
            hall.schedule.release(name, None)
        seen += names
    assert sorted(seen) == [f"m{n:03}" for n in range(95)]
    hall.spool.close()


def test_worker_that_finds_the_queue_low_wakes_the_schedule_while_there_is_more(tmp_path: Path) -> None:
    hall = Hall(tmp_path, queue_size=4)
    for n in range(20):
        hall.store(f"m{n}")
    hall.schedule.step(NOW + 1)
    hall.woken.clear()
    taken = hall.queue.take(0)
    assert isinstance(taken, Job)
    hall.schedule.refill_if_low(taken.way)
    hall.queue.leave(taken.way)
    assert hall.woken.is_set()
    hall.spool.close()


def test_queue_drained_while_it_was_filled_is_filled_again_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that take everything before the schedule has noted that there is more ask for nothing."""
    hall = Hall(tmp_path, queue_size=4)
    for n in range(20):
        hall.store(f"m{n}", sender=f"s{n}")
    read = hall.spool.fetch_due
    taken: list[str] = []

    def read_beside_fast_workers(now: float, limit: int, held: set[str], shut: set[str], room: Room | None) -> list[Stored]:
        rows = read(now, limit, held, shut, room)
        if not rows:  # the schedule is about to give up for now
            taken.extend(hall.queued())
        return rows

    monkeypatch.setattr(hall.spool, "fetch_due", read_beside_fast_workers)
    assert hall.schedule.step(NOW + 1) < 0.01
    assert len(taken) == 3
    hall.spool.close()


def test_full_queue_is_not_looked_at_without_end(tmp_path: Path) -> None:
    hall = Hall(tmp_path, queue_size=4)
    for n in range(20):
        hall.store(f"m{n}", sender=f"s{n}")
    assert hall.schedule.step(NOW + 1) == pytest.approx(LOOK_WHEN_FULL_SECONDS)
    hall.spool.close()


@pytest.mark.parametrize("senders", [1, 2, 7, 300])
def test_backlog_is_read_once_and_in_large_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, senders: int) -> None:
    """Rows read beyond what the queue has room for would be put back, and read again, for every message delivered."""
    hall = Hall(tmp_path, queue_size=100)
    backlog = 600
    for n in range(backlog):
        hall.store(f"m{n:03}", sender=f"s{n % senders}")
    read = hall.spool.fetch_due
    rows_read: list[int] = []

    def counted_read(now: float, limit: int, held: set[str], shut: set[str], room: Room | None) -> list[Stored]:
        rows = read(now, limit, held, shut, room)
        rows_read.append(len(rows))
        return rows

    monkeypatch.setattr(hall.spool, "fetch_due", counted_read)
    hall.schedule.step(NOW + 1)
    hall.woken.clear()
    delivered = 0
    while (job := hall.queue.take(0)) is not None:
        hall.schedule.refill_if_low(job.way)
        message_id = job.stored.envelope.id
        hall.record(message_id, State.SUCCESS, None)
        hall.schedule.release(message_id, None)
        hall.queue.leave(job.way)
        delivered += 1
        if hall.woken.is_set():
            hall.woken.clear()
            hall.schedule.step(NOW + 1)
    assert delivered == backlog
    assert sum(rows_read) == backlog
    assert len(rows_read) <= 2 * backlog / 10  # a sender alone has 25 places, of which 10 are filled when more is fetched
    hall.spool.close()


def test_new_mail_that_fills_the_queue_costs_no_reading_of_the_backlog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More comes in than goes out: the place that a worker makes is taken by the next new message."""
    hall = Hall(tmp_path, queue_size=20)
    read = hall.spool.fetch_due
    rows_read: list[str] = []

    def counted_read(now: float, limit: int, held: set[str], shut: set[str], room: Room | None) -> list[Stored]:
        rows = read(now, limit, held, shut, room)
        rows_read.extend(row.envelope.id for row in rows)
        return rows

    monkeypatch.setattr(hall.spool, "fetch_due", counted_read)
    delivered = 0
    for n in range(300):
        name = f"m{n:03}"
        hall.schedule.expect(name)
        hall.schedule.admit_new(hall.store(name), MemoryContent(b"hello"), NOW)
        if n % 3 == 0:
            job = hall.queue.take(0)
            assert job is not None
            hall.schedule.refill_if_low(job.way)
            hall.record(job.stored.envelope.id, State.SUCCESS, None)
            hall.schedule.release(job.stored.envelope.id, None)
            hall.queue.leave(job.way)
            delivered += 1
            hall.schedule.step(NOW + n * LOOK_WHEN_FULL_SECONDS)
    assert delivered == 100
    assert len(rows_read) <= delivered
    assert len(set(rows_read)) == len(rows_read)
    hall.spool.close()


def test_lane_with_two_ways_is_brought_up_for_the_one_that_has_room(tmp_path: Path) -> None:
    """Only some of its messages may be tried at the way that is full."""
    hall = Hall(tmp_path, queue_size=20)
    hall.ways.names["mixed"] = ["full", "empty"]
    for n in range(15):
        hall.queue.offer(Job(hall.store(f"f{n}", sender=f"s{n}", lane="full"), "full"))
    for n in range(5):
        hall.store(f"m{n}", sender=f"t{n}", lane="mixed")
    hall.ways.first["mixed"] = "empty"
    hall.schedule.step(NOW + 1)
    assert {name for name in hall.queued() if name.startswith("m")} == {f"m{n}" for n in range(5)}
    hall.spool.close()


def test_heap_is_bounded_and_forgets_no_due_time(hall: Hall) -> None:
    hall.schedule.step(NOW)
    for n in range(3 * HEAP_SIZE):
        hall.schedule.release(f"x{n}", NOW + 1000 + n)
    hall.schedule.release("y", NOW + 10)
    assert len(hall.schedule._heap) <= 2 * HEAP_SIZE
    assert hall.schedule.step(NOW + 1) <= 9.0


def test_expiring_message_is_brought_up_although_its_lane_is_closed(hall: Hall) -> None:
    hall.store("old", at=NOW - 1000)
    hall.store("young", at=NOW)
    hall.ways.closed["a"] = NOW + 10_000
    hall.ways.max_age = 500.0
    hall.schedule.step(NOW + 1)
    assert hall.queued() == ["old"]


@pytest.mark.parametrize(("sake", "comes_back"), [(None, True), ("a", True), ("b", False)])
def test_message_in_a_workers_hands_while_others_were_made_due_is_looked_at_again(
    hall: Hall, sake: str | None, comes_back: bool
) -> None:
    hall.store("m")
    hall.schedule.step(NOW + 1)
    assert hall.queued() == ["m"]
    hall.schedule.call_again(sake)
    done = threading.Event()
    parked = Record("m", State.RETRYING, NOW + 300, rounds=1, waits_for=("a",), holder=Holder.FILE, at=NOW)
    hall.spool.record(parked, done.set)
    assert done.wait(30)
    hall.schedule.release("m", NOW + 300)
    hall.schedule.step(NOW + 2)
    assert hall.queued() == (["m"] if comes_back else [])


def test_message_that_still_waits_in_the_queue_is_not_called_twice(hall: Hall) -> None:
    hall.store("m")
    hall.schedule.step(NOW + 1)
    hall.schedule.call_again(None)
    assert hall.queued() == ["m"]
    hall.record("m", State.RETRYING, NOW + 300)
    hall.schedule.release("m", NOW + 300)
    hall.schedule.step(NOW + 2)
    assert hall.queued() == []


def test_paused_schedule_brings_nothing_up(hall: Hall) -> None:
    hall.store("m")
    hall.schedule.pause()
    hall.schedule.step(NOW + 1)
    assert hall.queued() == []
