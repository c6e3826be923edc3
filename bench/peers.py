"""What mailer is measured beside: Postfix as it comes and tuned, a plain Python relay, and nothing at all.

Each is a ``Relay`` and a context manager. No threads, no locks. Fails with ``BenchError`` or ``PostfixError``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from bench.call import ROOT
from bench.subjects import wait
from bench.traffic import Sink, program, tail, wait_until_serving
from tests.support.group import Group
from tests.support.postfix import Postfix, Setup, free_port

TUNED = {
    # A second's pause for a client that sends faster than mail leaves. It protects the queue; for throughput it is the first
    # thing to go.
    "in_flow_delay": "0",
    # 100 by default. smtpd, cleanup and smtp each get as many as there is work for.
    "default_process_limit": "200",
    # A daemon ends after 100 requests by default, and another is forked and reads its configuration.
    "max_use": "10000",
    # No lookup of the client's name at each connection, and none in the DNS at all.
    "smtpd_peername_lookup": "no",
    "smtp_dns_support_level": "disabled",
    # Nothing is mapped, filtered or rewritten here; so no daemon is asked whether it should be.
    "receive_override_options": "no_address_mappings, no_header_body_checks, no_milters",
    "local_header_rewrite_clients": "",
    # Counts per client in anvil(8) are of no use for clients on loopback.
    "smtpd_client_connection_count_limit": "0",
    "smtpd_client_connection_rate_limit": "0",
}
"""What an expert sets for throughput without giving up that a message is on disk, fsync'd, before its 250. The queue stays on
the same disk as mailer's spool, and no file system is mounted without barriers.

Tried and left at their defaults, since they gained nothing or cost on two processors: an initial_destination_concurrency of 20,
a default_destination_concurrency_limit of 10 and 50, connections cached from the first message on."""


class PostfixRelay:
    """Postfix relaying to one port, with the defaults of Debian's package but for ``settings``."""

    def __init__(self, upstream_port: int, name: str = "Postfix", settings: Mapping[str, str] | None = None) -> None:
        self.name = name
        self._postfix = Postfix(Setup(relay_to=("127.0.0.1", upstream_port), settings=settings or {}))

    def __enter__(self) -> PostfixRelay:
        self._postfix.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._postfix.stop()

    @property
    def port(self) -> int:
        return self._postfix.port

    @property
    def group(self) -> int:
        return self._postfix.group

    def wait_until_idle(self) -> None:
        wait(lambda: self._postfix.queued() == 0, f"Postfix's queue did not empty:\n{self._postfix.log_text()[-2000:]}")


class PlainRelay:
    """``bench/plain_relay.py``, run by the interpreter that runs the bench."""

    name = "aiosmtpd + smtplib"

    def __init__(self, upstream_port: int, folder: Path) -> None:
        self.port = free_port()
        self._upstream_port = upstream_port
        self._spool = folder / "plain"
        self._log = folder / "plain.log"
        self._group: Group | None = None

    def __enter__(self) -> PlainRelay:
        # env -C: python -m finds the package from where it runs.
        command: list[str | Path] = ["env", "-C", ROOT, sys.executable, "-m", "bench.plain_relay"]
        command += [str(self.port), str(self._upstream_port), self._spool]
        self._group = Group(command, self._log)
        wait_until_serving(self.port, self._group, self._log)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._group is not None:
            self._group.stop()

    @property
    def group(self) -> int:
        return 0 if self._group is None else self._group.pid

    def wait_until_idle(self) -> None:
        wait(lambda: not os.listdir(self._spool), f"the plain relay did not send all:\n{tail(self._log)}")  # noqa: PTH208


class Ceiling:
    """No relay: smtp-source straight into smtp-sink, which is as fast as both ends and the loopback are."""

    name = "nothing between"
    group = 0

    def __init__(self, sink: Sink) -> None:
        self.port = sink.port

    def wait_until_idle(self) -> None:
        return


class SigningPostfixRelay(PostfixRelay):
    """Postfix as it comes, with OpenDKIM as a milter that signs with the key in ``key_file``."""

    def __init__(self, upstream_port: int, folder: Path, key_file: Path, domain: str, selector: str) -> None:
        self._milter_port = free_port()
        milter = {"smtpd_milters": f"inet:127.0.0.1:{self._milter_port}", "milter_default_action": "tempfail"}
        super().__init__(upstream_port, "Postfix with OpenDKIM", milter)
        self._log = folder / "opendkim.log"
        self._config = folder / "opendkim.conf"
        self._config.write_text(
            f"Mode s\nDomain {domain}\nSelector {selector}\nKeyFile {key_file}\nCanonicalization relaxed/relaxed\n"
            f"Socket inet:{self._milter_port}@127.0.0.1\nBackground no\nSyslog no\nRequireSafeKeys no\n"
            "OversignHeaders From\n"
        )
        self._milter: Group | None = None

    def __enter__(self) -> SigningPostfixRelay:
        self._milter = Group([program("opendkim"), "-f", "-x", self._config], self._log)
        try:
            wait_until_serving(self._milter_port, self._milter, self._log, greets=False)
            super().__enter__()
        except BaseException:
            self._milter.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        super().__exit__(kind, error, trace)
        if self._milter is not None:
            self._milter.stop()
