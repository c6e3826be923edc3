"""The arguments of MAIL and RCPT: path and parameters (RFC 5321 4.1.2, RFC 1870, RFC 6152, RFC 6531, RFC 4954 5).

Functions over bytes; what is malformed is ``Refused``, never repaired, but for spaces behind the colon, which many
clients send. A path ends at its first ``>``, so nothing within an address can be taken for a parameter.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from mailer.mail.address import NULL_SENDER, Address, AddressError
from mailer.smtp.replies import (
    BAD_ADDRESS,
    BAD_PARAMETER,
    MAIL_SYNTAX,
    RCPT_SYNTAX,
    SYNTAX,
    UNKNOWN_PARAMETER,
    Refused,
)

MAX_SIZE_DIGITS = 20  # RFC 1870 3
REMEMBERED = 1024
"""Commands that are remembered, since applications write from and to the same few; refused ones are not. At most 2 MiB."""
_BODIES = {"7BIT": "7BIT", "8BITMIME": "8BITMIME"}


@dataclass(frozen=True, slots=True)
class MailFrom:
    """What MAIL said: ``size`` in bytes, 0 if not stated; ``body`` is ``"7BIT"``, ``"8BITMIME"`` or empty."""

    sender: Address
    size: int = 0
    body: str = ""
    smtputf8: bool = False


def parse_mail(argument: bytes, is_extended: bool) -> MailFrom:
    """``FROM:<address> parameters``. Raises Refused. ``is_extended``: the client said EHLO, so parameters are known."""
    if argument[-1:] == b">":  # no parameters: with SIZE each is another, and not worth remembering
        return _remembered_mail(argument, is_extended)
    return _mail(argument, is_extended)


def _mail(argument: bytes, is_extended: bool) -> MailFrom:
    path, rest = _split(argument, b"FROM:")
    if path is None:
        raise Refused(MAIL_SYNTAX)
    if not rest:
        return MailFrom(_address(path, smtputf8=False) if path else NULL_SENDER)
    size, body, smtputf8 = _parameters(rest, is_extended)
    return MailFrom(_address(path, smtputf8) if path else NULL_SENDER, size, body, smtputf8)


@functools.lru_cache(REMEMBERED)
def _remembered_mail(argument: bytes, is_extended: bool) -> MailFrom:
    return _mail(argument, is_extended)


@functools.lru_cache(REMEMBERED)
def parse_rcpt(argument: bytes, smtputf8: bool, hostname: str) -> Address:
    """``TO:<address>``, without parameters since none is offered. Raises Refused.

    ``<Postmaster>`` is the one address without a domain (RFC 5321 4.5.1): it is at ``hostname``.
    """
    path, rest = _split(argument, b"TO:")
    if path is None:
        raise Refused(RCPT_SYNTAX)
    if path.lower() == b"postmaster":
        path += b"@" + hostname.encode()
    address = _parse(path, smtputf8)
    if rest:
        raise Refused(UNKNOWN_PARAMETER)
    return address


def _split(argument: bytes, keyword: bytes) -> tuple[bytes | None, bytes]:
    """What stands between the angle brackets, and what stands behind them; None when there is no such thing."""
    length = len(keyword)
    if argument[:length].upper() != keyword:
        return None, b""
    path = argument[length:].lstrip(b" ")
    end = path.find(b">")
    if not path.startswith(b"<") or end < 0:
        return None, b""
    rest = path[end + 1 :]
    if rest and not rest.startswith(b" "):
        raise Refused(BAD_ADDRESS, "something stands right behind the closing bracket")
    return path[1:end], rest.strip(b" ")


@functools.lru_cache(REMEMBERED)
def _address(path: bytes, smtputf8: bool) -> Address:
    return _parse(path, smtputf8)


def _parse(path: bytes, smtputf8: bool) -> Address:
    try:
        return Address.parse(path.decode(), smtputf8)
    except UnicodeDecodeError:
        raise Refused(BAD_ADDRESS, "address is not valid UTF-8") from None
    except AddressError as error:
        raise Refused(BAD_ADDRESS, str(error)) from None


def _parameters(rest: bytes, is_extended: bool) -> tuple[int, str, bool]:
    size, body, smtputf8 = 0, "", False
    seen = set()
    for word in _words(rest):
        keyword, equals, value = word.partition("=")
        keyword = keyword.upper()
        if keyword in seen or (equals and not value):
            raise Refused(BAD_PARAMETER)
        seen.add(keyword)
        if not is_extended:
            raise Refused(UNKNOWN_PARAMETER, "parameters need EHLO")
        if keyword == "SIZE":
            if not (value.isascii() and value.isdigit() and len(value) <= MAX_SIZE_DIGITS):
                raise Refused(BAD_PARAMETER, "SIZE is not a number")
            size = int(value)
        elif keyword == "BODY":
            body = _BODIES.get(value.upper(), "")
            if not body:
                raise Refused(BAD_PARAMETER, "BODY is neither 7BIT nor 8BITMIME")
        elif keyword == "SMTPUTF8" and not equals:
            smtputf8 = True
        elif keyword == "AUTH" and equals:
            pass  # RFC 4954 5: who submitted it first; we trust no such claim
        else:
            raise Refused(BAD_PARAMETER if keyword in ("SMTPUTF8", "AUTH") else UNKNOWN_PARAMETER)
    return size, body, smtputf8


def _words(rest: bytes) -> list[str]:
    """The parameters, each of printable ASCII (RFC 5321 4.1.2: esmtp-value; RFC 6531 adds UTF-8, which none of ours has)."""
    try:
        text = rest.decode("ascii")
    except UnicodeDecodeError:
        raise Refused(SYNTAX, "a parameter has characters beyond ASCII") from None
    if not text.isprintable():
        raise Refused(SYNTAX, "a parameter has control characters")
    return [word for word in text.split(" ") if word]
