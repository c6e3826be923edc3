"""Two instances on one spool: the second must refuse to run, whenever it comes, and the first must not notice."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

from tests.torture.program import START_SECONDS, Program, ProgramError
from tests.torture.report import Row
from tests.torture.stage import Plan, Stage

RUNS, QUICK_RUNS = 12, 3


def run(plan: Plan) -> Iterator[Row]:
    runs = QUICK_RUNS if plan.is_quick else RUNS
    with Stage(plan) as stage:
        with stage.load():
            for number in range(runs):
                settings = stage.program.settings | {"healthCheckPort": 0, "smtpPort": 0}
                second = Program(stage.program.command, stage.folder, settings, "second")
                if number % 2:
                    stage.program.start()
                    _expect_refusal(second)
                else:
                    _start_both(stage.program, second)
                stage.expect_promises(5)
                stage.crash("group")
            stage.program.start()
        yield Row("two instances on one spool", runs, stage.end_story())


def _expect_refusal(second: Program) -> None:
    second.launch()
    try:
        _check(second, second.wait_for_end(START_SECONDS))
    finally:
        second.end()


def _start_both(first: Program, second: Program) -> None:
    """Both at once: either may get the spool, and one of them alone."""
    second.launch()
    first.launch()
    try:
        if (status := _ended(first, second)) is not None:
            _check(first, status)
            second.end()
            first.start()
        else:
            _check(second, second.wait_for_end(START_SECONDS))
            first.wait_until_serving()
    finally:
        second.end()


def _ended(first: Program, second: Program) -> int | None:
    """The status of the first once either has ended; None when that was the second."""
    while True:
        for program in (second, first):
            try:
                status = program.wait_for_end(0.05)
            except subprocess.TimeoutExpired:
                continue
            return status if program is first else None


def _check(refused: Program, status: int) -> None:
    if status == 0 or "spool" not in refused.tail():
        raise ProgramError(f"an instance on a spool in use ended with status {status}; {refused.tail()}")
