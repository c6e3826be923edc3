"""What is measured: the ``Relay`` protocol, and mailer as one.

mailer is driven through its documented interface alone: config.json, its ports, SIGTERM. No threads, no locks.
Fails with ``BenchError``.
"""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Protocol

from bench.call import Program, say
from bench.traffic import BenchError, tail, wait_until_serving
from tests.support.group import Group
from tests.support.postfix import free_port

STOP_TIMEOUT_SECONDS = 45.0  # a drain may take 30
IDLE_TIMEOUT_SECONDS = 120.0
ANSWER_SECONDS = 30.0  # for a page over HTTP
Settings = Mapping[str, object]


class Relay(Protocol):
    """A relay under test, with its upstream already configured."""

    @property
    def name(self) -> str: ...

    @property
    def port(self) -> int: ...

    @property
    def group(self) -> int:
        """The process group of all its processes."""
        ...

    def wait_until_idle(self) -> None:
        """Return when its queue is empty, so that the next run starts from rest. Raises BenchError."""
        ...


def provider(port: int, **settings: object) -> dict[str, object]:
    """An entry of ``forwardProviders``: a port on loopback, everything else its default."""
    return {"name": "sink", "host": "127.0.0.1", "port": port, **settings}


class Mailer:
    """A running mailer, as a context manager. The folder stays when it stops, so that it can be started again.

    ``settings`` stand over ports, place and providers; everything else is the default. Up to ``waiting`` messages lie in its
    spool for good (a few get a round, as probes of a breaker, and are parked): with these alone it is idle.
    ``environment`` is added to ours.
    """

    name = "mailer"

    def __init__(self, program: Program, folder: Path, providers: list[dict[str, object]], **settings: object) -> None:
        self.port = free_port()
        self.http_port = free_port()
        self.waiting = 0
        self.environment: Mapping[str, str] = {}
        self._program = program
        self._folder = folder
        self._log = folder / "mailer.log"
        self._config = folder / "config.json"
        self._group: Group | None = None
        self.data_folder.mkdir(parents=True, exist_ok=True)
        self._config.write_text(json.dumps({**self._settings(providers), **settings}, indent=2))

    def __enter__(self) -> Mailer:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _settings(self, providers: list[dict[str, object]]) -> dict[str, object]:
        return {
            "smtpPort": self.port,
            "hostname": "mailer.test",
            "healthCheckPort": self.http_port,
            "dataDir": str(self.data_folder),
            "forwardSMTP": True,
            "forwardProviders": providers,
            "security": {"requireAuth": False},
        }

    @property
    def data_folder(self) -> Path:
        return self._folder / "data"

    @property
    def group(self) -> int:
        if self._group is None:
            raise BenchError("mailer is not running")
        return self._group.pid

    def start(self) -> float:
        """Start; returns the seconds until it greeted its first client."""
        environment = [f"{name}={value}" for name, value in self.environment.items()]
        begun = time.monotonic()
        self._group = Group(["env", *environment, *self._program.command, "-config", self._config], self._log)
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
            say(f"bench: mailer did not end within {STOP_TIMEOUT_SECONDS:g} s of SIGTERM and was killed")
        finally:
            group.stop()

    def queued(self) -> int:
        """``queued_emails`` of /health."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/health", timeout=ANSWER_SECONDS) as answer:
            return int(json.load(answer)["details"]["queued_emails"])

    def wait_until_idle(self) -> None:
        wait(lambda: self.queued() <= self.waiting, f"mailer's queue did not empty; its log ends:\n{tail(self._log)}")


def wait(condition: Callable[[], bool], failure: str) -> None:
    """Return once the condition holds; raises BenchError with ``failure`` when it does not in time."""
    deadline = time.monotonic() + IDLE_TIMEOUT_SECONDS
    pause = threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            raise BenchError(failure)
        pause.wait(0.05)
