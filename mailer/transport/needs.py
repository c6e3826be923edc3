"""What a content needs of the peer that takes it, found by looking at its bytes.

No threads, no locks. Content that cannot be read raises ``ContentUnreadable``.
"""

from __future__ import annotations

from collections.abc import Iterator

from mailer.mail.content import Content, MemoryContent
from mailer.mail.envelope import Options
from mailer.transport.faults import ContentUnreadable

LOOKED_AT_BYTES = 65536
"""Larger content is not read through to find out whether it is 8-bit."""


def readable(content: Content) -> Iterator[bytes]:
    """The content's pieces; a file that cannot be read must not look like a broken connection."""
    return iter((content.data,)) if isinstance(content, MemoryContent) else _read_through(content)


def _read_through(content: Content) -> Iterator[bytes]:
    try:
        yield from content.chunks()
    except OSError as error:
        raise ContentUnreadable(f"content cannot be read: {error.strerror or error}") from error


def is_8bit(options: Options, content: Content) -> bool:
    """Whether to declare BODY=8BITMIME (RFC 6152 3). Declared 7BIT is believed; large content is not read to find out,
    since declaring too much costs nothing with a peer that offers it."""
    if options.body == "8BITMIME":
        return True
    if options.body == "7BIT":
        return False
    if isinstance(content, MemoryContent):
        return len(content.data) > LOOKED_AT_BYTES or not content.data.isascii()
    return content.size > LOOKED_AT_BYTES or not all(map(bytes.isascii, readable(content)))


def has_utf8_header(content: Content) -> bool:
    """Whether a header field goes beyond ASCII, which needs SMTPUTF8 (RFC 6532 3.2)."""
    for piece in readable(content):
        end = piece.find(b"\r\n\r\n")
        if not piece[: end if end >= 0 else len(piece)].isascii():
            return True
        if end >= 0:
            return False
    return False
