"""The rate end to end: from the start of smtp-source until smtp-sink has taken the last message.

mailer and Postfix take turns within each round, and who goes first alternates, so that what else the machine does
falls on both. Before each run both are idle and the disk is synced. One row of the table is one relay in one mode.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.subjects import Mailer, Program, Subject, start_postfix
from bench.traffic import Load, Sink

WARM_UP_MESSAGES = 200  # Postfix starts its processes with the first messages, mailer opens its connections
RUN_TIMEOUT_SECONDS = 300.0
WANTED_RATIO = 3.0  # docs/performance.md, "Figures to reach"
_MODES = {True: "reused connections", False: "a connection each"}


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure, and where the data lie."""

    program: Program
    folder: Path
    load: Load
    rounds: int
    with_postfix: bool = True


@dataclass(slots=True)
class Series:
    """The rates of one relay in one mode, in messages a second: taken (until the last 250), and end to end."""

    name: str
    taken: list[float] = field(default_factory=list)
    delivered: list[float] = field(default_factory=list)
    extra: int = 0  # messages that came more than once

    @property
    def median(self) -> float:
        return statistics.median(self.delivered)

    def row(self, mode: str) -> str:
        spread = f"{min(self.delivered):.0f}–{max(self.delivered):.0f}"
        return f"| {mode} | {self.name} | {self.median:.0f} | {spread} | {statistics.median(self.taken):.0f} | {self.extra} |"


def measure(plan: Plan) -> bool:
    """Print the table; returns whether the ratio that is wanted was reached in both modes. Raises BenchError."""
    with ExitStack() as stack:
        subjects: list[tuple[Subject, Sink]] = []
        sink = stack.enter_context(Sink())
        subjects.append((stack.enter_context(Mailer(plan.program, plan.folder / "relay", sink.port)), sink))
        if plan.with_postfix:
            sink = stack.enter_context(Sink())
            subjects.append((start_postfix(stack, sink.port), sink))
        for subject, its_sink in subjects:
            for reuse in _MODES:
                _run(subject, its_sink, replace(plan.load, messages=WARM_UP_MESSAGES, reuse=reuse), Series(""))
        results = {reuse: [Series(subject.name) for subject, _ in subjects] for reuse in _MODES}
        for number in range(plan.rounds):
            for reuse, series in results.items():
                order = list(zip(subjects, series, strict=True))
                for (subject, its_sink), its_series in order if number % 2 == 0 else reversed(order):
                    _run(subject, its_sink, replace(plan.load, reuse=reuse), its_series)
                print(f"round {number + 1}, {_MODES[reuse]}: " + _last(series), flush=True)
    _print_table(plan, results)
    return all(ratio >= WANTED_RATIO for ratio in _ratios(results).values())


def _run(subject: Subject, sink: Sink, load: Load, series: Series) -> None:
    subject.wait_until_idle()
    os.sync()
    before = sink.count
    begun = time.monotonic()
    load.send_to(subject.port, RUN_TIMEOUT_SECONDS)
    sent = time.monotonic()
    arrived = sink.wait_for(before + load.messages, RUN_TIMEOUT_SECONDS)
    subject.wait_until_idle()
    series.taken.append(load.messages / (sent - begun))
    series.delivered.append(load.messages / (arrived - begun))
    series.extra += sink.count - before - load.messages


def _last(series: Sequence[Series]) -> str:
    return ", ".join(f"{one.name} {one.delivered[-1]:.0f}/s" for one in series)


def _ratios(results: dict[bool, list[Series]]) -> dict[bool, float]:
    return {reuse: series[0].median / series[1].median for reuse, series in results.items() if len(series) > 1}


def _print_table(plan: Plan, results: dict[bool, list[Series]]) -> None:
    load = plan.load
    print(f"\n{load.messages} messages of {load.size_bytes} bytes, {load.sessions} sessions, {plan.rounds} rounds; messages/s\n")
    print("| mode | relay | end to end, median | lowest–highest | taken, median | came twice |")
    print("|---|---|---|---|---|---|")
    for reuse, series in results.items():
        for one in series:
            print(one.row(_MODES[reuse]))
    for reuse, ratio in _ratios(results).items():
        print(f"\n{_MODES[reuse]}: {ratio:.1f} × Postfix (wanted: {WANTED_RATIO:g})")
