"""What the machine itself says about names: /etc/hosts (hosts(5)), which comes before DNS, as the system does it.

The file is read again when it has changed. One lock guards what was read last. A file that cannot be read says nothing.
"""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Mapping
from pathlib import Path

from mailer.dns.nameservers import FileState, file_state, text_of

HOSTS_FILE = Path("/etc/hosts")
LOOPBACK = ("127.0.0.1", "::1")


class HostsFile:
    """Addresses by name. Any thread may ask."""

    def __init__(self, path: Path = HOSTS_FILE) -> None:
        self._path = path
        self._lock = threading.Lock()  # guards _state and _addresses
        self._state: FileState | None = None
        self._addresses: Mapping[str, tuple[str, ...]] = {}

    def __repr__(self) -> str:
        return f"HostsFile({self._path}, names={len(self._addresses)})"

    def addresses(self, name: str) -> tuple[str, ...]:
        """The addresses of ``name`` (lower case, no dot at its end), of both families; empty where only DNS can know."""
        found = self._current().get(name, ())
        return LOOPBACK if not found and is_localhost(name) else found

    def _current(self) -> Mapping[str, tuple[str, ...]]:
        state = file_state(self._path)
        with self._lock:
            if state == self._state:
                return self._addresses
        addresses = parse_hosts(text_of(self._path))
        with self._lock:
            self._state, self._addresses = state, addresses
        return addresses


def is_localhost(name: str) -> bool:
    """Whether ``name`` means this machine wherever it is asked for, and so is never asked of DNS (RFC 6761 6.3)."""
    return name == "localhost" or name.endswith(".localhost")


def parse_hosts(text: str) -> dict[str, tuple[str, ...]]:
    """Addresses by name, in the order of the file."""
    found: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if len(words) < 2:
            continue
        try:
            address = str(ipaddress.ip_address(words[0]))
        except ValueError:
            continue
        for word in words[1:]:
            name = word.lower().removesuffix(".")
            if address not in found.get(name, ()):
                found[name] = (*found.get(name, ()), address)
    return found
