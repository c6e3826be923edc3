"""The two forms of SMTP on the wire that this side must get right: replies read, bounded; content dot-stuffed.

No threads, no locks: each value serves one conversation. A reply that is too long or not a reply at all raises
``Fault``, the end of the conversation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from mailer.transport.faults import lost, nonsense

MAX_LINE_BYTES = 2048  # kept of one reply line; RFC 5321 4.5.3.1.5 allows 512, real servers exceed it
MAX_LINES = 100  # of one reply: the longest honest ones, to EHLO, have about 30
MAX_REPLY_BYTES = 65536  # of one reply in all
READ_BYTES = 8192  # at once: all replies to a pipelined envelope of 100 recipients
_END = b".\r\n"
_DOT = _END[0]  # as a number: one byte is found ten times as fast as three
_ONE_LINE = re.compile(rb"([2-5][0-9][0-9]) (|[^\r\n]{0,%d}[^\s])\r\n" % (MAX_LINE_BYTES - 5))  # what nearly every reply is


class ReplyReader:
    """Replies (RFC 5321 4.2) out of a stream of bytes. ``receive(n)`` gives up to ``n`` bytes, none at the end."""

    __slots__ = ("_receive", "unread")

    def __init__(self, receive: Callable[[int], bytes]) -> None:
        self._receive = receive
        self.unread = b""  # what has come, and no reply was read from

    def __repr__(self) -> str:
        return f"ReplyReader(unread={len(self.unread)})"

    def read(self) -> tuple[int, bytes]:
        """The next reply: its code and its text, lines joined by LF. Raises Fault."""
        unread = self.unread
        if not unread:
            self._fill()
            unread = self.unread
        simple = _ONE_LINE.match(unread)
        if simple is None:
            return self._read_lines()
        self.unread = unread[simple.end() :]
        code, text = simple.groups()
        return int(code), text

    def _read_lines(self) -> tuple[int, bytes]:
        """The same, whatever the reply is."""
        lines: list[bytes] = []
        code = b""
        left = MAX_REPLY_BYTES
        while True:
            line = self._line(left)
            left -= len(line) + 1
            head, separator = line[:3], line[3:4]
            if not (head.isdigit() and 2 <= head[0] - 48 <= 5 and len(head) == 3 and separator in (b" ", b"-", b"", b"\r")):
                raise nonsense(f"not an SMTP reply: {line[:60]!r}")
            if lines and head != code:
                raise nonsense(f"reply changes its code from {code.decode()} to {head.decode()}")  # RFC 5321 4.2.1
            code = head
            lines.append(line[4:MAX_LINE_BYTES].rstrip())
            if separator != b"-":
                return int(code), b"\n".join(lines)
            if len(lines) == MAX_LINES:
                raise nonsense(f"reply has more than {MAX_LINES} lines")

    def _line(self, limit: int) -> bytes:
        """The next line without its LF. A bare LF ends one too: nothing follows from a reply but our own decision."""
        seen = 0
        while (end := self.unread.find(b"\n", seen)) < 0:
            seen = len(self.unread)
            if seen > limit:
                break
            self._fill()
        if end < 0 or end > limit:
            raise nonsense(f"reply is longer than {MAX_REPLY_BYTES} bytes")
        line, self.unread = self.unread[:end], self.unread[end + 1 :]
        return line

    def _fill(self) -> None:
        piece = self._receive(READ_BYTES)
        if not piece:
            raise lost("connection closed by the server")
        self.unread += piece


def _with_more_dots(piece: bytes) -> bytes:
    """A dot more behind each CRLF that is followed by one. Most content of size (base64) holds no dot, which shows at once."""
    return piece.replace(b"\r\n.", b"\r\n..") if _DOT in piece and b"\r\n." in piece else piece


def stuffed_whole(content: bytes) -> bytes:
    """The same as ``stuffed``, for content that is one piece."""
    text = _with_more_dots(content)
    start = b"." if content[:1] == b"." else b""
    end = _END if content[-2:] in (b"\r\n", b"") else b"\r\n" + _END
    return start + text + end if start else text + end


def stuffed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Content as it goes behind DATA (RFC 5321 4.5.2): a dot more before each line that starts with one, and at the end
    the line with a single dot. The last piece holds that end, and comes only when ``chunks`` is exhausted."""
    held = b""
    tail = b"\r\n"  # the last two bytes before the piece: the content starts at the start of a line
    for chunk in chunks:
        if not chunk:
            continue
        if held:
            yield held
        held = _with_more_dots(chunk)
        if tail == b"\r\n" and chunk[0] == _DOT:
            held = b"." + held
        elif tail[-1:] == b"\r" and chunk[:2] == b"\n.":
            held = b"\n." + held[1:]
        tail = chunk[-2:] if len(chunk) > 1 else tail[-1:] + chunk
    yield held + (_END if tail == b"\r\n" else b"\r\n" + _END)
