"""What the client says, in lines and messages. Only CRLF ends a line and only CRLF.CRLF ends a message; how the bytes were
cut into packets never matters.

A ``Wire`` is a ``Connection`` and has its thread, its lock and its end; a bad line comes out as ``Refused``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from mailer.mail.content import CHUNK_BYTES
from mailer.mail.outcome import Reply
from mailer.smtp.connection import FIRST_BUFFER_BYTES, Connection, SocketLike
from mailer.smtp.pace import Pace
from mailer.smtp.replies import BARE_NEWLINE, LINE_TOO_LONG, OUT_OF_STEP, Disconnect, Refused

COMMAND_LINE_BYTES = 2048  # spec 3; RFC 5321 4.5.3.1.4 asks for 512, parameters and UTF-8 addresses need more
AUTH_LINE_BYTES = 12288  # RFC 4954 4: long enough for any mechanism
LAST_BUFFER_BYTES = CHUNK_BYTES
"""Content comes out in pieces of at most this size. A session holds a few such pieces while it receives a large message."""

NUL, LF, CR, DOT = b"\0\n\r."
"""As numbers: to look for one of these in bytes takes a tenth of the time that looking for a byte string does."""

_END_OF_DATA = b"\r\n.\r\n"
_DOT_AT_LINE_START = _END_OF_DATA[:3]


class Wire(Connection):
    """One connection, read in lines and messages, written in replies."""

    def __init__(self, sock: SocketLike, pace: Pace, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(sock, pace, clock)
        self._skips_line = False  # the rest of the line, up to its CRLF, was answered already
        self._has_dots = False  # a line of the content may begin with a stuffed dot

    # --- command lines

    def read_line(self, limit: int = COMMAND_LINE_BYTES) -> bytes:
        """The next line without its CRLF, at most ``limit`` bytes (a line that begins with AUTH may always be longer).

        It holds no CR, LF or NUL. Raises Refused for a bad one, which is then behind us.

        A line with a bare LF is answered as soon as that is seen, since its sender may wait for the answer for ever;
        the rest, up to CRLF, still belongs to it and is dropped. So no line is ever taken for two.
        """
        if self._start == self._end:
            self._receive()
        end = self._buffer.find(b"\r\n", self._start, self._end)
        if end < 0:
            end = self._await_end_of_line()
        line = bytes(self._view[self._start : end])
        length = end - self._start
        self._start = end + 2
        if self._skips_line:
            self._skips_line = False
            return self.read_line(limit)
        if LF in line or CR in line or NUL in line:
            raise _bad_line(line, BARE_NEWLINE)
        if length > limit and (length > AUTH_LINE_BYTES or line[:5].upper() != b"AUTH "):
            raise _bad_line(line, LINE_TOO_LONG)
        return line

    def _await_end_of_line(self) -> int:
        """Where the CRLF stands of a line of which only a part has come. Raises Refused, Disconnect."""
        deadline = self._deadline()
        while True:
            self._refuse_hopeless_line()
            seen = max(0, self._end - self._start - 1)  # was searched already
            self._receive(deadline)
            end = self._buffer.find(b"\r\n", self._start + seen, self._end)
            if end >= 0:
                return end

    def _refuse_hopeless_line(self) -> None:
        """Deal with an unfinished line that is bad already: answer a bare LF, drop what exceeds the longest line."""
        pending = self._end - self._start
        if self._skips_line:
            self._start = self._end - 1 if pending and self._buffer[self._end - 1] == CR else self._end
        elif self._buffer.find(b"\n", self._start, self._end) >= 0:
            self._skips_line = True
            raise _bad_line(bytes(self._view[self._start : self._start + 4]), BARE_NEWLINE)
        elif pending > AUTH_LINE_BYTES + 1:
            verb = bytes(self._view[self._start : self._start + 4])
            self._read_to_end_of_line()
            raise _bad_line(verb, LINE_TOO_LONG)

    def _read_to_end_of_line(self) -> None:
        deadline = self._deadline()
        while (end := self._buffer.find(b"\r\n", self._start, self._end)) < 0:
            self._start = self._end - 1  # the CR of a CRLF may have come
            self._receive(deadline)
        self._start = end + 2

    # --- content

    def read_data(self) -> Iterator[bytes]:
        """The content of a message in pieces, dot-stuffing undone (RFC 5321 4.5.2), ending behind CRLF.CRLF.

        No piece boundary parts a CR from its LF. The pieces may hold bare CR and LF: those neither end the message nor
        stand before a stuffed dot. A caller that stops early must not use the wire again.
        """
        at_line_start = True  # the CRLF of the DATA line is the first of CRLF.CRLF (RFC 5321 4.1.1.4)
        seen = 0
        self._has_dots = False
        self._begin_data(is_first=True)
        if self._start == self._end:
            self._receive()
        while True:
            start = self._start
            end = self._find_end(at_line_start, seen)
            if end >= 0:
                self._start = end + 3
                if end > start:
                    yield self._take(start, end, at_line_start)
                self._end_data()
                return
            if self._end - start >= LAST_BUFFER_BYTES:
                cut = self._cut()
                self._start = cut
                yield self._take(start, cut, at_line_start)
                at_line_start = self._buffer[cut - 1] == LF and self._buffer[cut - 2] == CR
            seen = max(0, self._end - self._start - 4)
            now = self._clock()
            self._check_rate(now, now)
            self._receive()

    def read_chunk(self, size: int, is_first: bool) -> Iterator[bytes]:
        """The next ``size`` octets in pieces, whatever they are (RFC 3030 2). ``is_first``: of a message, whose rate is
        judged over all its chunks and the time between them. A caller that stops early must not use the wire again.
        """
        self._begin_data(is_first)
        while size > 0:
            wanted = min(size, LAST_BUFFER_BYTES)
            while self._end - self._start < wanted:
                now = self._clock()
                self._check_rate(now, now)
                self._receive()
            start, self._start = self._start, self._start + wanted
            size -= wanted
            yield bytes(self._view[start : self._start])
        self._end_data()

    def _begin_data(self, is_first: bool) -> None:
        self._in_data = True
        if is_first:
            self._rate = None
            self._received_before = self.received_bytes

    def _end_data(self) -> None:
        with self._lock:
            self._in_data = False
        if len(self._buffer) > FIRST_BUFFER_BYTES:
            self._shrink()

    def _find_end(self, at_line_start: bool, seen: int) -> int:
        """Where the dot of the final CRLF.CRLF stands, or -1."""
        start = self._start
        if at_line_start and seen == 0 and self._buffer[start] == DOT and self._buffer.startswith(b".\r\n", start, self._end):
            return start
        dot = self._buffer.find(DOT, start + seen, self._end)  # in most content of size (base64) there is none: found at once
        if dot < 0:
            return -1
        at = self._buffer.find(_DOT_AT_LINE_START, max(start + seen, dot - 2), self._end)
        if at < 0:
            return -1
        if not self._buffer.startswith(_END_OF_DATA, at, self._end):  # usual content has one such dot: the final one
            self._has_dots = True
            at = self._buffer.find(_END_OF_DATA, at, self._end)
        return at + 2 if at >= 0 else -1

    def _cut(self) -> int:
        """Where to cut a full buffer: behind its last line, or, within a line over 128 KiB, never between CR and LF."""
        at = self._buffer.rfind(b"\r\n", self._start, self._end)
        if at >= 0:
            return at + 2
        return self._end - 1 if self._buffer[self._end - 1] == CR else self._end

    def _take(self, start: int, end: int, at_line_start: bool) -> bytes:
        if at_line_start and self._buffer[start] == DOT:
            start += 1
        piece = bytes(self._view[start:end])
        return piece.replace(_DOT_AT_LINE_START, b"\r\n") if self._has_dots else piece


def _bad_line(line: bytes, reply: Reply) -> Refused | Disconnect:
    """What becomes of a bad line. Behind BDAT a chunk follows at once, and how long it is nobody can tell now."""
    if line[:4].upper() == b"BDAT":
        return Disconnect(OUT_OF_STEP, f"BDAT in a bad line: {reply.text}")
    return Refused(reply)
