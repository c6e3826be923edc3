"""A delivery report as content (RFC 6522): words for people, fields for programs (RFC 3464, 6533), and the original.

Functions over values; no threads, no locks. Everything in a report comes from strangers: what servers said, addresses,
the header of the original. None of it can begin a line, a field or a part: texts lose what does not print, the boundary
occurs nowhere else. Fails only with OSError, when the original cannot be read.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from typing import NamedTuple

from mailer.mail.address import NULL_SENDER
from mailer.mail.content import Content, MemoryContent
from mailer.mail.dsn import Dsn
from mailer.mail.envelope import Envelope, Options, Recipient, State
from mailer.mail.fate import Action, Fate, Kind, Report
from mailer.mail.fields import Field, encode_words, split_header
from mailer.mail.headers import format_date, own_name
from mailer.mail.report_status import status
from mailer.mail.report_words import RELAYED, SILENT, Facts, subject, text

MAX_HEADER_BYTES = 64 * 1024
"""Of the original's header; more is cut off, since real ones are smaller."""
MAX_RETURNED_BYTES = 128 * 1024
"""A larger message is not returned whole, whatever RET asks: its header is, so that a report is no large content."""

_MESSAGE_ID = re.compile(rb"<[!-;=?-~]{1,900}>")


class _Part(NamedTuple):
    type: str
    body: bytes
    description: str
    is_encoded: bool = False


def compose(report: Report) -> tuple[Envelope, Content]:
    """The report as a message to the original's sender, from nobody (RFC 3461 6.1). Raises OSError."""
    envelope, options = report.envelope, report.envelope.options
    header = _header_of(report.content)
    is_whole = _wants_whole(report)
    is_global = options.smtputf8 or any(fate.recipient.address.needs_smtputf8 for fate in report.fates)
    parts = [_words(report, is_whole), _status(report, is_global)]
    if is_whole:
        parts.append(_original(b"".join(report.content.chunks()), is_global))
    elif header:
        kind = "message/global-headers" if is_global and not header.isascii() else "text/rfc822-headers"
        parts.append(_Part(kind, header, "Header of the message"))
    is_ascii = all(part.body.isascii() for part in parts)
    data = _top(report, header, parts, is_ascii)
    said = Options(
        body="7BIT" if is_ascii else "8BITMIME",
        smtputf8=not data.partition(b"\r\n\r\n")[0].isascii(),
        has_long_lines=options.has_long_lines,  # in the original alone: ours are all short
        is_report=True,
        require_tls=options.require_tls,  # RFC 8689 5
    )
    recipients = (Recipient(0, envelope.sender, State.PENDING),)
    return Envelope(report.id, NULL_SENDER, recipients, len(data), report.at, said), MemoryContent(data)


def header_fields(content: Content) -> list[Field]:
    """The header of a message, the beginning of it if it is long. Raises OSError."""
    return split_header(_header_of(content))


# The parts.


def _top(report: Report, header: bytes, parts: Sequence[_Part], is_ascii: bool) -> bytes:
    boundary = _boundary(report.id, parts)
    hostname = own_name(report.hostname)
    fields = [
        Field.make(b"Date", format_date(report.at).encode()),
        Field.make(b"From", b"Mail Delivery System " + report.sender.to_path()),
        Field.make(b"To", report.envelope.sender.to_path()),
        encode_words(Field.make(b"Subject", subject(report.kind, report.language).encode())),
        Field.make(b"Message-ID", f"<{report.id}@{hostname}>".encode()),
        *_thread(header),
        Field.make(b"Auto-Submitted", b"auto-replied"),  # RFC 3834 3.1.7
        Field.make(b"MIME-Version", b"1.0"),
        Field.make(
            b"Content-Type",
            b'multipart/report; report-type=delivery-status;\r\n boundary="' + boundary + b'"',
        ),
    ]
    if not is_ascii:
        fields.append(Field.make(b"Content-Transfer-Encoding", b"8bit"))
    pieces = [b"".join(field.raw + b"\r\n" for field in fields), b"\r\n"]
    for part in parts:
        pieces.append(b"--" + boundary + b"\r\n" + _part_header(part) + b"\r\n")
        pieces.append(part.body + b"\r\n")  # RFC 2046 5.1.1: this CRLF is the delimiter's
    pieces.append(b"--" + boundary + b"--\r\n")
    return b"".join(pieces)


