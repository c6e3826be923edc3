"""DKIM keys beside their records."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mailer.config.schema import Config, DkimConfig, DkimKeyConfig
from mailer.doctor.dkim import dkim
from mailer.doctor.finding import Finding, Status
from mailer.signing.keys import ED25519, PrivateKey, make_key
from mailer.signing.record import record_text
from tests.doctor.cases import make_case
from tests.support.nameserver import Nameserver

RECORD = "mail._domainkey.example.test"


@pytest.fixture
def nameserver() -> Iterator[Nameserver]:
    with Nameserver({"example.test": {"A": "192.0.2.1"}}) as running:
        yield running


@pytest.fixture
def key(tmp_path: Path) -> PrivateKey:
    made = make_key(ED25519)
    (tmp_path / "mail.private").write_bytes(made.pem)
    return made


def dkim_of(nameserver: Nameserver, folder: Path, **others: Any) -> Finding:
    config = DkimConfig(enabled=True, domain="example.test", private_key_path=str(folder / "mail.private"))
    return dkim(make_case(Config(dkim=config), nameserver, **others))


def test_a_key_whose_record_is_published_is_ok(nameserver: Nameserver, tmp_path: Path, key: PrivateKey) -> None:
    nameserver.add(RECORD, "TXT", f'"{record_text(key)}"')
    found = dkim_of(nameserver, tmp_path)
    assert (found.status, RECORD in found.text) == (Status.OK, True)


def test_another_key_in_dns_fails(nameserver: Nameserver, tmp_path: Path, key: PrivateKey) -> None:
    nameserver.add(RECORD, "TXT", f'"{record_text(make_key(ED25519))}"')
    found = dkim_of(nameserver, tmp_path)
    assert (found.status, "mailer dkim check" in found.do) == (Status.FAILED, True)
    assert key.public.decode() not in found.text


@pytest.mark.usefixtures("key")
def test_no_record_in_dns_fails(nameserver: Nameserver, tmp_path: Path) -> None:
    assert dkim_of(nameserver, tmp_path).status is Status.FAILED


def test_a_record_that_says_testing_is_a_warning(nameserver: Nameserver, tmp_path: Path, key: PrivateKey) -> None:
    nameserver.add(RECORD, "TXT", f'"{record_text(key)}; t=y"')
    assert dkim_of(nameserver, tmp_path).status is Status.WARNING


def test_the_selector_that_a_rotation_left_in_use_is_looked_up(
    nameserver: Nameserver, tmp_path: Path, key: PrivateKey
) -> None:
    (tmp_path / "mail2.private").write_bytes(key.pem)
    (tmp_path / "mail.selector").write_text("mail2\n")
    nameserver.add("mail2._domainkey.example.test", "TXT", f'"{record_text(key)}"')
    assert dkim_of(nameserver, tmp_path).status is Status.OK


def test_a_key_that_is_not_there_fails(nameserver: Nameserver, tmp_path: Path) -> None:
    found = dkim_of(nameserver, tmp_path)
    assert (found.status, "mailer dkim generate --domain example.test" in found.do) == (Status.FAILED, True)


def test_a_domain_that_no_key_signs_for_is_a_warning(nameserver: Nameserver, tmp_path: Path, key: PrivateKey) -> None:
    nameserver.add(RECORD, "TXT", f'"{record_text(key)}"')
    entry = DkimKeyConfig(domain="example.test", private_key_path=str(tmp_path / "mail.private"))
    config = Config(dkim=DkimConfig(enabled=True, keys=(entry,)))
    assert dkim(make_case(config, nameserver, domain="other.test")).status is Status.WARNING
    assert dkim(make_case(config, nameserver, domain="shop.example.test")).status is Status.OK


def test_mail_without_signatures_is_a_warning_with_the_command_for_a_key(nameserver: Nameserver) -> None:
    found = dkim(make_case(Config(), nameserver))
    assert (found.status, "mailer dkim generate --domain example.test" in found.do) == (Status.WARNING, True)
