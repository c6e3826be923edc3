"""config.example.json runs as it stands, and so does each of its blocks once it is filled in."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mailer.config.load import load, load_text
from tests.config.conftest import make_certificate

EXAMPLE = Path(__file__).resolve().parents[2] / "config.example.json"
COMMENTED = re.compile(r"^( *)// ?", re.MULTILINE)
ENVIRON = {"LOGIN_PASSWORD": "one", "GMAIL_APP_PASSWORD": "two", "MICROSOFT_CLIENT_SECRET": "three"}


def lines() -> list[str]:
    return EXAMPLE.read_text(encoding="utf-8").splitlines()


def blocks() -> list[range]:
    """The line numbers of each commented block: consecutive lines behind //."""
    found: list[range] = []
    for number, line in enumerate(lines()):
        if COMMENTED.match(line):
            if found and found[-1].stop == number:
                found[-1] = range(found[-1].start, number + 1)
            else:
                found.append(range(number, number + 1))
    return found


def filled_in(*wanted: range) -> str:
    """The example with the comment signs of the blocks taken away."""
    numbers = {number for block in wanted for number in block}
    return "\n".join(COMMENTED.sub(r"\1", line) if number in numbers else line for number, line in enumerate(lines()))


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment in which everything that the blocks name is there."""
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "relay").write_text("four\n")
    cert_file, key_file = make_certificate(tmp_path / "certificates")
    cert_file.rename(tmp_path / "certificates" / "fullchain.pem")
    key_file.rename(tmp_path / "certificates" / "privkey.pem")
    return ENVIRON | {"MAILER_DATA_DIR": str(tmp_path)}


def test_the_example_loads_as_it_stands_without_a_warning() -> None:
    loaded = load(EXAMPLE, {})
    config = loaded.config
    assert loaded.warnings == []
    assert (config.smtp_host, config.smtp_port) == ("127.0.0.1", 2525)
    assert (config.enable_health_check, config.health_check_host, config.health_check_port) == (True, "127.0.0.1", 8025)
    assert config.accept_any_login
    assert config.security.allow_local_only
    assert not config.forward_smtp
    assert not config.direct_delivery.enabled


def test_every_block_loads_once_it_is_filled_in(environ: dict[str, str]) -> None:
    assert len(blocks()) >= 12
    for block in blocks():
        text = filled_in(block)
        assert load_text(text, environ).config != load_text("{}", environ).config, text


def test_all_blocks_load_together(environ: dict[str, str]) -> None:
    config = load_text(filled_in(*blocks()), environ).config
    assert config.direct_delivery.enabled
    assert config.dkim.enabled
    assert [provider.name for provider in config.forward_providers] == ["gmail", "microsoft", "own"]
    assert config.forward_providers[2].password.reveal() == "four"
    assert config.security.allowed_networks
