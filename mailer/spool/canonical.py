"""Bytes of a foreign message made canonical: every line ends in CRLF, no bare CR or LF is left (``mail.content``).

No threads; one object a message. Never fails.
"""

from __future__ import annotations

import re

LONGEST_LINE_BYTES = 998  # RFC 5321 4.5.3.1.6, without its CRLF

_LINE_END = re.compile(rb"\r\n|\r|\n")


class Canonical:
    """Takes the bytes in pieces; notes on the way what the message asks of a peer."""

    def __init__(self) -> None:
        self.has_long_lines = False
        self.is_8bit = False
        self.size = 0
        self._ends_in_cr = False
        self._line = 0  # bytes of the line under way

    def feed(self, piece: bytes) -> bytes:
        """The canonical form of ``piece``; a CR at its end is kept back until it is known what follows."""
        if self._ends_in_cr:
            piece = b"\r" + piece
        self._ends_in_cr = piece.endswith(b"\r")
        if self._ends_in_cr:
            piece = piece[:-1]
        ends = piece.count(b"\r\n")
        if ends != piece.count(b"\n") or ends != piece.count(b"\r"):
            piece = _LINE_END.sub(b"\r\n", piece)
        self._note(piece)
        return piece

    def finish(self) -> bytes:
        """What makes the last line whole."""
        end = b"\r\n" if self._ends_in_cr or self._line else b""
        self.size += len(end)
        return end

    def _note(self, piece: bytes) -> None:
        self.size += len(piece)
        if not self.is_8bit:
            self.is_8bit = not piece.isascii()
        lengths = [len(line) for line in piece.split(b"\r\n")]
        lengths[0] += self._line
        self._line = lengths[-1]
        self.has_long_lines = self.has_long_lines or max(lengths) > LONGEST_LINE_BYTES
