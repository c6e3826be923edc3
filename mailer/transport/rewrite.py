"""Sender addresses as a provider wants them: ``envelopeFrom`` in MAIL, ``headerFrom`` in From (spec 2).

For providers that refuse foreign senders. From gets the configured address and keeps its display name; the original
stays in Reply-To unless the message has one; Sender goes, since it would name the address that is refused. Works on
bytes, on the header block alone; a field is replaced as a whole and nothing of it is interpreted beyond its display
name, so no header can be injected. Immutable; no threads, no locks. Raises MailerError for a header block without end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from mailer.config.schema import ProviderConfig
from mailer.mail.address import Address
from mailer.mail.content import Content, Render
from mailer.mail.outcome import MailerError

MAX_HEADER_BYTES = 1024 * 1024
"""Longest header block that is rewritten: no honest one is a tenth of it, and it is held in memory."""
MAX_DISPLAY_BYTES = 500  # a longer display name is dropped: with the address it must fit a line of 998
MAX_VALUE_BYTES = 4096  # of From are looked at for a display name

_FOLD = re.compile(rb"\r\n(?=[ \t])")
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]+")
_QUOTED_OR_ANGLE = re.compile(rb'"(?:[^"\\]|\\.)*"|\((?:[^()\\]|\\.)*\)|<', re.DOTALL)
# Atoms and spaces; a dot too beside an encoded-word, which would lose its meaning within quotes (RFC 2047 5).
_ATOM = rb"A-Za-z0-9!#$%&'*+\-/=?^_`{|}~ "
_WORDS = re.compile(rb"[" + _ATOM + rb"\x80-\xff]+|[." + _ATOM + rb"]*=\?[." + _ATOM + rb"]*")


@dataclass(frozen=True, slots=True)
class Rewriter:
    """The rewriting of one provider; empty addresses rewrite nothing."""

    envelope_from: Address
    header_from: Address

    @classmethod
    def of(cls, config: ProviderConfig) -> Rewriter | None:
        """The rewriter that a provider asks for, or None. Raises AddressError for what is no address."""
        if not config.envelope_from and not config.header_from:
            return None
        envelope_from, header_from = (
            Address.parse(text, smtputf8=True) if text else Address("", "") for text in (config.envelope_from, config.header_from)
        )
        return cls(envelope_from, header_from)

    def sender(self, sender: Address) -> Address:
        """The envelope sender to use. The null sender stays: a report must never be answered (RFC 5321 4.5.5)."""
        return self.envelope_from if sender and self.envelope_from else sender

    def render(self, render: Render) -> Render:
        if not self.header_from:
            return render

        def rewritten(extensions: frozenset[str]) -> Content:
            return _rewritten(render(extensions), self.header_from)

        return rewritten


@dataclass(frozen=True, slots=True)
class _Replaced:
    """Content whose first ``skipped`` bytes are replaced by ``head``."""

    head: bytes
    skipped: int
    rest: Content

    @property
    def size(self) -> int:
        return len(self.head) + self.rest.size - self.skipped

    def chunks(self) -> Iterator[bytes]:
        head, left = self.head, self.skipped
        for chunk in self.rest.chunks():
            if left >= len(chunk):
                left -= len(chunk)
                continue
            piece, left = chunk[left:] if left else chunk, 0
            yield head + piece if head else piece
            head = b""
        if head:
            yield head


def _rewritten(content: Content, address: Address) -> Content:
    block = _header_block(content)
    fields = _fields(block)
    originals = [field for field in fields if _name(field) == b"from"]
    has_reply_to = any(_name(field) == b"reply-to" for field in fields)
    new_from = _from_field(_value(originals[0]) if originals else b"", address)
    written: list[bytes] = [] if originals else [new_from]
    for field in fields:
        name = _name(field)
        if name == b"from":
            if new_from not in written:  # a second From is a forgery or a mistake: RFC 5322 3.6 allows one
                written.append(new_from)
                if not has_reply_to and _value(field).strip():
                    written.append(b"Reply-To:" + _value(field) + b"\r\n")
        elif name != b"sender":
            written.append(field)
    return _Replaced(b"".join(written), len(block), content)


def _header_block(content: Content) -> bytes:
    """The header fields, each with its CRLF, without the empty line behind them."""
    block = b""
    for chunk in content.chunks():
        block += chunk
        if block.startswith(b"\r\n"):
            return b""
        end = block.find(b"\r\n\r\n")
        if end >= 0:
            return block[: end + 2]
        if len(block) > MAX_HEADER_BYTES:
            raise MailerError(f"From cannot be rewritten: the header block is longer than {MAX_HEADER_BYTES} bytes")
    return block


def _fields(block: bytes) -> list[bytes]:
    """The fields as they stand, folded lines with theirs."""
    fields: list[bytes] = []
    for line in _lines(block):
        if line[:1] in (b" ", b"\t") and fields:
            fields[-1] += line
        else:
            fields.append(line)
    return fields


def _lines(block: bytes) -> list[bytes]:
    pieces = block.split(b"\r\n")
    return [piece + b"\r\n" for piece in pieces[:-1]] + ([pieces[-1]] if pieces[-1] else [])


def _name(field: bytes) -> bytes:
    return field.partition(b":")[0].rstrip(b" \t").lower()


def _value(field: bytes) -> bytes:
    """What stands behind the colon, folds kept, without the last line end."""
    return field.partition(b":")[2].rstrip(b"\r\n")


def _from_field(value: bytes, address: Address) -> bytes:
    display = _display_name(value)
    path = address.to_path()
    if not display:
        return b"From: " + path[1:-1] + b"\r\n"
    space = b" " if len(display) + len(path) < 70 else b"\r\n "  # RFC 5322 2.1.1: a line of 78 at most, where it can be
    return b"From: " + display + space + path + b"\r\n"


def _display_name(value: bytes) -> bytes:
    """The display name of the first mailbox, fit to stand in front of an address; empty when it has none.

    ``Name <a@b>`` has it in front, ``a@b (Name)`` as a comment (RFC 5322 3.4, and its obsolete habit).
    """
    value = _CONTROL.sub(b" ", _FOLD.sub(b"", value[:MAX_VALUE_BYTES])).strip()
    comment = b""
    for token in _QUOTED_OR_ANGLE.finditer(value):
        if token[0] == b"<":
            return _phrase(value[: token.start()].strip())
        if token[0][:1] == b"(" and not comment:
            comment = token[0][1:-1].strip()
    return _phrase(comment)


def _phrase(text: bytes) -> bytes:
    """``text`` if it is a phrase, else quoted so that it is one (RFC 5322 3.2.5)."""
    if len(text) > MAX_DISPLAY_BYTES:
        return b""
    if _WORDS.fullmatch(text) or (len(text) > 1 and re.fullmatch(rb'"(?:[^"\\]|\\.)*"', text, re.DOTALL)):
        return text
    return b'"' + text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"' if text else b""
