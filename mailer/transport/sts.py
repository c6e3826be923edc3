"""MTA-STS (RFC 8461) on paper: what a domain's TXT record and its policy say. Bytes in, values out.

No threads, no locks. What does not keep to the RFC is ``BadPolicy``, or a record that is not there.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from typing import NamedTuple

from mailer.mail.outcome import MailerError

POLICY_PATH = "/.well-known/mta-sts.txt"  # RFC 8461 3.3, at the host mta-sts.<domain>
MAX_MX_PATTERNS = 50  # of one policy; those of the largest providers have under ten
MAX_PATTERN_CHARS = 4096  # of all together: thousands of policies are kept, and whoever has domains to spare writes them
MAX_AGE_SECONDS = 31557600  # RFC 8461 3.2: the greatest value, about a year
MIN_AGE_SECONDS = 300
"""A policy that asks to be forgotten at once would be fetched for each message."""

_RECORD_ID = re.compile(r"[A-Za-z0-9]{1,32}")  # RFC 8461 3.1
_FIELD = re.compile(rb"([A-Za-z0-9][A-Za-z0-9_.-]{0,31})[ \t]*:(.*)")
"""RFC 8461 3.2. The blanks around the value are none of the pattern's: it would try each of 64 KB of them with all behind it."""
_PATTERN = re.compile(r"(?:\*\.)?[a-z0-9_](?:[a-z0-9_.-]{0,251}[a-z0-9])?")


class BadPolicy(MailerError):
    """A policy that does not keep to RFC 8461 3.2."""


class Mode(enum.Enum):
    """What a sender shall do where a server does not fit (RFC 8461 5)."""

    ENFORCE = "enforce"
    TESTING = "testing"
    NONE = "none"


class StsPolicy(NamedTuple):
    """``mx``: patterns in lower case. ``max_age_seconds``: within our bounds."""

    mode: Mode
    mx: tuple[str, ...]
    max_age_seconds: int

    def allows(self, host: str) -> bool:
        """Whether a pattern fits the name of an MX host. A star stands for one label, the leftmost (RFC 8461 4.1)."""
        name = host.lower().rstrip(".")
        parent = name.partition(".")[2]
        return any(name == pattern or (pattern[:2] == "*." and parent == pattern[2:]) for pattern in self.mx)

    def lines(self) -> list[str]:
        """The policy as a report cites it (RFC 8460 4.4)."""
        head = ["version: STSv1", f"mode: {self.mode.value}"]
        return [*head, *(f"mx: {pattern}" for pattern in self.mx), f"max_age: {self.max_age_seconds}"]


def id_of(records: Iterable[str]) -> str:
    """The id in the TXT records at ``_mta-sts``; empty where there is no policy, as with two records (RFC 8461 3.1)."""
    ours = [record for record in records if record.startswith("v=STSv1;")]
    if len(ours) != 1:
        return ""
    for part in ours[0].split(";")[1:]:
        key, _, value = part.partition("=")
        if key.strip() == "id":
            found = value.strip()
            return found if _RECORD_ID.fullmatch(found) else ""
    return ""


def parse(body: bytes) -> StsPolicy:
    """Raises BadPolicy."""
    first: dict[str, str] = {}
    patterns: list[str] = []
    for line in body.replace(b"\r\n", b"\n").split(b"\n"):
        if not line.strip():
            continue
        field = _FIELD.fullmatch(line)
        if field is None:
            raise BadPolicy(f"not a line of a policy: {line[:60]!r}")
        key, value = field[1].decode("ascii"), field[2].strip(b" \t").decode("utf-8", "replace")
        if key == "mx":
            patterns.append(_pattern(value))
        else:
            first.setdefault(key, value)  # RFC 8461 3.2: of a repeated field the first counts
        if len(patterns) > MAX_MX_PATTERNS or sum(map(len, patterns)) > MAX_PATTERN_CHARS:
            raise BadPolicy(f"more than {MAX_MX_PATTERNS} mx patterns, or {MAX_PATTERN_CHARS} characters of them")
    if first.get("version") != "STSv1":
        raise BadPolicy("version is not STSv1")
    mode = next((mode for mode in Mode if mode.value == first.get("mode")), None)
    if mode is None:
        raise BadPolicy("mode is not enforce, testing or none")
    if not patterns and mode is not Mode.NONE:
        raise BadPolicy("no mx pattern")
    return StsPolicy(mode, tuple(patterns), _age(first.get("max_age", "")))


def _pattern(text: str) -> str:
    pattern = text.lower().rstrip(".")
    if _PATTERN.fullmatch(pattern) is None:
        raise BadPolicy(f"not an mx pattern: {text[:60]!r}")
    return pattern


def _age(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", text):
        raise BadPolicy("max_age is not a number of seconds")
    return max(MIN_AGE_SECONDS, min(int(text), MAX_AGE_SECONDS))
