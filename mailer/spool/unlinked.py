"""Content in a file without a name: gone from the disk with the last value that holds it, or with the process.

A value may be read by several threads at once. Fails with OSError.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from mailer.mail.content import CHUNK_BYTES
from mailer.spool.places import DRAFT_SUFFIX, open_new


class UnlinkedContent:
    """Takes bytes by ``write``, then is ``mail.content.Content``. ``folder`` says on which file system."""

    def __init__(self, folder: Path) -> None:
        path = folder / f"{secrets.token_hex(8)}{DRAFT_SUFFIX}"  # swept at start, should a crash come before the unlink
        os.close(open_new(path))
        self._descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        path.unlink()
        self._size = 0

    def __repr__(self) -> str:
        return f"UnlinkedContent(size={self._size})"

    def __del__(self) -> None:
        descriptor = getattr(self, "_descriptor", None)
        if descriptor is not None:
            os.close(descriptor)

    @property
    def size(self) -> int:
        return self._size

    def write(self, piece: bytes) -> None:
        view = memoryview(piece)
        while view:
            written = os.pwrite(self._descriptor, view, self._size)
            self._size += written
            view = view[written:]

    def chunks(self) -> Iterator[bytes]:
        position = 0
        while position < self._size:
            piece = os.pread(self._descriptor, min(CHUNK_BYTES, self._size - position), position)
            if not piece:
                raise OSError(f"a file of content ends at {position} of {self._size} bytes")
            position += len(piece)
            yield piece
