"""The MTA-STS policies that are known (RFC 8461): found through DNS, fetched over HTTPS, kept in memory and on disk.

A policy outlives a restart and a domain whose DNS or web server fails, until its ``max_age`` is over. Files are named by a
digest of the domain, written whole under another name and renamed; one that cannot be read is as good as none.

Any thread may ask. One condition guards the policies and says which domains are being fetched: one thread fetches for a
domain, whoever wants the same one waits for it, nobody else does. Nothing is fetched, read or written under the lock. It
fails with nothing: no policy is an answer too, and says why.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from mailer.dns.lookup import Answer, Status
from mailer.transport.https import TOTAL_SECONDS, Https, HttpsError
from mailer.transport.sts import POLICY_PATH, BadPolicy, StsPolicy, id_of, parse
from mailer.transport.tlsrpt import Result

log = logging.getLogger(__name__)

MAX_POLICIES = 5000
"""The world had a few tens of thousands of domains with one in 2024; who writes to more of them fetches some again."""
MAX_FAILURES = 1000  # remembered; beyond, the oldest is forgotten and that domain asked again
RETRY_SECONDS = 300.0  # after a failed fetch (RFC 8461 3.3: five minutes or longer)
REFRESH_SECONDS = 86400.0  # RFC 8461 10.2 has a sender look daily, lest a policy run out while somebody blocks the host
STEP_SECONDS = 600.0
REFRESHES_A_STEP = 20
MAX_FILE_BYTES = 65536
WAIT_SECONDS = TOTAL_SECONDS + 5.0  # for the thread that fetches: its request is over by then


class Held(NamedTuple):
    """A policy as it was fetched at ``fetched_at`` (Unix seconds) under the ``id`` of that time."""

    id: str
    policy: StsPolicy
    fetched_at: float

    def is_valid(self, now: float) -> bool:
        """A clock that was set back makes it look too new: then it is fetched again."""
        return 0 <= now - self.fetched_at < self.policy.max_age_seconds


class Found(NamedTuple):
    """A domain's policy, if it has one. ``failure``: what kept us from the one that it announces."""

    policy: StsPolicy | None
    failure: Result | None = None
    why: str = ""


_NONE = Found(None)


