"""Macros of SPF records: expanded for the domains that mechanisms name (RFC 7208 7). No state, no threads; never fails."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote

from mailer.dns.places import IpAddress

MAX_DOMAIN_CHARS = 253  # RFC 7208 7.3: a longer one loses labels from its left

_MACRO = re.compile(r"%(?:([%_-])|\{([A-Za-z])([0-9]*)([rR]?)([.\-+,/_=]*)\})", re.ASCII)
_PLAIN = {"%": "%", "_": " ", "-": "%20"}


@dataclass(frozen=True, slots=True)
class Asked:
    """Of whom the question is: the address that connects, the envelope sender, and the name in EHLO."""

    address: IpAddress
    local_part: str
    sender_domain: str
    helo: str

    def expand(self, text: str, domain: str) -> str:
        """``text`` with its macros replaced, for the record of ``domain``."""
        expanded = _MACRO.sub(lambda match: self._value_of(match, domain), text).rstrip(".")
        if len(expanded) > MAX_DOMAIN_CHARS:  # a record of 16 KB may come to megabytes
            expanded = expanded[-MAX_DOMAIN_CHARS - 1 :].partition(".")[2]
        return expanded

    def _value_of(self, match: re.Match[str], domain: str) -> str:
        if match[1]:
            return _PLAIN[match[1]]
        letter, count, is_reversed, delimiters = match[2], match[3], bool(match[4]), match[5] or "."
        parts = re.split(f"[{re.escape(delimiters)}]", self._letter(letter.lower(), domain))
        if is_reversed:
            parts.reverse()
        if count:  # at least 1 (RFC 7208 7.3)
            parts = parts[-int(count[:4]) :]
        value = ".".join(parts)
        return quote(value, safe="-._~") if letter.isupper() else value

    def _letter(self, letter: str, domain: str) -> str:
        match letter:
            case "s":
                return f"{self.local_part}@{self.sender_domain}"
            case "l":
                return self.local_part
            case "o":
                return self.sender_domain
            case "d":
                return domain
            case "i":
                return _dotted(self.address)
            case "v":
                return "in-addr" if self.address.version == 4 else "ip6"
            case "h":
                return self.helo
        return "unknown"  # RFC 7208 7.2: what "p" becomes where names are not looked up; "c", "r", "t" are for exp= alone


def _dotted(address: IpAddress) -> str:
    """``192.0.2.1``, or the nibbles of an IPv6 address with dots between."""
    return str(address) if address.version == 4 else ".".join(address.exploded.replace(":", ""))
