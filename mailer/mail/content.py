"""The content of a message: its bytes, in memory when small, in a file when large, read in pieces either way.

Content is canonical: every line ends in CRLF, no bare CR or LF, dot-stuffing undone. A large message is never whole
in memory; whoever needs bytes takes ``chunks()``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

LARGE_BYTES = 256 * 1024
"""Content over this size lives in a file of its own instead of the database and memory."""

CHUNK_BYTES = 128 * 1024
"""At half of it, a large message takes a tenth more processor time (each piece is a few system calls, and the interpreter
lock changes hands at each); at twice of it no less, and more memory."""


class Content(Protocol):
    """The bytes of one message, readable any number of times, from any thread."""

    @property
    def size(self) -> int:
        """Length in bytes."""
        ...

    def chunks(self) -> Iterator[bytes]:
        """The bytes in order, in pieces of at most ``CHUNK_BYTES`` (small content may come as one larger piece).

        Raises OSError when the file behind it cannot be read.
        """
        ...


@dataclass(frozen=True, slots=True)
class MemoryContent:
    """Content held in memory: at most ``LARGE_BYTES`` but for the moment of a re-encoding."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def chunks(self) -> Iterator[bytes]:
        yield self.data


@dataclass(frozen=True, slots=True)
class FileContent:
    """Content in a file. The file must stay unchanged for as long as this value is used.

    ``size`` is stated, not asked of the file: a truncated file shows as a difference.
    """

    path: Path
    size: int

    def chunks(self) -> Iterator[bytes]:
        seen = 0
        with self.path.open("rb") as file:
            while piece := file.read(CHUNK_BYTES):
                seen += len(piece)
                yield piece
        if seen != self.size:
            raise OSError(f"{self.path}: holds {seen} bytes where {self.size} were written; the file was changed or cut")


Render = Callable[[frozenset[str]], Content]
"""``render(extensions)``: the content in the form a peer with these EHLO keywords (upper case) can take.

Re-encoding and signing come here, so that signing is last. Raises MailerError when the form cannot be made."""
