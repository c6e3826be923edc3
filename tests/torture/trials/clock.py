"""The clock set back an hour and forward a year while the program works, by libfaketime; what counts seconds is left alone.

Mail that is new must flow at once, whatever the clock says, and mail that waits for another try must come with the next one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from tests.torture.report import Row
from tests.torture.sink import Mood
from tests.torture.stage import Plan, Stage, StoryError

JUMPS = {"back an hour": "-1h", "forward a year": "+365d", "and right again": "+0"}
SHOWN_SECONDS = 10.0
"""libfaketime looks into its file once a second (FAKETIME_CACHE_DURATION)."""
NEAR_SECONDS = 600.0
FLOW_SECONDS = 20.0
PATIENCE_SECONDS = 45.0
"""The program looks at its clock every 15 seconds."""
SLOW_RETRIES = {"attemptsPerProvider": 2, "baseDelay": 1000, "maxDelay": 2000, "failedRetryInterval": 3600}
"""What is put off waits for minutes, so that the jump is what it comes after."""
_OFFSETS = {"-1h": -3600.0, "+365d": 365 * 86400.0, "+0": 0.0}
_PAUSE = threading.Event()


def run(plan: Plan) -> Iterator[Row]:
    library = next((str(path) for path in sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), "")
    if not library:
        yield Row("clock that jumps", 0, None, notes=("libfaketime is not installed (Debian: apt-get install faketime)",))
        return
    rounds = 1 if plan.is_quick else 3
    with Stage(plan, retry=SLOW_RETRIES) as stage:
        file = stage.folder / "clock"
        file.write_text("+0\n")
        variables = {
            "LD_PRELOAD": library,
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }
        stage.program.start(environ=variables)
        with stage.load():
            for _ in range(rounds):
                for name, text in JUMPS.items():
                    _jump(stage, file, name, text)
        yield Row("clock back an hour, forward a year", rounds * len(JUMPS), stage.end_story(0))


def _jump(stage: Stage, file: Path, name: str, text: str) -> None:
    """Some mail is put off, the clock jumps, mail flows and what was put off comes."""
    stage.sink.mood = Mood.DEFERS_SOME
    stage.expect_promises(30)
    stage.sink.mood = Mood.TAKES
    file.write_text(f"{text}\n")
    _wait_for_clock(stage, time.time() + _OFFSETS[text], name)
    waiting, before = set(stage.book.owed()), stage.book.arrivals
    stage.expect_promises(30)
    if not stage.book.wait_until(lambda: stage.book.arrivals >= before + 30, FLOW_SECONDS):
        raise StoryError(f"clock {name}: {stage.book.arrivals - before} of 30 messages arrived within {FLOW_SECONDS:g} s")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while left := waiting.intersection(stage.book.owed()):
        if time.monotonic() > deadline:
            raise StoryError(f"clock {name}: {len(left)} messages that waited for another try did not come in time")
        _PAUSE.wait(0.1)


def _wait_for_clock(stage: Stage, wanted: float, name: str) -> None:
    deadline = time.monotonic() + SHOWN_SECONDS
    while True:
        shown = datetime.fromisoformat(stage.program.http("/health")["timestamp"]).timestamp()
        if abs(shown - wanted) < NEAR_SECONDS:
            return
        if time.monotonic() > deadline:
            raise StoryError(f"clock {name}: it shows {shown:.0f} instead of {wanted:.0f}: libfaketime does nothing")
        _PAUSE.wait(0.1)
