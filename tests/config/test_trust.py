"""Which certificate store is used."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailer.config.problems import ConfigError
from mailer.config.trust import SYSTEM_STORES, find_trust_store


def test_the_named_store_wins(tmp_path: Path) -> None:
    named, system = tmp_path / "named.pem", tmp_path / "system.pem"
    named.touch()
    system.touch()
    assert find_trust_store({"SSL_CERT_FILE": str(named)}, [system]) == named
    assert find_trust_store({"SSL_CERT_FILE": ""}, [system]) == system


def test_a_named_store_that_is_not_there_is_an_error_even_if_the_system_has_one(tmp_path: Path) -> None:
    (tmp_path / "system.pem").touch()
    with pytest.raises(ConfigError, match="SSL_CERT_FILE"):
        find_trust_store({"SSL_CERT_FILE": str(tmp_path / "none")}, [tmp_path / "system.pem"])


def test_the_first_store_of_the_systems_that_is_there_is_used(tmp_path: Path) -> None:
    (tmp_path / "b").touch()
    (tmp_path / "c").touch()
    assert find_trust_store({}, [tmp_path / "a", tmp_path / "b", tmp_path / "c"]) == tmp_path / "b"


def test_no_store_at_all_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ca-certificates.*SSL_CERT_FILE"):
        find_trust_store({}, [tmp_path / "a"])


def test_debian_red_hat_and_alpine_are_looked_at_in_this_order() -> None:
    folders = [str(store) for store in SYSTEM_STORES]
    debian, red_hat, alpine = (
        folders.index("/etc/ssl/certs/ca-certificates.crt"),
        folders.index("/etc/pki/tls/certs/ca-bundle.crt"),
        folders.index("/etc/ssl/cert.pem"),
    )
    assert debian < red_hat < alpine
