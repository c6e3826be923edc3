"""The content of a message: from the wire to the intake, in pieces, so that memory stays bounded however large a message is.

A message is read to its real end whatever is wrong with it, and refused then; only one far beyond the size limit ends
the session. No thread or lock of its own: an ``Incoming`` belongs to the session that reads it.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import IncrementalNewlineDecoder
from typing import Protocol

from mailer.mail import headers
from mailer.mail.content import Content
from mailer.mail.envelope import Envelope
from mailer.mail.outcome import Reply
from mailer.smtp.replies import (
    CONTENT_BARE_NEWLINE,
    CONTENT_LINE_TOO_LONG,
    CONTENT_NUL,
    ENDLESS,
    HEADER_TOO_LARGE,
    MAIL_LOOP,
    SPOOL_FAULT,
    SPOOL_FULL,
    TOO_LARGE,
    Disconnect,
    Refused,
)
from mailer.smtp.wire import NUL
from mailer.spool.store import ContentWriter, SpoolError, SpoolFull

RELAYED_LINE_BYTES = 998  # RFC 5321 4.5.3.1.6, without CRLF
ENDLESS_FACTOR = 4
"""A client that sends so many times the announced SIZE will not stop; reading on would serve nobody."""
ENDLESS_SLACK_BYTES = 1024 * 1024


class Intake(Protocol):
    """Where accepted messages go; the dispatcher implements it."""

    def new_content(self, message_id: str) -> ContentWriter: ...

    def accept(self, envelope: Envelope, content: Content) -> None:
        """Returns when the message is durable. Raises SpoolFull, SpoolError; then the message is not ours."""
        ...


@dataclass(frozen=True, slots=True)
class ContentRules:
    """What content may look like: bytes in all and in one line, and whether a bare CR or LF is refused or mended."""

    max_bytes: int
    max_line_bytes: int
    reject_bare_newlines: bool

    @property
    def endless_bytes(self) -> int:
        """Over so many, a message has no end."""
        return ENDLESS_FACTOR * self.max_bytes + ENDLESS_SLACK_BYTES


class Incoming:
    """One message on its way to a ``ContentWriter``: counted, checked, its newlines mended, its header block stamped.

    The first ``fault`` is kept, and from then on nothing is stored. ``close`` forgets what was not handed over.
    """

    def __init__(self, rules: ContentRules, writer: ContentWriter, trace: headers.Trace) -> None:
        self._rules = rules
        self._writer = writer
        self.trace = trace
        self._head = b""  # of the header block, until it is complete
        self._is_stamped = False
        self._line_bytes = 0  # of a line that the last piece left unfinished
        self.fault: Refused | None = None
        self.received = 0
        self.has_long_lines = False

    def take(self, piece: bytes) -> None:
        """The next piece from the wire. Raises Disconnect when there is no end to them."""
        self.received += len(piece)
        if self.fault is None:
            try:
                if self.received > self._rules.max_bytes:
                    raise Refused(TOO_LARGE, f"over {self._rules.max_bytes} bytes")
                piece = self._mend(piece)
                if self._is_stamped:
                    self._writer.write(piece)
                else:
                    self._begin(piece)
            except Refused as refused:
                self._refuse(refused)
            except SpoolError as error:
                self._refuse(Refused(reply_to(error), str(error)))
        elif self.received > self._rules.endless_bytes:
            raise Disconnect(ENDLESS, f"{self.received} bytes of data and no end")

    def end_line(self) -> None:
        """Complete a last line that came without its CRLF; that CRLF counts for nothing."""
        self.received -= 2
        self.take(b"\r\n")

    def finish(self) -> Content:
        """The content, at its real end. Raises Refused, SpoolError."""
        if self.fault is not None:
            raise self.fault
        if not self._is_stamped:
            self._stamp(self._head)
        return self._writer.finish()

    def close(self) -> None:
        """The message was not accepted: free what it took."""
        self._writer.discard()

    def _refuse(self, refused: Refused) -> None:
        self.fault = refused
        self._head = b""
        self._writer.discard()

    def _mend(self, piece: bytes) -> bytes:
        """The piece with CRLF alone for newlines. A piece never parts CR from LF, so each can be judged alone."""
        if NUL in piece:  # RFC 5321 4.5.2 lets us refuse what RFC 5322 4 forbids; C programs downstream cut there
            raise Refused(CONTENT_NUL)
        if newlines_of(piece) not in (None, "\r\n"):
            if self._rules.reject_bare_newlines:
                raise Refused(CONTENT_BARE_NEWLINE)
            piece = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
        limit = min(RELAYED_LINE_BYTES, self._rules.max_line_bytes)
        if self._line_bytes or len(piece) > limit or piece[-1:] != b"\n":
            self._measure_lines(piece, limit)
        return piece

    def _measure_lines(self, piece: bytes, limit: int) -> None:
        """Look for lines over ``limit`` bytes; only where there is one is each line measured."""
        at, end = 0, len(piece)
        if self._line_bytes:
            at = piece.find(b"\n") + 1 or end
            self._note_lines(*_longest_line(piece[:at], self._line_bytes))
        while end - at > limit:
            newline = piece.rfind(b"\n", at, at + limit + 2)
            if newline < 0:
                self._note_lines(*_longest_line(piece[at:], self._line_bytes))
                return
            at = newline + 1
        if piece[-1:] != b"\n" and at < end:
            self._line_bytes = end - max(at, piece.rfind(b"\n", at) + 1)

    def _note_lines(self, longest: int, unfinished: int) -> None:
        self._line_bytes = unfinished
        self.has_long_lines = self.has_long_lines or longest > RELAYED_LINE_BYTES
        if longest > self._rules.max_line_bytes:
            raise Refused(CONTENT_LINE_TOO_LONG, f"over {self._rules.max_line_bytes} bytes")

    def _begin(self, piece: bytes) -> None:
        """Hold back what comes until the header block is complete."""
        head = self._head + piece if self._head else piece
        if headers.is_complete(head) or len(head) >= headers.MAX_HEADER_BYTES:
            self._stamp(head)
        else:
            self._head = head

    def _stamp(self, head: bytes) -> None:
        self._is_stamped = True
        self._head = b""
        try:
            stamped = headers.stamp(head, self.trace)
        except headers.HeaderTooLarge as error:
            raise Refused(HEADER_TOO_LARGE, str(error)) from None
        except headers.MailLoop as error:
            raise Refused(MAIL_LOOP, str(error)) from None
        self._writer.write(stamped)


def newlines_of(piece: bytes) -> object:
    """Which newlines the piece holds: None, one of CRLF, CR and LF, or a tuple of several.

    The decoder that the standard library reads text files with tells them all in one pass; to replace or count CRLF
    takes up to four times as long. Bytes are taken for characters, one for one.
    """
    decoder = IncrementalNewlineDecoder(None, translate=False)
    decoder.decode(str(piece, "latin-1"), final=True)
    return decoder.newlines


def _longest_line(piece: bytes, carried: int) -> tuple[int, int]:
    """The longest line, without its CRLF, and the length of the unfinished last one; ``carried`` bytes of the first have
    come before."""
    longest = at = 0
    while (newline := piece.find(b"\r\n", at)) >= 0:
        longest = max(longest, newline - at + carried)
        carried = 0
        at = newline + 2
    carried += len(piece) - at
    return max(longest, carried), carried


def reply_to(error: SpoolError) -> Reply:
    """The reply when the spool could not take a message."""
    return SPOOL_FULL if isinstance(error, SpoolFull) else SPOOL_FAULT
