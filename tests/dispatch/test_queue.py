"""The queue is bounded, gives every way and every sender its turn, and gives out no job whose way has no free slot."""

from __future__ import annotations

import random
import threading

from mailer.dispatch.queue import IDLE_WAYS, MAX_KEPT_CONTENT_BYTES, FairQueue, Job
from mailer.mail.address import Address
from mailer.mail.content import LARGE_BYTES, MemoryContent
from mailer.mail.envelope import Envelope, Recipient
from mailer.spool.store import Stored


def job(sender: str = "app", way: str = "a", number: int = 0, content: MemoryContent | None = None) -> Job:
    recipients = (Recipient(0, Address("to", "example.org")),)
    envelope = Envelope(f"{sender}-{number}", Address(sender, "example.com"), recipients, 1, 0.0)
    return Job(Stored(envelope, way), way, content)


def fair_queue(size: int = 1000, limit: int = 100) -> FairQueue:
    return FairQueue(size, lambda way: limit)


def drain(queue: FairQueue) -> list[str]:
    taken = []
    while (next_job := queue.take(0)) is not None:
        taken.append(next_job.stored.envelope.id)
        queue.leave(next_job.way)
    return taken


def test_one_senders_many_messages_do_not_hold_up_another_sender() -> None:
    queue = fair_queue()
    for number in range(200):
        assert queue.offer(job("bulk", number=number))
    assert queue.offer(job("alert"))
    assert "alert-0" in drain(queue)[:2]


def test_messages_of_one_sender_keep_their_order() -> None:
    queue = fair_queue()
    for number in range(50):
        queue.offer(job("app", number=number))
    assert drain(queue) == [f"app-{number}" for number in range(50)]


def test_ways_take_turns() -> None:
    queue = fair_queue()
    for number in range(100):
        queue.offer(job("x", "slow", number))
    for number in range(3):
        queue.offer(job("y", "fast", number))
    assert [name for name in drain(queue)[:6] if name.startswith("y")] == ["y-0", "y-1", "y-2"]


def test_slow_way_does_not_collect_the_workers_of_a_fast_one() -> None:
    queue = fair_queue()
    for number in range(100):
        queue.offer(job("x", "slow", number))
        queue.offer(job("y", "fast", number))
    under_way = 0
    for _ in range(50):
        taken = queue.take(0)
        assert taken is not None
        if taken.way == "fast":
            queue.leave("fast")
        else:
            under_way += 1
    assert under_way == 1


def test_ways_that_are_both_slow_share_the_workers() -> None:
    queue = fair_queue()
    for number in range(100):
        queue.offer(job("x", "a", number))
        queue.offer(job("y", "b", number))
    ways = [taken.way for _ in range(20) if (taken := queue.take(0)) is not None]
    assert (ways.count("a"), ways.count("b")) == (10, 10)


def test_a_sender_gets_no_more_than_its_share_of_the_memory() -> None:
    queue = fair_queue(size=100)
    taken_in = sum(queue.offer(job("bulk", number=number)) for number in range(100))
    assert taken_in == 25
    assert queue.offer(job("other"))


def test_a_way_gets_no_more_than_its_share_of_the_memory() -> None:
    queue = fair_queue(size=100)
    taken_in = sum(queue.offer(job(f"sender{number}", "dead")) for number in range(100))
    assert taken_in == 75
    assert queue.offer(job("other", "alive"))


def test_queue_takes_no_more_than_its_size() -> None:
    queue = fair_queue(size=8)
    taken_in = sum(queue.offer(job(f"s{number}", f"way{number}")) for number in range(20))
    assert taken_in == 8
    assert queue.room == 0


def test_a_queue_of_one_still_works() -> None:
    queue = fair_queue(size=1)
    assert queue.offer(job())
    assert not queue.offer(job(number=1))
    assert drain(queue) == ["app-0"]


def test_way_without_a_free_slot_gives_out_nothing_until_one_is_left() -> None:
    queue = fair_queue(limit=1)
    queue.offer(job(number=0))
    queue.offer(job(number=1))
    first = queue.take(0)
    assert first is not None
    assert queue.take(0) is None
    queue.leave("a")
    second = queue.take(0)
    assert second is not None
    assert second.stored.envelope.id == "app-1"


def test_stalled_way_does_not_hold_up_the_others() -> None:
    queue = fair_queue(limit=2)
    for number in range(20):
        queue.offer(job("x", "stalled", number))
    assert [queue.take(0), queue.take(0)] != [None, None]
    queue.offer(job("y", "alive"))
    taken = queue.take(0)
    assert taken is not None
    assert taken.way == "alive"


def test_worker_that_waits_is_woken_by_an_offer_and_by_a_slot_that_comes_free() -> None:
    queue = fair_queue(limit=1)
    taken: list[Job | None] = []
    for free_it in (lambda: queue.offer(job(number=1)), lambda: queue.leave("a")):
        if taken:
            queue.offer(job(number=2))
        waiter = threading.Thread(target=lambda: taken.append(queue.take(30)))
        waiter.start()
        free_it()
        waiter.join(30)
        assert not waiter.is_alive()
    assert [t.stored.envelope.id for t in taken if t] == ["app-1", "app-2"]