class StsCache:
    """The policies. ``txt`` asks DNS. ``allow_private``: a policy's host may stand in a private network."""

    def __init__(
        self, folder: Path, txt: Callable[[str], Answer[str]], https: Https, clock: Callable[[], float]
    ) -> None:
        self._folder = folder
        self._txt = txt
        self._https = https
        self._clock = clock
        self.allow_private = False
        self._changed = threading.Condition()  # guards all below
        self._held: dict[str, Held] = {}
        self._used: set[str] = set()  # since they were fetched
        self._fetching: set[str] = set()
        self._failed: dict[str, tuple[float, Found]] = {}  # and when to try again

    def __repr__(self) -> str:
        return f"StsCache(policies={len(self._held)}, fetching={len(self._fetching)})"

    def find(self, domain: str) -> Found:
        """What holds for ``domain`` now. Asks DNS, and may fetch."""
        now = self._clock()
        with self._changed:
            held = self._held.get(domain)
            if held is not None:
                self._used.add(domain)
        kept = Found(held.policy) if held is not None and held.is_valid(now) else _NONE
        answer = self._txt(f"_mta-sts.{domain}")
        announced = id_of(answer.records) if answer.status is Status.FOUND else ""
        if not announced or (held is not None and kept.policy is not None and held.id == announced):
            return kept  # RFC 8461 5.1: without an announcement, what is still valid holds
        return self._fetched(domain, announced, held, kept)

    def _fetched(self, domain: str, announced: str, seen: Held | None, kept: Found) -> Found:
        """What is announced, fetched by this thread or another; else what is kept, with the reason. ``seen``: what was held
        when this thread looked."""
        with self._changed:
            held = self._held.get(domain)
            if held is not None and held is not seen:
                return self._known(domain, kept)  # somebody has fetched since
            if domain in self._fetching:
                if kept.policy is None:
                    self._changed.wait_for(lambda: domain not in self._fetching, WAIT_SECONDS)
                return self._known(domain, kept)
            again_at, failure = self._failed.get(domain, (0.0, _NONE))
            if 0 < again_at - self._clock() <= RETRY_SECONDS:
                return kept._replace(failure=failure.failure, why=failure.why)
            self._fetching.add(domain)
        held, failure = None, _NONE
        try:
            held, failure = self._fetch(domain, announced)
        finally:
            with self._changed:
                self._fetching.discard(domain)
                self._note(domain, held, failure)
                self._changed.notify_all()
        if held is None:
            log.warning("sts.fetch_failed domain=%s reason=%r", domain, failure.why)
            return kept._replace(failure=failure.failure, why=failure.why)
        log.info("sts.policy domain=%s mode=%s id=%s max_age=%d", domain, *_summary(held))
        self._write(domain, held)
        return Found(held.policy)

    def _known(self, domain: str, kept: Found) -> Found:
        """After another thread has fetched. The caller holds the lock."""
        held = self._held.get(domain)
        if held is not None and held.is_valid(self._clock()):
            return Found(held.policy)
        _, failure = self._failed.get(domain, (0.0, _NONE))
        return kept._replace(failure=failure.failure, why=failure.why)

    def _fetch(self, domain: str, announced: str) -> tuple[Held | None, Found]:
        """The policy, or why there is none."""
        try:
            response = self._https.get(f"mta-sts.{domain}", POLICY_PATH, self.allow_private)
            if response.status != 200:  # RFC 8461 3.3: redirects are not followed
                return None, Found(None, Result.FETCH_ERROR, f"answered {response.status}")
            if response.kind != "text/plain":  # RFC 8461 3.2: lest a page that users can write to sets a policy
                return None, Found(None, Result.FETCH_ERROR, f"is {response.kind[:60] or 'of no type'}, not text/plain")
            return Held(announced, parse(response.body), self._clock()), _NONE
        except HttpsError as error:
            result = Result.WEBPKI_INVALID if error.is_certificate else Result.FETCH_ERROR
            return None, Found(None, result, str(error))
        except BadPolicy as error:
            return None, Found(None, Result.POLICY_INVALID, str(error))

    def _note(self, domain: str, held: Held | None, failure: Found) -> None:
        """The caller holds the lock."""
        self._failed.pop(domain, None)
        if held is None:
            if len(self._failed) >= MAX_FAILURES:
                del self._failed[next(iter(self._failed))]
            self._failed[domain] = (self._clock() + RETRY_SECONDS, failure)
            return
        self._used.discard(domain)
        self._held[domain] = held
        if len(self._held) > MAX_POLICIES:
            oldest = min(self._held, key=lambda name: self._held[name].fetched_at)
            del self._held[oldest]
            self._used.discard(oldest)

    # before they run out

    def step(self, now: float) -> float:
        """Fetch again what is in use and a day old, or half through its life; forget what has run out. Returns seconds."""
        with self._changed:
            expired = [domain for domain, held in self._held.items() if not held.is_valid(now)]
            for domain in expired:
                del self._held[domain]
                self._used.discard(domain)
            due = [domain for domain in self._used if self._is_due(self._held.get(domain), now)][:REFRESHES_A_STEP]
        for domain in due:
            answer = self._txt(f"_mta-sts.{domain}")
            with self._changed:
                held = self._held.get(domain)
            if held is not None:
                self._fetched(domain, id_of(answer.records) or held.id, held, Found(held.policy))
        self._sweep()
        return STEP_SECONDS

    @staticmethod
    def _is_due(held: Held | None, now: float) -> bool:
        return held is not None and now - held.fetched_at >= min(REFRESH_SECONDS, held.policy.max_age_seconds / 2)

    # the files

    def load(self) -> None:
        """Take up what is on disk."""
        try:
            paths = sorted(self._folder.glob("*.json"))[:MAX_POLICIES]
        except OSError:
            return
        found: dict[str, Held] = {}
        for path in paths:
            try:
                with path.open("rb") as file:
                    row = json.loads(file.read(MAX_FILE_BYTES))
                held = Held(str(row["id"]), parse(row["policy"].encode()), float(row["fetched_at"]))
                if self._path(row["domain"]) == path:
                    found[row["domain"]] = held
            except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, BadPolicy) as error:
                log.warning("sts.unreadable file=%s error=%r", path, str(error))  # the next sweep removes it
        with self._changed:
            self._held = found | self._held

    def _path(self, domain: str) -> Path:
        return self._folder / f"{hashlib.sha256(domain.encode()).hexdigest()[:40]}.json"

    def _write(self, domain: str, held: Held) -> None:
        """What cannot be written serves from memory."""
        path = self._path(domain)
        temporary = path.with_suffix(".tmp")  # one thread at a time fetches for a domain, so one writes
        row = {"domain": domain, "id": held.id, "fetched_at": held.fetched_at, "policy": "\n".join(held.policy.lines())}
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with temporary.open("w") as file:
                file.write(json.dumps(row))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            log.warning("sts.not_stored domain=%s error=%r", domain, error.strerror or str(error))

    def _sweep(self) -> None:
        """Remove the files of policies that are no longer held: one is held before its file is written."""
        try:
            there = list(self._folder.glob("*.json"))
            with self._changed:
                kept = {self._path(domain).name for domain in self._held}
            for path in there:
                if path.name not in kept:
                    path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("sts.sweep_failed folder=%s error=%r", self._folder, error.strerror or str(error))


def _summary(held: Held) -> tuple[str, str, int]:
    return held.policy.mode.value, held.id, held.policy.max_age_seconds
