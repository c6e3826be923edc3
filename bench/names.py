"""DNS for mail that goes straight to its recipients' servers: unbound, which answers for any name below some domains.

A server in Python would be what is measured: it takes longer for an answer than mailer for the question. No threads. Fails
with ``BenchError``.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from bench.subjects import wait
from bench.traffic import BenchError
from mailer.dns.lookup import Dns, Status
from tests.support.group import Group
from tests.support.postfix import find_program

_CONFIG = """\
server:
    interface: 127.0.0.1@{port}
    do-ip6: no
    do-daemonize: no
    use-syslog: no
    username: ""
    chroot: ""
    pidfile: ""
    directory: "{folder}"
    num-threads: 1
    module-config: "iterator"
    local-zone: "test." nodefault
{zones}
remote-control:
    control-enable: no
"""
_ZONE = """\
    local-zone: "{domain}." redirect
    local-data: "{domain}. 3600 IN MX 10 mx.{domain}-server.test."
    local-data: "mx.{domain}-server.test. 3600 IN A {address}"
"""


class Names:
    """``servers``: the address of the mail server of all domains below each of these. ``address`` is ``127.0.0.1:port``."""

    def __init__(self, folder: Path, servers: Mapping[str, str]) -> None:
        program = find_program("unbound")
        if program is None:
            raise BenchError("not installed: unbound (Debian: apt-get install unbound)")
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        zones = "".join(_ZONE.format(domain=domain, address=address) for domain, address in servers.items())
        config = folder / "unbound.conf"
        config.write_text(_CONFIG.format(port=port, folder=folder, zones=zones))
        self._group = Group([program, "-d", "-c", config], folder / "unbound.log", folder)
        self._first = next(iter(servers))

    def __enter__(self) -> Names:
        def answers() -> bool:
            return Dns([self.address], 0.2).mx(f"any.{self._first}").status is Status.FOUND

        try:
            wait(answers, "unbound does not answer")
        except BenchError:
            self._group.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._group.stop()
