"""What an error of SQLite means for the spool: no space, a damaged database, one bad row, or a device that fails.

No threads, no locks; never fails itself.
"""

from __future__ import annotations

import enum
import os
import sqlite3
from pathlib import Path

from mailer.spool.rows import Unreadable
from mailer.spool.store import SpoolError, SpoolFull

_SCARCE_BYTES = 1024 * 1024  # an I/O error with less than this free is taken for lack of space (quotas say EDQUOT, not ENOSPC)
_SPACE_IOERR = frozenset({
    sqlite3.SQLITE_IOERR_WRITE,
    sqlite3.SQLITE_IOERR_FSYNC,
    sqlite3.SQLITE_IOERR_TRUNCATE,
    sqlite3.SQLITE_IOERR_SHMSIZE,
    sqlite3.SQLITE_IOERR_SHMMAP,
    sqlite3.SQLITE_IOERR_SHMOPEN,
})  # fmt: skip
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT})
_ROW = frozenset({sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_RANGE})


class AlreadyKnown(SpoolError):
    """A message of that id is stored already."""


class Fault(enum.Enum):
    SPACE = "space"
    DAMAGE = "damage"
    ROW = "row"  # one statement's parameters; others are not concerned
    DEVICE = "device"


def fault_of(error: Exception, directory: Path) -> Fault:
    """The kind of ``error``, an sqlite3.Error or Unreadable, met in a database in ``directory``."""
    if isinstance(error, Unreadable):
        return Fault.DAMAGE
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # raised by the module, not by the engine: a value it cannot bind or a text it cannot decode
        return Fault.DAMAGE if "decode" in str(error) else Fault.ROW
    if code & 0xFF == sqlite3.SQLITE_FULL:
        return Fault.SPACE
    if code & 0xFF in _DAMAGE:
        return Fault.DAMAGE
    if code & 0xFF in _ROW:
        return Fault.ROW
    if code in _SPACE_IOERR and _is_scarce(directory):
        return Fault.SPACE
    return Fault.DEVICE


def for_client(fault: Fault, error: Exception, path: Path) -> SpoolError:
    """The exception that tells a submitter why its message was not stored."""
    if fault is Fault.SPACE:
        return SpoolFull(f"no space left for the spool {path.parent}; free some, or move dataDir to a larger disk")
    return SpoolError(f"cannot write the spool {path}: {describe(error)}; see the log")


def describe(error: Exception) -> str:
    """The error and SQLite's name for it, in printable ASCII."""
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    return f"{ascii(str(error))[1:-1]} ({name})"


def _is_scarce(directory: Path) -> bool:
    try:
        disk = os.statvfs(directory)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < _SCARCE_BYTES
