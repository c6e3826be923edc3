"""How recipients' servers are treated: how many connections, messages and recipients at a time, by domain and by server.

``Book`` is immutable. A ``Site`` counts the conversations with servers that many domains share, under a lock of its own;
nothing here waits or fails. What the user's entries leave open is answered by ``BUILT_IN``, then by ``UNKNOWN``.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import NamedTuple

from mailer.config.schema import DomainConfig

BUSY_SECONDS = 1.0  # when to look again at the earliest, while all conversations that there may be are under way
TURN_SECONDS = 0.5
"""What a conversation is reckoned to take (a usual one takes less), in the line of those who wait: each is to look again one
turn later than who came before, so that however many wait, they do not look more often than places come free."""
LONGEST_LINE_SECONDS = 60.0


class Manners(NamedTuple):
    """What is done with the servers of one domain. ``site``: the name under which several domains share ``connections``,
    empty for a domain that has them for itself. ``tls``: as the setting is spelt."""

    connections: int
    messages_per_connection: int
    recipients_per_message: int
    tls: str = "opportunistic"
    site: str = ""


UNKNOWN = Manners(
    connections=10,  # what mailing list software has long found small servers to bear; many count them by address
    messages_per_connection=100,  # as with providers (transport/pool.py)
    recipients_per_message=100,  # RFC 5321 4.5.3.1.8: as many must be taken
)


class _Rule(NamedTuple):
    """An entry: for domains that fit ``domain`` whose server fits one of ``servers``; empty fits all. 0 leaves a number to the
    next rule."""

    domain: str
    servers: tuple[str, ...]
    connections: int = 0
    messages_per_connection: int = 0
    recipients_per_message: int = 0
    tls: str = ""

    def fits(self, domain: str, server: str) -> bool:
        if self.domain and not fits(self.domain, domain):
            return False
        return not self.servers or any(fits(pattern, server) for pattern in self.servers)


BUILT_IN = (
    # Gmail names no numbers; it slows a sender down by 421 4.7.28 when too much comes at once from one address, and
    # refuses recipients beyond 100 with 452 4.5.3.
    _Rule("", ("*.google.com", "*.googlemail.com"), 10, 100, 100),
    # Consumers' mailboxes at Microsoft (outlook.com, hotmail.com, live.com): new senders are held down by 421 RP-001
    # for connections, so few are used.
    _Rule("", ("*.olc.protection.outlook.com",), 5, 50, 100),
    # Organisations at Microsoft 365: 451 4.7.500 throttles an address that opens connections faster than it is known.
    _Rule("", ("*.protection.outlook.com", "*.mx.microsoft"), 10, 50, 100),
    # Yahoo and AOL close a connection after about 20 messages, and answer 421 [TSS04] to many at once.
    _Rule("", ("*.yahoodns.net",), 5, 20, 50),
    # QQ and the companies that it hosts (exmail) count messages and connections of an address by the minute; beyond, they
    # shut it out for minutes, then hours, with replies that are permanent ("550 Ip frequency limited").
    _Rule("", ("*.qq.com",), 2, 10, 20),
)


class Book:
    """The rules of a configuration, the user's before the built-in ones."""

    def __init__(self, entries: Iterable[DomainConfig]) -> None:
        self._rules = (*map(_rule_of, entries), *BUILT_IN)

    def __repr__(self) -> str:
        return f"Book(rules={len(self._rules)})"

    def manners(self, domain: str, server: str = "") -> Manners:
        """What the first rules that fit say, each about what it names. ``server``: the domain's first MX host, once known.

        The rule that decides ``connections`` decides who shares them: those who fit its servers, if it names any.
        """
        found = [rule for rule in self._rules if rule.fits(domain, server)]
        decides = next((rule for rule in found if rule.connections), None)
        messages = next((rule.messages_per_connection for rule in found if rule.messages_per_connection), 0)
        recipients = next((rule.recipients_per_message for rule in found if rule.recipients_per_message), 0)
        return Manners(
            decides.connections if decides is not None else UNKNOWN.connections,
            messages or UNKNOWN.messages_per_connection,
            recipients or UNKNOWN.recipients_per_message,
            next((rule.tls for rule in found if rule.tls), UNKNOWN.tls),
            " ".join(decides.servers) if decides is not None else "",
        )


class Site:
    """The conversations with servers that several domains share, and the line of those who found none free."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards all below
        self._in_use = 0
        self._line_ends = 0.0  # Unix time

    def __repr__(self) -> str:
        return f"Site(in_use={self._in_use}, line_ends={self._line_ends:.0f})"

    def enter(self, limit: int, now: float) -> float | None:
        """Begin one more, if there are fewer than ``limit``: None. Else the time at which to look again."""
        with self._lock:
            if self._in_use < limit:
                self._in_use += 1
                return None
            self._line_ends = min(max(self._line_ends, now + BUSY_SECONDS) + TURN_SECONDS / limit, now + LONGEST_LINE_SECONDS)
            return self._line_ends

    def move(self, count: int) -> None:
        """So many began elsewhere and turn out to be here; below zero: they are over, or elsewhere after all."""
        with self._lock:
            self._in_use += count


def fits(pattern: str, name: str) -> bool:
    """Whether ``name`` is the pattern's: the same, or below ``*.name``; ``*`` fits every name that is known."""
    if pattern == "*":
        return bool(name)
    name = name.lower()
    return name.endswith(pattern[1:]) if pattern.startswith("*.") else name == pattern


def _rule_of(entry: DomainConfig) -> _Rule:
    return _Rule(
        entry.domain,
        (entry.mx,) if entry.mx else (),
        entry.connections or 0,
        entry.messages_per_connection or 0,
        entry.recipients_per_message or 0,
        entry.tls,
    )
