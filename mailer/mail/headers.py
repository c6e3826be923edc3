"""What a submission relay does to a header block, on bytes (RFC 5322, RFC 6409 8): adds Received, and Date and Message-ID
where they are missing; drops Bcc, Return-Path, and all but the first Date and Message-ID. Every other byte stays as it is.

No threads, no locks: functions over bytes. Content is canonical here (CRLF only). What cannot be relayed is a
``HeaderError``; whatever the client or the configuration put into a ``Trace``, no line of ours can be broken by it.
"""

from __future__ import annotations

import functools
import math
import re
import time
from typing import NamedTuple

from mailer.mail.address import Address, is_domain
from mailer.mail.outcome import MailerError

MAX_HEADER_BYTES = 1024 * 1024
"""A header block is held in memory whole; real ones are under 64 KiB, and beyond this it is an attack or an accident."""
MAX_RECEIVED_FIELDS = 100  # RFC 5321 6.3: a loop is detected by counting, with a limit of 100 or more

_HEADER_LINE = re.compile(rb"(?:([!-9;-~]+)[ \t]*:|[ \t]).*\r\n")
"""A field's name is of RFC 5322 3.6.8 ftext; 4.5: old mailers put a space before the colon. No name: a folded line."""
_DROPPED = (b"bcc", b"resent-bcc", b"return-path")
"""RFC 5321 4.4: Return-Path is written at final delivery alone, and none may be there before."""
_SINGLE = (b"date", b"message-id")
"""RFC 5322 3.6: at most one of each. The receivers that mind refuse a message with two, and readers mostly take the first."""
_BLANK = frozenset(b" \t\v\f\r:")  # what a line may end in that says nothing
_PASSED = frozenset((b"From", b"To", b"Cc", b"Subject", b"MIME-Version", b"Content-Type", b"Content-Transfer-Encoding"))
"""Names that most messages hold, as they are mostly written, and that are neither dropped nor counted."""
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class HeaderError(MailerError):
    """The header block cannot be relayed."""


class HeaderTooLarge(HeaderError):
    """The header block is over ``MAX_HEADER_BYTES``."""


class MailLoop(HeaderError):
    """There are over ``MAX_RECEIVED_FIELDS`` Received fields: the message goes round in circles."""


class Trace(NamedTuple):
    """What Received says of how a message came (RFC 5321 4.4).

    ``client_name`` is what EHLO said, ``client_address`` the peer's IP address; ``protocol`` is ``"ESMTP"`` or one of
    its kin (RFC 3848, RFC 6531 4.3); ``recipient`` only where the message has exactly one; ``at`` is Unix time.
    """

    id: str
    hostname: str
    client_name: str
    client_address: str
    protocol: str
    recipient: Address | None
    at: float


def is_complete(content: bytes) -> bool:
    """Whether ``content``, the beginning of a message, surely holds its whole header block."""
    return content.find(b"\r\n\r\n") >= 0 or content.startswith(b"\r\n")


def stamp(content: bytes, trace: Trace) -> bytes:
    """``content``, the beginning of a message, with the header block as it leaves us.

    ``content`` is the whole message, or ``is_complete``, or at least ``MAX_HEADER_BYTES`` long. Raises HeaderTooLarge
    and MailLoop.
    """
    block = _Block(content)
    if block.end > MAX_HEADER_BYTES:
        raise HeaderTooLarge(f"header block is over {MAX_HEADER_BYTES} bytes")
    if block.counts[b"received"] > MAX_RECEIVED_FIELDS:
        raise MailLoop(f"message has over {MAX_RECEIVED_FIELDS} Received fields")
    date = format_date(trace.at)
    parts = [_received(trace, date)]
    if not block.counts[b"message-id"]:
        parts.append(f"Message-ID: <{trace.id}@{own_name(trace.hostname)}>\r\n".encode())
    if not block.counts[b"date"]:
        parts.append(f"Date: {date}\r\n".encode())
    at = 0
    for start, end in block.dropped:
        parts.append(content[at:start])
        at = end
    if block.needs_empty_line:
        parts.append(content[at : block.end])
        parts.append(b"\r\n")
        at = block.end
    parts.append(content[at:] if at else content)
    return b"".join(parts)


