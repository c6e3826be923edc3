"""Every session is run once, by a thread that waited or by a new one, though threads give up waiting all the time."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from mailer.smtp.threads import SessionThreads
from tests.stress.together import THREADS, WAIT_SECONDS, many

ROUNDS = 300


@pytest.mark.parametrize("idle_seconds", [0.0, 0.0005, 60.0])
def test_every_task_runs_once_and_every_thread_ends(idle_seconds: float) -> None:
    name = f"stress-{idle_seconds}"
    threads = SessionThreads(name, idle_seconds)
    ran: list[tuple[int, int]] = []
    lock = threading.Lock()  # guards ran
    all_ran = threading.Event()

    def task(number: int, round_number: int) -> None:
        with lock:
            ran.append((number, round_number))
            if len(ran) == THREADS * ROUNDS:
                all_ran.set()

    def run(number: int) -> None:
        for round_number in range(ROUNDS):
            threads.run(partial(task, number, round_number))

    many(run)
    assert all_ran.wait(WAIT_SECONDS), f"{len(ran)} of {THREADS * ROUNDS}"
    threads.close()
    for thread in threading.enumerate():
        if thread.name.startswith(name):
            thread.join(WAIT_SECONDS)
            assert not thread.is_alive(), "a thread waits for ever"
    assert len(set(ran)) == len(ran)
    assert threads.started <= THREADS * ROUNDS
