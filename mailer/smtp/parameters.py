"""The arguments of MAIL, RCPT and BDAT: path and parameters (RFC 5321 4.1.2, RFC 1870, RFC 3030, RFC 3461 4, RFC 4954 5,
RFC 6152, RFC 6531, RFC 8689).

Functions over bytes; what is malformed is ``Refused``, never repaired, but for spaces behind the colon, which many
clients send. A path ends at its first ``>``, so nothing within an address can be taken for a parameter.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mailer.mail.address import NULL_SENDER, Address, AddressError
from mailer.mail.dsn import NO_WISH, Wish
from mailer.mail.xtext import is_envelope_id, is_original, notify_of
from mailer.smtp.replies import (
    BAD_ADDRESS,
    BAD_PARAMETER,
    BINARY_BODY,
    MAIL_SYNTAX,
    RCPT_SYNTAX,
    SYNTAX,
    UNKNOWN_PARAMETER,
    Refused,
)

MAX_SIZE_DIGITS = 20  # RFC 1870 3
REMEMBERED = 1024
"""Commands that are remembered, since applications write from and to the same few; refused ones are not. At most 3 MiB."""
_BODIES = frozenset(("7BIT", "8BITMIME"))
_RETURNS = frozenset(("FULL", "HDRS"))
_CHUNK = re.compile(rb"([0-9]{1,20})( (?:.*))?")


@dataclass(slots=True)
class MailFrom:
    """What MAIL said: ``size`` in bytes, 0 if not stated; ``body`` is ``"7BIT"``, ``"8BITMIME"`` or empty; ``ret`` and
    ``envelope_id`` as in ``mail.dsn.Dsn``; ``require_tls``: RFC 8689, which needs TLS. Nobody changes one."""

    sender: Address
    size: int = 0
    body: str = ""
    smtputf8: bool = False
    ret: str = ""
    envelope_id: str = ""
    require_tls: bool = False


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
    mail = MailFrom(NULL_SENDER)
    for keyword, value in _parameters(rest, is_extended):
        _MAIL_PARAMETERS.get(keyword, _unknown)(mail, value)
    if path:
        mail.sender = _address(path, mail.smtputf8)
    return mail


@functools.lru_cache(REMEMBERED)
def _remembered_mail(argument: bytes, is_extended: bool) -> MailFrom:
    return _mail(argument, is_extended)


@functools.lru_cache(REMEMBERED)
def parse_rcpt(argument: bytes, smtputf8: bool, hostname: str, is_extended: bool) -> tuple[Address, Wish]:
    """``TO:<address> parameters``: the address, and what was asked about reports (RFC 3461 4). Raises Refused.

    ``<Postmaster>`` is the one address without a domain (RFC 5321 4.5.1): it is at ``hostname``.
    """
    path, rest = _split(argument, b"TO:")
    if path is None:
        raise Refused(RCPT_SYNTAX)
    if path.lower() == b"postmaster":
        path += b"@" + hostname.encode()
    address = _parse(path, smtputf8)
    return address, _wish(rest, smtputf8, is_extended) if rest else NO_WISH


def parse_chunk(argument: bytes) -> tuple[int, bool | None] | None:
    """``size [LAST]`` (RFC 3030 2): the octets that follow the command, and whether they are the last; None in place of that
    when it is malformed, None for all when not even the size is known."""
    chunk = _CHUNK.fullmatch(argument)
    if chunk is None:
        return None
    size, rest = chunk.groups(b"")
    word = rest.strip(b" ").upper()
    return int(size), None if word not in (b"", b"LAST") else word == b"LAST"


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


def _parameters(rest: bytes, is_extended: bool) -> Iterator[tuple[str, str | None]]:
    """Keyword and value of each parameter; None for one that has no value."""
    seen = set()
    for word in _words(rest):
        keyword, equals, value = word.partition("=")
        keyword = keyword.upper()
        if keyword in seen or (equals and not value):
            raise Refused(BAD_PARAMETER)
        seen.add(keyword)
        if not is_extended:
            raise Refused(UNKNOWN_PARAMETER, "parameters need EHLO")
        yield keyword, value if equals else None


def _words(rest: bytes) -> list[str]:
    """The parameters, each without control characters (RFC 5321 4.1.2: esmtp-value). UTF-8 may stand in ORCPT alone."""
    try:
        text = rest.decode()
    except UnicodeDecodeError:
        raise Refused(SYNTAX, "a parameter is not valid UTF-8") from None
    if not text.isprintable():
        raise Refused(SYNTAX, "a parameter has control characters")
    words = [word for word in text.split(" ") if word]
    if not text.isascii() and not all(word.isascii() or word[:6].upper() == "ORCPT=" for word in words):
        raise Refused(SYNTAX, "a parameter has characters beyond ASCII")
    return words


# --- of MAIL


def _unknown(_mail: MailFrom, _value: str | None) -> None:
    raise Refused(UNKNOWN_PARAMETER)


def _size(mail: MailFrom, value: str | None) -> None:
    if value is None or not value.isdigit() or len(value) > MAX_SIZE_DIGITS:
        raise Refused(BAD_PARAMETER, "SIZE is not a number")
    mail.size = int(value)


def _body(mail: MailFrom, value: str | None) -> None:
    mail.body = (value or "").upper()
    if mail.body == "BINARYMIME":
        raise Refused(BINARY_BODY)
    if mail.body not in _BODIES:
        raise Refused(BAD_PARAMETER, "BODY is neither 7BIT nor 8BITMIME")


def _smtputf8(mail: MailFrom, value: str | None) -> None:
    if value is not None:
        raise Refused(BAD_PARAMETER, "SMTPUTF8 has no value")
    mail.smtputf8 = True


def _auth(_mail: MailFrom, value: str | None) -> None:
    """Who submitted it first (RFC 4954 5); we trust no such claim."""
    if value is None:
        raise Refused(BAD_PARAMETER, "AUTH has no value")


def _ret(mail: MailFrom, value: str | None) -> None:
    mail.ret = (value or "").upper()
    if mail.ret not in _RETURNS:
        raise Refused(BAD_PARAMETER, "RET is neither FULL nor HDRS")


def _envid(mail: MailFrom, value: str | None) -> None:
    mail.envelope_id = value or ""
    if not is_envelope_id(mail.envelope_id):
        raise Refused(BAD_PARAMETER, "ENVID is no xtext of at most 100 characters")


def _require_tls(mail: MailFrom, value: str | None) -> None:
    if value is not None:
        raise Refused(BAD_PARAMETER, "REQUIRETLS has no value")
    mail.require_tls = True


_MAIL_PARAMETERS: dict[str, Callable[[MailFrom, str | None], None]] = {
    "SIZE": _size,
    "BODY": _body,
    "SMTPUTF8": _smtputf8,
    "AUTH": _auth,
    "RET": _ret,
    "ENVID": _envid,
    "REQUIRETLS": _require_tls,
}


# --- of RCPT


def _wish(rest: bytes, smtputf8: bool, is_extended: bool) -> Wish:
    notify = original = ""
    for keyword, value in _parameters(rest, is_extended):
        if keyword == "NOTIFY":
            notify = notify_of(value or "")
            if not notify:
                raise Refused(BAD_PARAMETER, "NOTIFY is neither NEVER nor a list of SUCCESS, FAILURE and DELAY")
        elif keyword == "ORCPT":
            original = value or ""
            if not is_original(original, smtputf8):
                raise Refused(BAD_PARAMETER, "ORCPT is no type;xtext of at most 500 characters")
        else:
            raise Refused(UNKNOWN_PARAMETER)
    return Wish(notify, original)
