"""``mailer check``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from mailer.cli.check import run
from mailer.config.load import EX_CONFIG

FORWARDING = """{"smtpPort": 2525, "forwardSMTP": true, "forwardProviders": [
    {"host": "smtp.example.com", "port": 587, "username": "u", "password": "hunter2", },
]}"""


@pytest.fixture
def checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration file, and a certificate store that the environment names."""
    store = tmp_path / "store.pem"
    store.touch()
    monkeypatch.setenv("SSL_CERT_FILE", str(store))
    path = tmp_path / "config.json"
    path.write_text(FORWARDING)
    return path


def check(path: Path) -> int:
    return run(argparse.Namespace(config=str(path)))


def test_a_good_configuration_is_shown_with_secrets_masked(checked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(checked) == 0
    out, err = capsys.readouterr()
    shown = json.loads(out)
    assert shown["smtpPort"] == 2525
    assert shown["forwardProviders"][0]["password"] == "***"
    assert "hunter2" not in out + err


def test_warnings_and_the_certificate_store_go_to_standard_error(checked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(checked) == 0
    err = capsys.readouterr().err
    assert "warning: security.requireAuth: counts as false" in err
    assert f"certificate store: {checked.parent / 'store.pem'}" in err


def test_the_environment_is_laid_over_the_file(
    checked: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAILER_SMTP_PORT", "2526")
    assert check(checked) == 0
    assert json.loads(capsys.readouterr().out)["smtpPort"] == 2526


def test_every_problem_is_listed_and_the_status_is_78(checked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checked.write_text('{"smtpPort": "x", "dkim": {"enabled": true}, "nope": 1}')
    assert check(checked) == EX_CONFIG == 78
    out, err = capsys.readouterr()
    assert out == ""
    assert f"{checked}: 3 problems" in err
    for place in ("smtpPort: ", "dkim.domain: ", "nope: "):
        assert f"  {place}" in err


def test_a_missing_file_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(tmp_path / "config.json") == 78
    assert "config.example.json" in capsys.readouterr().err


def test_no_certificate_store_is_an_error_only_where_a_provider_is_verified(
    checked: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(checked.parent / "none"))
    assert check(checked) == 78
    assert "SSL_CERT_FILE" in capsys.readouterr().err
    checked.write_text("{}")
    assert check(checked) == 0
    assert "certificate store: none found, and none needed" in capsys.readouterr().err
