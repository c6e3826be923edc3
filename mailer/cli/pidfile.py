"""The pidfile: owns who may write it, and that it goes when we do.

The file holds the pid that signals are sent to (``process.main_pid``: the launcher's in a one-file executable). The
process that wrote it keeps a lock on it (flock) until it ends, however it ends; so a pidfile that nobody locks is
stale, whatever process has that number by now, and is replaced. A file that holds anything but a number is never
replaced. No threads, no locks of ours. Fails with ``PidfileTaken`` or ``PidfileUnwritable``.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from pathlib import Path

from mailer.mail.outcome import MailerError

MAX_PIDFILE_BYTES = 32  # a number of at most 7 digits on Linux, and a newline; more is no pidfile


class PidfileTaken(MailerError):
    """A living process holds the pidfile."""


class PidfileUnwritable(MailerError):
    """The pidfile cannot be written, or what lies there is none."""


class Pidfile:
    """A pidfile that this process holds, from ``claim`` to ``release``."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor  # holds the lock

    def __repr__(self) -> str:
        return f"Pidfile({str(self.path)!r})"

    @classmethod
    def claim(cls, path: Path, pid: int) -> Pidfile:
        """Write ``pid`` to ``path``, in one step for every reader. Raises PidfileTaken or PidfileUnwritable."""
        path = path.absolute()
        try:
            _refuse_if_held(path)
            descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        except OSError as fault:
            raise PidfileUnwritable(f"pidfile {path}: {fault.strerror}; give a folder that this user may write to") from fault
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # ours alone so far: does not wait
            os.fchmod(descriptor, 0o644)
            os.write(descriptor, b"%d\n" % pid)
            Path(temporary).rename(path)
        except OSError as fault:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
            raise PidfileUnwritable(f"pidfile {path}: {fault.strerror}") from fault
        return cls(path, descriptor)

    def release(self) -> None:
        """Remove the file, unless another has taken its place meanwhile. May be called again."""
        if self._descriptor < 0:
            return
        with contextlib.suppress(OSError):
            ours, there = os.fstat(self._descriptor), os.lstat(self.path)
            if (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino):
                self.path.unlink()
        os.close(self._descriptor)
        self._descriptor = -1


def _refuse_if_held(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return
    try:
        content = os.read(descriptor, MAX_PIDFILE_BYTES + 1).strip()
        if content and (len(content) > MAX_PIDFILE_BYTES or not content.isdigit()):
            raise PidfileUnwritable(f"pidfile {path}: the file there holds something else than a process id; it is left as it is")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as fault:
            pid = content.decode() or "of an unknown number"
            raise PidfileTaken(f"pidfile {path}: process {pid} is running and holds it; end that one first") from fault
    finally:
        os.close(descriptor)
