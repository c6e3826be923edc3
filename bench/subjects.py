"""What is measured: mailer and Postfix, each started with its defaults as a relay to one upstream, on the same disk.

mailer is driven through its documented interface alone: config.json, its ports, SIGTERM. No threads, no locks.
Fails with ``BenchError``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

from bench.traffic import BenchError, tail, wait_until_serving
from tests.support.group import Group
from tests.support.postfix import Postfix, Setup, free_port

ROOT = Path(__file__).resolve().parent.parent
STOP_TIMEOUT_SECONDS = 45.0  # a drain may take 30
IDLE_TIMEOUT_SECONDS = 60.0


class Subject(Protocol):
    """A relay under test."""

    @property
    def name(self) -> str: ...

    @property
    def port(self) -> int: ...

    def wait_until_idle(self) -> None:
        """Return when its queue is empty, so that the next run starts from rest. Raises BenchError."""
        ...


@dataclass(frozen=True, slots=True)
class Program:
    """How mailer is started: from source with this interpreter, or as the frozen executable."""

    executable: Path | None = None

    @property
    def command(self) -> list[str | Path]:
        return [sys.executable, ROOT / "mailer.py"] if self.executable is None else [self.executable.resolve()]

    @property
    def name(self) -> str:
        return "mailer (source)" if self.executable is None else f"mailer ({self.executable.name}, frozen)"


class Mailer:
    """A running mailer, as a context manager. The folder stays when it stops, so that it can be started again."""

    def __init__(self, program: Program, folder: Path, upstream_port: int) -> None:
        self.name = program.name
        self.port = free_port()
        self._health_port = free_port()
        self._program = program
        self._folder = folder
        self._log = folder / "mailer.log"
        self._config = folder / "config.json"
        self._group: Group | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self._config.write_text(json.dumps(self._settings(upstream_port), indent=2))

    def _settings(self, upstream_port: int) -> dict[str, object]:
        """Ports, place and upstream; everything else is the default."""
        return {
            "smtpPort": self.port,
            "hostname": "mailer.test",
            "healthCheckPort": self._health_port,
            "dataDir": str(self._folder / "data"),
            "forwardSMTP": True,
            "forwardProviders": [{"name": "sink", "host": "127.0.0.1", "port": upstream_port}],
            "security": {"requireAuth": False},
        }

    def __enter__(self) -> Mailer:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def start(self) -> float:
        """Start; returns the seconds until it greeted its first client."""
        (self._folder / "data").mkdir(exist_ok=True)
        begun = time.monotonic()
        self._group = Group([*self._program.command, "-config", self._config], self._log)
        try:
            wait_until_serving(self.port, self._group, self._log)
        except BenchError:
            self.stop()
            raise
        return time.monotonic() - begun

    def stop(self) -> None:
        group, self._group = self._group, None
        if group is None:
            return
        try:
            if group.status is None:
                group.signal(signal.SIGTERM)
                group.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:  # a fault of mailer's, but no reason to lose what was measured
            print(f"bench: mailer did not end within {STOP_TIMEOUT_SECONDS:g} s of SIGTERM and was killed", file=sys.stderr)
        finally:
            group.stop()

    def queued(self) -> int:
        """``queued_emails`` of /health."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._health_port}/health", timeout=IDLE_TIMEOUT_SECONDS) as answer:
            return int(json.load(answer)["details"]["queued_emails"])

    def wait_until_idle(self) -> None:
        _wait(lambda: self.queued() == 0, f"mailer's queue did not empty; its log ends:\n{tail(self._log)}")

    def memory(self) -> Memory:
        """Of all its processes: a frozen mailer is two."""
        if self._group is None:
            raise BenchError("mailer is not running")
        return Memory.of_group(self._group.pid)

    def log_tail(self) -> str:
        return tail(self._log)


class PostfixSubject:
    """Postfix as a relay, with the defaults of Debian's package."""

    name = "Postfix"

    def __init__(self, postfix: Postfix) -> None:
        self._postfix = postfix

    @property
    def port(self) -> int:
        return self._postfix.port

    def wait_until_idle(self) -> None:
        _wait(lambda: self._postfix.queued() == 0, f"Postfix's queue did not empty; see {self._postfix.folder}/log")


def start_postfix(stack: ExitStack, upstream_port: int) -> PostfixSubject:
    """Postfix relaying to that port until the stack is closed. Raises tests.support.postfix.PostfixError."""
    return PostfixSubject(stack.enter_context(Postfix(Setup(relay_to=("127.0.0.1", upstream_port)))))


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory in MiB, now and at its highest."""

    now_mib: float
    peak_mib: float

    @classmethod
    def of_group(cls, group: int) -> Memory:
        """Summed over the processes of a process group."""
        now = peak = 0
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if os.getpgid(int(entry.name)) == group:
                        status = dict(line.split(":", 1) for line in (entry / "status").read_text().splitlines())
                        now += int(status["VmRSS"].split()[0])
                        peak += int(status["VmHWM"].split()[0])
                except (OSError, KeyError):
                    continue  # it ended meanwhile
        return cls(now / 1024, peak / 1024)


def _wait(condition: Callable[[], bool], failure: str) -> None:
    deadline = time.monotonic() + IDLE_TIMEOUT_SECONDS
    pause = threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            raise BenchError(failure)
        pause.wait(0.05)
