"""Whom to ask for names: the nameservers of the configuration, or those that the system uses.

/etc/resolv.conf is read again when it has changed (a laptop that moves, a lease that is renewed). One lock guards what was
read last and who was silent. A file that cannot be read counts as an empty one, which means the local machine (resolv.conf(5)).
"""

from __future__ import annotations

import ipaddress
import threading
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from mailer.dns.places import parse_ip

DNS_PORT = 53
MAX_SYSTEM_SERVERS = 3  # MAXNS of resolv.conf(5)
LAST_SECONDS = 30.0  # that a silent server comes last: then one question finds out whether it is back
RESOLV_CONF = Path("/etc/resolv.conf")

FileState = tuple[int, int, int]
NO_FILE: FileState = (0, 0, 0)


class Nameserver(NamedTuple):
    """``vouches``: its AD flag counts. It may lie, or be lied about, unless the way to it is safe."""

    host: str
    port: int
    vouches: bool

    @property
    def is_ipv6(self) -> bool:
        return ":" in self.host

    def __str__(self) -> str:
        if self.port == DNS_PORT:
            return self.host
        return f"[{self.host}]:{self.port}" if self.is_ipv6 else f"{self.host}:{self.port}"


class Nameservers:
    """The servers to ask, in order. Any thread may call."""

    def __init__(
        self, configured: Sequence[str] = (), clock: Callable[[], float] = time.monotonic, resolv_conf: Path = RESOLV_CONF
    ) -> None:
        self._configured = tuple(parse_nameserver(text) for text in configured)
        self._clock = clock
        self._file = resolv_conf
        self._lock = threading.Lock()  # guards all below
        self._state: FileState | None = None
        self._servers: tuple[Nameserver, ...] = ()
        self._last_until: dict[Nameserver, float] = {}  # servers that were silent, and until when they come last

    def __repr__(self) -> str:
        return f"Nameservers({', '.join(map(str, self._configured or self._servers))})"

    def current(self) -> tuple[Nameserver, ...]:
        """In the order to ask: who was silent a moment ago comes last, so that not every question waits for it anew."""
        servers = self._configured or self._systems()
        now = self._clock()
        with self._lock:
            if not self._last_until:
                return servers
            return tuple(sorted(servers, key=lambda server: self._last_until.get(server, 0.0) > now))

    def heard(self, server: Nameserver, silent: Collection[Nameserver]) -> None:
        """``server`` has answered, while the others were waited for in vain."""
        with self._lock:
            self._last_until.pop(server, None)
            known = self._configured or self._servers
            self._last_until = {other: until for other, until in self._last_until.items() if other in known}
            self._last_until |= dict.fromkeys(silent, self._clock() + LAST_SECONDS)

    def _systems(self) -> tuple[Nameserver, ...]:
        state = file_state(self._file)
        with self._lock:
            if state == self._state:
                return self._servers
        servers = parse_resolv_conf(text_of(self._file))
        with self._lock:
            self._state, self._servers = state, servers
        return servers


def parse_nameserver(text: str) -> Nameserver:
    """``ip``, ``ip:port`` or ``[ip]:port``, as the configuration has checked it. Who names a server there trusts it."""
    host, port = text, ""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    elif text.count(":") == 1:
        host, port = text.split(":")
    return Nameserver(host, int(port or DNS_PORT), vouches=True)


def parse_resolv_conf(text: str) -> tuple[Nameserver, ...]:
    """The servers of a resolv.conf. As the C library does, the AD flag of a server on another machine counts only with
    ``options trust-ad``: on the way from there, anybody could have set it."""
    hosts: list[str] = []
    trusts_all = False
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver" and parse_ip(words[1]) is not None:
            hosts.append(words[1])
        elif words and words[0] == "options":
            trusts_all = trusts_all or "trust-ad" in words
    hosts = hosts[:MAX_SYSTEM_SERVERS] or ["127.0.0.1"]
    return tuple(Nameserver(host, DNS_PORT, trusts_all or ipaddress.ip_address(host).is_loopback) for host in hosts)


def file_state(path: Path) -> FileState:
    """What differs once a file was changed or replaced."""
    try:
        stat = path.stat()
    except OSError:
        return NO_FILE
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def text_of(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
