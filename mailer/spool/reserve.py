"""The reserve: disk space kept for records, so that a spool that has filled its own disk can still empty itself.

``spool/reserve`` is a file of real blocks. When records cannot be written for lack of space it is deleted, and new mail
is refused until it could be made again. Used by the writer's thread alone once the spool is open; no locks.
Fails by returning False: a missing reserve is a state, not a fault.
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

from mailer.spool.places import open_new, sync_directory

log = logging.getLogger(__name__)

RESERVE_BYTES = 32 * 1024 * 1024  # four times the write-ahead log: the log, its checkpoint, and as much again
LARGEST_SHARE = 16  # of a small file system it takes at most this part
SMALLEST_BYTES = 64 * 1024
_PIECE_BYTES = 1024 * 1024
_BLOCK_BYTES = 512  # the unit of st_blocks, whatever the file system's own


class Reserve:
    """The reserve file at ``path``; ``size`` is what it should hold in bytes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        disk = os.statvfs(path.parent)
        self.size = max(SMALLEST_BYTES, min(RESERVE_BYTES, disk.f_blocks * disk.f_frsize // LARGEST_SHARE))
        self.present = self._is_whole()

    def __repr__(self) -> str:
        return f"Reserve({str(self._path)!r}, size={self.size}, present={self.present})"

    def spend(self) -> bool:
        """Give the space back to the file system; False when there was none to give."""
        was_present, self.present = self.present, False
        try:
            self._path.unlink()
        except OSError:
            return False
        if was_present:
            log.error(
                "spool.reserve_spent path=%s bytes=%d: the disk is full; new mail is refused until there is room again",
                self._path, self.size,
            )
        return True

    def restore(self) -> bool:
        """Make the file unless it is there; needs twice its size free, so that it does not come and go."""
        if self.present:
            return True
        if not self.has_room():
            return False
        try:
            self._path.unlink(missing_ok=True)
            self._fill()
            self.present = True
        except OSError:
            with contextlib.suppress(OSError):
                self._path.unlink()
        return self.present

    def has_room(self) -> bool:
        """Whether the file system has room for more than the reserve."""
        try:
            disk = os.statvfs(self._path.parent)
        except OSError:
            return False
        return disk.f_bavail * disk.f_frsize >= 2 * self.size

    def _is_whole(self) -> bool:
        try:
            found = self._path.lstat()
        except OSError:
            return False
        return found.st_blocks * _BLOCK_BYTES >= self.size

    def _fill(self) -> None:
        descriptor = open_new(self._path)
        try:
            with contextlib.suppress(OSError):  # not every file system can; writing does it then
                os.posix_fallocate(descriptor, 0, self.size)
            if os.fstat(descriptor).st_blocks * _BLOCK_BYTES < self.size:
                self._write_out(descriptor)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sync_directory(self._path.parent)

    def _write_out(self, descriptor: int) -> None:
        piece = os.urandom(_PIECE_BYTES)  # random: a file system that compresses must not make it nothing
        written = 0
        while written < self.size:
            written += os.pwrite(descriptor, piece[: self.size - written], written)
