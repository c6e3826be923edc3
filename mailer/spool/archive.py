"""The archive: a copy of every accepted message in ``emails/archive/YYYY-MM-DD.mbox``, written off the hot path.

The form is mboxrd (``mbox``). The day is that of the acceptance in local time.

Threads: one of its own writes; any thread adds. One lock guards the queue between them, whose condition ``_room`` wakes
those who wait for room before they accept a message. How it fails: never at the caller. A message that finds no room, or
that cannot be written, is dropped, counted and told in the log at most once a minute.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import os
import re
import threading
import time
from collections.abc import Iterator
from datetime import date, timedelta
from io import FileIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

from mailer.mail.content import CHUNK_BYTES, Content, FileContent, MemoryContent
from mailer.mail.envelope import Envelope
from mailer.service import Service
from mailer.spool.mbox import mboxrd
from mailer.spool.places import PRIVATE_FILE, Places, make_private_directory

log = logging.getLogger(__name__)

MOST_MESSAGES = 1000
MOST_BYTES = 32 * 1024 * 1024  # also bounds the open files: 128 messages over 256 KiB, and as many under way
UNDER_WAY_FACTOR = 2  # of both: for messages that found room before they were made durable, many at once
GATHER_SECONDS = 0.1  # messages are written together, so that mail under way is disturbed ten times a second at most
ROOM_WAIT_SECONDS = 1.0  # a session may wait so long for the archive, and no longer
SWEEP_SECONDS = 3600.0  # between looks for files that are too old
REPEAT_LOG_SECONDS = 60.0

_WORTH_A_WRITE_BYTES = CHUNK_BYTES // 2  # less than a piece of a file, which shrinks with its line ends: it goes on as it is

_DAY = re.compile(r"(\d{4}-\d{2}-\d{2})\.mbox")


class _Entry(NamedTuple):
    envelope: Envelope
    content: Content
    file: BinaryIO | None  # opened when added: the spool may unlink the content before its turn comes


class Archive:
    """``days``: how long a day's file is kept; 0 keeps all. It may be set at any time."""

    def __init__(self, data_dir: Path, days: int) -> None:
        self._folder = Places(data_dir.absolute()).archive
        self.days = days
        self._service = Service("archive", self)
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)  # told when the thread has taken the queue
        self._closing = threading.Condition(self._lock)  # told at the end
        self._queue: list[_Entry] = []  # this and the next four: guarded by _lock
        self._bytes = 0
        self._is_full = False
        self._is_closing = False
        self._dropped = 0
        self._told_dropped = 0  # this and the rest: the archive's thread
        self._told_at = 0.0
        self._swept_at = 0.0
        self._last_error = ""

    def __repr__(self) -> str:
        return f"Archive({str(self._folder)!r}, waiting={len(self._queue)}, dropped={self.dropped})"

    @property
    def dropped(self) -> int:
        """How many messages are missing from the archive."""
        with self._lock:
            return self._dropped

    def start(self) -> None:
        self._service.start()

    def close(self) -> None:
        """Write what waits, then end the thread. What is added after this is dropped."""
        with self._lock:
            self._is_closing = True
            self._room.notify_all()
            self._closing.notify_all()
        self._service.wake()
        self._service.join(30.0)

    def wait_for_room(self, size: int) -> None:
        """For who is about to accept a message of ``size`` bytes: wait a second at most for a disk that is slow."""
        with self._lock:
            if not self._fits(size):
                self._wait_for_room(size)

    def add(self, envelope: Envelope, content: Content) -> None:
        """Queue a copy. Costs microseconds, never waits, never raises; without room the copy is dropped."""
        file = None
        if isinstance(content, FileContent):
            with contextlib.suppress(OSError):
                file = content.path.open("rb")
        entry, size = _Entry(envelope, content, file), content.size
        with self._lock:
            fits = self._fits(size, UNDER_WAY_FACTOR)
            if fits:
                self._queue.append(entry)
                self._bytes += size
                is_first = len(self._queue) == 1
            else:
                self._dropped += 1
        if not fits:
            if file is not None:
                file.close()
            return
        if is_first:
            self._service.wake()

    def step(self, now: float) -> float | None:
        """Write all that waits (``service.Stepper``)."""
        with self._lock:
            if self._queue and not self._is_closing and self._room_is_ample():
                self._closing.wait_for(lambda: self._is_closing, GATHER_SECONDS)
            entries, self._queue, self._bytes, self._is_full = self._queue, [], 0, False
            is_closing = self._is_closing
            self._room.notify_all()
        for day, of_day in itertools.groupby(entries, key=_day_of_entry):
            self._write(day, list(of_day))
        self._tell(now)
        if entries:
            return 0.0
        if is_closing:
            return None
        if abs(now - self._swept_at) >= SWEEP_SECONDS:
            self._swept_at = now
            self._sweep(now)
        return REPEAT_LOG_SECONDS

    def _room_is_ample(self) -> bool:
        return len(self._queue) < MOST_MESSAGES // 2 and self._bytes < MOST_BYTES // 2

    def _fits(self, size: int, factor: int = 1) -> bool:
        if self._is_closing:
            return False
        return not self._queue or (len(self._queue) < factor * MOST_MESSAGES and self._bytes + size <= factor * MOST_BYTES)

    def _wait_for_room(self, size: int) -> None:
        """Wait once for a disk that is slow; while one has waited in vain, nobody else does."""
        if not self._is_full:
            self._is_full = not self._room.wait_for(lambda: self._fits(size) or self._is_closing, ROOM_WAIT_SECONDS)

    def _write(self, day: str, entries: list[_Entry]) -> None:
        """Append the entries to the day's file; those that fail leave no trace in it."""
        failed = len(entries)
        try:
            make_private_directory(self._folder)
            with _open(self._folder / f"{day}.mbox") as box:
                for together in _together(entries):
                    if self._append(box, together):
                        failed -= len(together)
                    elif len(together) > 1:  # whose fault it was shows when they are written one by one
                        failed -= sum(self._append(box, [entry]) for entry in together)
        except OSError as error:
            self._last_error = f"{error.strerror or error}"
        finally:
            for entry in entries:
                if entry.file is not None:
                    entry.file.close()
        if failed:
            with self._lock:
                self._dropped += failed

    def _append(self, box: FileIO, entries: list[_Entry]) -> bool:
        """Append entries, all or none; whether it went well. Raises OSError when not even that can be had."""
        start = box.seek(0, os.SEEK_END)
        try:
            for piece in _gathered(entries[0]) if len(entries) == 1 else _joined(entries):
                _write_all(box, piece)
        except OSError as error:
            self._last_error = f"{error.strerror or error}"
            box.truncate(start)
            return False
        return True

    def _tell(self, now: float) -> None:
        dropped = self.dropped
        if dropped > self._told_dropped and abs(now - self._told_at) >= REPEAT_LOG_SECONDS:
            log.warning(
                "archive.dropped messages=%d path=%s error=%r: they were accepted and are delivered, only their copy is missing",
                dropped - self._told_dropped, self._folder, self._last_error or "the queue was full",
            )  # fmt: skip
            self._told_dropped, self._told_at, self._last_error = dropped, now, ""

    def _sweep(self, now: float) -> None:
        if self.days <= 0:
            return
        first_kept = (date.fromisoformat(_day_of(now)) - timedelta(days=self.days)).isoformat()
        with contextlib.suppress(OSError):
            for path in self._folder.iterdir():
                found = _DAY.fullmatch(path.name)
                if found is not None and found[1] < first_kept:
                    path.unlink()
                    log.info("archive.removed path=%s days=%d", path, self.days)


