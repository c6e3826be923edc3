"""A process in the background: owns what it and its starter (``cli/daemon.py``) share, an output file and a word.

The file takes standard output and error, since there is nobody's terminal to write to: the log where ``logging.file``
is not set, and in any case what the interpreter itself says at the worst of times. No threads, no locks: the main
thread opens and reopens. Raises OSError when the file cannot be opened.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

READY = b"ready\n"
"""What goes through the starter's pipe once the process serves."""

OUTPUT_NAME = "mailer.log"
_MODE = 0o640  # a log names senders and recipients: not for everybody


def output_path(log_file: str, data_dir: Path) -> Path:
    """Where a process in the background writes: ``logging.file``, or ``mailer.log`` in ``dataDir``."""
    return (Path(log_file) if log_file else data_dir / OUTPUT_NAME).absolute()


def open_output(path: Path) -> int:
    """A descriptor that appends to ``path``; its folder is made if need be."""
    with contextlib.suppress(FileExistsError):
        path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, _MODE)


def redirect(path: Path) -> None:
    """Let standard output and error go to the file that ``path`` names now; at SIGHUP that is a new one."""
    descriptor = open_output(path)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(descriptor, stream.fileno())
    os.close(descriptor)
