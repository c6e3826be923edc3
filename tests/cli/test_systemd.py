"""What systemd is told and hands over, over the real protocols."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from mailer.cli import systemd


def test_readiness_is_told_where_the_unit_says(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(20)
        manager.bind(str(tmp_path / "notify"))
        systemd.notify("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert manager.recv(100) == b"READY=1"


def test_the_abstract_namespace_is_understood() -> None:
    name = f"mailer-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(20)
        manager.bind("\0" + name)
        systemd.notify("STOPPING=1", {"NOTIFY_SOCKET": "@" + name})
        assert manager.recv(100) == b"STOPPING=1"


def test_a_manager_that_has_gone_does_no_harm(tmp_path: Path) -> None:
    systemd.notify("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "absent")})
    systemd.notify("READY=1", {})
    assert list(tmp_path.iterdir()) == []


def take_listeners(listen_pid: str) -> str:
    """What a process says of the socket it was started with as descriptor 3; LISTEN_PID as bash expands it."""
    code = (
        "import os; from mailer.cli.systemd import take_listeners\n"
        "found = take_listeners(os.environ)\n"
        "print([s.getsockname()[1] for s in found], 'LISTEN_FDS' in os.environ, [os.get_inheritable(s.fileno()) for s in found])"
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        shell = f'exec 3<&{listener.fileno()}; export LISTEN_PID="{listen_pid}" LISTEN_FDS=1; exec "$0" -c "$1"'
        answer = subprocess.run(
            ["bash", "-c", shell, sys.executable, code],
            pass_fds=[listener.fileno()],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout
        return answer.strip().replace(str(listener.getsockname()[1]), "PORT")


def test_a_socket_handed_over_is_taken_and_not_passed_on() -> None:
    assert take_listeners("$$") == "[PORT] False [False]"


def test_a_socket_meant_for_another_process_is_not_taken() -> None:
    assert take_listeners("1") == "[] False []"