def test_job_that_changes_its_way_takes_the_new_slot_and_gives_back_the_old() -> None:
    queue = fair_queue(limit=1)
    queue.offer(job("x", "a"))
    moved = queue.take(0)
    assert moved is not None
    assert queue.change_way(moved, "b")
    queue.offer(job("y", "a"))
    assert queue.take(0) is not None  # the slot of a is free again
    queue.offer(job("z", "b"))
    assert queue.take(0) is None  # and that of b is not


def test_job_waits_in_the_queue_when_the_new_way_has_no_free_slot() -> None:
    queue = fair_queue(limit=1)
    queue.offer(job("x", "a"))
    queue.offer(job("y", "b"))
    first, second = queue.take(0), queue.take(0)
    assert first is not None
    assert second is not None
    assert not queue.change_way(first, second.way)
    queue.leave(second.way)
    again = queue.take(0)
    assert again is first


def test_content_in_memory_is_bounded_whatever_the_number_of_jobs() -> None:
    queue = fair_queue(size=10_000)
    content = MemoryContent(b"x" * LARGE_BYTES)
    for number in range(200):
        queue.offer(job(f"s{number}", content=content))
    kept = 0
    while (taken := queue.take(0)) is not None:
        kept += taken.kept_bytes
        queue.leave(taken.way)
    assert 0 < kept <= MAX_KEPT_CONTENT_BYTES


def test_new_limits_hold_after_a_reload() -> None:
    limits = {"a": 1}
    queue = FairQueue(10, lambda way: limits[way])
    queue.offer(job(number=0))
    queue.offer(job(number=1))
    assert queue.take(0) is not None
    assert queue.take(0) is None
    limits["a"] = 2
    queue.forget_limits()
    assert queue.take(0) is not None


def test_limit_that_is_changed_lets_more_or_fewer_out_at_once() -> None:
    queue = fair_queue(limit=1)
    for number in range(5):
        queue.offer(job(number=number))
    assert queue.take(0) is not None
    assert queue.take(0) is None
    queue.set_limit("a", 3)
    assert queue.take(0) is not None
    assert queue.take(0) is not None
    assert queue.take(0) is None
    queue.set_limit("a", 2)
    queue.leave("a")
    assert queue.take(0) is None
    queue.leave("a")
    assert queue.take(0) is not None


def test_the_next_is_always_a_way_with_the_fewest_conversations_and_of_those_the_longest_without_a_turn() -> None:
    draw = random.Random(1)
    queue = fair_queue(limit=3)
    waiting: dict[str, int] = {}
    busy: dict[str, int] = {}
    last_turn: dict[str, int] = {}
    for step in range(5000):
        way = f"way-{draw.randrange(40)}"
        kind = draw.random()
        if kind < 0.4 and queue.offer(job(way=way, number=step)):
            waiting[way] = waiting.get(way, 0) + 1
            last_turn.setdefault(way, step)
        elif kind < 0.7:
            taken = queue.take(0)
            ready = [name for name in waiting if waiting[name] and busy.get(name, 0) < 3]
            expected = min(ready, key=lambda name: (busy.get(name, 0), last_turn[name]), default=None)
            assert (taken.way if taken is not None else None) == expected
            if expected is not None:
                waiting[expected] -= 1
                busy[expected] = busy.get(expected, 0) + 1
                last_turn[expected] = step
        elif busy.get(way):
            queue.leave(way)
            busy[way] -= 1


def test_ways_are_forgotten_when_nothing_is_left_of_them() -> None:
    queue = fair_queue()
    for number in range(10 * IDLE_WAYS):
        assert queue.offer(job(way=f"direct:{number}.example", number=number))
        assert queue.take(0) is not None
        queue.leave(f"direct:{number}.example")
    assert len(queue._lanes) <= IDLE_WAYS + 1
    assert len(queue._line) <= 2 * IDLE_WAYS


def test_closed_queue_ends_every_wait_and_gives_out_nothing() -> None:
    queue = fair_queue()
    taken: list[Job | None] = []
    waiter = threading.Thread(target=lambda: taken.append(queue.take(60)))
    waiter.start()
    queue.close()
    waiter.join(30)
    assert taken == [None]
    queue.offer(job())
    assert queue.take(0) is None


def test_many_threads_lose_and_double_nothing() -> None:
    queue = fair_queue(size=100, limit=3)
    total, taken, lock = 3000, [], threading.Lock()
    done = threading.Event()

    def worker() -> None:
        while not done.is_set():
            got = queue.take(0.05)
            if got is None:
                continue
            if got.stored.envelope.id.endswith("7") and got.way != "z" and not queue.change_way(got, "z"):
                continue
            with lock:
                taken.append(got.stored.envelope.id)
                if len(taken) == total:
                    done.set()
            queue.leave(got.way)

    threads = [threading.Thread(target=worker) for _ in range(6)]
    for thread in threads:
        thread.start()
    for number in range(total):
        offered = job(f"s{number % 7}", f"w{number % 3}", number)
        while not queue.offer(offered):
            assert not done.is_set()
    assert done.wait(60)
    for thread in threads:
        thread.join(10)
    assert sorted(taken) == sorted(f"s{number % 7}-{number}" for number in range(total))
    assert queue.room == 100


def test_a_full_queue_remembers_no_way_of_what_it_refuses() -> None:
    queue = fair_queue(size=4)
    for number in range(4):
        assert queue.offer(job(f"s{number}", f"way{number}"))
    for number in range(1000):
        assert not queue.offer(job(way=f"another{number}"))
    assert set(queue._lanes) == {f"way{number}" for number in range(4)}
