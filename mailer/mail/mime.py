"""Where the parts of a message are and what is in them (RFC 2045, 2046), found in one pass over its lines.

No threads. A ``Scanner`` lives for one scan and holds one line, one header and the list of parts in memory, all of them
bounded. Nothing is refused: what cannot be taken apart (no usable boundary, too deep, too many) is one sealed part
with its reason.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from mailer.mail.fields import split_header, split_parameters
from mailer.mail.transfer import MAX_LINE_BYTES, lines

MAX_DEPTH = 30
"""Messages nest forwarded messages in earnest; beyond this they are made to hurt."""

MAX_PARTS = 10_000
"""Parts and the gaps around them; a part takes about 200 bytes of memory."""

MAX_HEADER_BYTES = 1024 * 1024
"""One part's header, held in memory."""

_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:(.*)", re.DOTALL)
_TYPE = re.compile(rb"([!#$%&'*+\-.0-9A-Z^_`a-z{|}~]+)\s*/\s*([!#$%&'*+\-.0-9A-Z^_`a-z{|}~]+)")  # RFC 2045 5.1
_BOUNDARY = re.compile(rb"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]")  # RFC 2046 5.1.1
PLAIN_ENCODINGS = (b"", b"7bit", b"8bit", b"binary")  # RFC 2045 6.2: the octets are as they are


class Kind(enum.Enum):
    """What may be done with a part."""

    TEXT = "text"  # a leaf to be encoded quoted-printable
    OTHER = "other"  # a leaf to be encoded base64
    COMPOSITE = "composite"  # a multipart or message/rfc822: its body is further parts
    GAP = "gap"  # what stands before, between and behind the parts of a multipart, without a header; readers skip it
    SEALED = "sealed"  # must stay as it is, or cannot be understood


@dataclass(slots=True)
class Part:
    """One entity: offsets of its header, of the end of that, of its body and of its end; and what was seen.

    Between ``header_end`` and ``body`` stands the empty line, if there is one. A composite's ``end`` is its ``body``: what
    follows is parts of their own. ``root`` is the index of the message that the part is of: the whole or an enclosed one.
    """

    start: int
    root: int
    depth: int
    kind: Kind = Kind.OTHER
    why_sealed: str = ""
    header_end: int = 0
    body: int = 0
    end: int = 0
    encoding: bytes = b""
    has_type: bool = False
    has_charset: bool = False
    is_plain_text: bool = True
    has_mime_version: bool = False
    header_is_ascii: bool = True
    header_has_long_line: bool = False
    is_ascii: bool = True
    is_utf8: bool = True
    has_long_line: bool = False


@dataclass(frozen=True, slots=True)
class ContentType:
    """A Content-Type field (RFC 2045 5.1), lower case but for the values; ``boundary`` is None when there is no usable one."""

    main: bytes = b"text"
    sub: bytes = b"plain"
    boundary: bytes | None = None
    has_charset: bool = False


def parse_content_type(value: bytes) -> ContentType:
    """The field's value without its folds; what is no type at all counts as the default (RFC 2045 5.2)."""
    first, parameters = split_parameters(value)
    match = _TYPE.match(first)
    if match is None:
        return ContentType()
    boundaries = [parameter.value for parameter in parameters if parameter.name == b"boundary"]
    is_usable = len(boundaries) == 1 and _BOUNDARY.fullmatch(boundaries[0])
    has_charset = any(parameter.name in (b"charset", b"charset*") for parameter in parameters)
    return ContentType(match[1].lower(), match[2].lower(), boundaries[0] if is_usable else None, has_charset)


@dataclass(slots=True)
class _Multipart:
    """A multipart whose close delimiter has not come yet."""

    part: Part
    delimiter: bytes
    default: ContentType
    parts: int = 0


