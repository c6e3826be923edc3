"""The schema: defaults, names, and values that are worked out."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from mailer.config.reading import leaves
from mailer.config.schema import Config, OAuth2Config, ProviderConfig, Secret, SecurityConfig, is_loopback, own_hostname
from mailer.config.setting import settings_of
from mailer.mail.address import is_domain


def test_defaults_are_those_of_the_documentation() -> None:
    config = Config()
    assert (config.smtp_host, config.smtp_port, config.health_check_port) == ("127.0.0.1", 25, 8025)
    assert (config.max_message_size, config.max_recipients, config.max_connections) == (26214400, 1000, 1000)
    assert (config.max_line_length, config.bare_newlines) == (1048576, "normalize")
    assert (config.worker_count, config.queue_size, config.processing_timeout) == (5, 1000, 300)
    assert (config.batch_size, config.batch_delay, config.continue_on_error) == (20, 1000, True)
    assert dataclasses.astuple(config.limits) == (100, 300, 20, 256)
    assert dataclasses.astuple(config.retry) == (3, 1000, 60000, 3600, 432000, 0)
    assert dataclasses.astuple(config.rate_limits) == (False, 500, 2000, 1000, 5000)
    assert dataclasses.astuple(config.bounce) == (True, 14400, "en", "", False)
    assert dataclasses.astuple(config.spool) == (7, 30)
    assert dataclasses.astuple(config.logging) == ("info", "text", "", False)
    assert dataclasses.astuple(config.tls) == ("", "", 0)
    assert dataclasses.astuple(config.dns) == ((), 5)
    assert (config.dkim.selector, config.dkim.signature_expiry, config.dkim.on_error) == ("mail", 604800, "defer")
    assert len(config.dkim.headers_to_sign) == 8
    assert (config.direct_delivery.retry_count, config.direct_delivery.port) == (3, 25)
    assert config.security.allow_local_only
    assert config.security.log_all_emails
    assert config.security.archive_days == 7
    assert config.data_dir == Path()
    assert (config.forward_smtp, config.forward_port, config.forward_providers) == (False, 587, ())


@pytest.mark.parametrize("section", [Config, ProviderConfig, OAuth2Config])
def test_attributes_are_the_keys_in_snake_case(section: type) -> None:
    for setting in settings_of(section):
        snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", setting.key).lower()
        assert setting.attribute == snake


def test_every_setting_has_a_help_text_that_is_a_sentence() -> None:
    for path, setting in leaves():
        assert setting.help, path
        assert setting.help.endswith("."), path


def test_a_login_is_required_by_default_once_there_is_one() -> None:
    assert Config(default_username="a", default_password=Secret("b")).security.require_auth


def test_on_loopback_without_credentials_no_login_is_required_and_any_is_accepted() -> None:
    config = Config(security=SecurityConfig(require_auth=True))
    assert config.accept_any_login
    assert not config.security.require_auth


def test_a_user_name_without_a_password_is_no_credentials() -> None:
    assert Config(default_username="a").accept_any_login


def test_beyond_loopback_no_login_is_made_up() -> None:
    config = Config(smtp_host="0.0.0.0")
    assert not config.accept_any_login
    assert config.security.require_auth


@pytest.mark.parametrize("name", ["", "a b", "under_score", "-dash", "a..b", "näme", "x" * 300, "a\r\nRCPT"])
def test_a_host_name_that_ehlo_cannot_give_is_replaced(name: str) -> None:
    assert own_hostname(name) == "localhost"


def test_the_host_name_is_never_empty() -> None:
    assert own_hostname("box.example.com") == "box.example.com"
    assert is_domain(Config().hostname)
    assert Config(hostname="mx.example.com").hostname == "mx.example.com"


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost", "LOCALHOST.", "a.localhost", "::ffff:127.0.0.1"]
)
def test_loopback_is_known_without_dns(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.com", "localhost.example.com", "", "127.0.0.1.nip.io"])
def test_what_may_be_elsewhere_is_not_loopback(host: str) -> None:
    assert not is_loopback(host)


def provider(**values: Any) -> ProviderConfig:
    return ProviderConfig(**{"host": "smtp.example.com", "port": 587, **values})


def test_a_provider_names_itself_after_its_host_and_port() -> None:
    assert provider().name == "smtp.example.com:587"
    assert provider(name="a").name == "a"


def test_tls_is_required_once_there_is_a_login_unless_the_host_is_loopback() -> None:
    assert provider().tls == "opportunistic"
    assert provider(username="u").tls == "required"
    assert provider(username="u", host="127.0.0.1").tls == "opportunistic"
    assert provider(ssl=True).tls == "required"
    assert provider(username="u", tls="none").tls == "none"


def test_which_providers_must_prove_themselves() -> None:
    assert provider().verifies_tls
    assert provider(ssl=True, host="::1").verifies_tls
    assert not provider(host="localhost").verifies_tls
    assert not provider(tls="none").verifies_tls
    assert not provider(ssl=True, insecure_skip_verify=True).verifies_tls
