"""kill -9 at random moments, of the launcher, the child, the group and the last process in turn, over one spool.

A moment is drawn from four kinds: while it starts, and recovers from the crash before; any moment under load; the moment that a
client has read a 250; the moment that the provider has taken a message.
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
LONGEST_SECONDS = 2.0  # nothing arrives while the provider defers all
MOST_MESSAGES = 60  # before a crash at a 250 or at an arrival
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
                _wait_for_the_moment(stage, chance)
                stage.crash(PARTS[number % len(PARTS)])
            stage.program.start()
            stage.expect_promises(1)
        yield Row("kill -9 at random moments", runs, stage.end_story())


def _wait_for_the_moment(stage: Stage, chance: random.Random) -> None:
    book, kind = stage.book, chance.choice(("starting", "any", "a 250", "an arrival"))
    if kind == "starting":
        _PAUSE.wait(chance.uniform(0, EARLY_SECONDS))
        return
    stage.program.wait_until_serving()
    if kind == "any":
        _PAUSE.wait(chance.uniform(0, BUSY_SECONDS))
        return
    promised, arrived = book.promised + chance.randint(1, MOST_MESSAGES), book.arrivals + chance.randint(1, MOST_MESSAGES)
    book.wait_until(lambda: book.promised >= promised if kind == "a 250" else book.arrivals >= arrived, LONGEST_SECONDS)
