"""System calls that fail: strace makes the n-th call of each thread of the program return an error, without doing anything.

SQLite writes without passing any layer of Python, so nothing inside the program could do this. Threads: none of its own; an
``Injection`` belongs to one thread. Fails with ``InjectionError`` where strace is missing or may not trace.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

CALLS = ("write", "pwrite64", "fsync", "fdatasync", "openat", "accept4")
ERRORS = ("ENOSPC", "EIO", "EMFILE")
POLL_SECONDS = 0.01
END_SECONDS = 20.0
_PAUSE = threading.Event()
_LINE = re.compile(r"^(\d+) ", re.MULTILINE)


class InjectionError(Exception):
    """Nothing could be injected; the text says why."""


def find_strace() -> str:
    """The path of strace. Raises InjectionError."""
    path = shutil.which("strace")
    if path is None:
        raise InjectionError("strace is not installed (Debian: apt-get install strace)")
    return path


def prefix(log: Path, call: str, error: str = "", nth: int = 0) -> list[str]:
    """What starts a program under strace, which writes to ``log``. Without ``error`` calls are only counted."""
    return [find_strace(), "-D", *_options(log, call, error, nth)]


def calls_of_one_thread(log: Path) -> int:
    """The largest number of calls that one thread made."""
    counts = Counter(_LINE.findall(log.read_text(errors="replace")))
    return max(counts.values(), default=0)


def fired(log: Path) -> int:
    """How many calls were made to fail."""
    return log.read_text(errors="replace").count("(INJECTED)") if log.exists() else 0


class Injection:
    """The ``nth`` ``call`` of each thread of the running processes ``pids`` fails with ``error``, counted from here."""

    def __init__(self, pids: Sequence[int], log: Path, call: str, error: str, nth: int) -> None:
        self._log = log
        log.unlink(missing_ok=True)
        command = [find_strace(), *_options(log, call, error, nth), "-p", ",".join(map(str, pids))]
        self._strace = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def __enter__(self) -> Injection:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Let go of the process, which goes on without faults."""
        self._strace.terminate()
        try:
            self._strace.communicate(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            self._strace.kill()
            self._strace.communicate()

    def wait_until_fired(self, seconds: float) -> bool:
        """Whether a call failed within that time. Raises InjectionError when strace cannot trace."""
        deadline = time.monotonic() + seconds
        while not fired(self._log):
            if self._strace.poll() not in (None, 0) and not self._log.exists():
                raise InjectionError(f"strace: {self._strace.communicate()[1].decode(errors='replace').strip()}")
            if time.monotonic() > deadline or self._strace.poll() is not None:
                return False
            _PAUSE.wait(POLL_SECONDS)
        return True


def _options(log: Path, call: str, error: str, nth: int) -> list[str]:
    faults = ["-e", f"inject={call}:error={error}:when={nth}"] if error else []
    return ["-f", "-qq", "-s", "0", "-o", str(log), "-e", f"trace={call}", "-e", "signal=none", *faults]