def _day_of_entry(entry: _Entry) -> str:
    return _day_of_minute(entry.envelope.accepted_at // 60.0)


def _day_of(time_of_day: float) -> str:
    return _day_of_minute(time_of_day // 60.0)


@functools.lru_cache(16)  # a day begins with a minute, whatever the time zone
def _day_of_minute(minute: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(minute * 60.0))


def _open(path: Path) -> FileIO:
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, PRIVATE_FILE)
    os.fchmod(descriptor, PRIVATE_FILE)
    return FileIO(descriptor, "wb")  # without a buffer: what failed to be written must not be written later


def _together(entries: list[_Entry]) -> Iterator[list[_Entry]]:
    """Neighbours that are worth one write: some with content in memory, up to ``CHUNK_BYTES``, or one that is larger."""
    held: list[_Entry] = []
    size = 0
    for entry in entries:
        content = entry.content
        more = len(content.data) if isinstance(content, MemoryContent) else CHUNK_BYTES
        if held and size + more > CHUNK_BYTES:
            yield held
            held, size = [], 0
        held.append(entry)
        size += more
    if held:
        yield held


def _joined(entries: list[_Entry]) -> Iterator[bytes]:
    pieces: list[bytes] = []
    for entry in entries:
        pieces += mboxrd(*entry)
    yield b"".join(pieces)


def _gathered(entry: _Entry) -> Iterator[bytes]:
    """The entry's bytes in pieces of a size that is worth a write."""
    held: list[bytes] = []
    size = 0
    for piece in mboxrd(*entry):
        held.append(piece)
        size += len(piece)
        if size >= _WORTH_A_WRITE_BYTES:
            yield b"".join(held)
            held, size = [], 0
    yield b"".join(held)


def _write_all(box: FileIO, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[box.write(view) or 0 :]
