"""Owns what a setting's value may be: for each kind, how it is named, read from JSON and from an environment variable.

Immutable values; no threads, no locks. A value that does not fit raises ``Misfit``, which says what was expected.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mailer.config.secret import Secret
from mailer.mail.address import Address, AddressError, is_domain

MAX_INTEGER = 2**31 - 1  # 68 years in seconds, 2 GiB in bytes: no time-out or size beyond it works in every C library
MAX_TEXT_CHARS = 4096  # the longest path; addresses and names are shorter
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_HOST_NAME = re.compile(r"(?!-)[\w.-]{1,253}")  # with underscores: names of containers have them
_SELECTOR = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]{0,61}[a-z0-9_])?")
_FIELD_NAME = re.compile(r"[!-9;-~]{1,60}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # lone surrogates too: they cannot be written anywhere
_NOT_IN_SECRET = re.compile(r"[\x00\r\n\ud800-\udfff]")  # RFC 4616 2: no NUL; a line break is a file of more than the secret
_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})


def is_secret_text(text: str) -> bool:
    """Whether ``text`` can be a password: one line of characters that can be sent."""
    return _NOT_IN_SECRET.search(text) is None


def is_selector(text: str) -> bool:
    """Whether ``text`` is a DKIM selector as it is kept here: in lower case."""
    return _SELECTOR.fullmatch(text) is not None and ".." not in text


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Misfit(ValueError):
    """The value is not of the kind. ``str()`` is what was expected."""


class Kind(Protocol):
    """What one JSON value may be."""

    @property
    def expected(self) -> str:
        """In words, for errors and documentation: ``integer from 1 to 65535``."""
        ...

    @property
    def unit(self) -> str: ...

    def accept(self, value: object) -> object:
        """The setting's value for a JSON ``value`` (never null). Raises Misfit."""
        ...

    def from_text(self, text: str) -> object:
        """The JSON value that an environment variable's ``text`` (never empty) means. Raises Misfit."""
        ...


@dataclass(frozen=True, slots=True)
class Text:
    """A string without control characters. Spaces around it are dropped."""

    expected: str = "string"
    unit: str = ""

    def accept(self, value: object) -> object:
        if not isinstance(value, str):
            raise Misfit(self.expected)
        text = value.strip()
        if len(text) > MAX_TEXT_CHARS or _CONTROL.search(text):
            raise Misfit(f"{self.expected}, of at most {MAX_TEXT_CHARS} characters and no control characters")
        return self.check(text) if text else ""

    def check(self, text: str) -> str:
        """The form in which a non-empty ``text`` is kept."""
        return text

    def from_text(self, text: str) -> object:
        return text


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


@dataclass(frozen=True, slots=True)
class Flag:
    expected: str = "true or false"
    unit: str = ""

    def accept(self, value: object) -> object:
        if not isinstance(value, bool):
            raise Misfit(self.expected)
        return value

    def from_text(self, text: str) -> object:
        word = text.strip().lower()
        if word not in _TRUE | _FALSE:
            raise Misfit(self.expected)
        return word in _TRUE


@dataclass(frozen=True, slots=True)
class Integer:
    """A whole number from ``minimum`` to ``maximum``; what is at or below ``unset`` stands for the default."""

    minimum: int = 0
    maximum: int = MAX_INTEGER
    unit: str = ""
    unset: int | None = None

    @property
    def expected(self) -> str:
        if self.maximum == MAX_INTEGER:
            return "integer" if self.unset is not None else f"integer, {self.minimum} or more"
        return f"integer from {self.minimum} to {self.maximum}"

    def accept(self, value: object) -> object:
        if isinstance(value, bool) or not isinstance(value, int):
            raise Misfit("integer")
        if self.unset is not None and value <= self.unset:
            return None
        if not self.minimum <= value <= self.maximum:
            raise Misfit(f"integer from {self.minimum} to {self.maximum}" if value > self.maximum else self.expected)
        return value

    def from_text(self, text: str) -> object:
        if _INTEGER.fullmatch(text.strip()) is None:
            raise Misfit("integer")
        return int(text)


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words, in any letter case; kept as it is spelt here."""

    options: tuple[str, ...]
    unit: str = ""

    @property
    def expected(self) -> str:
        return " or ".join(f'"{option}"' for option in self.options)

    def accept(self, value: object) -> object:
        if value == "":
            return None
        if not isinstance(value, str) or value.strip().lower() not in self.options:
            raise Misfit(self.expected)
        return value.strip().lower()

    def from_text(self, text: str) -> object:
        return text


@dataclass(frozen=True, slots=True)
class NetworkText:
    expected: str = "network in CIDR notation, such as 172.17.0.0/16"
    unit: str = ""

    def accept(self, value: object) -> object:
        if not isinstance(value, str):
            raise Misfit(self.expected)
        try:
            return ipaddress.ip_network(value.strip())
        except ValueError:
            raise Misfit(self._nearest(value.strip())) from None

    def _nearest(self, text: str) -> str:
        try:
            return f"network in CIDR notation without host bits ({ipaddress.ip_network(text, strict=False)})"
        except ValueError:
            return self.expected

    def from_text(self, text: str) -> object:
        return text


@dataclass(frozen=True, slots=True)
class SecretText:
    """A string that is shown to nobody, or a reference: ``env:NAME`` or ``file:/path`` (resolved by the loader)."""

    expected: str = 'string, "env:NAME" or "file:/path"'
    unit: str = ""

    def accept(self, value: object) -> object:
        if not isinstance(value, str) or not is_secret_text(value):
            raise Misfit(self.expected)
        return Secret(value)

    def from_text(self, text: str) -> object:
        return text


@dataclass(frozen=True, slots=True)
class PathText(Text):
    """A file; a relative path starts at ``dataDir``."""

    expected: str = "path of a file"


@dataclass(frozen=True, slots=True)
class FolderPath(Text):
    expected: str = "path of a folder"

    def accept(self, value: object) -> object:
        text = Text.accept(self, value)
        return Path(str(text)) if text else ""
