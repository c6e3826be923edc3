"""What a trial found, and the one table of all. No state, no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tests.torture.judge import Verdict

HEADINGS = ("trial", "runs", "accepted", "arrived", "lost", "mixed up", "duplicates (allowed)", "")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. ``runs``: how often what the trial is about was done. ``wrong``: what failed beside the
    messages, in words; ``notes``: what is worth knowing. Without a verdict the trial was not run, and ``notes`` say why."""

    trial: str
    runs: int
    verdict: Verdict | None
    wrong: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def is_ok(self) -> bool:
        return not self.wrong and (self.verdict is None or self.verdict.is_ok)

    def cells(self) -> tuple[str, ...]:
        verdict = self.verdict
        if verdict is None:
            return (self.trial, str(self.runs), *["-"] * 5, "FAILED" if self.wrong else "not run")
        numbers = (self.runs, verdict.accepted, verdict.arrived, verdict.lost, verdict.mixed)
        duplicates = f"{verdict.duplicates} ({verdict.allowed})"
        return (self.trial, *map(str, numbers), duplicates, "ok" if self.is_ok else "FAILED")

    def remarks(self) -> list[str]:
        """What stands below the table."""
        examples = () if self.verdict is None or self.verdict.is_ok else self.verdict.examples
        return [f"{self.trial}: {text}" for text in (*self.wrong, *examples, *self.notes)]


def table(rows: Sequence[Row]) -> str:
    """All rows under their headings, the first column to the left and the others to the right; then the remarks."""
    lines = [HEADINGS, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    drawn = [_line(line, widths) for line in lines]
    drawn.insert(1, "-" * max(map(len, drawn)))
    return "\n".join([*drawn, *_remarks(rows)])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]).rstrip()


def _remarks(rows: Iterable[Row]) -> list[str]:
    remarks = [remark for row in rows for remark in row.remarks()]
    return ["", *remarks] if remarks else []