def format_date(at: float) -> str:
    """Unix time as a date-time of RFC 5322 3.3, in UTC; ``strftime`` would speak the machine's language."""
    return _date_of_second(math.floor(at))


@functools.lru_cache(4)
def _date_of_second(second: int) -> str:
    """Remembered, since thousands of messages share it."""
    t = time.gmtime(second)
    return (
        f"{_WEEKDAYS[t.tm_wday]}, {t.tm_mday:02d} {_MONTHS[t.tm_mon - 1]} {t.tm_year:04d} "
        f"{t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d} +0000"
    )


class _Block:
    """Where the header block of a message ends, how many of the fields that matter it keeps, which spans are dropped.

    ``end`` is where the empty line stands; or, with ``needs_empty_line``, where the first line stands that is no header
    field: there the body begins (a message without any header begins with it).
    """

    __slots__ = ("counts", "dropped", "end", "needs_empty_line")

    def __init__(self, content: bytes) -> None:
        self.counts = {b"received": 0, b"date": 0, b"message-id": 0}
        self.dropped: list[tuple[int, int]] = []
        at = self._scan(content)
        self.needs_empty_line = not content.startswith(b"\r\n", at) and (at < len(content) or at == 0)
        if self.needs_empty_line and len(content) >= MAX_HEADER_BYTES and b"\r\n" not in content[at:]:
            at = len(content) + 1  # what we were given ends within a header line, and is too large already
        self.end = at

    def _scan(self, content: bytes) -> int:
        """Go over the header lines; returns where the first line stands that is none."""
        at = 0
        in_dropped = False
        while (line := _HEADER_LINE.match(content, at)) is not None:
            name = line[1]
            if name is None:  # a folded line belongs to the field above it (RFC 5322 2.2.3)
                if at == 0:
                    break
                if in_dropped:
                    self.dropped.append(line.span())
            elif name in _PASSED:
                in_dropped = False
            else:
                in_dropped = self._is_dropped(name.lower(), content, line)
                if in_dropped:
                    self.dropped.append(line.span())
            at = line.end()
        return at

    def _is_dropped(self, name: bytes, content: bytes, line: re.Match[bytes]) -> bool:
        """Whether the field that begins with ``line`` is left out; what is kept and matters is counted."""
        count = self.counts.get(name)
        if count is None:
            return name in _DROPPED
        if name in _SINGLE and (count or (content[line.end() - 3] in _BLANK and _is_empty(content, line))):
            return True
        self.counts[name] = count + 1
        return False


def _is_empty(content: bytes, line: re.Match[bytes]) -> bool:
    """Whether a field says nothing, which is as good as missing."""
    text = line[0].partition(b":")[2]
    while not text.strip():  # a long id is often folded below its name
        folded = _HEADER_LINE.match(content, line.end())
        if folded is None or folded[1] is not None:
            return True
        line, text = folded, folded[0]
    return False


def _received(trace: Trace, date: str) -> bytes:
    origin = _origin(trace.client_name, trace.client_address)
    recipient = f"\r\n\tfor <{trace.recipient.text}>" if trace.recipient is not None else ""
    return (
        f"Received: from {origin}\r\n"
        f"\tby {own_name(trace.hostname)} with {trace.protocol} id {trace.id}{recipient};\r\n"
        f"\t{date}\r\n"
    ).encode()


@functools.lru_cache(256)
def _origin(name: str, address: str) -> str:
    """Who gave us a message. Remembered, since one application's messages all come from the same."""
    literal = _literal(address)
    return f"{_safe_name(name, literal)} ({literal})"


@functools.lru_cache(4)
def own_name(hostname: str) -> str:
    """``hostname`` as it may stand in a header."""
    return _safe_name(hostname, "localhost")


def _literal(address: str) -> str:
    """An IP address as RFC 5321 4.1.3 writes it. What has other characters is none, and is not written."""
    if address and not address.strip("0123456789."):
        return f"[{address}]"
    if address and not address.strip("0123456789abcdefABCDEF:."):
        return f"[IPv6:{address}]"
    return "[0.0.0.0]"


def _safe_name(name: str, otherwise: str) -> str:
    """``name`` if it is a domain or an address literal, which hold nothing that could end a line or a word."""
    return name if is_domain(name) or is_domain(name.replace("_", "-")) else otherwise
