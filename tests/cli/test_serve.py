"""Serving as a process: how it starts, what signals do, how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import resource
import signal
import smtplib
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from tests.cli.program import SOURCE, WAIT_SECONDS, Program, ports_of, running, send_message, wait_for_text, write_config
from tests.support.upstream import Stall, Upstream


@pytest.fixture
def stalled_upstream() -> Iterator[Upstream]:
    """A provider that takes the whole message and is slow to say so: not before it is released."""
    with Upstream() as upstream:
        upstream.on("dot", Stall("250 2.0.0 taken"))
        yield upstream


@contextlib.contextmanager
def busy(folder: Path, upstream: Upstream) -> Iterator[Program]:
    """A mailer in the middle of a delivery that does not end by itself."""
    provider = {"host": upstream.host, "port": upstream.port}
    config = write_config(folder, forwardSMTP=True, forwardProviders=[provider])
    with running("-config", str(config)) as program:
        port, _ = program.wait_ready()
        send_message(port)
        upstream.wait_until(lambda: any(line == "DATA" for _, line in upstream.commands))
        yield program


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_to_stop_drains_and_ends_with_0(tmp_path: Path, number: signal.Signals) -> None:
    with running("-config", str(write_config(tmp_path))) as program:
        port, _ = program.wait_ready()
        send_message(port)
        program.signal(number)
        assert program.wait() == 0
        assert any("stop.done" in line for line in program.lines)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port)).close()


def test_a_request_to_stop_that_comes_as_soon_as_the_port_is_open_drains_too(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    failed = tmp_path / "data" / "emails" / "failed"
    failed.mkdir(parents=True)
    for number in range(2000):  # what hand-overs have left keeps it busy between opening the port and being ready
        (failed / f".left{number}.json.tmp").touch()
    with running("-config", str(config)) as program:
        program.wait_for("smtp.listening")
        assert not any(" ready " in line for line in program.lines)
        program.signal(signal.SIGTERM)
        assert program.wait() == 0, program.lines


def test_what_is_in_flight_at_sigterm_is_finished(tmp_path: Path, stalled_upstream: Upstream) -> None:
    with busy(tmp_path, stalled_upstream) as program:
        program.signal(signal.SIGTERM)
        program.wait_for("stop.begun")
        stalled_upstream.release()
        assert program.wait() == 0
    assert [one.accepted for one in stalled_upstream.transactions] == [True]


def test_sigterm_twice_within_moments_is_one_request(tmp_path: Path, stalled_upstream: Upstream) -> None:
    with busy(tmp_path, stalled_upstream) as program:
        program.signal(signal.SIGTERM)
        program.signal(signal.SIGTERM)
        program.wait_for("stop.begun")
        stalled_upstream.release()
        assert program.wait() == 0
    assert [one.accepted for one in stalled_upstream.transactions] == [True]


def test_a_second_request_more_than_a_second_later_ends_at_once(tmp_path: Path, stalled_upstream: Upstream) -> None:
    with busy(tmp_path, stalled_upstream) as program:
        program.signal(signal.SIGTERM)
        program.wait_for("stop.begun")
        # Insist until it is heard: those within the first second must do nothing, and nothing else ends it before 30 s.
        code = None
        while code is None:
            program.signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = program.process.wait(0.3)
        assert code == -signal.SIGTERM
        assert program.wait() == code
        assert any("stop.at_once" in line for line in program.lines)


def test_every_fault_of_the_configuration_is_told_and_ends_with_78(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"smtpPort": "x", "workerCount": -1}')
    with running("-config", str(config)) as program:
        assert program.wait() == os.EX_CONFIG
        text = "".join(program.lines)
        assert "smtpPort" in text
        assert "workerCount" in text
        assert "Traceback" not in text


def test_a_missing_configuration_ends_with_78_and_names_the_file(tmp_path: Path) -> None:
    with running("-config", str(tmp_path / "absent.json")) as program:
        assert program.wait() == os.EX_CONFIG
        assert "absent.json" in "".join(program.lines)


@pytest.mark.parametrize("setting", ["smtpPort", "healthCheckPort"])
def test_a_taken_port_ends_with_75_and_is_named(tmp_path: Path, setting: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        taken = {setting: holder.getsockname()[1]}
        with running("-config", str(write_config(tmp_path, **taken))) as program:
            assert program.wait() == os.EX_TEMPFAIL
            text = "".join(program.lines)
            assert f"127.0.0.1:{taken[setting]}" in text
            assert "taken" in text
            assert "Traceback" not in text


def test_a_second_instance_on_the_same_data_ends_with_75(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    with running("-config", str(config)) as first:
        first.wait_ready()
        with running("-config", str(config)) as second:
            assert second.wait() == os.EX_TEMPFAIL
            assert "Traceback" not in "".join(second.lines)
        send_message(first.wait_ready()[0])


@pytest.mark.skipif(
    int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 25, reason="anybody may listen on port 25 here"
)
def test_a_port_without_the_right_to_it_ends_with_77_and_says_what_to_do(tmp_path: Path) -> None:
    config = write_config(tmp_path, smtpPort=25)
    for path in (tmp_path, *tmp_path.rglob("*")):
        path.chmod(0o777)
    # Root keeps the right to low ports as a capability; without it, root is as bare as anybody.
    dropped = ["setpriv", "--bounding-set", "-net_bind_service", "--inh-caps", "-net_bind_service"] if os.geteuid() == 0 else []
    with running("-config", str(config), command=[*dropped, *SOURCE]) as program:
        assert program.wait() == os.EX_NOPERM
        text = "".join(program.lines)
        assert "AmbientCapabilities" in text
        assert "ip_unprivileged_port_start" in text


def test_hangup_takes_a_new_configuration_and_a_new_log_file(tmp_path: Path) -> None:
    log = tmp_path / "mailer.log"
    config = write_config(tmp_path, logging={"file": str(log)}, maxRecipients=10)
    with running("-config", str(config), "-pidfile", str(tmp_path / "pid")) as program:
        port, _ = ports_of(wait_for_text(log, " ready "))
        log.rename(tmp_path / "mailer.log.1")
        write_config(tmp_path, logging={"file": str(log)}, maxRecipients=1, smtpPort=port)
        program.signal(signal.SIGHUP)
        wait_for_text(log, "reload.done")
        with smtplib.SMTP("127.0.0.1", port, timeout=WAIT_SECONDS) as client:
            client.ehlo()
            client.mail("a@sender.test")
            assert [client.rcpt(f"{name}@recipient.test")[0] for name in "bc"] == [250, 452]
        program.signal(signal.SIGTERM)
        assert program.wait() == 0


def test_hangup_with_an_invalid_configuration_changes_nothing(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    with running("-config", str(config)) as program:
        port, _ = program.wait_ready()
        config.write_text('{"smtpPort": "x"}')
        program.signal(signal.SIGHUP)
        assert "smtpPort" in program.wait_for("reload.rejected")
        send_message(port)
        program.signal(signal.SIGTERM)
        assert program.wait() == 0


def test_hangup_names_settings_that_need_a_restart(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    with running("-config", str(config)) as program:
        program.wait_ready()
        write_config(tmp_path, queueSize=7)
        program.signal(signal.SIGHUP)
        assert "setting=queueSize" in program.wait_for("reload.needs_restart")


def test_the_pidfile_lives_as_long_as_the_process(tmp_path: Path) -> None:
    pidfile = tmp_path / "mailer.pid"
    with running("-config", str(write_config(tmp_path)), "-pidfile", str(pidfile)) as program:
        program.wait_ready()
        assert int(pidfile.read_text()) == program.pid
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
    assert not pidfile.exists()


def test_the_limit_on_open_files_is_raised_for_a_thousand_connections(tmp_path: Path) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    prlimit = ["prlimit", f"--nofile=256:{min(hard, 8192) if hard != resource.RLIM_INFINITY else 8192}"]
    with running("-config", str(write_config(tmp_path)), command=[*prlimit, *SOURCE]) as program:
        program.wait_ready()
        [line] = [line for line in Path(f"/proc/{program.pid}/limits").read_text().splitlines() if "open files" in line]
        assert int(line.split()[3]) > 1000


def test_systemd_is_told_when_it_serves_and_when_it_stops(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(WAIT_SECONDS)
        manager.bind(str(tmp_path / "notify"))
        environ = os.environ | {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        with running("-config", str(write_config(tmp_path)), env=environ) as program:
            assert manager.recv(100) == b"READY=1"
            program.signal(signal.SIGTERM)
            assert manager.recv(100) == b"STOPPING=1"


def test_no_secret_of_the_environment_or_file_is_printed_at_start(tmp_path: Path) -> None:
    provider = {"host": "127.0.0.1", "port": 9, "username": "u", "password": "pa55-w0rd-of-mine"}
    config = write_config(tmp_path, forwardSMTP=True, forwardProviders=[provider], logging={"level": "debug"})
    with running("-config", str(config)) as program:
        program.wait_ready()
        program.signal(signal.SIGTERM)
        program.wait()
        assert "pa55-w0rd" not in "".join(program.lines)


def test_lines_of_the_log_are_json_where_asked_for(tmp_path: Path) -> None:
    with running("-config", str(write_config(tmp_path, logging={"format": "json"}))) as program:
        program.wait_for("ready")
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
        assert all(isinstance(json.loads(line), dict) for line in program.lines)


def test_a_port_that_systemd_holds_stands_in_for_the_configured_one(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        shell = f'exec 3<&{held.fileno()}; export LISTEN_PID=$$ LISTEN_FDS=1; exec "$0" "$@"'
        config = write_config(tmp_path, smtpPort=1)
        with running("-config", str(config), command=["bash", "-c", shell, *SOURCE], pass_fds=[held.fileno()]) as program:
            assert program.wait_ready()[0] == port
            send_message(port)
            program.signal(signal.SIGTERM)
            assert program.wait() == 0


TAKE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(int(sys.argv[1]), termios.TIOCSCTTY, 0)
os.execvp(sys.argv[2], sys.argv[2:])
"""


