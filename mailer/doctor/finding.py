"""What a check has found, as a value: a status, a sentence, and what to do. Owns how foreign words in it are made harmless.

Immutable; no threads, no locks; never fails. Much of a finding comes from DNS and from servers: whatever a terminal would
obey is written as an escape, and no text is longer than a line that a person reads.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

MAX_TEXT_CHARS = 600  # a TXT record may hold 64 KiB; nobody reads more than this of it


class Status(enum.Enum):
    """How bad it is; the value is what people and programs see."""

    OK = "ok"
    SKIPPED = "skipped"
    WARNING = "warning"
    FAILED = "failed"


_WEIGHT = {Status.SKIPPED: 0, Status.OK: 1, Status.WARNING: 2, Status.FAILED: 3}


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check has found. ``do`` is what a person should do, empty where nothing is to be done."""

    status: Status
    text: str
    do: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", harmless(self.text))
        object.__setattr__(self, "do", harmless(self.do))


def ok(text: str) -> Finding:
    return Finding(Status.OK, text)


def skipped(text: str) -> Finding:
    return Finding(Status.SKIPPED, text)


def warning(text: str, do: str) -> Finding:
    return Finding(Status.WARNING, text, do)


def failed(text: str, do: str) -> Finding:
    return Finding(Status.FAILED, text, do)


def worst_of(findings: Iterable[Finding]) -> Finding:
    """Several findings of one check as one: all that is wrong, worst first; what is in order only where nothing is wrong."""
    ordered = sorted(findings, key=lambda finding: -_WEIGHT[finding.status])
    worst = ordered[0].status
    told = [finding for finding in ordered if finding.status in (Status.WARNING, Status.FAILED)] or ordered
    return Finding(worst, _joined(f.text for f in told), _joined(f.do for f in told))


def _joined(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(text for text in texts if text))


def harmless(text: str) -> str:
    """``text`` on one line, short, without a character that a terminal obeys or that cannot be seen."""
    if len(text) > MAX_TEXT_CHARS:
        text = text[:MAX_TEXT_CHARS] + "…"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
