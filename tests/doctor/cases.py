"""Cases for the tests of checks: a configuration and DNS of their own, everything else as the command makes it."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mailer.config.schema import Config
from mailer.dns.hosts import HostsFile
from mailer.dns.lookup import Dns
from mailer.doctor.case import Case, Sightings, Target
from mailer.transport.peer import system_trust_store
from tests.support.nameserver import Nameserver

DNS_SECONDS = 0.5  # of a question that is not answered: the tests that ask one wait so long

NOBODY = "127.0.0.1:9"
"""A nameserver that nobody runs."""


def dns_of(nameserver: Nameserver | None) -> Dns:
    address = nameserver.address if nameserver is not None else NOBODY
    return Dns([address], DNS_SECONDS, hosts=HostsFile(Path(os.devnull)))


def make_case(
    config: Config,
    nameserver: Nameserver | None = None,
    *,
    addresses: Sequence[str] = ("192.0.2.1",),
    targets: Sequence[Target] = (),
    **others: Any,
) -> Case:
    """``addresses`` count as given by hand. ``others`` are further fields of the case."""
    fields: dict[str, Any] = {
        "config_path": Path("config.json"),
        "domain": "example.test",
        "has_given_addresses": True,
        "trust_store": system_trust_store,
        "sightings": Sightings(),
        "open_files_wanted": 100,
    }
    own = tuple(ipaddress.ip_address(text) for text in addresses)
    return Case(config=config, dns=dns_of(nameserver), addresses=own, targets=tuple(targets), **(fields | others))
