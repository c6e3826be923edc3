"""One call of the bench: what it was asked for, and what its figures share.

No threads, no locks. Fails with ``BenchError``.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from bench.traffic import BenchError

ROOT = Path(__file__).resolve().parent.parent
ANSWER_SECONDS = 60.0  # for an interpreter or an executable to say what it is; the first start of the latter unpacks

Subject = TypeVar("Subject")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Program:
    """How mailer is started: the frozen executable, or the source with an interpreter (this one, or another)."""

    executable: Path | None = None
    interpreter: Path | None = None

    @property
    def command(self) -> list[str | Path]:
        if self.executable is not None:
            return [self.executable.resolve()]
        return [self.interpreter or sys.executable, ROOT / "mailer.py"]

    def version(self) -> str:
        """What it says of itself, the interpreter included. Raises BenchError when it does not start."""
        return _output([*self.command, "--version"])

    def is_free_threaded(self) -> bool:
        """Whether its threads run in parallel, by its own word. Raises BenchError."""
        said = self.version()
        return "free-threaded" in said and "lock enabled" not in said


@dataclass(frozen=True, slots=True)
class Call:
    """``folder`` holds the data of all relays but Postfix. ``is_quick``: numbers so small that they prove nothing."""

    program: Program
    folder: Path
    rounds: int
    is_quick: bool
    is_free_threaded: bool
    keeps_data: bool = False
    _numbers: dict[str, int] = field(default_factory=dict)

    def size(self, full: int, quick: int) -> int:
        """How many of something: ``full``, but ``quick`` where the call is a try-out."""
        return quick if self.is_quick else full

    @contextlib.contextmanager
    def room(self, name: str) -> Iterator[Path]:
        """A new folder for the time of a block."""
        number = self._numbers[name] = self._numbers.get(name, 0) + 1
        folder = self.folder / f"{name}-{number}"
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            if not self.keeps_data:
                shutil.rmtree(folder, ignore_errors=True)

    def alternate(self, subjects: Sequence[Subject], measure: Callable[[Subject], Result]) -> list[list[Result]]:
        """Measure each subject once a round; who goes first alternates. The results of each subject, round by round."""
        results: list[list[Result]] = [[] for _ in subjects]
        for number in range(self.rounds):
            order = list(zip(subjects, results, strict=True))
            for subject, of_subject in order if number % 2 == 0 else reversed(order):
                of_subject.append(measure(subject))
        return results


def say(text: str) -> None:
    """Progress, beside the table."""
    print(text, file=sys.stderr, flush=True)


def _output(command: Sequence[str | Path]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=ANSWER_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or ""
        raise BenchError(f"{command[0]} does not start: {error} {said}") from error
    return done.stdout.strip()
