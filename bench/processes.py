"""What a relay takes of the machine: processor time, memory and fsync calls, of all its processes together.

A relay is a process group (``tests/support/group.py``): Postfix's daemons stay in their master's, the two processes of a
frozen mailer as well. All of it comes from ``/proc``, and fsync calls from the kernel's tracepoints (``perf stat``), which
cost the traced program next to nothing; strace would stop it at every call and change what is measured.

Threads: one per ``MemoryPeak``, which alone writes its maximum until it is joined. Fails with ``BenchError``.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from bench.traffic import BenchError

MIB = 1024.0  # /proc counts memory in KiB
SAMPLE_SECONDS = 0.1
PERF_SECONDS = 10.0  # to end: it takes well under one
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_SYNC_CALLS = ("fsync", "fdatasync", "sync_file_range", "msync")
_COUNT = re.compile(r"^(\d+),[^,]*,syscalls:sys_enter_(\w+),", re.MULTILINE)


def members(group: int) -> Iterator[Path]:
    """``/proc/<pid>`` of each process of the group."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.getpgid(int(entry.name)) == group:
                    yield entry
            except OSError:
                continue  # it ended meanwhile


def cpu_seconds(group: int) -> float:
    """User and system time of the group since its start, processes that have ended included.

    Those that live are asked for their clocks, which count nanoseconds: ``/proc/<pid>/stat`` drops what is under a tick of
    10 ms, for Postfix's sixty processes as much as half a second. Whoever waits for a child inherits its time, so each
    ended process is counted once: Postfix's master waits for all its daemons.
    """
    seconds = 0.0
    for entry in members(group):
        try:
            stat = (entry / "stat").read_text()
            seconds += time.clock_gettime(_clock_of(int(entry.name))) + inherited_ticks(stat) / _TICKS_A_SECOND
        except OSError:
            continue  # it ended meanwhile
    return seconds


def _clock_of(pid: int) -> int:
    """The processor-time clock of another process: what clock_getcpuclockid(3) computes on Linux."""
    return (~pid << 3) | 2


def inherited_ticks(stat: str) -> int:
    """cutime and cstime of a line of ``/proc/<pid>/stat``, summed (proc(5): fields 16 and 17)."""
    fields = stat.rpartition(")")[2].split()  # the name before it may hold spaces and parentheses
    return int(fields[13]) + int(fields[14])


def proportional_mib(group: int) -> float:
    """Proportional memory (Pss) now, summed: a page shared by n processes counts 1/n each.

    The only sum that is fair to a relay of many processes, which share their program and its libraries.
    """
    total = 0
    for entry in members(group):
        try:
            rollup = (entry / "smaps_rollup").read_text()
        except OSError:
            continue  # it ended meanwhile
        total += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return total / MIB


class MemoryPeak:
    """The highest proportional memory of a group while the block runs, looked at ten times a second."""

    def __init__(self, group: int) -> None:
        self._group = group
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory-peak", daemon=True)
        self.mib = 0.0

    def __enter__(self) -> MemoryPeak:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ends.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ends.is_set():
            self.mib = max(self.mib, proportional_mib(self._group))
            self._ends.wait(SAMPLE_SECONDS)


class SyncCalls:
    """Counts fsync and its like in every process of a group while the block runs, those started meanwhile included."""

    def __init__(self, group: int) -> None:
        self._group = group
        self._report = Path(tempfile.mkdtemp(prefix="mailer-perf-")) / "report"
        self._perf: subprocess.Popen[bytes] | None = None
        self.count = 0

    def __enter__(self) -> SyncCalls:
        perf = shutil.which("perf")
        if perf is None:
            raise BenchError("perf is not installed (Debian: apt-get install linux-perf)")
        pids = ",".join(entry.name for entry in members(self._group))
        events = ",".join(f"syscalls:sys_enter_{name}" for name in _SYNC_CALLS)
        # -D: it attaches, says so, counts from so many milliseconds on, and says that too.
        command: list[str | Path] = [perf, "stat", "-x", ",", "-o", self._report, "-D", "10", "-e", events, "-p", pids]
        self._perf = subprocess.Popen(command, stderr=subprocess.PIPE)
        assert self._perf.stderr is not None
        said = b""
        while b"Events enabled" not in said:
            piece = os.read(self._perf.stderr.fileno(), 4096)
            said += piece
            if not piece:
                self._end()
                raise BenchError(f"perf cannot count system calls (it needs root): {said.decode(errors='replace')}")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end()

    def _end(self) -> None:
        assert self._perf is not None
        self._perf.send_signal(signal.SIGINT)
        self._perf.communicate(timeout=PERF_SECONDS)
        if self._report.exists():
            self.count = counted(self._report.read_text())
        shutil.rmtree(self._report.parent, ignore_errors=True)


def counted(report: str) -> int:
    """All calls in a report of ``perf stat -x ,``."""
    return sum(int(count) for count, _ in _COUNT.findall(report))