@dataclass(slots=True)
class Scanner:
    """One pass over a message. ``scan`` is its only entry."""

    parts: list[Part] = field(default_factory=list)
    _open: list[_Multipart] = field(default_factory=list)  # innermost last
    _delimiters: dict[bytes, tuple[int, bool]] = field(default_factory=dict)  # line → level in _open, is it the close
    _header: list[bytes] | None = None  # the lines of the header being read; None in a body
    _header_bytes: int = 0
    _default: ContentType = field(default_factory=ContentType)  # of the part being read, when it has no Content-Type

    def scan(self, pieces: Iterable[bytes]) -> list[Part]:
        """The parts in the order of their offsets; together they and what lies between them are the message."""
        self._begin_part(0, root=0, depth=0)
        at = 0
        size = 0
        for line in lines(pieces):
            if not (self._open and line.startswith(b"--") and self._meet_delimiter(at, line)):
                self._take(at, line)
            size = at + len(line)
            at = size + 2
        self._end_current(size, by_delimiter=False)
        for part in reversed(self.parts):  # a last line without its CRLF: what was taken to follow it is not there
            if part.end <= size:
                break
            part.start, part.header_end = min(part.start, size), min(part.header_end, size)
            part.body, part.end = min(part.body, size), size
        return self.parts

    @property
    def _current(self) -> Part:
        return self.parts[-1]

    def _begin_part(self, at: int, root: int, depth: int) -> None:
        part = Part(at, root, depth)
        self.parts.append(part)
        self._default = ContentType()
        if len(self.parts) >= MAX_PARTS:
            self._seal_rest(at, f"more than {MAX_PARTS} parts")
            return
        self._header = []
        self._header_bytes = 0

    def _begin_gap(self, at: int) -> None:
        inside = self._current
        self.parts.append(Part(at, inside.root, inside.depth, Kind.GAP, header_end=at, body=at))
        if len(self.parts) >= MAX_PARTS:
            self._seal_rest(at, f"more than {MAX_PARTS} parts")

    def _seal_rest(self, at: int, why: str) -> None:
        """All that follows is one part that nobody looks into."""
        part = self._current
        part.kind, part.why_sealed = Kind.SEALED, why
        part.header_end = part.body = part.start = at
        part.is_ascii &= part.header_is_ascii  # what was read of its header is body now
        part.has_long_line |= part.header_has_long_line
        part.header_is_ascii, part.header_has_long_line = True, False
        self._header = None
        self._leave(0)

    def _take(self, at: int, line: bytes) -> None:
        if self._header is None:
            self._note_body_line(line)
        elif not line:
            self._end_header(at, at + 2)
        elif _FIELD.match(line) or (self._header and line.startswith((b" ", b"\t"))):
            self._note_header_line(line)
        else:  # neither a field nor an empty line: the body has begun without one
            self._end_header(at, at)
            self._take(at, line)

    def _note_header_line(self, line: bytes) -> None:
        part = self._current
        part.header_is_ascii &= line.isascii()
        part.header_has_long_line |= len(line) > MAX_LINE_BYTES
        self._header_bytes += len(line)
        if self._header_bytes > MAX_HEADER_BYTES or self._header is None:
            self._seal_rest(part.start, f"a header over {MAX_HEADER_BYTES} bytes")
            return
        self._header.append(line)

    def _note_body_line(self, line: bytes) -> None:
        part = self._current
        if len(line) > MAX_LINE_BYTES:
            part.has_long_line = True
        if not line.isascii():
            part.is_ascii = False
            if part.is_utf8:
                try:
                    line.decode()
                except UnicodeDecodeError:
                    part.is_utf8 = False

    def _end_header(self, header_end: int, body: int) -> None:
        part = self._current
        part.header_end, part.body, part.end = header_end, body, body
        content_type = _read_fields(part, self._header or [], self._default)
        self._header = None
        is_main, subtype = content_type.main, content_type.sub
        part.is_plain_text = is_main == b"text" and subtype == b"plain"
        part.has_charset = content_type.has_charset
        if is_main == b"multipart":
            self._open_multipart(part, content_type)
        elif is_main == b"message" and subtype == b"rfc822" and part.encoding in PLAIN_ENCODINGS:
            self._open_message(part)
        elif is_main == b"message" and not subtype.startswith(b"global"):
            # RFC 2045 6.4: message/* takes no encoding; RFC 6532 3.7 allows it for message/global alone.
            part.kind, part.why_sealed = Kind.SEALED, "message/* may not be encoded"
        elif is_main == b"text":
            part.kind = Kind.TEXT

    def _open_multipart(self, part: Part, content_type: ContentType) -> None:
        if content_type.sub in (b"signed", b"encrypted"):  # RFC 1847: not a byte of it may change
            part.kind, part.why_sealed = Kind.SEALED, f"multipart/{content_type.sub.decode()} must not be changed"
        elif content_type.boundary is None:
            part.kind, part.why_sealed = Kind.SEALED, "a multipart without a usable boundary"
        elif part.depth >= MAX_DEPTH:
            part.kind, part.why_sealed = Kind.SEALED, f"nested deeper than {MAX_DEPTH}"
        else:
            part.kind = Kind.COMPOSITE
            # RFC 2046 5.1.5: the parts of a digest are messages unless they say otherwise.
            default = ContentType(b"message", b"rfc822") if content_type.sub == b"digest" else ContentType()
            self._open.append(_Multipart(part, b"--" + content_type.boundary, default))
            self._name_delimiters()
            self._begin_gap(part.body)

    def _open_message(self, part: Part) -> None:
        if part.depth >= MAX_DEPTH:
            part.kind, part.why_sealed = Kind.SEALED, f"nested deeper than {MAX_DEPTH}"
        else:
            part.kind = Kind.COMPOSITE
            self._begin_part(part.body, root=len(self.parts), depth=part.depth + 1)

    def _meet_delimiter(self, at: int, line: bytes) -> bool:
        """Whether the line is a delimiter of any open multipart: an outer one ends all within it (RFC 2046 5.1.2)."""
        found = self._delimiters.get(line.rstrip(b" \t"))
        if found is None:
            return False
        level, is_close = found
        self._end_current(at - 2, by_delimiter=level == len(self._open) - 1)
        after = at + len(line) + 2
        if is_close:
            self._leave(level)
            self._begin_gap(after)
        else:
            self._leave(level + 1)
            multipart = self._open[level]
            multipart.parts += 1
            self._begin_part(after, multipart.part.root, multipart.part.depth + 1)
            self._default = multipart.default
        return True

    def _leave(self, level: int) -> None:
        """Only the multiparts outside that level stay open."""
        if level < len(self._open):
            del self._open[level:]
            self._name_delimiters()

    def _name_delimiters(self) -> None:
        self._delimiters = {}
        for level, multipart in enumerate(self._open):  # of two that are alike the inner one counts
            self._delimiters[multipart.delimiter] = (level, False)
            self._delimiters[multipart.delimiter + b"--"] = (level, True)

    def _end_current(self, end: int, by_delimiter: bool) -> None:
        """The part being read ends at ``end``: the CRLF in front of a delimiter is the delimiter's (RFC 2046 5.1.1)."""
        part = self._current
        if self._header is not None:  # a header and nothing else
            self._header = None
            part.kind, part.why_sealed = Kind.SEALED, "a part without a body"
            part.header_end = part.body = part.end = max(part.start, end)
            return
        part.end = max(part.body, end)
        if part.kind is Kind.GAP and self._open and not self._open[-1].parts and not by_delimiter:
            part.kind, part.why_sealed = Kind.SEALED, "a multipart whose boundary never comes"


def _read_fields(part: Part, header: list[bytes], default: ContentType) -> ContentType:
    """Note what the header's fields say of the part; returns its type. Of repeated fields the first counts."""
    content_type = None
    encoding = None
    for line in split_header(b"\r\n".join(header)):
        if line.name == b"content-type" and content_type is None:
            content_type = parse_content_type(line.value)
        elif line.name == b"content-transfer-encoding" and encoding is None:
            encoding = split_parameters(line.value)[0].lower()
        elif line.name == b"mime-version":
            part.has_mime_version = True
    part.has_type = content_type is not None
    part.encoding = encoding or b""
    return content_type or default
