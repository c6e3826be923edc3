"""Hours of mixed load in minutes: all sizes, several senders, refused recipients, a flapping provider, connections kept or not.

Memory, threads and descriptors are watched for growth (``watch.py`` says how it is judged), the messages are judged as ever.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

from tests.torture.report import Row
from tests.torture.sink import Mood, Sink
from tests.torture.source import Load
from tests.torture.stage import DOUBTS_A_CRASH, QUICK_RETRIES, Plan, Stage
from tests.torture.watch import Watch, judge_growth

SIZES = (1_000,) * 12 + (4_000,) * 12 + (20_000,) * 6 + (100_000,) * 4 + (300_000,) * 3 + (1_000_000, 5_000_000)
LOAD = Load(sessions=12, sizes=SIZES, never=400, refused=15, pause_seconds=0.04)
"""About 100 messages a second: what a busy application sends in 8 hours comes in 10 minutes."""
MOODS = (Mood.TAKES, Mood.DEFERS_SOME, Mood.TAKES, Mood.VANISHES_SOME, Mood.CLOSED)
MOOD_SECONDS = 3.0
SAMPLES = 200
GIVES_UP = {**QUICK_RETRIES, "maxAttempts": 6}


def run(plan: Plan) -> Iterator[Row]:
    seconds = plan.minutes * 60
    with Stage(plan, retry=GIVES_UP) as stage, Sink(stage.book) as flapping:
        first = {"name": "flapping", "host": "127.0.0.1", "port": flapping.port, "timeout": 10}
        stage.program.settings["forwardProviders"] = [first, stage.provider]
        stage.program.start()
        pids, over = stage.program.processes(), threading.Event()
        with stage.load(LOAD), Watch(lambda: pids, seconds / SAMPLES) as watch:
            for mood in itertools.islice(itertools.cycle(MOODS), max(1, round(seconds / MOOD_SECONDS))):
                flapping.mood = mood
                if mood is Mood.CLOSED:
                    flapping.hang_up()
                over.wait(MOOD_SECONDS)
        watch.write(stage.folder / "samples.csv")
        flapping.mood = Mood.TAKES
        verdict = stage.end_story(flapping.hang_ups + DOUBTS_A_CRASH * stage.crashes)
        growths = judge_growth(watch.samples)
        wrong = tuple(str(growth) for growth in growths if growth.has_grown)
        notes = tuple(str(growth) for growth in growths if not growth.has_grown)
        yield Row(f"mixed load for {plan.minutes:g} minutes", 1, verdict, wrong, notes)
