"""What every trial stands on: a program, its provider and the book, in a folder of their own; and how a story ends.

``end_story`` waits until all that was promised has come, then ends the program in order. Threads: one uses a ``Stage``; those
of sink and source belong to them. Fails with ``StoryError`` for what is wrong beside the book: a hang, a wrong end.
"""

from __future__ import annotations

import base64
import json
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.torture.book import DEAD, Book
from tests.torture.judge import Verdict, judge
from tests.torture.messages import read
from tests.torture.program import Program, ProgramError
from tests.torture.sink import Mood, Sink
from tests.torture.source import Load, Source

ROOT = Path(__file__).resolve().parents[2]
WORKERS = 5
DOUBTS_A_CRASH = 4 * WORKERS
"""Spec 4: at most so many deliveries are repeated by a crash."""
QUICK_RETRIES = {"attemptsPerProvider": 1, "baseDelay": 20, "maxDelay": 100, "failedRetryInterval": 1}
SETTLE_SECONDS = 30.0  # without a single arrival: then what is owed is lost
IDLE_SECONDS = 60.0
POLL_SECONDS = 0.05
_PAUSE = threading.Event()


class StoryError(Exception):
    """The story did not go as it must; the text says how."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is run: the program, how much of everything, and where. ``seed`` makes the moments of a run repeatable;
    ``settings`` are the program's, over those of a trial."""

    executable: Path
    interpreter: str
    from_source: bool
    is_quick: bool
    runs: int
    minutes: float
    folder: Path
    seed: int = 1
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def command(self) -> list[str]:
        return self.source_command if self.from_source else [str(self.executable)]

    @property
    def source_command(self) -> list[str]:
        return [self.interpreter, str(ROOT / "mailer.py")]


class Stage:
    """``providers`` stand before the sink in the order of ways; ``settings`` are the program's."""

    def __init__(
        self, plan: Plan, providers: Sequence[Mapping[str, Any]] = (), command: Sequence[str] = (), **settings: Any
    ) -> None:
        self.plan = plan
        self.folder = Path(tempfile.mkdtemp(dir=plan.folder))
        self.book = Book()
        self._stack = ExitStack()
        self.sink = self._stack.enter_context(Sink(self.book))
        self.provider: dict[str, Any] = {"name": "sink", "host": "127.0.0.1", "port": self.sink.port, "timeout": 20}
        ways = {"forwardSMTP": True, "forwardProviders": [*providers, self.provider], "workerCount": WORKERS}
        ways |= {"retry": QUICK_RETRIES, **settings, **plan.settings}
        self.program = Program(command or plan.command, self.folder, ways)
        self._stack.callback(self.program.end)
        self._sources: list[Source] = []
        self.crashes = 0

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def __repr__(self) -> str:
        return f"Stage({self.program!r}, {self.sink!r}, crashes={self.crashes})"

    def load(self, load: Load | None = None) -> Source:
        """A source against the program; use it in a ``with``."""
        source = Source(self.program.port, self.book, load or Load(), self.plan.seed)
        self._sources.append(source)
        return source

    def crash(self, part: str) -> None:
        """kill -9 in the middle of it all."""
        self.program.kill(part)
        self.crashes += 1

    def expect_promises(self, more: int, seconds: float = SETTLE_SECONDS) -> None:
        """Wait for so many more 250s. Raises StoryError when they do not come."""
        if not self.book.wait_for_promises(more, seconds):
            raise StoryError(f"no {more} messages more were accepted within {seconds:g} s; {self.program.tail()}")

    def settle(self) -> None:
        """Let everything come that is owed, the sink being in good mood; returns also when something never does."""
        self.sink.mood = Mood.TAKES
        self.program.retry_failed()
        deadline = time.monotonic() + SETTLE_SECONDS
        while not self.book.wait_for_sink(1.0) and time.monotonic() < deadline:
            self.program.retry_failed()
        deadline = time.monotonic() + IDLE_SECONDS
        while not self.program.is_idle():
            if time.monotonic() > deadline:
                break
            self.program.retry_failed()
            _PAUSE.wait(POLL_SECONDS)

    def end_story(self, allowed_duplicates: int | None = None) -> Verdict:
        """Settle, end the program in order, look into ``emails/dead`` and judge. Raises StoryError, ProgramError."""
        self.settle()
        if self.program.status is None:
            self.program.terminate()
        else:
            raise ProgramError(f"it ended by itself with status {self.program.status}; {self.program.tail()}")
        self.read_dead()
        allowed = DOUBTS_A_CRASH * self.crashes + self.sink.hang_ups
        verdict = judge(self.book, allowed if allowed_duplicates is None else allowed_duplicates)
        if silences := sum(source.silences for source in self._sources):
            raise StoryError(f"{silences} replies did not come: it hangs ({verdict})")
        return verdict

    def read_dead(self) -> None:
        """Enter the messages in ``emails/dead`` in the book: they were given up, and are kept."""
        for path in self.program.files("dead"):
            fields = json.loads(path.read_text())
            self.book.came(read(base64.b64decode(fields["Data"]), fields["From"], tuple(fields["To"])), DEAD)
