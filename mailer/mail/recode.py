"""A message in the form that a peer can take: no line over 998 bytes, no octet over 127, the same content.

Parts are encoded where they stand (text quoted-printable, the rest base64), the structure around them is kept to the
byte. What a signature covers (multipart/signed, multipart/encrypted) and what cannot be taken apart is left as it is
and goes out so, with a warning: nearly every server takes it, and a refusal names the reason, where an altered
signature fails at the reader's without one.

No state; any thread may call it.
Memory: one line, one header and 200 bytes a part; the result is in memory if the original is, else in a file without
a name, beside the original.
Fails with OSError when the original cannot be read or the result not be written.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from mailer.mail.content import CHUNK_BYTES, Content, FileContent, MemoryContent
from mailer.mail.fields import Field, encode_words, fold, join_header, split_header
from mailer.mail.mime import PLAIN_ENCODINGS, Kind, Part, Scanner
from mailer.mail.transfer import encode_base64, encode_quoted_printable, repair_quoted_printable, rewrap_base64, tidy

_MAX_REASONS = 10  # of one message, in the log


@dataclass(frozen=True, slots=True)
class Form:
    """What is asked of the result.

    ``seven_bit``: no octet over 127 (RFC 6152 3: the peer has no 8BITMIME); ``smtputf8`` exempts header fields.
    ``short_lines``: no line over 998 bytes (RFC 5321 4.5.3.1.6).
    """

    seven_bit: bool = False
    short_lines: bool = False
    smtputf8: bool = False


@dataclass(frozen=True, slots=True)
class Recoded:
    """``content`` is the same object as was given when nothing had to change; ``left`` says what could not be helped."""

    content: Content
    left: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OpenFileContent:
    """Content in a file that has no name: it is gone when this value is. Read by offset, so from any thread at once."""

    file: BinaryIO
    size: int

    def __del__(self) -> None:
        self.file.close()

    def chunks(self) -> Iterator[bytes]:
        at = 0
        while at < self.size:
            piece = os.pread(self.file.fileno(), min(CHUNK_BYTES, self.size - at), at)
            if not piece:
                raise OSError(f"a re-encoded message of {self.size} bytes ends at {at}")
            at += len(piece)
            yield piece


def recode(content: Content, form: Form) -> Recoded:
    """The content in that form, as nearly as can be. Raises OSError when reading or writing a file fails."""
    if not form.short_lines and (not form.seven_bit or _is_ascii(content)):
        return Recoded(content)
    plan = _Plan(Scanner().scan(content.chunks()), form)
    if not plan.has_edits:
        return Recoded(content, plan.left)
    pieces = plan.apply(content)
    if isinstance(content, MemoryContent):
        return Recoded(MemoryContent(b"".join(pieces)), plan.left)
    # Beside the original: that file system has room for messages, which /tmp may not.
    folder = content.path.parent if isinstance(content, FileContent) else None
    file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (it lives as long as the content that is returned)
    size = sum(map(file.write, pieces))
    file.flush()
    return Recoded(OpenFileContent(file, size), plan.left)


def _is_ascii(content: Content) -> bool:
    return all(piece.isascii() for piece in content.chunks())


Encoder = Callable[[Iterator[bytes]], Iterator[bytes]]


@dataclass(slots=True)
class _Edit:
    """What happens to one part: its header is rewritten, and its body too if it has an ``encoder``."""

    part: Part
    encoder: Encoder | None = None
    encoding: bytes = b""  # the new Content-Transfer-Encoding, empty to keep the old one
    add_type: bool = False
    add_mime_version: bool = False


class _Plan:
    """The edits of one message, by part; and their application, in one pass over the content."""

    def __init__(self, parts: list[Part], form: Form) -> None:
        self._parts = parts
        self._form = form
        self._edits: dict[int, _Edit] = {}
        self._left: list[str] = []
        for index, part in enumerate(parts):
            self._plan_header(index, part)
            if (form.seven_bit and not part.is_ascii) or (form.short_lines and part.has_long_line):
                self._plan_body(index, part)
        if form.seven_bit and not self._left:
            self._relabel_composites()

    @property
    def has_edits(self) -> bool:
        return bool(self._edits)

    @property
    def left(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self._left))[:_MAX_REASONS]

    def _edit(self, index: int) -> _Edit:
        return self._edits.setdefault(index, _Edit(self._parts[index]))

    def _plan_header(self, index: int, part: Part) -> None:
        if self._must_encode_header(part) or (self._form.short_lines and part.header_has_long_line):
            self._edit(index)

    def _must_encode_header(self, part: Part) -> bool:
        return self._form.seven_bit and not self._form.smtputf8 and not part.header_is_ascii

    def _plan_body(self, index: int, part: Part) -> None:
        if part.kind is Kind.SEALED:
            self._left.append(part.why_sealed)
        elif part.kind is Kind.GAP:
            self._edit(index).encoder = tidy
        elif part.encoding in PLAIN_ENCODINGS:
            edit = self._edit(index)
            is_text = part.kind is Kind.TEXT
            edit.encoder = encode_quoted_printable if is_text else encode_base64
            edit.encoding = b"quoted-printable" if is_text else b"base64"
            edit.add_type = part.is_plain_text and not part.is_ascii and not part.has_charset
            if not self._parts[part.root].has_mime_version:  # RFC 2045 4: without it, none of our fields counts
                self._edit(part.root).add_mime_version = True
        elif part.encoding == b"quoted-printable":
            self._edit(index).encoder = repair_quoted_printable
        elif part.encoding == b"base64":
            self._edit(index).encoder = rewrap_base64
        else:
            self._left.append("a part with an unknown Content-Transfer-Encoding")

    def _relabel_composites(self) -> None:
        """RFC 2045 6.4: a composite says 8bit or binary only if something in it is."""
        for index, part in enumerate(self._parts):
            if part.kind is Kind.COMPOSITE and part.encoding in (b"8bit", b"binary"):
                self._edit(index).encoding = b"7bit"

    def apply(self, content: Content) -> Iterator[bytes]:
        source = _Source(content)
        for index in sorted(self._edits):
            edit = self._edits[index]
            part = edit.part
            yield from source.until(part.start)
            if part.kind is not Kind.GAP:
                yield self._rewritten(b"".join(source.until(part.header_end)), edit)
            if edit.encoder is None:
                continue
            if part.kind is not Kind.GAP:
                source.skip_to(part.body)
                yield b"\r\n"
            yield from self._encoded(source, edit, part.end == content.size)
        yield from source.until(content.size)

    def _encoded(self, source: _Source, edit: _Edit, is_last: bool) -> Iterator[bytes]:
        """The new body. A delimiter brings the CRLF in front of it; where none follows, SMTP needs one at the end."""
        body = edit.encoder(source.until(edit.part.end)) if edit.encoder is not None else iter(())
        held = b""
        for piece in body:
            if piece:
                yield held
                held = piece
        held = held.removesuffix(b"\r\n") if edit.encoder in (encode_base64, rewrap_base64) else held
        yield held + (b"\r\n" if is_last and not held.endswith(b"\r\n") else b"")

    def _rewritten(self, header: bytes, edit: _Edit) -> bytes:
        fields = split_header(header)
        if edit.encoding:
            fields = _with_encoding(fields, edit.encoding)
        if edit.add_type:
            fields = _with_charset(fields, b"utf-8" if edit.part.is_utf8 else b"unknown-8bit")
        if edit.add_mime_version:
            fields = [*fields, Field.make(b"MIME-Version", b"1.0")]
        if self._must_encode_header(edit.part):
            fields = [encode_words(field) for field in fields]
            if not all(field.raw.isascii() for field in fields):
                self._left.append("a header field with characters beyond ASCII where none can be encoded")
        fields = [fold(field) for field in fields]
        return join_header(fields, ends_in_crlf=header.endswith(b"\r\n") or edit.encoder is not None)


def _with_encoding(fields: list[Field], encoding: bytes) -> list[Field]:
    """In place of the old field if there is one; a repeated one is dropped."""
    ours = Field.make(b"Content-Transfer-Encoding", encoding)
    at = next((place for place, field in enumerate(fields) if field.name == ours.name), len(fields))
    others = [field for field in fields if field.name != ours.name]
    return [*others[:at], ours, *others[at:]]


def _with_charset(fields: list[Field], charset: bytes) -> list[Field]:
    """RFC 2045 5.2: plain text without a charset is US-ASCII, which it is not. unknown-8bit: RFC 1428 3."""
    for place, field in enumerate(fields):
        if field.name == b"content-type":
            named = Field(field.name, field.raw.rstrip(b" \t;") + b"; charset=" + charset)
            return [*fields[:place], named, *fields[place + 1 :]]
    return [*fields, Field.make(b"Content-Type", b"text/plain; charset=" + charset)]


class _Source:
    """The content read once, front to back, in ranges."""

    def __init__(self, content: Content) -> None:
        self._chunks = content.chunks()
        self._rest = b""
        self._at = 0

    def until(self, end: int) -> Iterator[bytes]:
        """What comes before offset ``end``, in pieces."""
        while self._at < end:
            if not self._rest:
                self._rest = next(self._chunks, b"")
                if not self._rest:
                    raise OSError("the message ended before its size")
            piece, self._rest = self._rest[: end - self._at], self._rest[end - self._at :]
            self._at += len(piece)
            yield piece

    def skip_to(self, end: int) -> None:
        for _ in self.until(end):
            pass
