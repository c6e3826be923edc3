"""How a configuration is shown."""

from __future__ import annotations

import json
from typing import Any

from mailer.config.schema import Config
from mailer.config.show import masked
from tests.config.conftest import loaded


def test_keys_are_those_of_the_file_and_secrets_are_masked() -> None:
    text = """{"smtpPort": 2525, "defaultUsername": "u", "defaultPassword": "hunter2", "forwardSMTP": true, "forwardProviders": [
        {"host": "a.example", "port": 587, "username": "u", "oauth2": {"tokenUrl": "https://t.example/", "clientId": "c",
         "clientSecret": "hunter3", "refreshToken": "hunter4"}}], "security": {"allowedNetworks": ["10.0.0.0/8"]}}"""
    shown: Any = masked(loaded(text).config)
    assert "hunter" not in json.dumps(shown)
    assert shown["smtpPort"] == 2525
    assert shown["defaultPassword"] == "***"
    assert shown["forwardPassword"] == ""
    (provider,) = shown["forwardProviders"]
    assert provider["oauth2"]["clientSecret"] == "***"
    assert provider["oauth2"]["clientId"] == "c"
    assert shown["security"]["allowedNetworks"] == ["10.0.0.0/8"]


def test_what_is_shown_loads_again_as_the_same() -> None:
    config = loaded('{"hostname": "mx.example.com", "forwardSMTP": true, "forwardHost": "a.example", "dataDir": "/x"}').config
    assert loaded(json.dumps(masked(config))).config == config
    assert loaded(json.dumps(masked(Config(hostname="a.example")))).config.smtp_port == 25
