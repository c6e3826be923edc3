"""A program run in a process group of its own that never outlives us, not even ``kill -9`` of the tests.

Threads: one thread uses a ``Group``; no locks.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

STOP_TIMEOUT_SECONDS = 15.0

# The watcher holds the reading end of a pipe whose writing end dies with us; a line on it means that all is cleared.
# PR_SET_PDEATHSIG would not do: the kernel forgets it when a program changes its user, and it is bound to a thread.
_WATCHER = 'read -r _ && exit; kill -s TERM -- "-$1"; sleep 1; kill -s KILL -- "-$1"; [ -z "$2" ] || rm -rf -- "$2"'


class Group:
    """A running program with all its children. What it prints goes to ``output``.

    ``folder`` is removed by the watcher when we die; ``stop`` leaves it.
    """

    def __init__(self, command: Sequence[str | Path], output: Path | int, folder: Path | None = None) -> None:
        target = output if isinstance(output, int) else os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            self._leader = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=target, stderr=subprocess.STDOUT, start_new_session=True
            )
        finally:
            if not isinstance(output, int):
                os.close(target)
        self._watcher = subprocess.Popen(
            ["/bin/sh", "-c", _WATCHER, "watcher", str(self.pid), str(folder or "")],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def __repr__(self) -> str:
        return f"Group(pid={self.pid}, status={self.status})"

    @property
    def pid(self) -> int:
        """The first process, which is also the group's number."""
        return self._leader.pid

    @property
    def status(self) -> int | None:
        """The exit status of the first process, None while it runs."""
        return self._leader.poll()

    def signal(self, sign: signal.Signals) -> None:
        """Signal the first process alone."""
        self._leader.send_signal(sign)

    def wait(self, timeout_seconds: float) -> int:
        """Wait for the end of the first process. Raises subprocess.TimeoutExpired."""
        return self._leader.wait(timeout_seconds)

    def stop(self, timeout_seconds: float = STOP_TIMEOUT_SECONDS) -> None:
        """End every process of the group: by SIGTERM, and by SIGKILL what does not listen; any number of times."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.pid, sign)
                self._leader.wait(timeout_seconds)
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue
        self._leader.wait(timeout_seconds)
        if self._watcher.returncode is None:
            self._watcher.communicate(b"cleared\n", STOP_TIMEOUT_SECONDS)
