"""The files of ``emails/failed``, ``emails/dead`` and ``emails/quarantine``: each step among them whole and durable.

Parking a message takes three steps, of which only the middle one is the spool's: ``prepare`` writes a hidden file, the
spool records Holder.FILE, ``publish`` shows the file. A hidden file counts for nothing before that record; after it, it counts as
the file, even where ``publish`` has failed.

Threads: any; a lock guards the cached count. Reading fails with ``NotParked``, ``Unreadable`` or
``NotNow``, changing with OSError.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from mailer.spool import parked
from mailer.spool.parked import NotNow, ParkedFile, Unreadable
from mailer.spool.places import (
    REASON_SUFFIX,
    Places,
    checked_id,
    free_name,
    make_private_directory,
    set_aside,
    sync_directory,
    write_durably,
)
from mailer.spool.settling import Settling, Signature
from mailer.spool.store import SpoolError
from mailer.spool.unpark import read_parked

__all__ = ["FailedStore", "NotNow", "NotParked", "ParkedFile", "Settling", "Signature", "Unreadable"]

log = logging.getLogger(__name__)

LARGEST_FILE_BYTES = 1024 * 1024 * 1024
"""Files over this are not read: nothing near it was accepted, and reading costs as much disk again."""
_COUNT_SECONDS = 1.0  # how old a count may be: probes ask several times a second
_SUFFIX = ".json"
_HIDDEN = "."
_DRAFT = ".json.tmp"
_LACKS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})  # of the machine: the file may be in order


class NotParked(SpoolError):
    """There is no such file."""


class FailedStore:
    """See the module. A *name* is a file's without ``.json``: a message id, or anything where people dropped it in.

    Making one makes the folder, and raises OSError when that cannot be.
    """

    def __init__(self, data_dir: Path, largest_file_bytes: int = LARGEST_FILE_BYTES) -> None:
        self._places = Places(data_dir.absolute())
        self._largest_file_bytes = largest_file_bytes
        self._lock = threading.Lock()  # guards _counted
        self._counted: tuple[float, int] | None = None
        make_private_directory(self._places.failed)  # so that there is a place to drop files into

    def __repr__(self) -> str:
        return f"FailedStore({str(self._places.failed)!r})"

    # Parking and its end.

    def prepare(self, message: ParkedFile) -> None:
        """Write the hidden file, durably. Raises OSError, BadId; nothing is left then."""
        make_private_directory(self._places.failed)
        draft = self._draft(checked_id(message.id))
        try:
            write_durably(draft, parked.to_pieces(message))
        except BaseException:
            with contextlib.suppress(OSError):
                draft.unlink()
            raise

    def publish(self, message_id: str) -> None:
        """Show the hidden file; nothing happens when there is none (it is shown already)."""
        with contextlib.suppress(FileNotFoundError):
            self._draft(message_id).rename(self._path(message_id))
            sync_directory(self._places.failed)

    def discard_prepared(self, message_id: str) -> None:
        self._draft(message_id).unlink(missing_ok=True)

    def prepared_ids(self) -> list[str]:
        """The messages with a hidden file."""
        with contextlib.suppress(FileNotFoundError):
            names = [entry.name for entry in os.scandir(self._places.failed)]
            return [name[1 : -len(_DRAFT)] for name in names if name.startswith(_HIDDEN) and name.endswith(_DRAFT)]
        return []

    def remove(self, message_id: str) -> None:
        """The message is delivered: no file of it is left."""
        for path in (self._path(message_id), self._draft(message_id)):
            path.unlink(missing_ok=True)
        if self._places.failed.is_dir():
            sync_directory(self._places.failed)

    def bury(self, message_id: str) -> None:
        """The message is given up: its file moves to ``emails/dead``. Nothing happens when there is none."""
        make_private_directory(self._places.dead)
        source = self._path(message_id)
        target = free_name(self._places.dead, source.name)
        try:
            source.rename(target)
        except FileNotFoundError:
            return
        _restart_age(target)
        sync_directory(self._places.dead)
        sync_directory(self._places.failed)

    def quarantine(self, name: str, reason: str) -> None:
        """Move what has that name to ``emails/quarantine``, with ``reason`` in a file beside it."""
        try:
            target = set_aside(self._path(name), self._places.quarantine, reason)
        except FileNotFoundError:
            return
        _restart_age(target)

    # Files that people see.

    def names(self) -> Iterator[tuple[str, Signature]]:
        """Every visible ``*.json``, whatever it is. Names may hold anything a file name can, lone surrogates too."""
        with contextlib.suppress(FileNotFoundError), os.scandir(self._places.failed) as entries:
            for entry in entries:
                if entry.name.endswith(_SUFFIX) and not entry.name.startswith(_HIDDEN):
                    name = entry.name.removesuffix(_SUFFIX)
                    yield name, self.signature(name)

    def signature(self, name: str) -> Signature:
        try:
            found = self._path(name).lstat()
        except OSError:
            return Signature(0, 0, 0)
        return Signature(found.st_mtime_ns, found.st_size, found.st_ino)

    def is_shown(self, name: str) -> bool:
        return os.path.lexists(self._path(name))

    def has(self, name: str) -> bool:
        return os.path.lexists(self._path(name)) or os.path.lexists(self._draft(name))

    def adopt_name(self, old_name: str, new_id: str) -> None:
        """Give the file a name that is a message id. Raises FileExistsError when that is taken."""
        target = self._path(checked_id(new_id))
        if self.has(new_id):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        self._path(old_name).rename(target)
        sync_directory(self._places.failed)

    def count(self, now: float) -> int:
        """How many files are visible, at most a second ago by ``now`` (seconds of any one clock)."""
        with self._lock:
            counted = self._counted
        if counted is not None and 0 <= now - counted[0] < _COUNT_SECONDS:
            return counted[1]
        number = 0
        with contextlib.suppress(OSError):
            for name in os.listdir(self._places.failed):  # noqa: PTH208 - half the cost of Path objects for 100,000 files
                number += name.endswith(_SUFFIX) and not name.startswith(_HIDDEN)
        with self._lock:
            self._counted = (now, number)
        return number

    def purge(self, older_than: float) -> int:
        """Remove what came to ``emails/dead`` and ``emails/quarantine`` before that Unix time. Returns how many messages."""
        removed = 0
        for directory in (self._places.dead, self._places.quarantine):
            with contextlib.suppress(FileNotFoundError), os.scandir(directory) as entries:
                for entry in entries:
                    with contextlib.suppress(OSError):  # a directory that somebody has put there stays
                        if entry.stat(follow_symlinks=False).st_mtime < older_than:
                            os.unlink(entry.path)  # noqa: PTH108 - the entry has the path as text
                            removed += not entry.name.endswith(REASON_SUFFIX)
        return removed

    def read(self, name: str) -> ParkedFile:
        """The message in the file of that name. Raises NotParked, Unreadable, NotNow.

        Never waits: a FIFO, a device or a link is unreadable. Content over 256 KiB is in a file without a name below
        ``spool/content`` that goes with the last reference to it.
        """
        return self._read(name, self._path(name), self._draft(name))  # the latter: publishing it failed

    def read_prepared(self, message_id: str) -> ParkedFile:
        """The message in the hidden file. Raises NotParked, Unreadable (a crash may have cut it short), NotNow."""
        return self._read(message_id, self._draft(message_id))

    def _read(self, name: str, *paths: Path) -> ParkedFile:
        with self._open(name, *paths) as file:
            try:
                return read_parked(file, self._places.content)
            except OSError as error:
                raise Unreadable(f"it cannot be read: {error.strerror or error}") from error

    def _open(self, name: str, path: Path, *others: Path) -> BinaryIO:
        """The first of the paths that there is."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(path, flags)
        except FileNotFoundError:
            if others:
                return self._open(name, *others)
            raise NotParked(f"there is no emails/failed/{ascii(name)[1:-1]}.json") from None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise Unreadable("it is a symbolic link") from error
            if error.errno in _LACKS:
                raise NotNow(f"it cannot be opened: {error.strerror}") from error
            raise Unreadable(f"it cannot be opened: {error.strerror or error}") from error
        found = os.fstat(descriptor)
        if stat.S_ISREG(found.st_mode) and found.st_size <= self._largest_file_bytes:
            return os.fdopen(descriptor, "rb")
        os.close(descriptor)
        if stat.S_ISREG(found.st_mode):
            raise Unreadable(f"it has {found.st_size} bytes; at most {self._largest_file_bytes} are read")
        raise Unreadable("it is no regular file")

    def _path(self, name: str) -> Path:
        return self._places.failed / f"{_single(name)}{_SUFFIX}"

    def _draft(self, name: str) -> Path:
        return self._places.failed / f"{_HIDDEN}{_single(name)}{_DRAFT}"


def _single(name: str) -> str:
    """``name``, unless it would lead out of the folder."""
    if "/" in name or "\0" in name or not name:
        raise NotParked(f"{name[:80]!a} is no name of a file")
    return name


def _restart_age(path: Path) -> None:
    """The days it is kept count from now, not from when it was written."""
    with contextlib.suppress(OSError):
        os.utime(path, (time.time(), time.time()), follow_symlinks=False)
