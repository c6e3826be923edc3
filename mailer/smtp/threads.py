"""Threads that hold SMTP sessions one after another: a finished session's thread waits for the next connection.

A new thread per connection costs a third of the rate of short connections. One lock guards the count of waiting
threads; connections travel through a queue that never holds more than there are threads waiting for them. Threads end
after ``IDLE_SECONDS`` without work. How many there are is bounded by whoever calls ``run``.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

IDLE_SECONDS = 60.0
"""Long enough for the pauses between bursts, short enough that a burst's memory comes back."""

Task = Callable[[], None]


class SessionThreads:
    """Runs tasks, each in a thread of its own for as long as it lasts; the threads are used again."""

    def __init__(self, name: str, idle_seconds: float = IDLE_SECONDS) -> None:
        self._name = name
        self._idle_seconds = idle_seconds
        self._lock = threading.Lock()  # guards _waiting, _started, _closed; a task is queued only under it
        self._waiting = 0  # threads in ``get`` that no queued task is meant for
        self._started = 0
        self._closed = False
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()

    def __repr__(self) -> str:
        return f"SessionThreads(waiting={self._waiting}, started={self._started})"

    @property
    def started(self) -> int:
        """How many threads were ever started."""
        return self._started

    def run(self, task: Task) -> None:
        """Run ``task`` in a waiting thread, or a new one. Raises RuntimeError when the system gives no more threads."""
        with self._lock:
            if self._waiting > 0:
                self._waiting -= 1
                self._tasks.put(task)
                return
            self._started += 1
            number = self._started
        threading.Thread(target=self._work, args=(task,), name=f"{self._name}-{number}", daemon=True).start()

    def close(self) -> None:
        """End the waiting threads; those with a task end after it."""
        with self._lock:
            self._closed = True
            for _ in range(self._waiting):
                self._tasks.put(None)
            self._waiting = 0

    def _work(self, task: Task | None) -> None:
        while task is not None:
            task()
            task = self._next()

    def _next(self) -> Task | None:
        with self._lock:
            if self._closed:
                return None
            self._waiting += 1
        try:
            return self._tasks.get(timeout=self._idle_seconds)
        except queue.Empty:
            with self._lock:
                if self._waiting > 0:
                    self._waiting -= 1
                    return None
        return self._tasks.get()  # a task was meant for this thread at the very moment it gave up
