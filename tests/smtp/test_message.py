"""Content on its way in: its newlines, its lines, its faults."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mailer.mail.content import Content, MemoryContent
from mailer.mail.headers import Trace
from mailer.smtp.message import RELAYED_LINE_BYTES, ContentRules, Incoming
from mailer.smtp.replies import CONTENT_BARE_NEWLINE, CONTENT_LINE_TOO_LONG, CONTENT_NUL, Refused

TRACE = Trace("1", "mailer.test", "client", "127.0.0.1", "ESMTP", None, 0.0)
HEADER = b"Message-ID: <1@x>\r\nDate: Thu, 1 Jan 1970 00:00:00 +0000\r\n\r\n"
LONGEST_LINE_BYTES = 3000
_LINES = [b"", b"a", b"\xff\x85", b"\x0b\x0c", b"x" * RELAYED_LINE_BYTES, b"x" * (RELAYED_LINE_BYTES + 1), b"x" * 3001]
_PIECES = st.lists(
    st.lists(st.tuples(st.sampled_from(_LINES), st.sampled_from([b"\r\n"] * 5 + [b"\r", b"\n", b"\0", b""])), max_size=4)
    .map(lambda lines: b"".join(line + end for line, end in lines)),
    max_size=6,
)  # fmt: skip


class Writer:
    def __init__(self) -> None:
        self.written = b""

    @property
    def size(self) -> int:
        return len(self.written)

    def write(self, piece: bytes) -> None:
        self.written += piece

    def finish(self) -> Content:
        return MemoryContent(self.written)

    def discard(self) -> None:
        self.written = b""


def outcome(pieces: list[bytes], reject: bool) -> tuple[object, bool]:
    """The body that was stored, or the reply; and whether long lines were seen."""
    writer = Writer()
    incoming = Incoming(ContentRules(1_000_000, LONGEST_LINE_BYTES, reject), writer, TRACE)
    incoming.take(HEADER)
    stamped = len(writer.written)
    for piece in pieces:
        incoming.take(piece)
    try:
        incoming.finish()
    except Refused as refused:
        return refused.reply, incoming.has_long_lines
    return writer.written[stamped:], incoming.has_long_lines


def expected(pieces: list[bytes], reject: bool) -> object:
    """The same by the plainest means, the first fault counting."""
    stored = b""
    for piece in pieces:
        if b"\0" in piece:
            return CONTENT_NUL
        mended = b"\r\n".join(piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"))
        if reject and mended != piece:
            return CONTENT_BARE_NEWLINE
        stored += mended
        if max(map(len, stored.split(b"\r\n"))) > LONGEST_LINE_BYTES:
            return CONTENT_LINE_TOO_LONG
    return stored


def whole_newlines(pieces: list[bytes]) -> list[bytes]:
    """As the wire gives them: no boundary parts a CR from its LF."""
    whole: list[bytes] = []
    for piece in pieces:
        if whole and whole[-1][-1:] == b"\r" and piece[:1] == b"\n":
            whole[-1] += piece
        else:
            whole.append(piece)
    return whole


@given(_PIECES.map(whole_newlines), st.booleans())
def test_content_is_stored_or_refused_as_its_lines_say_however_it_is_cut(pieces: list[bytes], reject: bool) -> None:
    got, has_long_lines = outcome(pieces, reject)
    assert got == expected(pieces, reject)
    if isinstance(got, bytes):
        assert has_long_lines == (max(map(len, got.split(b"\r\n"))) > RELAYED_LINE_BYTES)
