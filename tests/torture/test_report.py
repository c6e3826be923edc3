"""The table, and the command that prints it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torture.__main__ import EXIT_FAULT, TRIALS, main
from tests.torture.inject import calls_of_one_thread, fired
from tests.torture.judge import Verdict
from tests.torture.report import Row, table

FINE = Verdict(accepted=10, arrived=12, lost=0, mixed=0, duplicates=2, allowed=20)


def test_table_has_a_line_for_each_trial_under_its_headings() -> None:
    text = table([Row("kill", 200, FINE), Row("clock", 3, Verdict(5, 4, 1, 0, 0, 0, ("lost: s1",)))])
    lines = text.splitlines()
    assert lines[0].split("  ")[0] == "trial"
    assert lines[2].split() == ["kill", "200", "10", "12", "0", "0", "2", "(20)", "ok"]
    assert lines[3].split() == ["clock", "3", "5", "4", "1", "0", "0", "(0)", "FAILED"]
    assert "clock: lost: s1" in lines


@pytest.mark.parametrize(
    ("verdict", "wrong", "is_ok"),
    [
        (FINE, (), True),
        (FINE, ("it hung",), False),
        (Verdict(10, 10, 1, 0, 0, 0), (), False),
        (Verdict(10, 10, 0, 1, 0, 0), (), False),
        (Verdict(10, 12, 0, 0, 2, 1), (), False),
        (None, (), True),
        (None, ("it did not start",), False),
    ],
)
def test_row_is_in_order_only_without_any_fault(verdict: Verdict | None, wrong: tuple[str, ...], is_ok: bool) -> None:
    row = Row("trial", 1, verdict, wrong)
    assert row.is_ok is is_ok
    assert (row.cells()[-1] == "FAILED") is not is_ok


def test_trial_that_was_not_run_says_so_and_why() -> None:
    text = table([Row("DNS", 0, None, notes=("needs root",))])
    assert "not run" in text
    assert "DNS: needs root" in text


def test_missing_executable_is_a_fault_before_anything_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--executable", str(tmp_path / "none"), "--folder", str(tmp_path)]) == EXIT_FAULT
    assert "make build" in capsys.readouterr().err


def test_trial_that_nobody_knows_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--only", "nothing"])
    said = capsys.readouterr().err
    assert all(name in said for name in TRIALS)


def test_calls_are_counted_by_thread_and_faults_by_what_strace_says(tmp_path: Path) -> None:
    log = tmp_path / "strace.log"
    calls = ["12 write(3, ..., 1) = 1", "13 write(3, ..., 1) = 1", "12 write(3, ..., 1) = -1 EIO (Input/output error) (INJECTED)"]
    log.write_text("".join(f"{call}\n" for call in calls))
    assert calls_of_one_thread(log) == 2
    assert fired(log) == 1
    assert fired(tmp_path / "none") == 0
