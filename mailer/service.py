"""How a thread of ours is named, started, watched and stopped.

A ``Service`` owns one thread that calls ``step(now)`` over and over. An exception in a step is logged and the thread
goes on after a short pause: bad input may spoil one step, never the service. This is one of the two places with
``except Exception`` (the other is the top of an SMTP session).
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from typing import Protocol

log = logging.getLogger(__name__)

PAUSE_AFTER_FAULT_SECONDS = 1.0


class Stepper(Protocol):
    """A thread's body: one bounded piece of work per call."""

    def step(self, now: float) -> float | None:
        """Do what is due at ``now`` (Unix seconds). Returns seconds to wait for the next step (0: at once), or None to end.

        The wait is cut short by ``Service.wake()``.
        """
        ...


class Service:
    """One named thread that runs a ``Stepper`` until stopped.

    ``wake()`` ends the current wait; any thread may call it. ``stop()`` asks, ``join()`` waits.
    """

    def __init__(self, name: str, body: Stepper) -> None:
        self.name = name
        self._body = body
        # A token here is a wake that the thread has yet to see. A SimpleQueue in place of an Event: it is written in C, and
        # two or three of these run for each message.
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._stopping = False
        self.faults = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __repr__(self) -> str:
        return f"Service({self.name!r}, alive={self.is_alive}, faults={self.faults})"

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """End the current wait, or else the next one; what the caller did before is seen by the step that follows.

        While a token is there, none is added. It cannot be too old to count: the thread removes it before the step that
        looks at the work, so whoever still finds one has done its part before that step. Two callers at once may add
        two, which costs a step that finds nothing.
        """
        if self._wakes.empty():
            self._wakes.put(None)

    def stop(self) -> None:
        """Ask the thread to end after its current step."""
        self._stopping = True
        self._wakes.put(None)

    def join(self, timeout_seconds: float | None = None) -> bool:
        """Wait for the end of the thread; False when it still runs after ``timeout_seconds``."""
        if self._thread.ident is not None:
            self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping:
            try:
                wait = self._body.step(time.time())
            except Exception:
                self.faults += 1
                log.exception("service.fault name=%s faults=%d next=%gs", self.name, self.faults, PAUSE_AFTER_FAULT_SECONDS)
                wait = PAUSE_AFTER_FAULT_SECONDS
            if wait is None:
                return
            self._rest(wait)

    def _rest(self, seconds: float) -> None:
        """Wait for a wake, but no longer than that, and take it away."""
        if seconds > 0:
            with contextlib.suppress(queue.Empty):
                self._wakes.get(timeout=seconds)
        elif not self._wakes.empty():
            self._wakes.get()  # nobody else takes any
