"""A real validating resolver (unbound) in front of the tests' nameserver, and zones signed for it: so AD is not just a flag.

    secure = sign("secure.test", {"secure.test": {"MX": "10 mx.secure.test"}, "mx.secure.test": {"A": "127.0.0.1"}})
    nameserver.load(secure.zone)
    with Unbound(nameserver, [secure]) as resolver:
        assert Dns([resolver.address]).mx("secure.test").is_authentic

Only the zones that it is given are islands of trust; the rest is insecure. A zone whose records change after it was signed is
bogus. One thread uses an instance; no locks. Fails with ``UnboundError``, whose text ends in unbound's own log.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import dns.dnssec
import dns.dnssectypes
import dns.exception
import dns.message
import dns.query
import dns.rdatatype
import dns.zone
import pytest

from mailer.mail.outcome import MailerError
from tests.support.group import Group
from tests.support.nameserver import Nameserver, pair_of_sockets
from tests.support.postfix import find_program
from tests.support.zones import NEGATIVE_TTL, TTL, Records

START_TIMEOUT_SECONDS = 30.0  # a start takes under 1 s; the rest is for a machine busy with other tests
ASK_SECONDS = 0.1
VALID_SECONDS = 86_400

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
    do-not-query-localhost: no
    local-zone: "test." nodefault
    ede: yes
    module-config: "validator iterator"
{anchors}
remote-control:
    control-enable: no
forward-zone:
    name: "."
    forward-addr: {upstream_host}@{upstream_port}
"""


class UnboundError(MailerError):
    """Unbound did not start; the text ends in its log."""


@dataclass(frozen=True)
class SignedZone:
    """``anchor``: the DNSKEY record to trust."""

    zone: dns.zone.Zone
    anchor: str


def sign(origin: str, records: Records) -> SignedZone:
    """A zone with these records, a SOA and an NS, signed with a new key (ECDSA P-256), and NSEC for what is not there."""
    require()
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 (not to be had on every interpreter)

    lines = [
        f"{origin}. {TTL} IN SOA ns.{origin}. nobody.{origin}. 1 60 60 60 {NEGATIVE_TTL}",
        f"{origin}. {TTL} IN NS ns.{origin}.",
    ]
    for name, kinds in records.items():
        for kind, data in kinds.items():
            lines += [f"{name}. {TTL} IN {kind} {each}" for each in ([data] if isinstance(data, str) else data)]
    # Names in the data are relative to the root, as for the nameserver; the zone's own are written with their dots.
    text = "$ORIGIN .\n" + "\n".join(lines) + "\n"
    zone = dns.zone.from_text(text, origin=f"{origin}.", relativize=False)
    private = ec.generate_private_key(ec.SECP256R1())
    key = dns.dnssec.make_dnskey(private.public_key(), dns.dnssectypes.Algorithm.ECDSAP256SHA256, flags=257)
    began = time.time() - 3600  # clocks differ
    dns.dnssec.sign_zone(
        zone, keys=[(private, key)], dnskey_ttl=TTL, inception=began, expiration=began + VALID_SECONDS, deterministic=False
    )
    return SignedZone(zone, f"{origin}. {TTL} IN DNSKEY {key.to_text()}")


def require() -> None:
    """Skip the test that calls this where unbound is not installed, which in CI is a failure, or where nothing can be signed."""
    pytest.importorskip("cryptography")
    if find_program("unbound") is not None:
        return
    reason = "not installed: unbound (Debian: apt-get install unbound)"
    if os.environ.get("CI") or os.environ.get("MAILER_CI"):
        pytest.fail(f"CI must run this test: {reason}")
    pytest.skip(reason)


class Unbound:
    """A running resolver. ``address`` is ``127.0.0.1:port``, as ``dns.nameservers`` takes it."""

    def __init__(self, nameserver: Nameserver, trusted: Sequence[SignedZone] = ()) -> None:
        require()
        self.host, self.port = "127.0.0.1", _free_port()
        self.address = f"{self.host}:{self.port}"
        self._folder = Path(tempfile.mkdtemp(prefix="unbound-"))
        config = self._folder / "unbound.conf"
        anchors = "\n".join(f'    trust-anchor: "{zone.anchor}"' for zone in trusted)
        config.write_text(
            _CONFIG.format(
                port=self.port, folder=self._folder, anchors=anchors, upstream_host=nameserver.host, upstream_port=nameserver.port
            )
        )
        self._log = self._folder / "log"
        self._group = Group([find_program("unbound") or "unbound", "-d", "-c", config], self._log, self._folder)
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Unbound:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Unbound({self.address}, {self._group!r})"

    def close(self) -> None:
        self._group.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _wait_until_it_answers(self) -> None:
        """``localhost`` is a name that it knows by itself."""
        ends = time.monotonic() + START_TIMEOUT_SECONDS
        query = dns.message.make_query("localhost.", dns.rdatatype.A)
        while time.monotonic() < ends and self._group.status is None:
            try:
                dns.query.udp(query, self.host, timeout=ASK_SECONDS, port=self.port)
            except (dns.exception.Timeout, OSError):
                continue
            return
        raise UnboundError(f"unbound does not answer: {self._log.read_text('utf-8', 'replace')[-2000:]}")


def _free_port() -> int:
    """A port that was free for TCP and UDP a moment ago."""
    tcp, udp = pair_of_sockets()
    with tcp, udp:
        return int(udp.getsockname()[1])
