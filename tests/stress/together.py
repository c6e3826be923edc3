"""Several threads that begin at the same moment; what one of them raises, the test raises."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from functools import partial

THREADS = 8
WAIT_SECONDS = 60.0
"""A thread that needs longer hangs: all of these do their part in a second or two."""


def together(bodies: Iterable[Callable[[], object]]) -> None:
    """Run the bodies at once, each in a thread, and wait for the end of all."""
    faults: list[BaseException] = []
    all_bodies = list(bodies)
    start = threading.Barrier(len(all_bodies))

    def run(body: Callable[[], object]) -> None:
        try:
            start.wait(WAIT_SECONDS)
            body()
        except BaseException as fault:  # noqa: BLE001 - raised again below, in the test's own thread
            faults.append(fault)

    threads = [threading.Thread(target=run, args=(body,), daemon=True) for body in all_bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_SECONDS)
    hanging = [thread.name for thread in threads if thread.is_alive()]
    if faults:
        raise faults[0]
    assert hanging == [], "these hang"


def many(body: Callable[[int], object], threads: int = THREADS) -> None:
    """The same body in several threads, each with its number."""
    together([partial(body, number) for number in range(threads)])
