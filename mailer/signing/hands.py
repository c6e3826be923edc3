"""Threads that make RSA signatures, each on any processor that the program may use.

All other threads share one processor while there is an interpreter lock (process.py), which is right for Python and wrong for
OpenSSL: it works for 0.3 ms without the lock, and on that one processor nothing else would run meanwhile. So a worker hands
the digest over and waits. ``signer-n`` threads are started with the first key that needs them, and end with ``close``.

No lock: one SimpleQueue holds what is to be signed, one of its own takes each answer back. Fails with ``SigningError`` when no
answer comes; a fault in a thread is logged by the service.
"""

from __future__ import annotations

import os
import queue
from collections.abc import Callable, Collection
from typing import NamedTuple

from mailer.service import Service
from mailer.signing.signature import SigningError

MAX_THREADS = 8  # more could not be kept busy: building what they sign holds the interpreter lock for a fifth of the time
ANSWER_SECONDS = 30.0  # a signature takes a millisecond; a machine may be very slow

Sign = Callable[[bytes], bytes]


class _Task(NamedTuple):
    sign: Sign
    digest: bytes
    answer: queue.SimpleQueue[bytes]


class Hands:
    """``processors``: those that the program may use. With fewer than two, signatures are made where they are asked for."""

    def __init__(self, processors: Collection[int] = ()) -> None:
        self._processors = frozenset(processors)
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._services: list[Service] = []  # of the thread that configures alone

    def __repr__(self) -> str:
        return f"Hands({len(self._services)} threads, waiting={self._tasks.qsize()})"

    def take(self, sign: Sign) -> Sign:
        """``sign``, carried out by these threads."""
        if len(self._processors) < 2:
            return sign
        if not self._services:
            count = min(len(self._processors), MAX_THREADS)
            self._services = [Service(f"signer-{n}", _Hand(self._tasks, self._processors)) for n in range(1, count + 1)]
            for service in self._services:
                service.start()

        def handed(digest: bytes) -> bytes:
            answer: queue.SimpleQueue[bytes] = queue.SimpleQueue()
            self._tasks.put(_Task(sign, digest, answer))
            try:
                return answer.get(timeout=ANSWER_SECONDS)
            except queue.Empty:
                raise SigningError(f"no signature came within {ANSWER_SECONDS:g} s") from None

        return handed

    def close(self) -> None:
        """End the threads, when nothing is to be signed any more."""
        for service in self._services:
            service.stop()
        for _ in self._services:
            self._tasks.put(None)


class _Hand:
    """One thread's body."""

    def __init__(self, tasks: queue.SimpleQueue[_Task | None], processors: frozenset[int]) -> None:
        self._tasks = tasks
        self._processors = processors
        self._is_placed = False

    def step(self, now: float) -> float:  # noqa: ARG002 - the Stepper's signature
        if not self._is_placed:
            self._is_placed = True
            os.sched_setaffinity(0, self._processors)
        while (task := self._tasks.get()) is not None:
            task.answer.put(task.sign(task.digest))
        return 0.0  # ``close`` has asked the service to end