def _part_header(part: _Part) -> bytes:
    lines = [f"Content-Type: {part.type}", f"Content-Description: {part.description}"]
    if part.is_encoded:
        lines.append("Content-Transfer-Encoding: base64")
    elif not part.body.isascii():
        lines.append("Content-Transfer-Encoding: 8bit")
    return "".join(line + "\r\n" for line in lines).encode()


def _boundary(report_id: str, parts: Sequence[_Part]) -> bytes:
    """One that is in no part: the original may hold anything."""
    boundary = f"=_{report_id}".encode()[:60]  # RFC 2046 5.1.1: at most 70
    count = 0
    while any(boundary in part.body for part in parts):
        count += 1
        boundary = f"=_{count}_{report_id}".encode()[:60]
    return boundary


def _thread(header: bytes) -> list[Field]:
    """In-Reply-To and References, if the original has a Message-ID (RFC 5322 3.6.4)."""
    for field in split_header(header):
        if field.name == b"message-id":
            found = _MESSAGE_ID.fullmatch(field.value.strip())
            return [Field.make(name, found[0]) for name in (b"In-Reply-To", b"References")] if found else []
    return []


def _words(report: Report, is_whole: bool) -> _Part:
    said = [(str(fate.recipient.address), _said(fate)) for fate in report.fates]
    envelope = report.envelope
    sent, until = format_date(envelope.accepted_at), format_date(report.until)
    facts = Facts(report.kind, own_name(report.hostname), envelope.id, sent, until, is_whole, said)
    words = text(facts, report.language)
    if words.isascii():
        return _Part("text/plain; charset=us-ascii", words.encode(), "Notification")
    body = base64.encodebytes(words.encode()).replace(b"\n", b"\r\n")
    return _Part("text/plain; charset=utf-8", body, "Notification", is_encoded=True)


def _said(fate: Fate) -> str:
    if fate.action is Action.RELAYED:
        return RELAYED
    return str(fate.recipient.reply) if fate.recipient.reply is not None else SILENT


def _original(content: bytes, is_global: bool) -> _Part:
    header = content.partition(b"\r\n\r\n")[0]
    kind = "message/global" if is_global and not header.isascii() else "message/rfc822"
    return _Part(kind, content, "The message")


def _wants_whole(report: Report) -> bool:
    """Only of what failed: RFC 3461 4.3 and 5.2.7."""
    asked = report.kind is Kind.FAILURE and Dsn.of_text(report.envelope.options.dsn).ret == "FULL"
    return asked and 0 < report.content.size <= MAX_RETURNED_BYTES


def _header_of(content: Content) -> bytes:
    """The header with its last CRLF; cut off between two lines if it is long."""
    seen = b""
    for chunk in content.chunks():
        seen += chunk
        if b"\r\n\r\n" in seen or len(seen) > MAX_HEADER_BYTES:
            break
    if seen.startswith(b"\r\n"):
        return b""  # no header at all: what stands before a later empty line is the body
    end = seen.find(b"\r\n\r\n")
    header = seen[: end + 2] if end >= 0 else seen
    if len(header) > MAX_HEADER_BYTES:
        last_line_end = header.rfind(b"\r\n", 0, MAX_HEADER_BYTES)
        header = header[: last_line_end + 2] if last_line_end >= 0 else b""
    return header


def _status(report: Report, is_global: bool) -> _Part:
    fields = status(report, is_global)
    if is_global:
        return _Part("message/global-delivery-status", fields.encode(), "Delivery report")
    return _Part("message/delivery-status", fields.encode("ascii", "replace"), "Delivery report")
