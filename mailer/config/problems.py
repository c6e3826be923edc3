"""Owns how faults of a configuration are told: all at once, each with its place, none with a secret in it.

Used by one thread at a time; no locks. ``ConfigError`` is what ``load`` fails with.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from mailer.mail.outcome import MailerError

EX_CONFIG = 78
"""Exit status for a configuration that cannot be used (sysexits.h)."""

MAX_NOTES = 100  # of either sort: nobody reads more, and a hostile file must not fill the memory
_MAX_SHOWN_CHARS = 60
_MAX_SHOWN_PATH_CHARS = 500


class ConfigError(MailerError):
    """The configuration cannot be used. ``problems`` holds one line for each fault."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


class Notes:
    """The problems and warnings found so far, each a line that begins with its place."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.warnings: list[str] = []

    def __repr__(self) -> str:
        return f"Notes(problems={len(self.problems)}, warnings={len(self.warnings)})"

    @property
    def is_full(self) -> bool:
        return len(self.problems) > MAX_NOTES

    def problem(self, place: str, text: str) -> None:
        self._add(self.problems, place, text)

    def warning(self, place: str, text: str) -> None:
        self._add(self.warnings, place, text)

    def _add(self, lines: list[str], place: str, text: str) -> None:
        if len(lines) < MAX_NOTES:
            lines.append(f"{place}: {text}" if place else text)
        elif len(lines) == MAX_NOTES:
            lines.append("… and more")


def shown(value: object, limit_chars: int = _MAX_SHOWN_CHARS) -> str:
    """A JSON value as an error may show it: short, on one line, without control characters."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str) and len(value) > limit_chars:
        value = value[:limit_chars] + "…"
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() else json.dumps(value)


def shown_path(path: Path | str) -> str:
    """The name of a file as an error may show it."""
    return shown(str(path), _MAX_SHOWN_PATH_CHARS)


def shown_type(value: object) -> str:
    """The type of a JSON value, for places whose value may hold a secret."""
    if isinstance(value, dict | list):
        return shown(value)
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return "a string" if isinstance(value, str) else "a number"
