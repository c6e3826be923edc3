"""Owns ``mailer dkim``: makes keys, compares them with what DNS publishes, and replaces them.

Runs in the caller's thread and starts nothing; needs no running mailer. Ends with 0; 69 if a published record is missing or
is not the key's; 75 if DNS does not say; 73 if a key is there already or cannot be written; 78 if the configuration or a
key cannot be used. A rotation that is interrupted goes on with the next call.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mailer.cli import failure
from mailer.config.kinds import Misfit
from mailer.config.load import load
from mailer.config.names import DomainText, SelectorText
from mailer.config.schema import Config
from mailer.dns.lookup import Dns, Status
from mailer.mail.outcome import MailerError
from mailer.signing import rotation
from mailer.signing.keys import ED25519, RSA, KeyUnusable, PrivateKey, make_key
from mailer.signing.places import Place, places_of, write_key_file
from mailer.signing.record import Comparison, State, compare, record_name, record_text, zone_lines

FIRST_WAIT_SECONDS = 2.0
LONGEST_WAIT_SECONDS = 30.0
"""Between two looks for a new record: soon at first, since it may be there already; then at the pace of people and of DNS."""


def run(arguments: argparse.Namespace) -> int:
    """Carry out ``generate``, ``check`` or ``rotate``; returns the exit code."""
    try:
        arguments.domain = str(DomainText().accept(arguments.domain))
        if arguments.action == "generate":
            arguments.selector = str(SelectorText().accept(arguments.selector))
    except Misfit as fault:
        print(f"mailer dkim: expected {fault}", file=sys.stderr)
        return os.EX_USAGE
    try:
        config = _config(arguments)
        if arguments.action == "generate":
            return _generate(arguments, config)
        places = _chosen(config, arguments.domain)
        dns = Dns(config.dns.nameservers, config.dns.timeout)
        return _check(places, dns) if arguments.action == "check" else _rotate(places, dns)
    except KeyUnusable as fault:
        print(f"mailer: {fault}", file=sys.stderr)
        return os.EX_CONFIG
    except (MailerError, OSError) as fault:
        return failure.report(fault)
    except KeyboardInterrupt:
        print("\ninterrupted: the keys in use stay in use; the same command goes on from here", file=sys.stderr)
        return 130


def _config(arguments: argparse.Namespace) -> Config:
    """The configuration; for ``generate`` the defaults where there is none yet."""
    path = Path(arguments.config)
    if arguments.action == "generate" and not path.exists():
        return Config()
    return load(path, os.environ).config


def _chosen(config: Config, domain: str) -> list[Place]:
    """The configured keys, those of ``domain`` if one is named. Raises KeyUnusable when there is none."""
    places = [place for place in places_of(config.dkim) if not domain or place.domain == domain]
    if not places:
        whose = f"of {domain} " if domain else ""
        raise KeyUnusable(f"no key {whose}is configured: set dkim.domain, or dkim.keys; `mailer dkim generate` makes one")
    return places


# generate


def _generate(arguments: argparse.Namespace, config: Config) -> int:
    domain, selector = arguments.domain, arguments.selector
    configured = [p for p in places_of(config.dkim) if (p.domain, p.config.selector) == (domain, selector)]
    default = config.data_dir / "keys" / domain / f"{selector}.private"
    path = configured[0].file_of(selector) if configured else default
    key = make_key(ED25519 if arguments.ed25519 else RSA, arguments.bits)
    try:
        write_key_file(path, key)
    except FileExistsError:
        print(f"mailer: there is a key already, which is never overwritten: {path}", file=sys.stderr)
        print("for a key beside it give --selector another name; to replace it: mailer dkim rotate", file=sys.stderr)
        return os.EX_CANTCREAT
    except OSError as fault:
        print(f"mailer: {fault.filename or path}: {fault.strerror}", file=sys.stderr)
        return os.EX_CANTCREAT
    print(f"key: {path} ({_kind(key)}); keep it secret, and keep a copy\n")
    _print_record(domain, selector, key)
    print(f"\nThen: mailer dkim check{'' if configured else _setting(config, domain, selector, path, default)}")
    return os.EX_OK


def _setting(config: Config, domain: str, selector: str, path: Path, default: Path) -> str:
    """How the configuration names the new key."""
    where = "" if path == default else f', "privateKeyPath": "{path}"'
    block = f'"domain": "{domain}", "selector": "{selector}"{where}'
    if config.dkim.all_keys:
        return f', once the key is in the configuration, among dkim.keys:\n  {{ {block} }}'
    return f', once the key is in the configuration:\n  "dkim": {{ "enabled": true, {block} }}'


def _kind(key: PrivateKey) -> str:
    return f"rsa, {key.bits} bits" if key.kind == RSA else key.kind


def _print_record(domain: str, selector: str, key: PrivateKey) -> None:
    name, text = record_name(domain, selector), record_text(key)
    print(f"Publish this record in the DNS of {domain}.\n\nIn a zone file:\n\n{zone_lines(name, text)}\n")
    print("In a DNS provider's form:\n")
    print(f"Name:  {selector}._domainkey   (the whole name is {name})\nType:  TXT\nValue: {text}")


# check


def _check(places: Sequence[Place], dns: Dns) -> int:
    codes = [_check_one(place, dns) for place in places]
    return max(codes)  # 0, then 69, 75, 78: the last word is that of the gravest


def _check_one(place: Place, dns: Dns) -> int:
    name = record_name(place.domain, place.selector)
    try:
        key = place.read()
    except KeyUnusable as fault:
        print(f"failed   {name}: {fault}")
        return os.EX_CONFIG
    found = _look(dns, place.domain, place.selector, key)
    if isinstance(found, str):
        print(f"unknown  {name}: {found}: try again later, or set dns.nameservers")
        return os.EX_TEMPFAIL
    if found.verifies:
        word = "ok" if found.state is State.MATCHES else "warning"
        detail = found.text or f"is the key {place.key_file} ({_kind(key)})"
        print(f"{word:8} {name}: {detail}")
        return os.EX_OK
    print(f"failed   {name}: {found.text}\n")
    _print_record(place.domain, place.selector, key)
    return os.EX_UNAVAILABLE


def _look(dns: Dns, domain: str, selector: str, key: PrivateKey) -> Comparison | str:
    """What DNS publishes for the key; a text where it does not say."""
    answer = dns.txt(record_name(domain, selector))
    return answer.why if answer.status is Status.FAILED else compare(answer.records, key)


# rotate


def _rotate(places: Sequence[Place], dns: Dns) -> int:
    waiting = [(place, *rotation.begin(place)) for place in places]
    for place, selector, key in waiting:
        print(f"new key: {place.file_of(selector)} ({_kind(key)})\n")
        _print_record(place.domain, selector, key)
        print()
    for place, selector, key in waiting:
        _wait_for(dns, place, selector, key)
        rotation.finish(place, selector)
        print(f"{place.domain} signs with the selector {selector} from the next reload (SIGHUP) or start of mailer on.")
        print(f"Keep the record {record_name(place.domain, place.selector)} for two weeks: mail that it signed is on its way.")
    return os.EX_OK


def _wait_for(dns: Dns, place: Place, selector: str, key: PrivateKey) -> None:
    """Return once DNS publishes the key; what it says instead is printed whenever it changes."""
    said, wait = "", FIRST_WAIT_SECONDS
    while True:
        dns.forget()
        found = _look(dns, place.domain, selector, key)
        if not isinstance(found, str) and found.verifies:
            return
        now = found if isinstance(found, str) else found.text
        if now != said:
            said = now
            print(f"waiting for {record_name(place.domain, selector)}: {now}", flush=True)
        time.sleep(wait)
        wait = min(2 * wait, LONGEST_WAIT_SECONDS)
