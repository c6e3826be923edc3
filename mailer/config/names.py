"""Owns what a setting's value may be where it names something: hosts, domains, addresses, selectors, header fields.

Immutable values; no threads, no locks. A value that does not fit raises ``Misfit``, which says what was expected.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from mailer.config.kinds import Misfit, Text
from mailer.mail.address import Address, AddressError, is_domain

_HOST_NAME = re.compile(r"(?!-)[\w.-]{1,253}")  # with underscores: names of containers have them
_SELECTOR = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]{0,61}[a-z0-9_])?")
_FIELD_NAME = re.compile(r"[!-9;-~]{1,60}")


def is_selector(text: str) -> bool:
    """Whether ``text`` is a DKIM selector as it is kept here: in lower case."""
    return _SELECTOR.fullmatch(text) is not None and ".." not in text


@dataclass(frozen=True, slots=True)
class HostText(Text):
    """A host name or an IP address, without port or scheme; IPv6 with or without its brackets."""

    expected: str = "host name or IP address (without a port)"

    def check(self, text: str) -> str:
        bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
        if ":" in bare:
            try:
                return str(ipaddress.IPv6Address(bare))
            except ValueError:
                raise Misfit(self.expected) from None
        if bare is not text or _HOST_NAME.fullmatch(bare) is None:
            raise Misfit(self.expected)
        return bare


@dataclass(frozen=True, slots=True)
class DomainText(Text):
    """A domain name, kept in lower case and in its ASCII form (RFC 5890)."""

    expected: str = "domain name"

    def check(self, text: str) -> str:
        key = Address("", text.removesuffix(".")).domain_key
        if key.startswith("[") or not is_domain(key):
            raise Misfit(self.expected)
        return key


@dataclass(frozen=True, slots=True)
class PatternText(Text):
    """Names of hosts or domains: one name, all names below one, or all there are."""

    expected: str = 'domain name, "*." and a domain name for all names below it, or "*"'

    def check(self, text: str) -> str:
        if text == "*":
            return text
        star, name = ("*.", text[2:]) if text.startswith("*.") else ("", text)
        try:
            return star + DomainText().check(name)
        except Misfit:
            raise Misfit(self.expected) from None


@dataclass(frozen=True, slots=True)
class SelectorText(Text):
    """A DKIM selector: labels of the DNS record's name, and part of the name of the key's file (RFC 6376 3.1)."""

    expected: str = "DKIM selector: letters, digits, dots, - and _"

    def check(self, text: str) -> str:
        if not is_selector(text.lower()):
            raise Misfit(self.expected)
        return text.lower()


@dataclass(frozen=True, slots=True)
class FieldNameText(Text):
    """The name of a header field (RFC 5322 3.6.8), of a length that can be folded."""

    expected: str = "name of a header field"

    def check(self, text: str) -> str:
        if _FIELD_NAME.fullmatch(text) is None:
            raise Misfit(self.expected)
        return text


@dataclass(frozen=True, slots=True)
class EhloText(Text):
    """What EHLO takes: a domain name or an address literal (RFC 5321 4.1.1.1)."""

    expected: str = "domain name or address literal such as [192.0.2.1]"

    def check(self, text: str) -> str:
        if not is_domain(text):
            raise Misfit(self.expected)
        return text


@dataclass(frozen=True, slots=True)
class AddressText(Text):
    expected: str = "e-mail address, without a display name"

    def check(self, text: str) -> str:
        try:
            return str(Address.parse(text, smtputf8=True))
        except AddressError:
            raise Misfit(self.expected) from None


@dataclass(frozen=True, slots=True)
class NameserverText(Text):
    expected: str = 'IP address, or "ip:port" ("[ip]:port" for IPv6)'

    def check(self, text: str) -> str:
        host, port = text, ""
        if text.startswith("["):
            host, _, port = text[1:].partition("]")
        elif text.count(":") == 1:
            host, port = text.split(":")
            port = f":{port}"
        try:
            ipaddress.ip_address(host)
        except ValueError:
            raise Misfit(self.expected) from None
        if port and not (re.fullmatch(r":[0-9]{1,5}", port) and 1 <= int(port[1:]) <= 65535):
            raise Misfit(self.expected)
        return text