@contextlib.contextmanager
def in_terminal(config: Path, *wrapper: str) -> Iterator[tuple[Program, IO[bytes]]]:
    """A mailer in the foreground of a terminal of its own, and the window of that terminal."""
    window, terminal = pty.openpty()
    command = [sys.executable, "-c", TAKE_TERMINAL, str(terminal), *wrapper, *SOURCE]
    with os.fdopen(window, "rb", buffering=0) as held, running(
        "-config", str(config), command=command, pass_fds=[terminal]
    ) as program:
        os.close(terminal)
        yield program, held


def test_closing_the_terminal_stops_what_was_started_in_it(tmp_path: Path) -> None:
    with in_terminal(write_config(tmp_path)) as (program, window):
        program.wait_ready()
        window.close()
        assert program.wait() == 0
        assert any("stop.done" in line for line in program.lines)


def test_hangup_with_the_terminal_still_open_reloads(tmp_path: Path) -> None:
    with in_terminal(write_config(tmp_path)) as (program, _):
        program.wait_ready()
        program.signal(signal.SIGHUP)
        program.wait_for("reload.done")
        assert program.process.poll() is None


def test_what_nohup_started_outlives_the_terminal(tmp_path: Path) -> None:
    with in_terminal(write_config(tmp_path), "nohup") as (program, window):
        port, _ = program.wait_ready()
        window.close()
        program.wait_for("reload.done")
        send_message(port)
