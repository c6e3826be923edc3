"""kill -9 at the named points of the code, from source: the program is wrapped from outside (``tests/support/dying.py``).

At each point it dies the first time it comes there, and once more in the thick of the load; the spool is kept from one death
to the next, so that each start meets what the death before left behind.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

from tests.torture.report import Row
from tests.torture.sink import Mood
from tests.torture.source import Load
from tests.torture.stage import Plan, Stage, StoryError

GROUPS: dict[str, tuple[str, ...]] = {
    "kill between accept and commit": ("before submit", "before commit", "within commit"),
    "kill between commit and 250": ("after commit", "after submit"),
    "kill between a provider's 250 and its record": ("after deliver", "before delivered", "after delivered"),
    "kill while a message is parked": (
        "before prepare", "within prepare", "after prepare", "before parked", "after parked", "before publish", "after publish",
    ),
    "kill while a parked message is finished": (
        "before finished", "after finished", "before remove", "after remove", "before cleared", "after cleared",
    ),
    "kill while a message is given up": ("before bury", "after bury"),
}  # fmt: skip
TIMES, QUICK_TIMES = (1, 2, 25), (4,)
DEATH_SECONDS = 60.0
GIVES_UP = {"attemptsPerProvider": 1, "failedRetryInterval": 1, "maxAttempts": 2}
"""A message that nobody takes lies in ``emails/dead`` after two rounds; the sink takes all others at the second try."""


def run(plan: Plan) -> Iterator[Row]:
    times = QUICK_TIMES if plan.is_quick else TIMES
    for name, points in GROUPS.items():
        settings: dict[str, Any] = {"retry": GIVES_UP} if "given up" in name else {}
        with Stage(plan, command=plan.source_command, **settings) as stage:
            stage.sink.mood = Mood.TAKES if settings else Mood.DEFERS_SOME
            with stage.load(Load(sessions=4, never=4 if settings else 0)):
                for point in points:
                    for nth in times:
                        _die_at(stage, f"{point} {nth}")
                stage.program.start()
                stage.expect_promises(1)
            yield Row(name, len(points) * len(times), stage.end_story())


def _die_at(stage: Stage, point: str) -> None:
    """Run the program until it dies there."""
    interpreter = stage.plan.interpreter
    stage.program.command = [interpreter, "-m", "tests.support.dying", point]
    stage.program.launch()
    try:
        stage.program.wait_for_death(DEATH_SECONDS)
    except subprocess.TimeoutExpired:
        raise StoryError(f"it did not come to {point!r} within {DEATH_SECONDS:g} s") from None
    finally:
        stage.program.command = stage.plan.source_command
    stage.crashes += 1
