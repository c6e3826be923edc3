"""The text forms of the DSN extension's parameters: xtext, NOTIFY, and the addresses of ORCPT (RFC 3461 4, RFC 6533 3).

Functions without threads, locks or failures: what is malformed is told by a False or an empty string. What passes here
holds no space, no control character and no line end, encoded ones included, so it can stand in a command and, decoded, in
a field of a report.
"""

from __future__ import annotations

import re

from mailer.mail.address import Address

MAX_ENVELOPE_ID_OCTETS = 100  # RFC 3461 4.4
MAX_ORIGINAL_OCTETS = 500  # RFC 3461 4.2
_MAX_CODE_POINT = 0x10FFFF

_HEX = r"\+(?:[2-6][0-9A-F]|7[0-9A-E])"  # RFC 3461 4.2 and 4.4: what is encoded is printable ASCII, the space among it
_XTEXT = re.compile(rf"(?:[!-*,-<>-~]|{_HEX})+")
_PLAIN = re.compile(r"[!-*,-<>-~]+")
_TYPE = re.compile(r"[A-Za-z0-9!#$%&'*/?^_`{|}~-]+")  # RFC 3461 4.2: an atom; "=" and "+" have a meaning of their own here
_UTF8_ADDRESS = re.compile(rf"(?:[!-*,-<>-\[\]-~\u0080-\U0010ffff]|{_HEX}|\\x\{{[0-9A-F]{{2,6}}\}})+")
_ENCODED = re.compile(r"\+([0-9A-F]{2})")
_CODE_POINT = re.compile(r"\\x\{([0-9A-F]{2,6})\}")
_NOTIFY = ("SUCCESS", "FAILURE", "DELAY")


def encode(text: str) -> str:
    """Printable ASCII as xtext."""
    if _PLAIN.fullmatch(text):
        return text
    return "".join(char if "!" <= char <= "~" and char not in "+=" else f"+{ord(char):02X}" for char in text)


def decode(text: str) -> str:
    """What an xtext means; what is none comes back as it is."""
    return _ENCODED.sub(lambda match: chr(int(match[1], 16)), text)


def is_envelope_id(text: str) -> bool:
    """Whether ``text`` may be ENVID's value."""
    return len(text) <= MAX_ENVELOPE_ID_OCTETS and _XTEXT.fullmatch(text) is not None


def notify_of(text: str) -> str:
    """NOTIFY's value in one spelling: ``"NEVER"``, or some of SUCCESS, FAILURE and DELAY; empty when it is malformed."""
    text = text.upper()
    words = text.split(",")
    if text == "NEVER" or not set(words) <= set(_NOTIFY):  # RFC 3461 4.1: NEVER stands alone
        return text if text == "NEVER" else ""
    return ",".join(word for word in _NOTIFY if word in words)


def is_original(text: str, allows_utf8: bool = True) -> bool:
    """Whether ``text`` may be ORCPT's value: ``type;address``. ``allows_utf8``: as UTF-8, which needs SMTPUTF8 (RFC 6533 3)."""
    kind, separator, address = text.partition(";")
    if not separator or len(text.encode("utf-8", "replace")) > MAX_ORIGINAL_OCTETS or _TYPE.fullmatch(kind) is None:
        return False
    if kind.lower() != "utf-8":
        return _XTEXT.fullmatch(address) is not None
    if _UTF8_ADDRESS.fullmatch(address) is None or not (allows_utf8 or address.isascii()):
        return False
    return plain_original(text).isprintable()


def plain_original(text: str) -> str:
    """ORCPT's value as people write it: ``type;address`` with nothing encoded, for a field of a report (RFC 3464 2.3.1)."""
    kind, _, address = text.partition(";")
    if kind.lower() == "utf-8":
        address = _CODE_POINT.sub(_character, address)
    return f"{kind};{decode(address)}"


def ascii_original(text: str) -> str:
    """The same address for a peer without SMTPUTF8: characters beyond ASCII as code points (RFC 6533 3)."""
    return text if text.isascii() else "".join(char if char.isascii() else f"\\x{{{ord(char):02X}}}" for char in text)


def original_of(address: Address) -> str:
    """ORCPT for a recipient who came without one (RFC 3461 5.2.1 (c)), in ASCII."""
    text = address.text
    if text.isascii():
        return f"rfc822;{encode(text)}"
    return "utf-8;" + "".join(char if "!" <= char <= "~" and char not in "+=\\" else f"\\x{{{ord(char):02X}}}" for char in text)


def _character(match: re.Match[str]) -> str:
    """A code point's character; a NUL, which passes nowhere, for what is none."""
    value = int(match[1], 16)
    return chr(value) if value <= _MAX_CODE_POINT else "\0"
