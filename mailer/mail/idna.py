"""Domain names beyond ASCII: the one form in which they are compared and asked for in DNS (RFC 5890, A-labels).

IDNA 2008, as registries and browsers have it. Python's own ``idna`` codec is that of 2003: it turns ``straße.example`` into
``strasse.example``, which is somebody else's domain, and knows no character newer than 2002. Pure; raises ValueError alone.
"""

from __future__ import annotations

import re
import unicodedata

MAX_LABEL_OCTETS = 63  # RFC 1035 2.3.4

_DOTS = re.compile("[.\u3002\uff0e\uff61]")  # RFC 3490 3.1: what people type for a dot
_LDH = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?")
_BEYOND_NAMES = frozenset("CZ")  # control, format, unassigned, private; separators (RFC 5892 2)


def to_ascii(domain: str) -> str:
    """``domain`` in lower case with its labels in ASCII. Raises ValueError where a label beyond ASCII is none.

    What a registry would refuse but DNS can hold (an emoji) is let through: it is looked up, not registered (UTS #46).
    """
    if domain.isascii():
        return domain.lower()
    return ".".join(_label_to_ascii(label) for label in _DOTS.split(domain))


def _label_to_ascii(label: str) -> str:
    # Twice, since lower case may bring forth what is not composed. Not casefold(), which knows no ß (RFC 5895 2).
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", label).lower())
    if not plain.isascii():
        if unicodedata.category(plain[0])[0] == "M" or any(map(_is_refused, plain)):
            raise ValueError(f"{label!a} is not a label of a domain name")
        plain = "xn--" + plain.encode("punycode").decode("ascii")
    if not _LDH.fullmatch(plain) or len(plain) > MAX_LABEL_OCTETS:
        raise ValueError(f"{label!a} is not a label of a domain name")
    return plain


def _is_refused(character: str) -> bool:
    if character.isascii():
        return not (character.isalnum() or character in "-_")
    return unicodedata.category(character)[0] in _BEYOND_NAMES
