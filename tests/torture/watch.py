"""What the program uses while it runs, sampled from /proc, and the judgement whether it grows.

How growth is judged: the first ``WARM_UP_SHARE`` of the samples is left out (pools fill, memory is touched for the first
time). Of the rest, the lower quartile of the second half is set against that of the first half: a leak raises the floor, while a
burst of large messages raises only the peaks. It grows when the floor has risen by more than ``TOLERANCE`` and by more than a
fixed slack, both: 10 % of 4 threads is nothing, and 8 MiB of 1 GiB is noise.

Threads: ``Watch`` has one, which appends; it is read after its end. Fails by having no samples of a process that is gone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from types import TracebackType

WARM_UP_SHARE = 0.25
TOLERANCE = 0.10
LEAST_SAMPLES = 16
SLACK = {"memory_mib": 8.0, "threads": 3.0, "files": 8.0}
"""Of the floor: what may come and go with the moment. A leak of one thread or file a minute exceeds it within 10 minutes."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What a program uses. ``memory_mib`` is resident memory; ``files`` are open descriptors."""

    memory_mib: float
    threads: float
    files: float


def sample(pids: Sequence[int]) -> Sample | None:
    """What these processes use together; None when one of them is gone."""
    found = [_of_one(pid) for pid in pids]
    if None in found:
        return None
    return Sample(*(sum(getattr(one, name) for one in found) for name in SLACK))


def _of_one(pid: int) -> Sample | None:
    try:
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
        files = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return None
    if "VmRSS" not in status:
        return None
    return Sample(int(status["VmRSS"].split()[0]) / 1024, int(status["Threads"]), files)


@dataclass(frozen=True, slots=True)
class Growth:
    """One measure's floors in the two halves, and its peak. ``has_grown``: see the module."""

    name: str
    before: float
    after: float
    peak: float
    has_grown: bool

    def __str__(self) -> str:
        word = "GROWS" if self.has_grown else "steady"
        return f"{self.name} {word}: floor {self.before:.1f} then {self.after:.1f}, peak {self.peak:.1f}"


def judge_growth(samples: Sequence[Sample]) -> list[Growth]:
    """The judgement of each measure. Raises ValueError when there are fewer than ``LEAST_SAMPLES``."""
    if len(samples) < LEAST_SAMPLES:
        raise ValueError(f"{len(samples)} samples are too few to judge growth by; {LEAST_SAMPLES} are needed")
    return [_growth(name, [getattr(one, name) for one in samples], slack) for name, slack in SLACK.items()]


def _growth(name: str, values: Sequence[float], slack: float) -> Growth:
    warm = values[round(len(values) * WARM_UP_SHARE) :]
    half = len(warm) // 2
    before, after = quantiles(warm[:half])[0], quantiles(warm[half:])[0]
    has_grown = after - before > slack and after > before * (1 + TOLERANCE)
    return Growth(name, before, after, max(values), has_grown)


class Watch:
    """Samples the processes that ``pids`` names, every ``period_seconds``, until it is left."""

    def __init__(self, pids: Callable[[], Sequence[int]], period_seconds: float) -> None:
        self._pids = pids
        self._period = period_seconds
        self._ends = threading.Event()
        self.samples: list[Sample] = []
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ends.set()
        self._thread.join()

    def __repr__(self) -> str:
        return f"Watch(samples={len(self.samples)})"

    def write(self, path: Path) -> None:
        """All samples as lines of numbers, for whoever wants to draw them."""
        lines = ["seconds,memory_mib,threads,files"]
        for number, one in enumerate(self.samples):
            lines.append(f"{number * self._period:.1f},{one.memory_mib:.1f},{one.threads:.0f},{one.files:.0f}")
        path.write_text("\n".join([*lines, ""]))

    def _run(self) -> None:
        while not self._ends.wait(self._period):
            seen = sample(self._pids())
            if seen is not None:
                self.samples.append(seen)
