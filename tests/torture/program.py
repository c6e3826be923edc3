"""The program under torture as processes: started, found, killed in parts, started again over the same data.

The executable is two processes, a launcher and its child, in a group of their own (``tests/support/group.py``: nothing outlives
the run). Ports stay the same across restarts, so that the load finds the program again by itself.

Threads: one uses a ``Program``; no locks. Fails with ``ProgramError``: it did not serve, ended otherwise than it should, or
left a process behind.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.group import Group
from tests.support.postfix import free_port

START_SECONDS = 60.0
STOP_SECONDS = 45.0  # the program itself takes at most 30 (spec 4)
ORPHAN_SECONDS = 10.0
HTTP_SECONDS = 20.0
POLL_SECONDS = 0.005
TAIL_BYTES = 3000
_PAUSE = threading.Event()


class ProgramError(Exception):
    """The program did not do what it must; the text says what, and how its output ends."""


class Program:
    """``command`` starts it; ``settings`` are over those that every trial shares."""

    def __init__(self, command: Sequence[str], folder: Path, settings: Mapping[str, Any], name: str = "program") -> None:
        self.command = list(command)
        self.folder = folder
        self.data = folder / "data"
        self.log = folder / f"{name}.log"
        self._config = folder / f"{name}.json"
        temporary = folder / "tmp"  # where the executable unpacks itself
        for path in (self.data, temporary):
            path.mkdir(parents=True, exist_ok=True)
        self._environ = {"TMPDIR": str(temporary)}
        self.port, self.http_port = free_port(), free_port()
        self.settings: dict[str, Any] = {
            "smtpHost": "127.0.0.1",
            "smtpPort": self.port,
            "hostname": "relay.test",
            "healthCheckPort": self.http_port,
            "dataDir": str(self.data),
            "security": {"requireAuth": False, "logAllEmails": False},
            "batchDelay": 0,
            "logging": {"level": "warning"},
            "bounce": {"enabled": False},  # the book knows nothing of reports
            **settings,
        }
        self._group: Group | None = None

    def __repr__(self) -> str:
        return f"Program(port={self.port}, {self._group!r})"

    # its life

    def launch(self, prefix: Sequence[str] = (), environ: Mapping[str, str] | None = None) -> None:
        """Start it without waiting. ``prefix``: a program that becomes this one, such as unshare."""
        self.write_config()
        variables = [f"{name}={value}" for name, value in {**self._environ, **(environ or {})}.items()]
        self._group = Group(["env", *variables, *prefix, *self.command, "-config", str(self._config)], self.log)

    def start(self, prefix: Sequence[str] = (), environ: Mapping[str, str] | None = None) -> None:
        """Start it and wait until it serves."""
        self.launch(prefix, environ)
        self.wait_until_serving()

    def write_config(self) -> None:
        """The settings as they are now into the file."""
        draft = self._config.with_suffix(".new")
        draft.write_text(json.dumps(self.settings))
        draft.rename(self._config)

    def wait_until_serving(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self.serves():
            if self.status is not None:
                raise ProgramError(f"it ended with status {self.status} instead of serving; {self.tail()}")
            if time.monotonic() > deadline:
                raise ProgramError(f"it did not serve within {START_SECONDS:g} s; {self.tail()}")
            _PAUSE.wait(POLL_SECONDS)

    def serves(self) -> bool:
        """Whether it greets a client now."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=START_SECONDS) as connection:
                return connection.recv(512).startswith(b"220")
        except OSError:
            return False

    def kill(self, part: str) -> None:
        """kill -9 of its ``launcher``, its ``child``, the ``last`` of its processes or the whole ``group``.

        Returns when none of them is left.
        """
        pids = self.processes()
        targets = {"launcher": pids[:1], "child": pids[1:2] or pids[:1], "last": pids[-1:], "group": pids}[part]
        for pid in targets:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.wait_until_gone(pids)

    def terminate(self) -> float:
        """SIGTERM. Returns how many seconds it took to end; raises ProgramError unless it ended with 0."""
        pids, began = self.processes(), time.monotonic()
        self._running().signal(signal.SIGTERM)
        self.wait_until_gone(pids)
        if self.status != 0:
            raise ProgramError(f"SIGTERM ended it with status {self.status} instead of 0; {self.tail()}")
        return time.monotonic() - began

    def wait_for_end(self, seconds: float) -> int:
        """Its status, once it has ended by itself. Raises TimeoutExpired."""
        status = self._running().wait(seconds)
        self._running().stop()
        return status

    def wait_for_death(self, seconds: float) -> None:
        """Wait until it dies of SIGKILL by itself. Raises TimeoutExpired, and ProgramError when it ends otherwise."""
        status = self.wait_for_end(seconds)
        if status != -signal.SIGKILL:
            raise ProgramError(f"it ended with status {status} instead of SIGKILL; {self.tail()}")

    def signal(self, sign: signal.Signals) -> None:
        self._running().signal(sign)

    def wait_until_gone(self, pids: Sequence[int]) -> None:
        """Wait for the end of the first process and of those named."""
        group = self._running()
        try:
            group.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise ProgramError(f"it did not end within {STOP_SECONDS:g} s; {self.tail()}") from None
        deadline = time.monotonic() + ORPHAN_SECONDS
        while left := [pid for pid in pids if _is_alive(pid)]:
            if time.monotonic() > deadline:
                raise ProgramError(f"processes {left} outlive their launcher")
            _PAUSE.wait(POLL_SECONDS)
        group.stop()

    def end(self) -> None:
        """End whatever is left of it, in any state, any number of times."""
        if self._group is not None:
            self._group.stop()

    # what is seen of it

    @property
    def status(self) -> int | None:
        """The exit status of the first process; None while it runs."""
        return self._running().status

    def processes(self) -> list[int]:
        """The first process, then its child and that one's where it has any."""
        pids = [self._running().pid]
        for pid in pids:  # grows meanwhile
            with contextlib.suppress(OSError):
                pids += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split())
        return pids

    def http(self, path: str, method: str = "GET") -> Any:
        """The JSON of an HTTP answer. Raises OSError or http.client.HTTPException when there is none."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=HTTP_SECONDS)
        try:
            connection.request(method, path)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def is_idle(self) -> bool:
        """Whether it says that nothing waits, neither in the spool nor in ``emails/failed``."""
        try:
            details = self.http("/health")["details"]
        except (OSError, http.client.HTTPException, ValueError):
            return False
        return (details["queued_emails"], details["failed_emails"]) == (0, 0)

    def retry_failed(self) -> None:
        """Make all that is parked due; a program that dies of it is seen elsewhere."""
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            self.http("/admin/retry-failed", "POST")

    def files(self, folder: str) -> list[Path]:
        """Files of ``emails/<folder>`` that are not hidden."""
        return sorted(p for p in (self.data / "emails" / folder).glob("*") if not p.name.startswith("."))

    def tail(self) -> str:
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return f"its output ends:\n{text[-TAIL_BYTES:]}"

    def _running(self) -> Group:
        if self._group is None:
            raise ProgramError("it was never started")
        return self._group


def _is_alive(pid: int) -> bool:
    """Whether it runs; a zombie, which waits for its parent's look alone, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii", errors="replace").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
