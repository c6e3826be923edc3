"""From as a provider wants it: ``headerFrom`` (spec 2), for those that refuse foreign senders.

From gets the configured address and keeps its display name; the original stays in Reply-To unless the message has one;
Sender goes, since it would name the address that is refused. Works on bytes, on the header block alone; a field is
replaced as a whole and nothing of it is interpreted beyond its display name, so no header can be injected. No state, no
threads. Raises MailerError for a header block without end, OSError when the content cannot be read.
"""

from __future__ import annotations

import re

from mailer.mail.address import Address
from mailer.mail.content import Content, header_block, with_head

MAX_DISPLAY_BYTES = 500  # a longer display name is dropped: with the address it must fit a line of 998
MAX_VALUE_BYTES = 4096  # of From are looked at for a display name

_FOLD = re.compile(rb"\r\n(?=[ \t])")
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]+")
_QUOTED_OR_ANGLE = re.compile(rb'"(?:[^"\\]|\\.)*"|\((?:[^()\\]|\\.)*\)|<', re.DOTALL)
# Atoms and spaces; a dot too beside an encoded-word, which would lose its meaning within quotes (RFC 2047 5).
_ATOM = rb"A-Za-z0-9!#$%&'*+\-/=?^_`{|}~ "
_WORDS = re.compile(rb"[" + _ATOM + rb"\x80-\xff]+|[." + _ATOM + rb"]*=\?[." + _ATOM + rb"]*")


def rewrite_from(content: Content, address: Address) -> Content:
    """The content with ``address`` in From."""
    block = header_block(content)
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
    return with_head(b"".join(written), len(block), content)


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
