"""Several threads that begin at the same moment; what one of them raises, the test raises."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from functools import partial

THREADS = 8
WAIT_SECONDS = 60.0
"""A thread that needs longer hangs: all of these do their part in a second or two."""


def together(bodies: Iterable[Callable[[], object]]) -> None:
    """Run the bodies at once, each in a thread, and wait for the end of all, or for the first that raises: the others may
    well wait for what that one would have done."""
    all_bodies = list(bodies)
    start = threading.Barrier(len(all_bodies))
    ends: queue.Queue[BaseException | None] = queue.Queue()

    def run(body: Callable[[], object]) -> None:
        try:
            start.wait(WAIT_SECONDS)
            body()
        except BaseException as fault:  # noqa: BLE001 - raised again below, in the test's own thread
            ends.put(fault)
        else:
            ends.put(None)

    for body in all_bodies:
        threading.Thread(target=run, args=(body,), daemon=True).start()
    for count in range(len(all_bodies)):
        try:
            fault = ends.get(timeout=WAIT_SECONDS)
        except queue.Empty:
            raise AssertionError(f"{len(all_bodies) - count} of {len(all_bodies)} threads hang") from None
        if fault is not None:
            raise fault


def many(body: Callable[[int], object], threads: int = THREADS) -> None:
    """The same body in several threads, each with its number."""
    together([partial(body, number) for number in range(threads)])
