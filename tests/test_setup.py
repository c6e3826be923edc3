"""What ``make`` sets up from: pinned requirements without a trace of where they were pinned, and the choice of Python."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CHOOSE = ROOT / "deploy" / "choose-python"
LOCKS = sorted(ROOT.glob("requirements*.txt"))


def pins(text: str) -> dict[str, str]:
    return {
        re.sub(r"[-_.]+", "-", name).lower(): version
        for name, version in re.findall(r"^([A-Za-z0-9_.-]+)==([^\s\\]+)", text, re.MULTILINE)
    }


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_requirement_is_pinned_with_hashes_and_nothing_else_is_in_the_file(lock: Path) -> None:
    lines = [line.strip() for line in lock.read_text().splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9.-]+==\S+ \\|--hash=sha256:[0-9a-f]{64}( \\)?", line)] == []
    text = "\n".join(lines)
    for name in pins(text):
        assert re.search(rf"^{re.escape(name)}==\S+ \\\n--hash", text, re.MULTILINE)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_the_pins_are_those_that_are_asked_for(lock: Path) -> None:
    asked = pins(lock.with_suffix(".in").read_text())
    locked = pins(lock.read_text())
    assert asked
    assert {name: locked.get(name) for name in asked} == asked


def test_one_library_has_one_version_everywhere() -> None:
    found: dict[str, set[str]] = {}
    for lock in LOCKS:
        for name, version in pins(lock.read_text()).items():
            found.setdefault(name, set()).add(version)
    assert {name: versions for name, versions in found.items() if len(versions) > 1} == {}


def choose(folder: Path, purpose: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """The script where ``folder`` is all of PATH but for the shell's own tools, and nothing lies in the home."""
    (folder / "home").mkdir(exist_ok=True)
    for tool in ("sh", "head"):
        if not (folder / tool).exists():
            (folder / tool).symlink_to(Path("/bin") / tool if (Path("/bin") / tool).exists() else Path("/usr/bin") / tool)
    return subprocess.run(
        [str(CHOOSE), purpose],
        env={"PATH": str(folder), "HOME": str(folder / "home"), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def fake(folder: Path, name: str, answer: str, code: int = 0) -> None:
    """An interpreter that answers the script's question so."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{answer}'\nexit {code}\n")
    path.chmod(0o755)


def test_the_interpreter_that_people_call_python3_runs_it(tmp_path: Path) -> None:
    fake(tmp_path, "python3", "11 /usr/bin/python3")
    fake(tmp_path, "python3.13", "13 /usr/bin/python3.13")
    assert choose(tmp_path, "run").stdout == "/usr/bin/python3\n"


def test_the_newest_interpreter_freezes_it(tmp_path: Path) -> None:
    fake(tmp_path, "python3", "11 /usr/bin/python3")
    fake(tmp_path, "python3.13", "13 /usr/bin/python3.13")
    fake(tmp_path, "home/.pyenv/versions/3.12.1/bin/python3", "12 /home/python3.12")
    assert choose(tmp_path, "freeze").stdout == "/usr/bin/python3.13\n"


def test_a_newer_one_is_found_beside_an_old_python3(tmp_path: Path) -> None:
    fake(tmp_path, "python3", "is Python 3.9, older than 3.11", code=1)
    fake(tmp_path, "python3.12", "12 /opt/with a space/python3.12")
    assert choose(tmp_path, "run").stdout == "/opt/with a space/python3.12\n"


def test_without_one_the_reasons_and_the_remedy_are_told(tmp_path: Path) -> None:
    fake(tmp_path, "python3", "is Python 3.9, older than 3.11", code=1)
    answer = choose(tmp_path, "run")
    assert (answer.returncode, answer.stdout) == (1, "")
    assert "python3 is Python 3.9, older than 3.11" in answer.stderr
    assert "apt install python3 python3-venv" in answer.stderr


def test_a_named_interpreter_is_taken_or_refused_never_replaced(tmp_path: Path) -> None:
    fake(tmp_path, "python3", "11 /usr/bin/python3")
    fake(tmp_path, "old", "is Python 3.8, older than 3.11", code=1)
    assert choose(tmp_path, "run", PYTHON=sys.executable).stdout == f"{sys.executable}\n"
    refused = choose(tmp_path, "run", PYTHON=str(tmp_path / "old"))
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "older than 3.11" in refused.stderr


def test_an_interpreter_without_venv_names_the_package_to_install(tmp_path: Path) -> None:
    """Debian's python3 comes without ensurepip; here a module of that name that cannot be imported stands for it."""
    (tmp_path / "ensurepip.py").write_text("raise ImportError")
    answer = choose(tmp_path, "run", PYTHON=sys.executable, PYTHONPATH=str(tmp_path))
    assert answer.returncode == 1
    assert f"install python3.{sys.version_info.minor}-venv" in answer.stderr


def test_make_help_lists_the_two_commands() -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    text = subprocess.run(["make", "help"], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "make run " in text
    assert "make test " in text
