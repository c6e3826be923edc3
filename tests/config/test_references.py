"""Secrets that are named instead of written down."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailer.config.references import MAX_SECRET_BYTES, ReferenceFault, References, read_text
from mailer.config.secret import Secret
from tests.config.conftest import loaded, problems


def resolved(text: str, folder: Path = Path(), **environ: str) -> str:
    return References(environ, folder).resolve(Secret(text)).reveal()


def fault(text: str, folder: Path = Path(), **environ: str) -> str:
    with pytest.raises(ReferenceFault) as raised:
        resolved(text, folder, **environ)
    return str(raised.value)


def test_a_text_that_is_no_reference_is_the_secret() -> None:
    assert resolved("hunter2") == "hunter2"
    assert resolved("ENV:x") == "ENV:x"


def test_a_secret_comes_from_a_variable() -> None:
    assert resolved("env:PW", PW=" hunter2 ") == " hunter2 "
    assert resolved("env:PW", PW="env:OTHER") == "env:OTHER", "what a reference gives is the secret, not another reference"


def test_a_secret_comes_from_a_file_without_the_line_break_at_its_end(tmp_path: Path) -> None:
    for content in (b"hunter2", b"hunter2\n", b"hunter2\r\n", b"\xef\xbb\xbfhunter2\n"):
        (tmp_path / "pw").write_bytes(content)
        assert resolved(f"file:{tmp_path / 'pw'}") == "hunter2"
        assert resolved("file:pw", tmp_path) == "hunter2"


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    assert fault("env:PW") == 'environment variable "PW" is not set'
    assert fault("env:PW", PW="") == 'environment variable "PW" is not set'
    assert fault("file:none", tmp_path).startswith(f'file "{tmp_path}/none" cannot be read: No such file')
    assert "cannot be read" in fault(f"file:{tmp_path}")
    assert "cannot be read" in fault("file:" + "x" * 10_000)
    assert "not the name of a file" in fault("file:a\x00b")


def test_what_cannot_be_a_secret_is_refused_without_showing_it(tmp_path: Path) -> None:
    long = b"hunter" * MAX_SECRET_BYTES
    for content in (b"", b"\n", b"hunter2\nhunter3\n", b"hunter2\xff", b"hunter2\x00", long, b"\xff\xfeh\0"):
        (tmp_path / "pw").write_bytes(content)
        assert "hunter" not in fault("file:pw", tmp_path)
    assert "hunter" not in fault("env:PW", PW="hunter2\udcff")


def test_a_special_file_without_end_is_not_read_to_its_end() -> None:
    with pytest.raises(ReferenceFault, match="larger than"):
        read_text(Path("/dev/zero"), 1000)


def test_every_secret_of_a_configuration_may_be_a_reference(tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("one\n")
    text = """{"dataDir": "DIR", "defaultPassword": "file:pw", "forwardSMTP": true, "forwardProviders": [
        {"host": "a.example", "port": 587, "username": "u", "password": "env:TWO"},
        {"host": "b.example", "port": 587, "username": "u", "oauth2": {"tokenUrl": "https://t.example/", "clientId": "c",
         "clientSecret": "env:THREE", "refreshToken": "env:TWO"}}]}""".replace("DIR", str(tmp_path))
    config = loaded(text, TWO="two", THREE="three").config
    first, second = config.forward_providers
    assert second.oauth2 is not None
    secrets = (config.default_password, first.password, second.oauth2.client_secret, second.oauth2.refresh_token)
    assert [secret.reveal() for secret in secrets] == ["one", "two", "three", "two"]


def test_a_missing_reference_names_the_key_and_what_is_missing() -> None:
    text = '{"smtpHost": "0.0.0.0", "security": {"allowLocalOnly": false}, "defaultUsername": "u", "defaultPassword": "env:PW"}'
    assert problems(text) == ['defaultPassword: environment variable "PW" is not set']
