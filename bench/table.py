"""What a call found, as one table: each figure with its peer, the ratio, what is wanted, and whether it was reached.

Values only: no threads, no clock. A ratio is that of the two medians, so that a reader can check it against the row; the
spread beside it is of the ratios round by round, in which both relays met the same machine.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

OK, MISSED, NOT_MEASURED = "ok", "missed", "not measured"
_HEAD = "| figure | mailer, median (lowest–highest) | peer | its median (lowest–highest) | ratio | wanted | |"


@dataclass(frozen=True, slots=True)
class Series:
    """One value a round, in the order of the rounds; at least one."""

    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Iterable[float]) -> Series:
        return cls(tuple(values))

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def text(self) -> str:
        if len(self.values) == 1:
            return number(self.values[0])
        return f"{number(self.median)} ({number(min(self.values))}–{number(max(self.values))})"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a figure is to reach: ``is_least`` a bound from below. ``of_ratio``: the ratio to the peer, else mailer's value."""

    bound: float
    is_least: bool
    of_ratio: bool = True

    def is_reached_by(self, value: float) -> bool:
        return value >= self.bound if self.is_least else value <= self.bound

    def text(self, unit: str) -> str:
        return f"{'≥' if self.is_least else '≤'} {number(self.bound)} {'×' if self.of_ratio else unit}".rstrip()


def at_least(ratio: float) -> Wanted:
    return Wanted(ratio, is_least=True)


def at_most(ratio: float) -> Wanted:
    return Wanted(ratio, is_least=False)


def value_at_most(bound: float) -> Wanted:
    return Wanted(bound, is_least=False, of_ratio=False)


@dataclass(frozen=True, slots=True)
class Row:
    """One line: ``peer_name`` says what ``peer`` was measured on. Without ``wanted`` it is there to compare."""

    figure: str
    unit: str
    ours: Series
    peer_name: str = ""
    peer: Series | None = None
    wanted: Wanted | None = None

    @property
    def ratio(self) -> float | None:
        return None if self.peer is None else _ratio(self.ours.median, self.peer.median)

    @property
    def verdict(self) -> str:
        if self.wanted is None:
            return ""
        value = self.ratio if self.wanted.of_ratio else self.ours.median
        return OK if value is not None and self.wanted.is_reached_by(value) else MISSED

    @property
    def text(self) -> str:
        theirs = "" if self.peer is None else f"{self.peer.text} {self.unit}"
        wanted = "" if self.wanted is None else self.wanted.text(self.unit)
        cells = (self.figure, f"{self.ours.text} {self.unit}", self.peer_name, theirs, self._ratio_text(), wanted, self.verdict)
        return f"| {' | '.join(cells)} |"

    def _ratio_text(self) -> str:
        if self.peer is None or self.ratio is None:
            return ""
        each = [_ratio(a, b) for a, b in zip(self.ours.values, self.peer.values, strict=False)]
        return number(self.ratio) + (f" ({number(min(each))}–{number(max(each))})" if len(each) > 1 else "")


@dataclass(frozen=True, slots=True)
class Gap:
    """A figure that could not be measured, and why."""

    figure: str
    reason: str

    verdict = NOT_MEASURED

    @property
    def text(self) -> str:
        reason = " ".join(self.reason.split()).replace("|", "/")
        return f"| {self.figure} | {reason} | | | | | {self.verdict} |"


def render(rows: Sequence[Row | Gap]) -> str:
    return "\n".join([_HEAD, "|" + "---|" * (_HEAD.count("|") - 1), *(row.text for row in rows)])


def number(value: float) -> str:
    """Three digits that count, and no more than are there: 1345, 31.2, 0.204, 3."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of ``values`` that so many percent of them do not exceed (the nearest rank)."""
    rank = math.ceil(len(values) * percent / 100)
    return sorted(values)[max(0, rank - 1)]


def _ratio(a: float, b: float) -> float:
    return a / b if b else math.inf
