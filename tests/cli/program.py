"""The whole program as a process, for tests of signals, exit codes and the executable.

One thread a process reads its output; one condition guards the lines read. ``end`` leaves no process behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import smtplib
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
SOURCE = (sys.executable, str(ROOT / "mailer.py"))
EXECUTABLE = ROOT / "dist" / "mailer"

WAIT_SECONDS = 60.0
"""How long a wait may take before the test fails: generous, because the machine is shared."""


def write_config(folder: Path, **settings: Any) -> Path:
    """A configuration on free ports with its data in ``folder/data``."""
    data = folder / "data"
    data.mkdir(exist_ok=True)
    base = {"smtpPort": 0, "healthCheckPort": 0, "dataDir": str(data), "security": {"requireAuth": False}}
    path = folder / "config.json"
    path.write_text(json.dumps(base | settings))
    return path


class Program:
    """A running mailer. ``lines`` is what it has written to standard output and error so far."""

    def __init__(self, arguments: Sequence[str], command: Sequence[str] = SOURCE, **options: Any) -> None:
        self.process = subprocess.Popen(
            [*command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            **options,
        )
        self._changed = threading.Condition()  # guards the two below
        self.lines: list[str] = []
        self._ended = False
        self._reader = threading.Thread(target=self._read, name="program-output", daemon=True)
        self._reader.start()

    def __repr__(self) -> str:
        return f"Program(pid={self.process.pid}, lines={len(self.lines)})"

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_for(self, text: str) -> str:
        """The first line, past or to come, in which ``text`` is found."""

        def seen() -> bool:
            return self._ended or any(text in line for line in self.lines)

        with self._changed:
            assert self._changed.wait_for(seen, WAIT_SECONDS), f"no {text!r} in {self.lines}"
            found = [line for line in self.lines if text in line]
        assert found, f"ended without {text!r}: {self.lines}"
        return found[0]

    def wait_ready(self) -> tuple[int, int]:
        """The SMTP and HTTP ports, once it serves."""
        return ports_of(self.wait_for(" ready "))

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """The exit code, once it has ended and everything it wrote is in ``lines``."""
        code = self.process.wait(WAIT_SECONDS)
        self._reader.join(WAIT_SECONDS)
        return code

    def end(self) -> None:
        """Kill whatever is left of it, the children in its process group too."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(WAIT_SECONDS)
        self._reader.join(WAIT_SECONDS)
        if self.process.stdout:
            self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            with self._changed:
                self.lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


@contextlib.contextmanager
def running(*arguments: str, command: Sequence[str] = SOURCE, **options: Any) -> Iterator[Program]:
    """A program that does not outlive the test."""
    program = Program(arguments, command, **options)
    try:
        yield program
    finally:
        program.end()


def ports_of(ready_line: str) -> tuple[int, int]:
    found = re.search(r"smtp=\D*(\d+) http=\D*(\d+)", ready_line)
    assert found, ready_line
    return int(found[1]), int(found[2])


def wait_for_end(pid: int) -> None:
    """Wait until the process, which need not be a child of ours, has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    with os.fdopen(descriptor):
        assert select.select([descriptor], [], [], WAIT_SECONDS)[0], f"process {pid} still runs"


def children_of(pid: int) -> list[int]:
    """The processes that the process has started and that live."""
    found = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return sorted(found)


def send_message(port: int, subject: str = "hello") -> None:
    """Hand one message in, as an application does."""
    with smtplib.SMTP("127.0.0.1", port, timeout=WAIT_SECONDS) as client:
        client.sendmail("a@sender.test", ["b@recipient.test"], f"Subject: {subject}\r\n\r\nA message.\r\n")


def wait_for_text(path: Path, text: str) -> str:
    """The first line of a growing file in which ``text`` is found; waits on the file, as ``tail -F`` does."""
    command = ["timeout", str(WAIT_SECONDS), "tail", "-n", "+1", "-F", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as tail:
        assert tail.stdout
        for line in tail.stdout:
            if text in line:
                tail.kill()
                return line
    raise AssertionError(f"no {text!r} in {path}")
