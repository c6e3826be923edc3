"""Carries checks out side by side: owns their threads and the time that all of them have together.

A few daemon threads take the checks from a queue. Each writes its finding into a place of its own and then sets that place's
event, which the caller waits for until the time is over; a check that hangs is reported as such and left behind. No locks.
A check may fail with OSError or MailerError, which becomes its finding; one that dies of anything else is a fault of ours: the
thread's traceback goes where all do, and the finding says so.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from mailer.doctor.finding import Finding, failed, warning
from mailer.mail.outcome import MailerError

THREADS = 8  # most checks wait for a peer; more at once would only look like an attack to it


class Check(NamedTuple):
    """A check by the name that the report gives it."""

    name: str
    look: Callable[[], Finding]


class _Place:
    """Where one check's finding will lie; ``finding`` is read only once ``done`` is set."""

    def __init__(self, check: Check) -> None:
        self.check = check
        self.done = threading.Event()
        self.finding: Finding | None = None

    def fill(self) -> None:
        try:
            self.finding = self.check.look()
        except OSError as fault:
            where = f"{fault.filename}: " if fault.filename is not None else ""
            self.finding = failed(f"{where}{fault.strerror or fault}", "see that this user may read it, and that it is there")
        except MailerError as fault:
            self.finding = failed(str(fault), "see what the message says")
        finally:
            self.done.set()


def examine(checks: Sequence[Check], seconds: float) -> dict[str, Finding]:
    """The findings of ``checks`` by name, in their order, after at most ``seconds``."""
    deadline = time.monotonic() + seconds
    places = [_Place(check) for check in checks]
    waiting: queue.SimpleQueue[_Place] = queue.SimpleQueue()
    for place in places:
        waiting.put(place)
    for number in range(min(THREADS, len(places))):
        threading.Thread(target=_work, args=(waiting,), name=f"doctor-{number}", daemon=True).start()
    return {place.check.name: _finding_of(place, deadline, seconds) for place in places}


def _work(waiting: queue.SimpleQueue[_Place]) -> None:
    while True:
        try:
            place = waiting.get_nowait()
        except queue.Empty:
            return
        place.fill()


def _finding_of(place: _Place, deadline: float, seconds: float) -> Finding:
    if not place.done.wait(max(0.0, deadline - time.monotonic())):
        return warning(f"not finished within {seconds:g} s", "run it again; if it stays so, what it asks does not answer")
    return place.finding or failed("the check itself failed", "the traceback above says where: please report it")
