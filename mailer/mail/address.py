"""Addresses: one strict parser, one serialiser, for both directions (RFC 5321 4.1.2, RFC 6531 3.3).

What the parser accepts, ``str()`` writes back unchanged; what it does not accept is refused, never repaired. No address
that parses can hold CR, LF, NUL, ``<``, ``>`` or an unquoted space, so none can end a command or add a parameter.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from dataclasses import dataclass, field

from mailer.mail.idna import to_ascii
from mailer.mail.outcome import MailerError

MAX_LOCAL_PART_OCTETS = 64  # RFC 5321 4.5.3.1.1
MAX_DOMAIN_OCTETS = 255  # RFC 5321 4.5.3.1.2
MAX_ADDRESS_OCTETS = 254  # RFC 5321 4.5.3.1.3: a path is 256 with its angle brackets

_ATEXT = r"A-Za-z0-9!#$%&'*+\-/=?^_`{|}~"
_UTF8 = "\u00a1-\ud7ff\ue000-\ufdcf\ufdf0-\ufffd\U00010000-\U0010fffd"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9\-]{0,61}[A-Za-z0-9])?"
_ULABEL = rf"[A-Za-z0-9{_UTF8}](?:[A-Za-z0-9\-{_UTF8}]{{0,61}}[A-Za-z0-9{_UTF8}])?"

_PLAIN = re.compile(rf"([{_ATEXT}]+(?:\.[{_ATEXT}]+)*)@({_LABEL}(?:\.{_LABEL})*)")
_DOT_STRING = re.compile(rf"[{_ATEXT}{_UTF8}]+(?:\.[{_ATEXT}{_UTF8}]+)*")
# qtextSMTP and quoted-pairSMTP. RFC 5321 allows < and > within quotes; they are refused, because a peer whose parser
# ends the path at the first > would read the rest as parameters.
_QUOTED = re.compile(rf'"(?:[ !#-;=?-\[\]-~{_UTF8}]|\\[ -;=?-~])*"')
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_UDOMAIN = re.compile(rf"{_ULABEL}(?:\.{_ULABEL})*")
_TAGGED_LITERAL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9\-]*[A-Za-z0-9])?:[!-;=?-Z^-~]+")  # dcontent without < and >
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\uffff"
    "\U000e0000-\U000e0fff]"
)

_SIGNS = frozenset(chr(code) for code in range(128) if not (chr(code).isalnum() or chr(code) in ".-"))


class AddressError(MailerError):
    """The text is not an RFC 5321 address; the message says where it goes wrong, without quoting control characters."""


@dataclass(frozen=True, slots=True)
class Address:
    """A mailbox, exactly as it was written. The null reverse-path is ``Address("", "")``, and false.

    ``local_part`` keeps its quotes if it had any; ``domain`` keeps its letter case and its brackets. ``text`` is what
    ``str()`` writes; ``domain_key`` is the domain for comparing: lower case, in its ASCII form (RFC 5890 A-labels) where
    it has one. Both are asked for many times a message, so they are made once.
    Make one with ``parse``; the constructor checks nothing.
    """

    local_part: str
    domain: str
    text: str = field(init=False, repr=False, compare=False)
    domain_key: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        text = f"{self.local_part}@{self.domain}" if self.local_part else ""
        object.__setattr__(self, "text", text)
        object.__setattr__(self, "domain_key", _key_of(self.domain))

    @classmethod
    def parse(cls, text: str, smtputf8: bool = False) -> Address:
        """The address that ``text`` is, without angle brackets. Raises AddressError.

        Characters beyond ASCII are accepted only with ``smtputf8`` (RFC 6531 3.3).
        """
        plain = _PLAIN.fullmatch(text)
        if plain is not None and len(text) <= MAX_ADDRESS_OCTETS:
            address = cls(plain[1], plain[2])
            if len(address.local_part) <= MAX_LOCAL_PART_OCTETS:
                return address
        return _parse_slowly(text, smtputf8)

    @property
    def needs_smtputf8(self) -> bool:
        return not (self.local_part.isascii() and self.domain.isascii())

    def __bool__(self) -> bool:
        return bool(self.local_part)

    def __str__(self) -> str:
        return self.text

    def to_path(self) -> bytes:
        """The path for MAIL and RCPT: ``<local@domain>``, or ``<>`` for the null reverse-path."""
        return f"<{self.text}>".encode()


def _key_of(domain: str) -> str:
    try:
        return to_ascii(domain)
    except ValueError:
        return domain.lower()


NULL_SENDER = Address("", "")


def _parse_slowly(text: str, smtputf8: bool) -> Address:
    """Everything that is not a short, plain ASCII address; and the reason when it is no address at all."""
    if not smtputf8 and not text.isascii():
        raise AddressError("address has characters beyond ASCII, which need the SMTPUTF8 parameter")
    if _INVISIBLE.search(text):
        raise AddressError("address has an invisible or space character")
    try:
        octets = len(text.encode())
    except UnicodeEncodeError:
        raise AddressError("address is not valid UTF-8") from None
    if octets > MAX_ADDRESS_OCTETS:
        raise AddressError(f"address is {octets} octets long; at most {MAX_ADDRESS_OCTETS} are allowed")
    local_part, domain = _split(text)
    if len(local_part.encode()) > MAX_LOCAL_PART_OCTETS:
        raise AddressError(f"local part is longer than {MAX_LOCAL_PART_OCTETS} octets")
    if len(domain.encode()) > MAX_DOMAIN_OCTETS:
        raise AddressError(f"domain is longer than {MAX_DOMAIN_OCTETS} octets")
    if domain.startswith("["):
        _check_literal(domain)
    elif _UDOMAIN.fullmatch(domain) is None or not _is_stable(domain):
        raise AddressError("domain is not a sequence of labels joined by dots")
    return Address(local_part, domain)


def _split(text: str) -> tuple[str, str]:
    pattern = _QUOTED if text.startswith('"') else _DOT_STRING
    match = pattern.match(text)
    if match is None:
        raise AddressError("local part is neither words joined by dots nor a quoted string")
    local_part, rest = match[0], text[match.end() :]
    if not rest.startswith("@"):
        raise AddressError("local part has a character that needs quotes" if rest else "expected @ and a domain behind it")
    if local_part == '""':
        raise AddressError("local part is empty")
    return local_part, rest[1:]


def _is_stable(domain: str) -> bool:
    """Whether no character turns into a dot or another sign where a resolver folds it (RFC 5891 5.2): ``ａ．ｂ`` has a dot."""
    if domain.isascii():
        return True
    folded = unicodedata.normalize("NFKC", domain).replace("\u3002", ".").replace("\uff61", ".")
    return folded.count(".") == domain.count(".") and not set(folded) & _SIGNS


def _check_literal(domain: str) -> None:
    """An address literal in brackets (RFC 5321 4.1.3)."""
    inner = domain[1:-1]
    if not domain.endswith("]"):
        raise AddressError("address literal has no closing bracket")
    try:
        if inner[:5].lower() == "ipv6:":
            if "%" in inner:
                raise ValueError
            ipaddress.IPv6Address(inner[5:])
        elif ":" in inner:
            if _TAGGED_LITERAL.fullmatch(inner) is None:
                raise ValueError
        else:
            ipaddress.IPv4Address(inner)
    except ValueError:
        raise AddressError("address literal is neither [IPv4], [IPv6:…] nor [tag:content]") from None


def is_domain(text: str) -> bool:
    """Whether ``text`` is an ASCII domain name or an address literal: what EHLO takes (RFC 5321 4.1.1.1)."""
    if text.startswith("["):
        try:
            _check_literal(text)
        except AddressError:
            return False
        return True
    return len(text) <= MAX_DOMAIN_OCTETS and _DOMAIN.fullmatch(text) is not None
