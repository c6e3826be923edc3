"""Both ends of a measurement: smtp-source, which sends, and smtp-sink, which takes and counts (Debian's postfix package).

A run ends when smtp-sink has received the last message. ``smtp-sink -c`` prints its counters anew with every message
it has taken; a thread reads them from a pipe and wakes who waits. Nothing stands between relay and sink, no queue is
polled while the clock runs, and a message delivered twice shows as a count too high.

Threads: one reader per ``Sink``; one condition guards the count. Fails with ``BenchError``.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from mailer.mail.outcome import MailerError
from tests.support.group import Group
from tests.support.postfix import find_program, free_port

START_TIMEOUT_SECONDS = 30.0
_COUNTER = re.compile(rb"mesg=(\d+)")
_TAIL_BYTES = 500  # longer than one line of counters, and enough of what it says when it dies
SENDER_DOMAIN = "bench.test"
_LOOK_SECONDS = 1.0  # between looks at whether smtp-sink still runs


class BenchError(MailerError):
    """A measurement could not be made; the text says which and why."""


def program(name: str) -> str:
    path = find_program(name)
    if path is None:
        raise BenchError(f"{name} is not installed (Debian: apt-get install postfix)")
    return path


def wait_until_serving(port: int, group: Group, log: Path, greets: bool = True) -> None:
    """Return at the first 220 from the port, at its first connection where it does not greet. Raises BenchError when the
    program ends instead, or takes too long."""
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    pause = threading.Event()
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=START_TIMEOUT_SECONDS) as connection:
                if not greets or connection.recv(512).startswith(b"220"):
                    return
        except OSError:
            pass
        if group.status is not None or time.monotonic() > deadline:
            fate = "does not answer" if group.status is None else f"ended with status {group.status}"
            raise BenchError(f"the program on port {port} {fate}; its output ends:\n{tail(log)}")
        pause.wait(0.005)


def tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:] if log.exists() else f"({log} does not exist)"


class Sink:
    """smtp-sink on a port of its own, and how many messages it has taken since its start."""

    def __init__(self) -> None:
        self.port = free_port()
        self._changed = threading.Condition()  # guards all below
        self._count = 0
        self._counted_at = 0.0
        self._said = b""
        # As root it wants another user to run as. The backlog and the bound on connections are beyond any relay here.
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        command = [program("smtp-sink"), "-c", *user, "-m", "1000", f"127.0.0.1:{self.port}", "1000"]
        reading, writing = os.pipe()
        try:
            self._group = Group(command, writing)
        finally:
            os.close(writing)
        self._reader = threading.Thread(target=self._read, args=(reading,), name="sink-counter", daemon=True)
        self._reader.start()
        wait_until_serving(self.port, self._group, Path(os.devnull))

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._group.stop()
        self._reader.join(START_TIMEOUT_SECONDS)

    @property
    def count(self) -> int:
        with self._changed:
            return self._count

    def wait_for(self, count: int, timeout_seconds: float) -> float:
        """When (``time.monotonic``) the sink had taken that many. Raises BenchError."""
        deadline = time.monotonic() + timeout_seconds
        with self._changed:
            while not self._changed.wait_for(lambda: self._count >= count, _LOOK_SECONDS):
                if self._group.status is not None:
                    raise BenchError(f"smtp-sink ended with status {self._group.status}: {self._said.decode(errors='replace')!r}")
                if time.monotonic() > deadline:
                    raise BenchError(f"{self._count} of {count} messages arrived within {timeout_seconds:g} s")
            return self._counted_at

    def _read(self, reading: int) -> None:
        seen = b""
        with os.fdopen(reading, "rb", buffering=0) as pipe:
            while piece := pipe.read(65536):
                now = time.monotonic()
                seen = (seen + piece)[-_TAIL_BYTES:]
                # The last complete line: the carriage return in front of the next one ends it.
                numbers = _COUNTER.findall(seen[: seen.rfind(b"\r") + 1])
                with self._changed:
                    self._said = seen
                    if numbers:
                        self._count, self._counted_at = int(numbers[-1]), now
                        self._changed.notify_all()


@dataclass(frozen=True, slots=True)
class Load:
    """What smtp-source sends. ``reuse``: all messages of a session over one connection, else one connection each.

    ``size_bytes`` is without the header. Several ``recipients`` of a message are 1recipient@…, 2recipient@….
    """

    messages: int
    sessions: int
    size_bytes: int
    reuse: bool = True
    recipients: int = 1

    def of(self, messages: int) -> Load:
        """The same load with so many messages."""
        return replace(self, messages=messages)

    def send_to(self, port: int, timeout_seconds: float) -> None:
        """Send it all; returns when every message has its 250. Raises BenchError when one is refused."""
        command = [program("smtp-source"), *(["-d"] if self.reuse else []), "-s", str(self.sessions), "-l", str(self.size_bytes)]
        command += ["-r", str(self.recipients)] if self.recipients > 1 else []
        command += ["-m", str(self.messages), "-f", f"sender@{SENDER_DOMAIN}", "-t", "recipient@bench.test", f"127.0.0.1:{port}"]
        try:
            done = subprocess.run(command, capture_output=True, check=False, timeout=timeout_seconds)
        except subprocess.TimeoutExpired as error:
            raise BenchError(f"the relay did not take {self.messages} messages within {timeout_seconds:g} s") from error
        if done.returncode != 0:
            raise BenchError(f"smtp-source: exit status {done.returncode}: {done.stderr.decode(errors='replace')[-1000:]}")
