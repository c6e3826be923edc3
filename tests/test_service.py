"""A service's thread: stepped, woken, stopped, and never killed by a fault."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

import pytest

from mailer import service
from mailer.service import Service

WAIT_SECONDS = 20.0
FOREVER_SECONDS = 3600.0


class Body:
    """Does what each step is told in ``script``; reports every step; then waits for ever."""

    def __init__(self, *script: Callable[[], float | None] | float | None) -> None:
        self._script = list(script)
        self.steps: queue.Queue[float] = queue.Queue()

    def step(self, now: float) -> float | None:
        act = self._script.pop(0) if self._script else FOREVER_SECONDS
        self.steps.put(now)
        return act() if callable(act) else act


def fail() -> float:
    raise ValueError("a step that fails")


def stop(running: Service) -> None:
    running.stop()
    assert running.join(WAIT_SECONDS)


def test_a_step_that_asks_for_no_wait_is_followed_at_once_by_the_next() -> None:
    body = Body(0.0, 0.0)
    running = Service("test", body)
    running.start()
    for _ in range(3):
        body.steps.get(timeout=WAIT_SECONDS)
    stop(running)
    assert body.steps.empty(), "the third step asked for a wait"


def test_waking_cuts_a_wait_short() -> None:
    body = Body()
    running = Service("test", body)
    running.start()
    body.steps.get(timeout=WAIT_SECONDS)
    running.wake()
    body.steps.get(timeout=WAIT_SECONDS)
    stop(running)
    assert body.steps.empty(), "one wake is one step"


def test_a_wake_during_a_step_is_not_lost() -> None:
    begun, woken = threading.Event(), threading.Event()

    def slow() -> float:
        begun.set()
        woken.wait(WAIT_SECONDS)
        return FOREVER_SECONDS

    body = Body(slow)
    running = Service("test", body)
    running.start()
    assert begun.wait(WAIT_SECONDS)
    running.wake()
    woken.set()
    body.steps.get(timeout=WAIT_SECONDS)
    body.steps.get(timeout=WAIT_SECONDS)
    stop(running)


def test_stopping_ends_a_long_wait() -> None:
    body = Body()
    running = Service("test", body)
    running.start()
    body.steps.get(timeout=WAIT_SECONDS)
    assert running.is_alive
    stop(running)
    assert not running.is_alive


def test_a_step_may_end_its_own_thread() -> None:
    running = Service("test", Body(0.0, None))
    running.start()
    assert running.join(WAIT_SECONDS)


def test_a_fault_is_logged_and_the_thread_goes_on(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(service, "PAUSE_AFTER_FAULT_SECONDS", 0.0)
    body = Body(fail, fail, 0.0)
    running = Service("careful", body)
    with caplog.at_level(logging.ERROR):
        running.start()
        for _ in range(4):
            body.steps.get(timeout=WAIT_SECONDS)
        stop(running)
    assert running.faults == 2
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    assert "service.fault name=careful faults=2" in caplog.text
    assert "a step that fails" in caplog.text


def test_stopping_before_the_start_and_joining_without_one_are_harmless() -> None:
    running = Service("test", Body())
    assert running.join(0.0)
    running.stop()
    running.start()
    assert running.join(WAIT_SECONDS)


def test_a_thread_carries_the_name_of_its_service() -> None:
    names: queue.Queue[str] = queue.Queue()

    def note() -> None:
        names.put(threading.current_thread().name)

    running = Service("spool-writer", Body(note))
    running.start()
    assert names.get(timeout=WAIT_SECONDS) == "spool-writer"
    assert "spool-writer" in repr(running)
    assert running.join(WAIT_SECONDS)
