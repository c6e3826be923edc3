"""``--daemon``: returns once the program serves in the background, or tells why it does not."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.cli.program import SOURCE, WAIT_SECONDS, ports_of, send_message, wait_for_end, wait_for_text, write_config


def start(*arguments: str, command: Sequence[str] = SOURCE) -> subprocess.CompletedProcess[str]:
    """What the starter says and answers. Its pipes end with it: the background process must not hold them."""
    return subprocess.run([*command, "--daemon", *arguments], capture_output=True, text=True, timeout=WAIT_SECONDS, check=False)


@contextlib.contextmanager
def daemon(config: Path, pidfile: Path, *arguments: str) -> Iterator[int]:
    """The pid of a mailer in the background, which does not outlive the test."""
    answer = start("-config", str(config), "--pidfile", str(pidfile), *arguments)
    assert (answer.returncode, answer.stderr) == (0, "")
    pid = int(pidfile.read_text())
    try:
        yield pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        wait_for_end(pid)


def test_it_serves_by_the_time_the_starter_returns(tmp_path: Path) -> None:
    config, pidfile = write_config(tmp_path), tmp_path / "mailer.pid"
    with daemon(config, pidfile) as pid:
        port, _ = ports_of(wait_for_text(tmp_path / "data" / "mailer.log", " ready "))
        send_message(port)
        assert os.getsid(pid) == pid  # a session of its own: a closed terminal does not reach it
        assert Path(f"/proc/{pid}/fd/0").readlink() == Path("/dev/null")
        os.kill(pid, signal.SIGTERM)
        wait_for_end(pid)
        assert not pidfile.exists()
        assert "stop.done code=0" in (tmp_path / "data" / "mailer.log").read_text()


def test_output_goes_to_the_log_file_where_one_is_set(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "mailer.log"
    log.parent.mkdir()
    config = write_config(tmp_path, logging={"file": str(log)})
    with daemon(config, tmp_path / "mailer.pid") as pid:
        assert Path(f"/proc/{pid}/fd/2").readlink() == log
        wait_for_text(log, " ready ")
    assert not (tmp_path / "data" / "mailer.log").exists()


def test_hangup_lets_go_of_a_rotated_output(tmp_path: Path) -> None:
    config, log = write_config(tmp_path), tmp_path / "data" / "mailer.log"
    with daemon(config, tmp_path / "mailer.pid") as pid:
        log.rename(tmp_path / "rotated")
        os.kill(pid, signal.SIGHUP)
        wait_for_text(log, "reload.done")
        assert {Path(f"/proc/{pid}/fd/{number}").readlink() for number in (1, 2)} == {log}


def test_a_port_that_is_taken_is_told_by_the_starter(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        config = write_config(tmp_path, smtpPort=holder.getsockname()[1])
        answer = start("-config", str(config), "--pidfile", str(tmp_path / "mailer.pid"))
    assert answer.returncode == os.EX_TEMPFAIL
    assert "taken" in answer.stderr
    assert not (tmp_path / "mailer.pid").exists()


def test_only_the_words_of_this_start_are_told(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    (tmp_path / "data" / "mailer.log").write_text("words of an earlier start\n")
    with socket.create_server(("127.0.0.1", 0)) as holder:
        write_config(tmp_path, smtpPort=holder.getsockname()[1])
        assert "earlier" not in start("-config", str(config)).stderr


def test_an_invalid_configuration_is_told_by_the_starter(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"smtpPort": "x"}')
    answer = start("-config", str(config))
    assert answer.returncode == os.EX_CONFIG
    assert "smtpPort" in answer.stderr


def test_a_second_daemon_on_the_same_pidfile_is_refused(tmp_path: Path) -> None:
    pidfile = tmp_path / "mailer.pid"
    (tmp_path / "other").mkdir()
    with daemon(write_config(tmp_path), pidfile) as pid:
        answer = start("-config", str(write_config(tmp_path / "other")), "--pidfile", str(pidfile))
        assert answer.returncode == os.EX_TEMPFAIL
        assert str(pid) in answer.stderr
        assert pidfile.read_text() == f"{pid}\n"


def test_the_pidfile_of_a_killed_daemon_is_replaced(tmp_path: Path) -> None:
    config, pidfile = write_config(tmp_path), tmp_path / "mailer.pid"
    with daemon(config, pidfile) as first:
        os.kill(first, signal.SIGKILL)
        wait_for_end(first)
        assert pidfile.exists()
        with daemon(config, pidfile) as second:
            assert second != first


@pytest.mark.parametrize("where", ["output", "pidfile"])
def test_a_place_that_cannot_be_written_is_told(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("")
    nowhere = str(tmp_path / "file" / "below")
    config = write_config(tmp_path, **({"logging": {"file": nowhere}} if where == "output" else {}))
    answer = start("-config", str(config), *(["--pidfile", nowhere] if where == "pidfile" else []))
    assert answer.returncode == os.EX_CANTCREAT
    assert f"{nowhere}: Not a directory" in answer.stderr
