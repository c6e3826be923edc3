"""What this machine gives to mailer: ports, open files, certificates to trust, and a clock that is right.

No threads, no locks. A port is bound for a moment and never listened on. Fails with OSError.
"""

from __future__ import annotations

import errno
import os
import resource
import socket
import ssl
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from mailer.config.schema import Config
from mailer.doctor.case import Case, Sighting
from mailer.doctor.finding import Finding, failed, ok, skipped, warning, worst_of
from mailer.doctor.spool import holder_of
from mailer.mail.outcome import MailerError
from mailer.spool.places import Places

NEAR_SECONDS = 60.0  # greetings come late and without fractions; below a minute nobody minds
FAR_SECONDS = 600.0  # signatures from the future are refused, and messages look forged
MAX_FILES = 2000  # looked at for their times
_LIMITS = "/proc/{}/limits"


def ports(case: Case) -> Finding:
    """Whether this user may listen where the configuration says."""
    holder = holder_of(Places(case.config.data_dir.absolute()).lock)
    return worst_of(_port(key, host, port, holder) for key, host, port in _listeners(case.config))


def _listeners(config: Config) -> Iterator[tuple[str, str, int]]:
    yield "smtpPort", config.smtp_host, config.smtp_port
    if config.tls.implicit_port:
        yield "tls.implicitPort", config.smtp_host, config.tls.implicit_port
    if config.enable_health_check:
        yield "healthCheckPort", config.health_check_host, config.health_check_port


def _port(key: str, host: str, port: int, holder: str) -> Finding:
    host = host.strip("[]")
    if not port:
        return ok(f"{key} 0 picks a free one")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, kind) as probe:
            # As a server does it. Two that do, and do not listen, may bind the same port: a start meanwhile is not disturbed.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as fault:
        return _unbound(key, f"{host}:{port}", fault, holder)
    return ok(f"{key} {port} is free")


def _unbound(key: str, where: str, fault: OSError, holder: str) -> Finding:
    if fault.errno == errno.EADDRINUSE:
        if holder:
            return ok(f"{key} {where} is in use, as it should be while mailer runs")
        return failed(f"{key} {where} is taken by another program", f"end that one (ss -ltnp shows it), or change {key}")
    if fault.errno in (errno.EACCES, errno.EPERM):
        to_do = "use a port from 1024 up, give CAP_NET_BIND_SERVICE (the unit in deploy/ does), or run this as mailer's user"
        return failed(f"this user may not listen on {key} {where}", to_do)
    return failed(f"{key} {where} cannot be listened on: {fault.strerror or fault}", "name an address of this machine")


def open_files(case: Case) -> Finding:
    """Whether as many files may be open as ``maxConnections`` asks for: of the running mailer, else of what we would start."""
    pid = holder_of(Places(case.config.data_dir.absolute()).lock)
    limit = _limit_of(pid)
    whose = f"process {pid}" if limit is not None else "this shell's processes"
    if limit is None:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = case.open_files_wanted
    if limit != resource.RLIM_INFINITY and limit < wanted:
        return warning(f"{whose} may open {limit} files, and the configuration may need {wanted}",
                       "raise LimitNOFILE in the unit (ulimit -Hn in a shell), or lower maxConnections")  # fmt: skip
    shown = "any number of" if limit == resource.RLIM_INFINITY else str(limit)
    return ok(f"{whose} may open {shown} files; {wanted} are needed at most")


def _limit_of(pid: str) -> int | None:
    """The hard limit on open files of a running process, None where that cannot be seen."""
    try:
        lines = Path(_LIMITS.format(pid)).read_text("ascii", "replace").splitlines() if pid.isdigit() else []
    except OSError:
        return None
    for line in lines:
        if line.startswith("Max open files"):
            hard = line.split()[4]
            return int(hard) if hard.isdigit() else resource.RLIM_INFINITY
    return None


def trust_store(case: Case) -> Finding:
    """The certificates that servers are verified with."""
    is_needed = case.config.direct_delivery.enabled or any(p.verifies_tls for p in case.config.forward_providers)
    try:
        path = case.trust_store()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(**{"capath" if path.is_dir() else "cafile": str(path)})
    except (MailerError, OSError) as fault:  # OSError: an SSLError, too
        if not is_needed:
            return ok("none found, and none needed")
        return failed(f"no server can be verified: {fault}", "install the package ca-certificates, or set SSL_CERT_FILE")
    count = len(context.get_ca_certs())
    if not count and not path.is_dir():
        return failed(f"{path} holds no certificate", "install the package ca-certificates, or set SSL_CERT_FILE")
    return ok(f"{path}: {count} certificates" if count else f"the folder {path}")


def clock(case: Case) -> Finding:
    """Our clock beside those that were seen in passing, and beside the times of our files."""
    now = case.clock()
    findings = []
    ahead = max(_file_times(Places(case.config.data_dir.absolute())), default=now) - now
    if ahead > NEAR_SECONDS:
        findings.append(_judged(f"the newest file of dataDir is {ahead:.0f} s ahead of this clock", ahead))
    seen = case.sightings.seen
    findings += [_seen(sighting) for sighting in seen]
    if not seen:
        findings.append(skipped("not checked: no server that tells its time was contacted"))
    return worst_of(findings)


def _seen(sighting: Sighting) -> Finding:
    seconds = sighting.ahead_seconds
    if abs(seconds) <= NEAR_SECONDS:
        return ok(f"right within a minute, by {sighting.whose}")
    return _judged(f"{abs(seconds):.0f} s {'behind' if seconds > 0 else 'ahead of'} {sighting.whose}", seconds)


def _judged(text: str, seconds: float) -> Finding:
    judge = failed if abs(seconds) > FAR_SECONDS else warning
    return judge(text, "let the machine keep time: timedatectl set-ntp true, or chrony")


def _file_times(places: Places) -> Iterator[float]:
    for folder in (places.spool, places.failed, places.archive, places.emails):
        try:
            with os.scandir(folder) as entries:
                for entry in islice(entries, MAX_FILES):
                    yield entry.stat(follow_symlinks=False).st_mtime
        except OSError:  # not there yet, not ours, or gone meanwhile
            continue
