"""System calls that fail: no space, no such luck, no descriptor, at each call in turn, while it works and while it starts.

While it works, strace is attached for as long as it takes the fault to come; the program must accept mail again after that.
Then it is killed and started anew: what it answered 250 for must be on disk. While it starts, it may give up with an error,
and the next start without faults must find everything.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tests.torture.inject import CALLS, ERRORS, Injection, InjectionError, calls_of_one_thread, find_strace, fired, prefix
from tests.torture.program import START_SECONDS, Program, ProgramError
from tests.torture.report import Row
from tests.torture.sink import Mood
from tests.torture.source import Load
from tests.torture.stage import SETTLE_SECONDS, Plan, Stage, StoryError

POSITIONS = (1, 2, 3, 4, 5, 6, 8, 10, 13, 17, 23, 40)
QUICK_POSITIONS = (1, 3)
STARTS_SPREAD, STARTS_AT_THE_END = 2, (1, 3, 8)
"""Positions tried of each call and error: spread over all calls of a start, and counted from its end: there is the spool."""
FIRE_SECONDS = 1.0
"""How long to wait for the n-th call: not every thread makes so many."""
MOODS = (Mood.DEFERS_SOME, Mood.TAKES, Mood.DEFERS)
POLL_SECONDS = 0.01
LOOK_SECONDS = 0.5
_PAUSE = threading.Event()
LOAD = Load(sessions=6, sizes=(1_000, 4_000, 4_000, 300_000))


def run(plan: Plan) -> Iterator[Row]:
    """Faults while it works."""
    if why := _why_not():
        yield Row("system calls fail while it works", 0, None, notes=(why,))
        return
    for call in CALLS:
        yield _while_it_works(plan, call)


def run_starts(plan: Plan) -> Iterator[Row]:
    """Faults while it starts."""
    if why := _why_not():
        yield Row("system calls fail while it starts", 0, None, notes=(why,))
        return
    for error in ERRORS:
        yield _while_it_starts(plan, error)


def _why_not() -> str:
    try:
        find_strace()
    except InjectionError as missing:
        return str(missing)
    return ""


def _while_it_works(plan: Plan, call: str) -> Row:
    runs = deaths = 0
    positions = QUICK_POSITIONS if plan.is_quick else POSITIONS
    with Stage(plan) as stage:
        log = stage.folder / "strace.log"
        with stage.load(LOAD):
            for error in ERRORS:
                stage.program.start()
                for number, nth in enumerate(positions):
                    stage.sink.mood = MOODS[number % len(MOODS)]
                    with Injection(stage.program.processes(), log, call, error, nth) as injection:
                        injection.wait_until_fired(FIRE_SECONDS)
                    runs += fired(log)
                    deaths += _go_on(stage)
                stage.crash("group")
            stage.program.start()
            stage.expect_promises(1)
        notes = (f"it ended {deaths} times and was started again",) if deaths else ()
        return Row(f"{call} fails while it works", runs, stage.end_story(), notes=notes)


def _go_on(stage: Stage) -> int:
    """Wait until it accepts mail again. A fault amid its start may have ended it: then start it, and return how often."""
    deaths, deadline = 0, time.monotonic() + SETTLE_SECONDS
    while not stage.book.wait_for_promises(3, LOOK_SECONDS):
        if stage.program.status is not None:
            deaths += 1
            stage.crashes += 1
            stage.program.end()
            stage.program.start()
        elif time.monotonic() > deadline:
            raise StoryError(f"a fault left it without a word for {SETTLE_SECONDS:g} s; {stage.program.tail()}")
    return deaths


def _while_it_starts(plan: Plan, error: str) -> Row:
    """A start over a spool with mail in it, interrupted by a fault at many positions."""
    runs = refusals = 0
    with Stage(plan) as stage:
        stage.sink.mood = Mood.DEFERS
        log = stage.folder / "strace.log"
        with stage.load(LOAD):
            stage.program.start()
            stage.expect_promises(30)
        stage.crash("group")
        for call in CALLS:
            for nth in _positions(stage.program, log, call, plan.is_quick):
                log.unlink(missing_ok=True)
                stage.program.launch(prefix(log, call, error, nth))
                refusals += not _starts(stage.program)
                runs += fired(log)
                stage.program.end()
        stage.program.start()
        notes = (f"{refusals} starts ended with an error",) if refusals else ()
        return Row(f"{error} while it starts", runs, stage.end_story(), notes=notes)


def _positions(program: Program, log: Path, call: str, is_quick: bool) -> list[int]:
    """Positions among the calls of a whole start."""
    log.unlink(missing_ok=True)
    program.start(prefix(log, call))
    program.end()
    calls = calls_of_one_thread(log)
    spread = [round(calls * number / (STARTS_SPREAD + 1)) for number in range(1, STARTS_SPREAD + 1)]
    late = [calls - number for number in STARTS_AT_THE_END]
    return sorted({max(1, position) for position in (late[:1] if is_quick else (*spread, *late))})


def _starts(program: Program) -> bool:
    """Whether it comes to serve; False when it ended instead. Raises ProgramError when it does neither."""
    deadline = time.monotonic() + START_SECONDS
    while program.status is None and not program.serves():
        if time.monotonic() > deadline:
            raise ProgramError(f"a fault while it started left it hanging; {program.tail()}")
        _PAUSE.wait(POLL_SECONDS)
    return program.status is None
