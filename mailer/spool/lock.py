"""The lock of a spool: one process at a time uses a data directory.

``spool/lock`` is held by flock for the life of the process and holds its pid, so that a second instance can name the
first. The kernel drops it with the process, however that ends. No threads. Fails with ``SpoolLocked`` or ``SpoolError``.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from mailer.spool.places import PRIVATE_FILE
from mailer.spool.store import SpoolError

_MAX_PID_BYTES = 32


class SpoolLocked(SpoolError):
    """Another process, or another part of this one, uses the spool."""


class InstanceLock:
    """Held from construction until ``release``."""

    def __init__(self, path: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._descriptor = os.open(path, flags, PRIVATE_FILE)
        except OSError as error:
            raise SpoolError(f"cannot open the spool's lock {path}: {error.strerror}; check its owner and rights") from error
        try:
            os.fchmod(self._descriptor, PRIVATE_FILE)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = _pid_in(self._descriptor)
            os.close(self._descriptor)
            raise SpoolLocked(
                f"the spool {path.parent} is in use by process {holder} (lock {path}); stop that one first, "
                "or give this one a dataDir of its own"
            ) from error
        except OSError as error:
            os.close(self._descriptor)
            raise SpoolError(f"cannot lock {path}: {error.strerror}; the file system must support flock") from error
        with contextlib.suppress(OSError):  # a full disk: the lock holds without the pid as well
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let others in. The file stays: removing it would let two instances lock two files of one name."""
        os.close(self._descriptor)


def _pid_in(descriptor: int) -> str:
    with contextlib.suppress(OSError):
        text = os.pread(descriptor, _MAX_PID_BYTES, 0).decode("ascii", "replace").strip()
        if text.isdigit():
            return text
    return "unknown"
