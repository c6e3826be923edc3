"""Starts mailer as a newcomer does, with the example configuration, and sees one message through.

    smoke.py dist/mailer        the executable, in an environment that holds nothing
    smoke.py make run           a checkout; what it sets up stays

It owns the processes it starts and a folder that goes with it; it ends with 0, or says what did not happen.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import smtplib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 120.0  # `make run` may have to set up first
STEP_SECONDS = 20.0


def main() -> int:
    command = sys.argv[1:]
    frozen = command[0] != "make"
    with tempfile.TemporaryDirectory(prefix="mailer-smoke-") as name:
        folder = Path(name)
        shutil.copy(ROOT / "config.example.json", folder / "config.json")
        ports = free_port(), free_port()
        settings = {
            "MAILER_SMTP_PORT": str(ports[0]),
            "MAILER_HEALTH_CHECK_PORT": str(ports[1]),
            "MAILER_DATA_DIR": str(folder),
        }
        if frozen:
            command = [str((ROOT / command[0]).resolve()), *command[1:], "-config", str(folder / "config.json")]
        else:
            command = [*command, f"CONFIG={folder / 'config.json'}"]
        program = subprocess.Popen(
            command, env=settings if frozen else os.environ | settings, cwd=folder if frozen else ROOT, start_new_session=True
        )
        try:
            see_through(program, folder, *ports)
            os.killpg(program.pid, signal.SIGTERM)
            code = program.wait(STEP_SECONDS)
        finally:
            if program.poll() is None:
                os.killpg(program.pid, signal.SIGKILL)
        # make itself is ended by the signal; the executable says how it went.
        if frozen and code != 0:
            sys.exit(f"smoke: it ended with {code} after SIGTERM")
        wait_until("the port to be closed", lambda: not answers(ports[0]))
    print("smoke: one message accepted, delivered and counted; stopped in order")
    return 0


def see_through(program: subprocess.Popen[bytes], folder: Path, smtp_port: int, http_port: int) -> None:
    wait_until("the SMTP port", lambda: program.poll() is not None or answers(smtp_port), START_SECONDS)
    if program.poll() is not None:
        sys.exit(f"smoke: it ended with {program.returncode} before it served")
    send(smtp_port)
    wait_until("the message in emails/*.eml", lambda: any((folder / "emails").glob("*.eml")))
    [message] = (folder / "emails").glob("*.eml")
    if b"smoke test" not in message.read_bytes():
        sys.exit(f"smoke: {message.name} does not hold what was sent")
    with urllib.request.urlopen(f"http://127.0.0.1:{http_port}/health", timeout=STEP_SECONDS) as answer:
        health = json.load(answer)
    if health["status"] not in ("ok", "degraded"):  # degraded: a small disk
        sys.exit(f"smoke: /health says {health}")


def send(port: int) -> None:
    if shutil.which("swaks"):
        command = ["swaks", "--server", f"127.0.0.1:{port}", "--from", "a@sender.test", "--to", "b@recipient.test"]
        subprocess.run([*command, "--body", "smoke test", "--suppress-data"], check=True, timeout=STEP_SECONDS)
        return
    with smtplib.SMTP("127.0.0.1", port, timeout=STEP_SECONDS) as client:
        client.sendmail("a@sender.test", ["b@recipient.test"], "Subject: smoke\r\n\r\nsmoke test\r\n")


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), STEP_SECONDS).close()
    except OSError:
        return False
    return True


def wait_until(what: str, condition: Callable[[], bool], seconds: float = STEP_SECONDS) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"smoke: waited {seconds:g} s for {what}")
        time.sleep(0.1)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
