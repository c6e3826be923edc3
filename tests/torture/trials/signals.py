"""SIGTERM and SIGHUP under load: the one drains and repeats nothing, the other changes the configuration and disturbs nothing."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Iterator

from tests.torture.program import ProgramError
from tests.torture.report import Row
from tests.torture.sink import Mood
from tests.torture.stage import Plan, Stage

STOPS, QUICK_STOPS = 30, 5
RELOADS, QUICK_RELOADS = 150, 20
BUSY_SECONDS = 0.7
RELOAD_SECONDS = 0.15
DRAIN_SECONDS = 31.0  # spec 4 gives it 30
MOODS = (Mood.TAKES, Mood.DEFERS_SOME)
_PAUSE = threading.Event()


def run(plan: Plan) -> Iterator[Row]:
    yield _stops(plan, QUICK_STOPS if plan.is_quick else STOPS)
    yield _reloads(plan, QUICK_RELOADS if plan.is_quick else RELOADS)


def _stops(plan: Plan, runs: int) -> Row:
    chance, longest = random.Random(plan.seed), 0.0
    with Stage(plan) as stage:
        with stage.load():
            for number in range(runs):
                stage.sink.mood = MOODS[number % len(MOODS)]
                stage.program.start()
                _PAUSE.wait(chance.uniform(0, BUSY_SECONDS))
                longest = max(longest, stage.program.terminate())
            stage.program.start()
            stage.expect_promises(1)
        wrong = (f"a drain took {longest:.1f} s",) if longest > DRAIN_SECONDS else ()
        return Row("SIGTERM under load", runs, stage.end_story(0), wrong, (f"the longest drain took {longest:.1f} s",))


def _reloads(plan: Plan, runs: int) -> Row:
    """Each reload changes the number of workers and what the provider is told; every fifth is invalid and changes nothing."""
    chance = random.Random(plan.seed)
    with Stage(plan) as stage:
        stage.sink.mood = Mood.DEFERS_SOME
        stage.program.start()
        with stage.load():
            for number in range(runs):
                stage.program.settings["workerCount"] = 0.5 if number % 5 == 0 else chance.randint(1, 8)
                stage.provider["name"] = f"sink {number % 2}"
                stage.provider["maxConnections"] = chance.choice((0, 2, 10))
                stage.program.write_config()
                stage.program.signal(signal.SIGHUP)
                _PAUSE.wait(chance.uniform(0, RELOAD_SECONDS))
            if stage.program.status is not None:
                raise ProgramError(f"SIGHUP ended it with status {stage.program.status}; {stage.program.tail()}")
            stage.expect_promises(1)
        return Row("SIGHUP under load", runs, stage.end_story(0))
