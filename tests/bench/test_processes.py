"""What a relay takes of the machine is read as the kernel and perf write it."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

from bench.processes import counted, cpu_seconds, inherited_ticks, members, proportional_mib
from tests.support.group import Group


def test_the_time_of_ended_children_is_found_behind_a_name_with_spaces_and_parentheses() -> None:
    fields = " ".join(str(number) for number in range(4, 53))
    assert inherited_ticks(f"17 (a) b (c) S {fields}\n") == 16 + 17


def test_calls_are_summed_over_a_report_of_perf_and_what_was_not_counted_is_none() -> None:
    report = (
        "# started on Wed Nov 25 17:14:56 2026\n\n"
        "30,,syscalls:sys_enter_fsync,17947138,100.00,,\n"
        "12,,syscalls:sys_enter_fdatasync,17947138,100.00,,\n"
        "<not counted>,,syscalls:sys_enter_msync,0,100.00,,\n"
    )
    assert counted(report) == 42


def statuses(group: int) -> list[list[str]]:
    """``/proc/<pid>/status`` of each process, in lines."""
    return [(entry / "status").read_text().splitlines() for entry in members(group)]


def test_processor_time_of_a_group_holds_a_child_that_has_ended(tmp_path: Path) -> None:
    child = "import time\nwhile time.process_time() < 0.3: pass"
    parent = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {child!r}])\nprint('done', flush=True)\ninput()"
    reading, writing = os.pipe()
    command = ["sh", "-c", f"sleep 600 | {shlex.quote(sys.executable)} -c \"$0\"", parent]
    group = Group(command, writing)
    os.close(writing)
    try:
        with os.fdopen(reading, "rb") as output:
            assert output.readline() == b"done\n"
        assert cpu_seconds(group.pid) >= 0.3
        resident = sum(int(line.split()[1]) for status in statuses(group.pid) for line in status if line.startswith("VmRSS:"))
        assert 0 < proportional_mib(group.pid) <= resident / 1024
    finally:
        group.stop()


def test_the_clock_of_another_process_is_its_own(tmp_path: Path) -> None:
    begun = time.process_time()
    while time.process_time() < begun + 0.05:
        pass
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as sleeper:
        assert cpu_seconds(sleeper.pid) < 0.05
        sleeper.kill()
