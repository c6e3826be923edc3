"""Whose message it is, for choosing keys: the domains in its From fields.

Reads what people and programs really write: display names with anything in quotes, comments, groups, several mailboxes. It
decides only which keys sign, so a From that cannot be read costs a signature and nothing else. No state; never fails.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from mailer.mail.address import Address, is_domain
from mailer.mail.fields import Field

MAX_VALUE_BYTES = 8192  # of one From are read: a mailbox has 254 octets and a name
_MAX_FROM_FIELDS = 10  # there should be one (RFC 5322 3.6)
_MAX_COMMENT_DEPTH = 5

_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_QUOTED_OR_COMMENT = re.compile(rb'"[^"]*"|\([^()]*\)')
_ANGLE = re.compile(rb"<([^<>]*)>")


def from_domains(header: Sequence[Field]) -> list[str]:
    """The domains of all mailboxes in From, in lower case and in their ASCII form (RFC 5890)."""
    values = [field.value[:MAX_VALUE_BYTES] for field in header if field.name == b"from"][:_MAX_FROM_FIELDS]
    return list(dict.fromkeys(domain for value in values for domain in _domains(value)))


def is_at_or_under(domain: str, parent: str) -> bool:
    return domain == parent or domain.endswith("." + parent)


def _domains(value: bytes) -> Iterator[str]:
    for mailbox in re.split(rb"[,;]", _plain(value)):
        angle = _ANGLE.search(mailbox)
        address = angle[1] if angle else mailbox
        if b"@" in address:
            domain = b"".join(address.rpartition(b"@")[2].split()).removesuffix(b".").decode("utf-8", "replace")
            key = Address("", domain).domain_key
            if is_domain(key):
                yield key


def _plain(value: bytes) -> bytes:
    """``value`` without what means nothing here: comments are spaces (RFC 5322 3.2.2), and a quoted string is a word."""
    if not any(sign in value for sign in (b'"', b"(", b"\\")):
        return value
    value = _ESCAPE.sub(b"", value)
    for _ in range(_MAX_COMMENT_DEPTH):
        value, count = _QUOTED_OR_COMMENT.subn(lambda found: b"q" if found[0][:1] == b'"' else b" ", value)
        if not count:
            break
    return value
