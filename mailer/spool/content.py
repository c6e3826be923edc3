"""How a message's content gets into the spool and out of it again, whole or not at all.

Small content stays in memory on its way to the database; what grows over ``LARGE_BYTES`` goes on in
``spool/content/<id>~`` and becomes ``spool/content/<id>`` once it is fsync'd, before any commit names it.

A writer belongs to one thread; no locks. Fails with ``SpoolFull`` for lack of space, else ``SpoolError``; content
that is read back differs from what was written: OSError, as ``Content`` says.
"""

from __future__ import annotations

import contextlib
import errno
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mailer.mail.content import CHUNK_BYTES, LARGE_BYTES, Content, FileContent, MemoryContent
from mailer.spool.places import Places, checked_id, open_new, sync_directory
from mailer.spool.store import SpoolError, SpoolFull

SPACE_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_GATHER_BYTES = 64 * 1024  # what is worth a write; pieces from a session are larger, but for the last one
_MOST_WRITES = 5  # at once: more pieces than that are small ones, and are joined; to join large ones would hold them twice


@dataclass(frozen=True, slots=True)
class SpooledFile(FileContent):
    """A content file of the spool: its checksum is checked whenever it is read to its end.

    ``on_damage`` is told when it differs, so that the next reader is refused at once.
    """

    crc: int
    on_damage: Callable[[], None] | None = None

    def chunks(self) -> Iterator[bytes]:
        seen, crc = 0, 0
        with self.path.open("rb") as file:
            while piece := file.read(CHUNK_BYTES):
                seen += len(piece)
                crc = zlib.crc32(piece, crc)
                if seen >= self.size and (seen > self.size or crc != self.crc):
                    break  # the last piece stays here: no reader may take damaged content for whole
                yield piece
        if seen != self.size or crc != self.crc:
            if self.on_damage is not None:
                self.on_damage()
            raise OSError(errno.EIO, f"{self.path}: holds other bytes than were written; the file was changed or damaged")


def write_fault(error: OSError, path: Path) -> SpoolError:
    """What a failed write of ``path`` means to the client."""
    if error.errno in SPACE_ERRORS:
        return SpoolFull(f"no space left to write {path}; free some, or move dataDir to a larger disk")
    return SpoolError(f"cannot write {path}: {error.strerror or error}; check the disk and the directory's rights")


class SpoolContentWriter:
    """Takes one message's content in pieces (``store.ContentWriter``)."""

    def __init__(self, places: Places, message_id: str) -> None:
        self._places = places
        self._id = checked_id(message_id)
        self._pieces: list[bytes] = []
        self._held = 0
        self._descriptor: int | None = None
        self._crc = 0
        self._has_file = False
        self._is_finished = False
        self.size = 0

    def __repr__(self) -> str:
        return f"SpoolContentWriter({self._id!r}, size={self.size}, in_file={self._descriptor is not None})"

    @property
    def _path(self) -> Path:  # made when needed: small content has no file, and paths cost more than its bytes
        return self._places.content_of(self._id)

    @property
    def _draft(self) -> Path:
        return self._places.draft_of(self._id)

    def write(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._held += len(piece)
        self.size += len(piece)
        if self._held > (LARGE_BYTES if self._descriptor is None else _GATHER_BYTES):
            self._flush()

    def finish(self) -> Content:
        if self._descriptor is None:
            self._is_finished = True
            return MemoryContent(self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces))
        self._flush()
        try:
            os.fsync(self._descriptor)
            self._close()
            self._draft.rename(self._path)
            self._is_finished = True
            sync_directory(self._places.content)
        except OSError as error:
            self.discard()
            raise write_fault(error, self._path) from error
        return SpooledFile(self._path, self.size, self._crc)

    def discard(self) -> None:
        self._pieces, self._held = [], 0
        self._close()
        if self._has_file:
            with contextlib.suppress(OSError):
                (self._path if self._is_finished else self._draft).unlink()

    def _flush(self) -> None:
        pieces, self._pieces, self._held = self._pieces, [], 0
        if len(pieces) > _MOST_WRITES:
            pieces = [b"".join(pieces)]
        try:
            if self._descriptor is None:
                self._draft.unlink(missing_ok=True)
                self._descriptor = open_new(self._draft)
                self._has_file = True
            for piece in pieces:
                self._crc = zlib.crc32(piece, self._crc)
                view = memoryview(piece)
                while view:
                    view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            self.discard()
            raise write_fault(error, self._draft) from error

    def _close(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)
