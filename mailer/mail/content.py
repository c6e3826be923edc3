"""The content of a message: its bytes, in memory when small, in a file when large, read in pieces either way.

Content is canonical: every line ends in CRLF, no bare CR or LF, dot-stuffing undone. A large message is never whole
in memory; whoever needs bytes takes ``chunks()``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mailer.mail.outcome import MailerError

if TYPE_CHECKING:
    from mailer.mail.address import Address

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


MAX_HEADER_BYTES = 4 * 1024 * 1024
"""Longest header block that is rewritten or signed, and for that held in memory. What was accepted has 1 MiB at most
(mail/headers.py), before re-encoding; a file dropped in may have any."""


@dataclass(frozen=True, slots=True)
class _Reheaded:
    """Content whose first ``skipped`` bytes are replaced by ``head``."""

    head: bytes
    skipped: int
    rest: Content

    @property
    def size(self) -> int:
        return len(self.head) + self.rest.size - self.skipped

    def chunks(self) -> Iterator[bytes]:
        head, left = self.head, self.skipped
        for chunk in self.rest.chunks():
            if left >= len(chunk):
                left -= len(chunk)
                continue
            piece, left = chunk[left:] if left else chunk, 0
            yield head + piece if head else piece
            head = b""
        if head:
            yield head


def with_head(head: bytes, skipped: int, rest: Content) -> Content:
    """``rest`` with ``head`` in the place of its first ``skipped`` bytes; in memory if it was, else not copied."""
    if isinstance(rest, MemoryContent):
        return MemoryContent(head + rest.data[skipped:])
    return _Reheaded(head, skipped, rest)


def header_block(content: Content) -> bytes:
    """The header fields, each with its CRLF, without the empty line behind them.

    Raises MailerError for one that is longer than ``MAX_HEADER_BYTES``, OSError when the content cannot be read.
    """
    block = bytearray()
    for chunk in content.chunks():
        looked_at = max(0, len(block) - 3)  # the four bytes looked for may stand across two pieces
        block += chunk
        if block.startswith(b"\r\n"):
            return b""
        end = block.find(b"\r\n\r\n", looked_at)
        if end >= 0:
            return bytes(block[: end + 2])
        if len(block) > MAX_HEADER_BYTES:
            raise MailerError(f"the header block is longer than {MAX_HEADER_BYTES} bytes")
    return bytes(block)


class Render(Protocol):
    """Makes the content in the form that a peer with these EHLO keywords (upper case) can take.

    ``header_from``: the address that this peer wants in From. Re-encoding, From and the signature come in this order, so
    the signature covers what is sent. Raises MailerError when the form cannot be made.
    """

    def __call__(self, extensions: frozenset[str], header_from: Address | None = None) -> Content: ...
