"""The case that is examined: whose mail, from where, with which configuration, and what the checks learn for each other.

``Case`` is immutable. ``Sightings`` is written by any thread; one lock guards it. Nothing here fails.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from pathlib import Path

from mailer.config.schema import Config
from mailer.dns.lookup import Dns
from mailer.dns.places import IpAddress
from mailer.transport.https import PORT
from mailer.transport.tls import TrustStore

_DATE = re.compile(r"(?:[A-Z][a-z]{2}, +)?\d{1,2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}(?::\d{2})? (?:[+-]\d{4}|GMT|UTC)", re.ASCII)
MAX_GREETING_CHARS = 1000


@dataclass(frozen=True, slots=True)
class Target:
    """A mail server to try a connection to."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Sighting:
    """A clock of another that was seen: by how many seconds it is ahead of ours."""

    whose: str
    ahead_seconds: float


class Sightings:
    """The clocks that were seen while something else was asked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _seen
        self._seen: list[Sighting] = []

    def __repr__(self) -> str:
        return f"Sightings({self.seen})"

    @property
    def seen(self) -> tuple[Sighting, ...]:
        with self._lock:
            return tuple(self._seen)

    def note(self, whose: str, text: str, now: float) -> None:
        """Note the date, as RFC 5322 writes it, in a server's greeting, if it has one."""
        found = _DATE.search(text[:MAX_GREETING_CHARS])
        if found is None:
            return
        try:
            date = parsedate_to_datetime(found[0])
            seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError, TypeError):  # what looks like a date need not be one: 31 Feb
            return
        with self._lock:
            self._seen.append(Sighting(whose, seconds - now))


@dataclass(frozen=True)
class Case:
    """What is examined.

    ``domain``: lower case, ASCII; empty where none is known. ``addresses``: ours towards the internet; ``has_given_addresses``:
    somebody named them, so they are what others see. ``targets``: servers to try instead of the domain's own. ``https_port``: of
    the domain's policy.
    """

    config: Config
    config_path: Path
    domain: str
    addresses: tuple[IpAddress, ...]
    has_given_addresses: bool
    targets: tuple[Target, ...]
    dns: Dns
    trust_store: TrustStore
    sightings: Sightings
    open_files_wanted: int
    https_port: int = PORT
    clock: Callable[[], float] = time.time

    @property
    def ehlo_name(self) -> str:
        """The name that recipients' servers hear."""
        return self.config.direct_delivery.ehlo_domain or self.config.hostname
