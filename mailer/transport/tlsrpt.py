"""What became of TLS, counted by UTC day and policy domain, for the daily reports of RFC 8460.

Any thread counts; one lock guards the counts. They are written to one file now and then and read at the start: a crash
forgets what was counted since. Everything is bounded: beyond, sessions count in no total and failures in the totals alone. A
file that cannot be read is begun anew, and the log says so.
"""

from __future__ import annotations

import enum
import json
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

log = logging.getLogger(__name__)

DAY_SECONDS = 86400
MAX_DOMAINS = 2000  # of one day; a report each is already a night's work
MAX_POLICIES = 4  # of one domain and day: a policy may change, and each MX host has TLSA records of its own
MAX_DETAILS = 20  # of one policy: kinds of failure by host and address
MAX_REASON_CHARS = 200
MAX_DAYS = 3  # kept: today's, yesterday's that is being reported, and one more where that failed
MAX_FILE_BYTES = 64 << 20


class Result(enum.Enum):
    """What went wrong (RFC 8460 4.3)."""

    STARTTLS_NOT_SUPPORTED = "starttls-not-supported"
    HOST_MISMATCH = "certificate-host-mismatch"
    EXPIRED = "certificate-expired"
    NOT_TRUSTED = "certificate-not-trusted"
    VALIDATION_FAILURE = "validation-failure"
    TLSA_INVALID = "tlsa-invalid"
    DNSSEC_INVALID = "dnssec-invalid"
    FETCH_ERROR = "sts-policy-fetch-error"
    POLICY_INVALID = "sts-policy-invalid"
    WEBPKI_INVALID = "sts-webpki-invalid"


class PolicyName(NamedTuple):
    """The policy that a session was held to (RFC 8460 4.2). ``kind``: ``"tlsa"``, ``"sts"`` or ``"no-policy-found"``."""

    domain: str
    kind: str = "no-policy-found"
    lines: tuple[str, ...] = ()
    mx: tuple[str, ...] = ()


class Detail(NamedTuple):
    """A failure, as far as it is told apart from others."""

    result: Result
    host: str = ""
    address: str = ""
    our_address: str = ""
    reason: str = ""


@dataclass
class Counts:
    """Of one policy and day."""

    successes: int = 0
    failures: int = 0
    details: dict[Detail, int] = field(default_factory=dict)


Day = int
"""UTC days since 1970."""

Counted = dict[str, dict[PolicyName, Counts]]
"""Of one day, by policy domain."""


class Tally:
    """The counts of the last days. ``path``: the file that they are kept in."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._path = path
        self._clock = clock
        self.is_counting = False  # whether reports are wanted; replaced by a new configuration
        self._lock = threading.Lock()  # guards all below
        self._days: dict[Day, Counted] = {}
        self._is_saved = True

    def __repr__(self) -> str:
        return f"Tally({ {day: len(counted) for day, counted in self._days.items()} })"

    def success(self, policy: PolicyName) -> None:
        """A session had the TLS that the policy asks for."""
        if not self.is_counting:
            return
        with self._lock:
            counts = self._counts(policy)
            if counts is not None:
                counts.successes += 1

    def failure(self, policy: PolicyName, detail: Detail) -> None:
        """A session had not, whatever was done about it."""
        if not self.is_counting:
            return
        detail = detail._replace(reason=detail.reason[:MAX_REASON_CHARS])
        with self._lock:
            counts = self._counts(policy)
            if counts is None:
                return
            counts.failures += 1
            if detail in counts.details or len(counts.details) < MAX_DETAILS:
                counts.details[detail] = counts.details.get(detail, 0) + 1

    def _counts(self, policy: PolicyName) -> Counts | None:
        """The caller holds the lock."""
        counted = self._days.setdefault(day_of(self._clock()), {})
        policies = counted.get(policy.domain)
        if policies is None:
            if len(counted) >= MAX_DOMAINS:
                return None
            policies = counted[policy.domain] = {}
        counts = policies.get(policy)
        if counts is None:
            if len(policies) >= MAX_POLICIES:
                return None
            counts = policies[policy] = Counts()
        self._is_saved = False
        return counts

    # days that are over

    def domains_before(self, day: Day) -> list[tuple[Day, str]]:
        """What is to be reported, the oldest first; days that are too old are forgotten."""
        with self._lock:
            for old in [d for d in self._days if d <= day - MAX_DAYS]:
                del self._days[old]
                self._is_saved = False
            return [(d, domain) for d in sorted(self._days) if d < day for domain in self._days[d]]

    def of(self, day: Day, domain: str) -> dict[PolicyName, Counts]:
        """The counts of a day that is over: nothing changes them."""
        with self._lock:
            return self._days.get(day, {}).get(domain, {})

    def forget(self, day: Day, domain: str) -> None:
        """They were reported, or nobody wants to know."""
        with self._lock:
            counted = self._days.get(day, {})
            counted.pop(domain, None)
            if not counted:
                self._days.pop(day, None)
            self._is_saved = False

    # the file

    def load(self) -> None:
        """Take up what an earlier run counted."""
        try:
            with self._path.open("rb") as file:
                days = _of_json(json.loads(file.read(MAX_FILE_BYTES)))
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            log.warning("tlsrpt.unreadable file=%s error=%r do=%r", self._path, str(error), "counting begins anew")
            return
        with self._lock:
            self._days = days | self._days

    def save(self) -> None:
        """Write the counts down if they changed. Where that fails they stay in memory, and the log says so."""
        with self._lock:
            if self._is_saved:
                return
            text = json.dumps(_to_json(self._days), separators=(",", ":"))
            self._is_saved = True
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Two threads may save at once, at the end: the last one wins.
            temporary = self._path.with_name(f".{self._path.name}.{threading.get_ident()}.tmp")
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(text)
            temporary.replace(self._path)  # without fsync: what is lost are counts
        except OSError as error:
            log.warning("tlsrpt.not_stored file=%s error=%r", self._path, error.strerror or str(error))
            with self._lock:
                self._is_saved = False


def day_of(now: float) -> Day:
    """The UTC day of a Unix time."""
    return int(now // DAY_SECONDS)


def _to_json(days: dict[Day, Counted]) -> list[object]:
    return [
        [day, list(policy), counts.successes, counts.failures, [[d.result.value, *d[1:], n] for d, n in counts.details.items()]]
        for day, counted in days.items()
        for policies in counted.values()
        for policy, counts in policies.items()
    ]


def _of_json(rows: Any) -> dict[Day, Counted]:
    """Raises one of many errors for what ``_to_json`` did not write."""
    days: dict[Day, Counted] = {}
    for day, (domain, kind, lines, mx), successes, failures, details in rows:
        policy = PolicyName(str(domain), str(kind), tuple(map(str, lines)), tuple(map(str, mx)))
        counts = Counts(int(successes), int(failures))
        for result, host, address, our_address, reason, number in details:
            counts.details[Detail(Result(result), str(host), str(address), str(our_address), str(reason))] = int(number)
        days.setdefault(int(day), {}).setdefault(policy.domain, {})[policy] = counts
    return days
