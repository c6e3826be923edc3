"""Resident memory with many messages waiting, and how long a start takes with and without them.

The upstream is a port that is bound and refuses connections, so the breaker is open and everything waits in the spool.
"""

from __future__ import annotations

import os
import socket
import statistics
import threading
from dataclasses import replace
from pathlib import Path

from bench.subjects import Mailer, Memory, Program
from bench.traffic import Load

WANTED_MIB = 120.0  # docs/performance.md, "Figures to reach"
WANTED_START_SECONDS = 1.5  # docs/performance.md, "Figures to reach"
SETTLE_SECONDS = 10.0  # caches, the schedule's refill and the first parked messages come to rest
SEND_TIMEOUT_SECONDS = 1800.0
STARTS = 5


def measure(program: Program, folder: Path, load: Load) -> bool:
    """Print the table; returns whether memory and the empty start are as wanted. Raises BenchError."""
    with socket.socket() as refusing:
        refusing.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused, and nobody else gets the port
        mailer = Mailer(program, folder / "memory", refusing.getsockname()[1])
        starts = [_start_and_stop(mailer) for _ in range(STARTS)]
        with mailer:
            empty = mailer.memory()
            load.send_to(mailer.port, SEND_TIMEOUT_SECONDS)
            full = _settled(mailer)
            waiting = mailer.queued()
        full_start = mailer.start()
        try:
            again = _settled(mailer)
        finally:
            mailer.stop()
    print(f"\n{program.name}: {load.messages} messages of {load.size_bytes} bytes sent, {waiting} queued at the end\n")
    print("| | resident MiB | highest MiB |\n|---|---|---|")
    for name, memory in (("no messages", empty), ("messages waiting", full), ("after a restart with them", again)):
        print(f"| {name} | {memory.now_mib:.0f} | {memory.peak_mib:.0f} |")
    start = statistics.median(starts)
    print("\n| start until the first greeting | seconds |\n|---|---|")
    print(f"| empty spool, median of {STARTS} (lowest–highest) | {start:.2f} ({min(starts):.2f}–{max(starts):.2f}) |")
    print(f"| with the messages waiting | {full_start:.2f} |")
    worst = max(full.peak_mib, again.peak_mib)
    print(f"\nhighest {worst:.0f} MiB (wanted: under {WANTED_MIB:g}), start {start:.2f} s (under {WANTED_START_SECONDS:g})")
    return worst < WANTED_MIB and start < WANTED_START_SECONDS


def measure_start(program: Program, folder: Path) -> bool:
    """Print how long a start with an empty spool takes."""
    mailer = Mailer(program, folder / "start", 9)
    starts = [_start_and_stop(mailer) for _ in range(STARTS)]
    print(f"{program.name}: {STARTS} starts until the first greeting, seconds: {', '.join(f'{one:.2f}' for one in starts)}")
    return statistics.median(starts) < WANTED_START_SECONDS


def _start_and_stop(mailer: Mailer) -> float:
    seconds = mailer.start()
    mailer.stop()
    return seconds


def _settled(mailer: Mailer) -> Memory:
    os.sync()
    threading.Event().wait(SETTLE_SECONDS)
    return mailer.memory()


def default_load(load: Load) -> Load:
    """The issue's 100,000 messages over reused connections."""
    return replace(load, messages=100_000, reuse=True)
