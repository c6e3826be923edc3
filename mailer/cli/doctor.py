"""Owns ``mailer doctor``: what its words mean, and how findings are printed: a line each, or one JSON object.

The checks run in threads of their own (doctor/examination.py); this one waits, at most as long as doctor/checklist.py says.
Ends with 0, or 69 (EX_UNAVAILABLE) if a check failed; 64 for words that mean nothing, 78 for a configuration that cannot be used.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from mailer.cli import failure
from mailer.cli.serve import files_wanted
from mailer.config.load import load
from mailer.config.schema import Config
from mailer.dns.hosts import HostsFile
from mailer.dns.lookup import Dns
from mailer.dns.places import parse_ip
from mailer.doctor.case import Case, Sightings, Target
from mailer.doctor.checklist import report
from mailer.doctor.finding import Finding, Status
from mailer.doctor.origin import own_addresses
from mailer.mail.address import is_domain
from mailer.mail.idna import to_ascii
from mailer.mail.outcome import MailerError
from mailer.transport.peer import system_trust_store

MAX_NAMED = 10  # addresses or targets that may be given: more is a list for another tool

_NAME_CHARS = 12
_STATUS_CHARS = len(Status.WARNING.value)


class _Misunderstood(MailerError):
    """A word of the command line means nothing."""


def run(arguments: argparse.Namespace) -> int:
    """Examine, print and return the exit code."""
    logging.getLogger("mailer").addHandler(logging.NullHandler())  # what parts of ours log is in the findings
    try:
        case = case_of(arguments, load(arguments.config, os.environ).config)
    except _Misunderstood as fault:
        print(f"mailer doctor: {fault}", file=sys.stderr)
        return os.EX_USAGE
    except MailerError as fault:
        return failure.report(fault)
    started = time.time()
    is_named = bool(arguments.domain or arguments.address or arguments.target)
    findings = report(case, is_named, arguments.dnsbl)
    if arguments.json:
        print(as_json(case.domain, started, findings))
    else:
        _print_lines(case, findings)
    return os.EX_UNAVAILABLE if any(f.status is Status.FAILED for f in findings.values()) else os.EX_OK


def case_of(arguments: argparse.Namespace, config: Config) -> Case:
    """What is to be examined. Raises MailerError for words that mean nothing."""
    if max(len(arguments.address), len(arguments.target)) > MAX_NAMED:
        raise _Misunderstood(f"more than {MAX_NAMED} addresses or targets")
    try:
        given = tuple(ipaddress.ip_address(text) for text in arguments.address)
    except ValueError as error:
        raise _Misunderstood(f"--address: {error}") from None
    # Others do not see this machine's hosts file.
    dns = Dns(config.dns.nameservers, config.dns.timeout, hosts=HostsFile(Path(os.devnull)))
    return Case(
        config=config,
        config_path=arguments.config,
        domain=_domain_of(arguments.domain) if arguments.domain else default_domain(config),
        addresses=given or own_addresses(config.direct_delivery.ipv4_only),
        has_given_addresses=bool(given),
        targets=tuple(_target_of(text, config.direct_delivery.port) for text in arguments.target),
        dns=dns,
        trust_store=system_trust_store,
        sightings=Sightings(),
        open_files_wanted=files_wanted(config),
    )


def default_domain(config: Config) -> str:
    """The domain that signs or that of ``defaultUsername`` (the configuration makes one of both), else our own name."""
    if config.dkim.domain:
        return config.dkim.domain.lower()
    return config.hostname.lower() if "." in config.hostname and not config.hostname.startswith("[") else ""


def _domain_of(text: str) -> str:
    try:
        name = to_ascii(text.removesuffix("."))
    except ValueError:
        name = ""
    if not is_domain(name) or name.startswith("[") or "." not in name:
        raise _Misunderstood(f"{text!a} is no domain such as example.com")
    return name


def _target_of(text: str, usual_port: int) -> Target:
    """``host``, ``host:port``, ``[ipv6]:port``, or an IPv6 address alone."""
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]") or (":" in host and not host.startswith("[")):
        host, port = text, str(usual_port)
    host = host.removeprefix("[").removesuffix("]")
    if not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 1 << 16) or not (is_domain(host) or parse_ip(host)):
        raise _Misunderstood(f"--target: {text!a} is no host or host:port")
    return Target(host, int(port))


def as_json(domain: str, started: float, findings: Mapping[str, Finding]) -> str:
    """The JSON form, which programs rely on (docs/operating.md)."""
    checks = [{"name": name, "status": f.status.value, "text": f.text, "do": f.do} for name, f in findings.items()]
    moment = datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return json.dumps({"domain": domain, "time": moment, "checks": checks}, indent=2)


def _print_lines(case: Case, findings: Mapping[str, Finding]) -> None:
    if isinstance(sys.stdout.errors, str) and hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal without UTF-8
    addresses = ", ".join(map(str, case.addresses)) or "no address"
    print(f"domain {case.domain or 'unknown'}, mail from {addresses}, EHLO {case.ehlo_name}")
    for name, finding in findings.items():
        to_do = f" -- to do: {finding.do}" if finding.do else ""
        print(f"{finding.status.value:{_STATUS_CHARS}} {name:{_NAME_CHARS}} {finding.text}{to_do}")
    counted = Counter(finding.status for finding in findings.values())
    print(", ".join(f"{counted[status]} {status.value}" for status in Status))
