"""The listener's login: who may say they are whom, and how long a wrong guess waits (RFC 4954, spec 2).

``Credentials`` is a value. ``FailedLogins`` counts by address under one lock, and is bounded: beyond
``MAX_ADDRESSES`` the address that failed longest ago is forgotten.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
from collections import OrderedDict
from dataclasses import dataclass

from mailer.config.schema import Config, Secret

FREE_FAILURES = 5
"""Wrong logins answered at once: a person with a typo, or an application with last month's password."""
FIRST_DELAY_SECONDS = 1.0
MAX_DELAY_SECONDS = 30.0
"""Doubled with each failure up to this: 2,880 guesses a day, and well under the 5 minutes a client waits for a reply."""
MAX_ADDRESSES = 10_000
FORGET_AFTER_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Credentials:
    """The one login of the listener; or none, and then ``accepts_any`` says whether every login is taken."""

    username: str
    password: Secret
    accepts_any: bool

    @classmethod
    def of(cls, config: Config) -> Credentials:
        return cls(config.default_username, config.default_password, config.accept_any_login)

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """The SASL mechanisms to announce. CRAM-MD5 proves knowledge of a password, so there must be one."""
        if self.username and self.password:
            return ("PLAIN", "LOGIN", "CRAM-MD5")
        return ("PLAIN", "LOGIN") if self.accepts_any else ()

    def accept(self, username: bytes, password: bytes) -> bool:
        """Whether the login is right, in a time that does not depend on how nearly right it is."""
        if not (self.username and self.password):
            return self.accepts_any
        right_name = hmac.compare_digest(username, self.username.encode())
        right_password = hmac.compare_digest(password, self.password.reveal().encode())
        return right_name & right_password

    def accept_digest(self, username: bytes, challenge: bytes, digest: bytes) -> bool:
        """Whether ``digest`` is the hexadecimal CRAM-MD5 answer to ``challenge`` (RFC 2195)."""
        if not (self.username and self.password):
            return False
        right = hmac.new(self.password.reveal().encode(), challenge, hashlib.md5).hexdigest().encode()
        right_name = hmac.compare_digest(username, self.username.encode())
        return right_name & hmac.compare_digest(digest.lower(), right)


def delay_after(failures: int) -> float:
    """Seconds that the answer to the ``failures``-th wrong login waits."""
    if failures <= FREE_FAILURES:
        return 0.0
    return min(MAX_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0 ** min(failures - FREE_FAILURES - 1, 10))


class FailedLogins:
    """How often each address has failed to log in. For addresses beyond loopback, where one address is one stranger."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _failures
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()  # address → count, time; latest last

    def __repr__(self) -> str:
        return f"FailedLogins(addresses={len(self._failures)})"

    def count(self, address: str, now: float) -> int:
        """Note a failure at ``now`` (seconds); returns how many there are within the last hour's silence."""
        with self._lock:
            failures, at = self._failures.pop(address, (0, now))
            if now - at > FORGET_AFTER_SECONDS:
                failures = 0
            self._failures[address] = (failures + 1, now)
            if len(self._failures) > MAX_ADDRESSES:
                self._failures.popitem(last=False)
            return failures + 1

    def forget(self, address: str) -> None:
        """The address has logged in: its slate is clean."""
        with self._lock:
            self._failures.pop(address, None)
