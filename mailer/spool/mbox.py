"""A message in the form mboxrd: what mail readers take, many messages one after the other in a file.

A ``From `` line with sender and date, line ends LF, lines that begin like it quoted with ``>``. One ``Envelope-To:`` line
for each recipient follows the ``From `` line, since a Bcc'ed recipient stands nowhere else; the message is otherwise as
it was accepted.

No threads, no locks. Fails with OSError from the content.
"""

from __future__ import annotations

import functools
import itertools
import re
import time
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from mailer.mail.content import CHUNK_BYTES, Content, MemoryContent
from mailer.mail.envelope import Envelope

MOST_RECIPIENTS = 1000  # Envelope-To lines of one message
_LONGEST_CARRY_BYTES = 1024 * 1024  # of a line without an end; what follows is surely no start of a line
_LOOKS_LIKE_FROM = re.compile(rb"(?<=\n)(?=>*From )")
_SPACE = 32  # as a number: one byte is found ten times as fast as five
_BLANK = re.compile(r"\s")


def mboxrd(envelope: Envelope, content: Content, file: BinaryIO | None) -> Iterable[bytes]:
    """The message in pieces; ``file``, where it is given, has the content."""
    sender = _BLANK.sub("-", envelope.sender.text) or "MAILER-DAEMON"  # RFC 4155: the addr-spec ends at the first blank
    head = f"From {sender} {_in_words(envelope.accepted_at // 1.0)}\n"
    for recipient in envelope.recipients[:MOST_RECIPIENTS]:
        head += f"Envelope-To: {recipient.address.text}\n"
    first = head.encode("utf-8", "replace")
    if isinstance(content, MemoryContent):
        body = _quote(b"\n", content.data)
        return (first, body, b"\n" if body.endswith(b"\n") or not body else b"\n\n")
    return itertools.chain(
        (first,), quoted(content.chunks() if file is None else iter(lambda: file.read(CHUNK_BYTES), b"")), (b"\n",)
    )


def quoted(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The lines with LF as their end, and ``>`` before each that looks like a ``From `` line, quoted or not."""
    carry, before = b"", b"\n"
    for chunk in chunks:
        cut = chunk.rfind(b"\n") + 1
        if cut:
            yield _quote(before, carry + chunk[:cut])
            carry, before = chunk[cut:], b"\n"
            continue
        carry += chunk
        if len(carry) >= _LONGEST_CARRY_BYTES:
            block, carry = carry[:-1], carry[-1:]  # the last byte may be a CR whose LF comes next
            yield _quote(before, block)
            before = block[-1:]
    if carry:
        yield _quote(before, carry)
        yield b"\n"


def _quote(before: bytes, block: bytes) -> bytes:
    """``before`` is the byte in front of the block: a line begins where it is LF."""
    block = block.replace(b"\r", b"")  # content has no CR but before LF, and to drop one byte takes a fifth of replacing two
    if _SPACE not in block or b"From " not in block:  # most content of size (base64) has no blank, which shows at once
        return block
    return _LOOKS_LIKE_FROM.sub(b">", before + block)[1:]


@functools.lru_cache(16)
def _in_words(second: float) -> str:
    return time.asctime(time.gmtime(second))
