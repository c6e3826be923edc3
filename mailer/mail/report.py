"""A delivery report as content (RFC 6522): words for people, fields for programs (RFC 3464, 6533), and the original.

Functions over values; no threads, no locks. Everything in a report comes from strangers: what servers said, addresses,
the header of the original. None of it can begin a line, a field or a part: texts lose what does not print, the boundary
occurs nowhere else. Fails only with OSError, when the original cannot be read.
"""

from __future__ import annotations

import base64
import enum
import ipaddress
import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mailer.mail import xtext
from mailer.mail.address import NULL_SENDER, Address
from mailer.mail.content import Content, MemoryContent
from mailer.mail.dsn import Dsn
from mailer.mail.envelope import Envelope, Options, Recipient, State
from mailer.mail.fields import Field, encode_words, split_header
from mailer.mail.headers import format_date, own_name
from mailer.mail.outcome import Reply
from mailer.mail.report_words import RELAYED, SILENT, Facts, Kind, subject, text

__all__ = ["Action", "Fate", "Kind", "Report", "compose", "header_fields"]

MAX_HEADER_BYTES = 64 * 1024
"""Of the original's header; more is cut off, since real ones are smaller."""
MAX_RETURNED_BYTES = 128 * 1024
"""A larger message is not returned whole, whatever RET asks: its header is, so that a report is no large content."""
MAX_DETAILED = 1000
"""Recipients with all their fields (``maxRecipients`` by default). Of more, only who and what: a report stays bounded."""
_MAX_TEXT_CHARS = 500  # of a server's text in a field, so that no line is near 998 bytes (RFC 5322 2.1.1)
_WIDTH = 76  # columns of the fields for programs

_MESSAGE_ID = re.compile(rb"<[!-;=?-~]{1,900}>")


class Action(enum.Enum):
    """What became of a recipient (RFC 3464 2.3.3)."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"


class Fate(NamedTuple):
    """One recipient of a report. ``remote``: the host that said so, or empty."""

    recipient: Recipient
    action: Action
    remote: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a report is to say. ``envelope`` and ``content`` are the original's, ``at`` and ``until`` Unix time.

    ``sender`` stands in From; ``language`` is ``"en"``, ``"zh"`` or ``"both"``; ``until``: when a delayed message is given up.
    """

    id: str
    kind: Kind
    envelope: Envelope
    content: Content
    fates: Sequence[Fate]
    hostname: str
    sender: Address
    language: str = "en"
    at: float
    until: float = 0.0


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
    end = seen.find(b"\r\n\r\n")
    header = seen[: end + 2] if end >= 0 else seen
    if len(header) > MAX_HEADER_BYTES:
        last_line_end = header.rfind(b"\r\n", 0, MAX_HEADER_BYTES)
        header = header[: last_line_end + 2] if last_line_end >= 0 else b""
    return header


# The fields for programs.


def _status(report: Report, is_global: bool) -> _Part:
    """RFC 3464 2; with addresses beyond ASCII as they are, RFC 6533 4."""
    dsn = Dsn.of_text(report.envelope.options.dsn)
    wishes = dict(dsn.wishes)
    blocks = [_of_message(report, dsn)]
    for place, fate in enumerate(report.fates):
        wish = wishes.get(str(fate.recipient.address))
        fields = [] if wish is None or not wish.original else _original_recipient(wish.original, is_global)
        blocks.append(fields + _of_recipient(report, fate, is_detailed=place < MAX_DETAILED))
    status = "\r\n".join("".join(f"{line}\r\n" for line in block) for block in blocks)
    if is_global:
        return _Part("message/global-delivery-status", status.encode(), "Delivery report")
    return _Part("message/delivery-status", status.encode("ascii", "replace"), "Delivery report")


def _of_message(report: Report, dsn: Dsn) -> list[str]:
    envelope = report.envelope
    lines = [f"Reporting-MTA: dns; {own_name(report.hostname)}"]
    envelope_id = _clean(xtext.decode(dsn.envelope_id)).strip()
    if envelope_id:
        lines.insert(0, f"Original-Envelope-Id: {envelope_id}")
    peer = _literal(envelope.options.client)
    if peer:
        lines.append(f"Received-From-MTA: dns; {peer}")
    lines.append(f"Arrival-Date: {format_date(envelope.accepted_at)}")
    return lines


def _of_recipient(report: Report, fate: Fate, is_detailed: bool) -> list[str]:
    recipient, reply = fate.recipient, fate.recipient.reply
    address = _clean(str(recipient.address))
    lines = [
        f"Final-Recipient: {'rfc822' if address.isascii() else 'utf-8'}; {address}",
        f"Action: {fate.action.value}",
        f"Status: {status_of(fate.action, reply)}",
    ]
    if not is_detailed:
        return lines
    if fate.remote:
        lines.append(f"Remote-MTA: dns; {_clean(fate.remote)}")
    if reply is not None:
        said = _ascii(_clean(str(reply))[:_MAX_TEXT_CHARS])
        # RFC 3464 2.3.6. What no server has said is our own.
        lines += _folded(f"Diagnostic-Code: {'smtp' if recipient.attempts else 'x-mailer'}; {said}")
    if recipient.attempts:
        lines.append(f"Last-Attempt-Date: {format_date(recipient.updated_at)}")
    if fate.action is Action.DELAYED:
        lines.append(f"Will-Retry-Until: {format_date(report.until)}")
    return lines


def status_of(action: Action, reply: Reply | None) -> str:
    """The enhanced status code (RFC 3463). What was given up after temporary errors keeps their 4: the address may be good."""
    enhanced = reply.enhanced if reply is not None else ""
    if action in (Action.DELIVERED, Action.RELAYED):
        return enhanced if enhanced.startswith("2.") else "2.0.0"
    if action is Action.DELAYED:
        return f"4{enhanced[1:]}" if enhanced else "4.0.0"
    if reply is None:
        return "4.4.7"  # delivery time expired
    return enhanced or ("5.0.0" if reply.is_permanent else "4.0.0")


def _original_recipient(original: str, is_global: bool) -> list[str]:
    """In the global form as people write it; else code points stand for what is beyond ASCII (RFC 6533 3)."""
    plain = xtext.plain_original(original)
    kind, _, address = (plain if is_global else xtext.ascii_original(plain)).partition(";")
    return [f"Original-Recipient: {kind}; {_clean(address)}"]


def _literal(client: str) -> str:
    """An IP address as a host's name (RFC 5321 4.1.3)."""
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return ""
    return f"[IPv6:{address}]" if address.version == 6 else f"[{address}]"


def _clean(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode()


def _folded(line: str) -> Iterable[str]:
    return textwrap.wrap(line, _WIDTH, subsequent_indent=" ", break_long_words=False, break_on_hyphens=False)
