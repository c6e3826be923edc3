"""kill -9 at random moments, of the launcher, the child, the group and the last process in turn, over one spool.

A moment is drawn from the start of the process on, so that some crashes meet it while it recovers from the one before.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator

from tests.torture.report import Row
from tests.torture.sink import Mood
from tests.torture.source import Load
from tests.torture.stage import Plan, Stage

PARTS = ("launcher", "child", "group", "last")
QUICK_RUNS = 16
EARLY_SECONDS = 1.0  # a crash while it starts
BUSY_SECONDS = 0.8  # a crash while it works, counted from its first greeting
EARLY_ONE_IN = 4
MOODS = (Mood.TAKES, Mood.DEFERS_SOME, Mood.TAKES, Mood.DEFERS)
_PAUSE = threading.Event()


def run(plan: Plan) -> Iterator[Row]:
    chance = random.Random(plan.seed)
    runs = QUICK_RUNS if plan.is_quick else plan.runs
    with Stage(plan) as stage:
        with stage.load(Load(never=0)):
            for number in range(runs):
                stage.sink.mood = MOODS[number // len(PARTS) % len(MOODS)]
                stage.program.launch()
                if chance.randrange(EARLY_ONE_IN) == 0:
                    _PAUSE.wait(chance.uniform(0, EARLY_SECONDS))
                else:
                    stage.program.wait_until_serving()
                    _PAUSE.wait(chance.uniform(0, BUSY_SECONDS))
                stage.crash(PARTS[number % len(PARTS)])
            stage.program.start()
            stage.expect_promises(1)
        yield Row("kill -9 at random moments", runs, stage.end_story())
