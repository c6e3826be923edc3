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

MAX_INTEGER = 2**31 - 1  # 68 years in seconds, 2 GiB in bytes: no time-out or size beyond it works in every C library
MAX_TEXT_CHARS = 4096  # the longest path; addresses and names are shorter
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # lone surrogates too: they cannot be written anywhere
_NOT_IN_SECRET = re.compile(r"[\x00\r\n\ud800-\udfff]")  # RFC 4616 2: no NUL; a line break is a file of more than the secret
_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})


def is_secret_text(text: str) -> bool:
    """Whether ``text`` can be a password: one line of characters that can be sent."""
    return _NOT_IN_SECRET.search(text) is None


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
