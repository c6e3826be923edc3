"""MAIL and RCPT in the words that a peer's extensions allow (RFC 5321 4.1.2), with what the sender asked about delivery
reports for a peer that offers DSN (RFC 3461 5.2.1).

No threads, no locks, nothing that fails: values to bytes. No address and no ``Dsn`` holds what could end a command.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from mailer.mail.address import Address
from mailer.mail.dsn import NO_WISH, Dsn, Wish
from mailer.mail.envelope import Recipient
from mailer.mail.xtext import ascii_original, original_of

REMEMBERED = 1024
"""RCPT commands that are remembered, since mail mostly goes to the same few. At most 1 MiB."""


def path_of(address: Address, has_utf8: bool) -> bytes:
    """The path of an address. Without SMTPUTF8 (``has_utf8``) a domain is in its ASCII form (RFC 6531 3.2)."""
    path = address.to_path()
    return path if has_utf8 or path.isascii() else f"<{address.local_part}@{address.domain_key}>".encode()


def mail_parameters(dsn: Dsn) -> bytes:
    """RET and ENVID as they came (RFC 3461 5.2.1 (a), (b))."""
    ret = f" RET={dsn.ret}" if dsn.ret else ""
    envelope_id = f" ENVID={dsn.envelope_id}" if dsn.envelope_id else ""
    return (ret + envelope_id).encode("ascii")


def rcpt_commands(recipients: Sequence[Recipient], has_utf8: bool, dsn: Dsn) -> list[bytes]:
    """RCPT for each; with NOTIFY where it came, and with ORCPT: as it came, else the address itself (RFC 3461 5.2.1)."""
    wishes = dict(dsn.wishes)
    addresses = [recipient.address for recipient in recipients]
    return [_rcpt(address, has_utf8, wishes.get(address.text, NO_WISH)) for address in addresses]


@functools.lru_cache(REMEMBERED)
def plain_rcpt(address: Address, has_utf8: bool, offers_dsn: bool) -> bytes:
    """RCPT for a recipient whose sender asked nothing about reports."""
    return _rcpt(address, has_utf8, NO_WISH) if offers_dsn else b"RCPT TO:%b\r\n" % path_of(address, has_utf8)


def _rcpt(address: Address, has_utf8: bool, wish: Wish) -> bytes:
    notify = b" NOTIFY=%b" % wish.notify.encode("ascii") if wish.notify else b""
    original = wish.original or original_of(address)
    if not has_utf8:
        original = ascii_original(original)  # RFC 6533 3
    return b"RCPT TO:%b%b ORCPT=%b\r\n" % (path_of(address, has_utf8), notify, original.encode())
