"""A small internet on loopback: mail servers that share one port on addresses of their own, and the DNS that names them.

    with Internet() as internet:
        first, second = internet.domain("a.test", servers=2)     # MX 10 mx1.a.test, MX 20 mx2.a.test
        config = Config(direct_delivery=DirectDeliveryConfig(port=internet.port, ...), dns=DnsConfig(nameservers=...))
"""

from __future__ import annotations

import contextlib
import itertools
import socket
from dataclasses import replace

from tests.support.nameserver import Nameserver
from tests.support.upstream import Behaviour, Upstream

_TRIES = 20


class Internet(contextlib.ExitStack):
    """``port`` is where every mail server listens; ``dns`` is the nameserver. What 127.0.0.1 is for, a test says."""

    def __init__(self, port: int = 0) -> None:
        super().__init__()
        self.dns = self.enter_context(Nameserver())
        self._numbers = itertools.count(2)
        self.port = port or _free_port()

    def __repr__(self) -> str:
        return f"Internet(port={self.port}, {self.dns!r})"

    def address(self) -> str:
        """One that nobody has yet; connections to it are refused."""
        number = next(self._numbers)
        return f"127.0.{number // 250}.{number % 250}"

    def server(self, name: str, behaviour: Behaviour | None = None) -> Upstream:
        """A mail server, its name in DNS."""
        address = self.address()
        upstream = self.enter_context(Upstream(replace(behaviour or Behaviour(), host=address, port=self.port)))
        self.dns.add(name, "A", address)
        return upstream

    def domain(self, name: str, servers: int = 1, behaviour: Behaviour | None = None) -> list[Upstream]:
        """A domain whose mail is taken by ``mx1.<name>``, else by ``mx2.<name>`` and so on."""
        made = []
        for number in range(1, servers + 1):
            made.append(self.server(f"mx{number}.{name}", behaviour))
            self.dns.add(name, "MX", f"{number}0 mx{number}.{name}")
        return made

    def dead(self, name: str) -> None:
        """A domain whose only mail server refuses connections."""
        self.dns.add(f"mx1.{name}", "A", self.address())
        self.dns.add(name, "MX", f"10 mx1.{name}")


def _free_port() -> int:
    """A port that nobody uses on any of the first addresses."""
    for _ in range(_TRIES):
        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            port: int = listener.getsockname()[1]
            try:
                for number in range(2, 6):
                    stack.enter_context(socket.create_server((f"127.0.0.{number}", port)))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free on all of the first addresses of loopback")
