"""The pidfile: held by the living, replaced when stale, and never written over something else."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mailer.cli.pidfile import Pidfile, PidfileTaken, PidfileUnwritable


def test_the_file_holds_the_pid_and_goes_on_release(tmp_path: Path) -> None:
    path = tmp_path / "mailer.pid"
    pidfile = Pidfile.claim(path, 4711)
    assert path.read_text() == "4711\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    pidfile.release()
    pidfile.release()
    assert list(tmp_path.iterdir()) == []


def test_a_held_file_is_refused_and_names_the_holder(tmp_path: Path) -> None:
    path = tmp_path / "mailer.pid"
    holder = Pidfile.claim(path, 4711)
    with pytest.raises(PidfileTaken, match="4711"):
        Pidfile.claim(path, 4712)
    assert path.read_text() == "4711\n"
    holder.release()
    Pidfile.claim(path, 4712).release()


@pytest.mark.parametrize("content", [f"{os.getpid()}\n", "99999999\n", ""], ids=["a living pid", "no process", "empty"])
def test_a_stale_file_is_replaced_whoever_has_its_number_now(tmp_path: Path, content: str) -> None:
    path = tmp_path / "mailer.pid"
    path.write_text(content)
    pidfile = Pidfile.claim(path, 4711)
    assert path.read_text() == "4711\n"
    pidfile.release()


def test_the_file_of_a_killed_process_is_stale(tmp_path: Path) -> None:
    path = tmp_path / "mailer.pid"
    code = (
        "import os, signal, sys; from pathlib import Path; from mailer.cli.pidfile import Pidfile\n"
        "held = Pidfile.claim(Path(sys.argv[1]), os.getpid()); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False, timeout=60)
    assert path.exists()
    Pidfile.claim(path, 4711).release()
    assert not path.exists()


def test_a_file_that_is_no_pidfile_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"smtpPort": 25}')
    with pytest.raises(PidfileUnwritable, match="something else"):
        Pidfile.claim(path, 4711)
    assert path.read_text() == '{"smtpPort": 25}'
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PidfileUnwritable, match="No such file"):
        Pidfile.claim(tmp_path / "absent" / "mailer.pid", 4711)


def test_release_leaves_the_file_of_a_successor(tmp_path: Path) -> None:
    path = tmp_path / "mailer.pid"
    pidfile = Pidfile.claim(path, 4711)
    path.unlink()
    path.write_text("4712\n")
    pidfile.release()
    assert path.read_text() == "4712\n"
