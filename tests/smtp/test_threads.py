"""Threads for sessions: used again, ended when idle, none lost."""

from __future__ import annotations

import queue
import threading

from mailer.smtp.threads import SessionThreads, Task

WAIT_SECONDS = 20.0


def wait_for(threads: SessionThreads, waiting: int) -> None:
    """Until so many threads wait. They come to do so on their own."""
    ticker = threading.Event()
    for _ in range(2000):
        if f"waiting={waiting}," in repr(threads):
            return
        ticker.wait(0.01)
    raise AssertionError(repr(threads))


def test_a_finished_tasks_thread_takes_the_next() -> None:
    threads = SessionThreads("test")
    idents: queue.Queue[int] = queue.Queue()
    for _ in range(5):
        threads.run(lambda: idents.put(threading.get_ident()))
        wait_for(threads, 1)
    assert len({idents.get(timeout=WAIT_SECONDS) for _ in range(5)}) == 1
    assert threads.started == 1
    threads.close()


def test_tasks_at_the_same_time_have_threads_of_their_own() -> None:
    threads = SessionThreads("test")
    meeting = threading.Barrier(6)

    def meet() -> None:
        meeting.wait(WAIT_SECONDS)

    for _ in range(5):
        threads.run(meet)
    meeting.wait(WAIT_SECONDS)  # passes only if all five run at once
    assert threads.started == 5
    threads.close()


def test_an_idle_thread_ends() -> None:
    threads = SessionThreads("test-idle", idle_seconds=0.01)
    seen: queue.Queue[threading.Thread] = queue.Queue()
    threads.run(lambda: seen.put(threading.current_thread()))
    thread = seen.get(timeout=WAIT_SECONDS)
    thread.join(WAIT_SECONDS)
    assert not thread.is_alive()
    threads.run(lambda: seen.put(threading.current_thread()))
    assert seen.get(timeout=WAIT_SECONDS) is not thread
    threads.close()


class LateQueue(queue.SimpleQueue[Task | None]):
    """Its waiting thread gives up at the very moment at which a task is put."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = threading.Event()
        self.was_put = threading.Event()

    def get(self, block: bool = True, timeout: float | None = None) -> Task | None:
        if timeout is None:
            return super().get(block)
        self.waits.set()
        assert self.was_put.wait(WAIT_SECONDS)
        raise queue.Empty


def test_no_task_is_lost_to_a_thread_that_is_giving_up() -> None:
    threads = SessionThreads("test-race")
    tasks = threads._tasks = LateQueue()
    done = threading.Semaphore(0)

    def work() -> None:
        done.release()

    threads.run(work)
    assert tasks.waits.wait(WAIT_SECONDS)
    threads.run(work)
    tasks.was_put.set()
    for _ in range(2):
        assert done.acquire(timeout=WAIT_SECONDS)
    assert threads.started == 1
    threads.close()


def test_close_ends_waiting_and_working_threads() -> None:
    threads = SessionThreads("test")
    seen: queue.Queue[threading.Thread] = queue.Queue()
    go_on = threading.Event()
    threads.run(lambda: seen.put(threading.current_thread()))
    waiting = seen.get(timeout=WAIT_SECONDS)
    wait_for(threads, 1)

    def work() -> None:
        seen.put(threading.current_thread())
        go_on.wait(WAIT_SECONDS)

    threads.run(work)
    threads.run(work)
    working = [seen.get(timeout=WAIT_SECONDS), seen.get(timeout=WAIT_SECONDS)]
    threads.close()
    go_on.set()
    for thread in (waiting, *working):
        thread.join(WAIT_SECONDS)
        assert not thread.is_alive()
