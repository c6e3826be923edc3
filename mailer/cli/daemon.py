"""``--daemon``: owns the start of a serving process in the background, and what its starter answers.

The program is started anew in its own session and never forked: a fork inside a one-file executable would lose its
unpack folder when the starter ends. The new process writes to a pipe once it serves; should it end before that, what
it wrote to its output is shown here and its exit code is ours. The starter waits for as long as the new process neither
serves nor ends (taking in a large spool may last); interrupting it ends the new process as well. No threads, no locks.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from mailer import process
from mailer.cli import failure
from mailer.cli.background import READY, open_output, output_path
from mailer.config.load import load
from mailer.mail.outcome import MailerError

MAX_SHOWN_BYTES = 8192
"""How much of the failed process's last words is shown: its faults, not a debug log."""


def run(arguments: argparse.Namespace) -> int:
    """Start the program in the background; returns 0 once it serves, else its exit code."""
    try:
        config = load(arguments.config, os.environ).config
        path = output_path(config.logging.file, config.data_dir)
        output = open_output(path)
    except OSError as fault:
        failure.report(fault)
        return os.EX_CANTCREAT
    except MailerError as fault:
        return failure.report(fault)
    start = os.lseek(output, 0, os.SEEK_END)
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        child = subprocess.Popen(
            _command(arguments, path, writer),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[writer],
            env=process.fresh_environment(os.environ),
            start_new_session=True,
        )
    finally:
        os.close(writer)
        os.close(output)
    try:
        ready = _read_all(reader) == READY
        code = 0 if ready else child.wait()
    except KeyboardInterrupt:
        child.terminate()
        child.wait()
        return os.EX_TEMPFAIL
    if not ready:
        _show(path, start)
        return code if code > 0 else os.EX_SOFTWARE  # below 0: ended by a signal
    print(f"mailer: serving, process {child.pid}, output to {path}")
    child.returncode = 0  # it lives on: nothing to complain about when this object goes
    return os.EX_OK


def _command(arguments: argparse.Namespace, output: Path, ready_fd: int) -> list[str]:
    command = [*process.program_command(), "--config", str(arguments.config)]
    command += ["--output", str(output), "--ready-fd", str(ready_fd)]
    if arguments.pidfile:
        command += ["--pidfile", str(arguments.pidfile)]
    return command


def _read_all(descriptor: int) -> bytes:
    """What is written to the pipe until every writer has closed it."""
    with os.fdopen(descriptor, "rb") as pipe:
        return pipe.read(len(READY))


def _show(path: Path, start: int) -> None:
    """What the failed process has written to its output since ``start``."""
    try:
        with path.open("rb") as output:
            output.seek(max(start, output.seek(0, os.SEEK_END) - MAX_SHOWN_BYTES))
            words = output.read(MAX_SHOWN_BYTES)
    except OSError as fault:
        words = f"mailer: {path}: {fault.strerror}\n".encode()
    sys.stderr.write(words.decode("utf-8", "replace"))
