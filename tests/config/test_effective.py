"""Settings that bear on each other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mailer.config.load import Loaded
from tests.config.conftest import loaded, problems

LOGIN = {"defaultUsername": "app", "defaultPassword": "secret"}
PROVIDER = {"host": "smtp.example.com", "port": 587}


def of(**tree: object) -> Loaded:
    return loaded(json.dumps(tree))


def faults(**tree: object) -> list[str]:
    return problems(json.dumps(tree))


def places(made: Loaded) -> list[str]:
    """What the warnings are about."""
    return [line.partition(":")[0] for line in made.warnings]


def test_without_credentials_a_required_login_counts_as_false_with_a_warning() -> None:
    trees: list[dict[str, object]] = [{}, {"security": {"requireAuth": True}}]
    for tree in trees:
        made = of(**tree)
        assert not made.config.security.require_auth
        assert made.config.accept_any_login
        assert places(made) == ["security.requireAuth"]


def test_a_login_that_is_not_required_is_no_warning() -> None:
    made = of(security={"requireAuth": False})
    assert made.warnings == []
    assert made.config.accept_any_login


def test_with_credentials_a_login_is_required() -> None:
    made = of(**LOGIN)
    assert made.warnings == []
    assert made.config.security.require_auth
    assert not made.config.accept_any_login


def test_half_a_login_is_none_and_a_warning() -> None:
    assert "defaultPassword" in places(of(defaultUsername="app"))
    assert "defaultUsername" in places(of(defaultPassword="secret"))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "mail.example.com"])
def test_local_only_binds_loopback_instead_of_another_address_with_a_warning(host: str) -> None:
    made = of(smtpHost=host, **LOGIN)
    assert made.config.smtp_host == "127.0.0.1"
    assert places(made) == ["smtpHost"]
    assert host in made.warnings[0]


def test_local_only_with_another_address_and_no_login_still_accepts_any_login() -> None:
    made = of(smtpHost="0.0.0.0")
    assert made.config.smtp_host == "127.0.0.1"
    assert made.config.accept_any_login
    assert places(made) == ["smtpHost", "security.requireAuth"]


def test_another_loopback_address_stays() -> None:
    for host in ("127.0.0.2", "::1", "localhost"):
        assert of(smtpHost=host, **LOGIN).config.smtp_host == host


def test_allowed_networks_keep_the_address() -> None:
    made = of(smtpHost="0.0.0.0", security={"allowedNetworks": ["172.17.0.0/16"]}, **LOGIN)
    assert made.config.smtp_host == "0.0.0.0"
    assert made.warnings == []


def test_allowed_networks_without_a_login_are_trusted_once_the_login_is_waived() -> None:
    made = of(smtpHost="0.0.0.0", security={"allowedNetworks": ["172.17.0.0/16"], "requireAuth": False})
    assert made.config.smtp_host == "0.0.0.0"
    assert not made.config.accept_any_login


def test_a_required_login_that_does_not_exist_is_an_error_beyond_loopback() -> None:
    for security in ({"allowedNetworks": ["172.17.0.0/16"]}, {"allowLocalOnly": False}):
        (problem,) = faults(smtpHost="0.0.0.0", security=security)
        assert problem.startswith("security.requireAuth: a login is required on 0.0.0.0")


@pytest.mark.parametrize("login", [{}, LOGIN])
def test_an_open_relay_is_an_error(login: dict[str, str]) -> None:
    """Credentials that nobody must use protect nothing."""
    (problem,) = faults(smtpHost="0.0.0.0", security={"allowLocalOnly": False, "requireAuth": False}, **login)
    assert problem.startswith("smtpHost: listening on 0.0.0.0")
    assert "open relay" in problem


def test_everybody_may_connect_where_a_login_is_required() -> None:
    assert of(smtpHost="0.0.0.0", security={"allowLocalOnly": False}, **LOGIN).config.smtp_host == "0.0.0.0"


def test_http_beyond_loopback_is_a_warning() -> None:
    assert places(of(healthCheckHost="0.0.0.0", **LOGIN)) == ["healthCheckHost"]
    assert places(of(healthCheckHost="0.0.0.0", security={"allowLocalOnly": False}, **LOGIN)) == ["healthCheckHost"]
    assert places(of(healthCheckHost="0.0.0.0", enableHealthCheck=False, **LOGIN)) == []
    assert places(of(healthCheckHost="0.0.0.0", security={"allowedNetworks": ["10.0.0.0/8"]}, **LOGIN)) == []


def test_forwarding_without_a_provider_counts_as_off_with_a_warning() -> None:
    trees: list[dict[str, object]] = [{}, {"forwardProviders": []}, {"forwardHost": ""}]
    for tree in trees:
        made = of(forwardSMTP=True, **LOGIN, **tree)
        assert not made.config.forward_smtp
        assert places(made) == ["forwardSMTP"]


def test_without_the_master_switch_no_provider_is_used() -> None:
    made = of(forwardProviders=[PROVIDER], **LOGIN)
    assert made.config.forward_providers == ()
    assert places(made) == ["forwardSMTP"]
    assert of(forwardHost="a.example", **LOGIN).config.forward_providers == ()


def test_the_older_keys_make_one_provider_with_a_warning() -> None:
    older = {"forwardHost": "old.example", "forwardPort": 465, "forwardSSL": True, "forwardUsername": "u", "forwardPassword": "p"}
    made = of(forwardSMTP=True, **older, **LOGIN)
    (provider,) = made.config.forward_providers
    assert (provider.name, provider.host, provider.port) == ("old.example:465", "old.example", 465)
    assert (provider.username, provider.password.reveal(), provider.ssl, provider.tls) == ("u", "p", True, "required")
    assert places(made) == ["forwardHost"]
    assert "deprecated" in made.warnings[0]


def test_the_older_keys_default_to_the_submission_port() -> None:
    assert of(forwardSMTP=True, forwardHost="old.example").config.forward_providers[0].port == 587


def test_listed_providers_win_over_the_older_keys() -> None:
    made = of(forwardSMTP=True, forwardHost="old.example", forwardProviders=[PROVIDER], **LOGIN)
    assert [provider.host for provider in made.config.forward_providers] == ["smtp.example.com"]
    assert places(made) == ["forwardHost"]


def test_priority_defaults_to_the_position() -> None:
    listed = [PROVIDER | {"name": "a"}, PROVIDER | {"name": "b", "priority": 7}, PROVIDER | {"name": "c"}]
    config = of(forwardSMTP=True, forwardProviders=listed).config
    assert [(provider.name, provider.priority) for provider in config.forward_providers] == [("a", 0), ("b", 7), ("c", 2)]


def test_a_name_that_is_given_twice_is_an_error() -> None:
    listed = [PROVIDER | {"name": "a"}, PROVIDER | {"name": "b"}, PROVIDER | {"name": "a"}]
    assert faults(forwardProviders=listed) == ['forwardProviders[2].name: the name "a" is taken by one before it']


def test_names_that_are_made_up_are_numbered() -> None:
    listed = [PROVIDER, PROVIDER, PROVIDER | {"name": "smtp.example.com:587#2"}, PROVIDER]
    config = of(forwardSMTP=True, forwardProviders=listed).config
    made_up = "smtp.example.com:587"
    assert [provider.name for provider in config.forward_providers] == [made_up, f"{made_up}#3", f"{made_up}#2", f"{made_up}#4"]


def test_domains_are_kept_in_lower_case_and_ascii() -> None:
    config = of(forwardSMTP=True, forwardProviders=[PROVIDER | {"domains": ["Example.COM", "bücher.example"]}]).config
    assert config.forward_providers[0].domains == ("example.com", "xn--bcher-kva.example")


def test_defaults_that_depend_on_others() -> None:
    config = of(hostname="mx.example.com", defaultUsername="a@Shop.Example", dkim={"keys": [{"domain": "b.example"}]}).config
    assert config.direct_delivery.ehlo_domain == "mx.example.com"
    assert config.dkim.domain == "shop.example"
    assert config.dkim.private_key_path == "keys/shop.example/mail.private"
    assert config.dkim.keys[0].private_key_path == "keys/b.example/mail.private"
    assert of(defaultUsername="app").config.dkim.private_key_path == ""


def test_relative_paths_start_at_the_data_folder(tmp_path: Path) -> None:
    oauth2 = {"tokenFile": "token"}
    config = of(
        dataDir=str(tmp_path),
        logging={"file": "mailer.log"},
        dkim={"privateKeyPath": "/etc/key", "keys": [{"domain": "b.example"}]},
        forwardSMTP=True,
        forwardProviders=[PROVIDER | {"username": "u", "oauth2": oauth2}],
    ).config
    assert config.data_dir == tmp_path
    assert config.logging.file == str(tmp_path / "mailer.log")
    assert config.dkim.private_key_path == "/etc/key"
    assert config.dkim.keys[0].private_key_path == str(tmp_path / "keys/b.example/mail.private")
    found = config.forward_providers[0].oauth2
    assert found is not None
    assert found.token_file == str(tmp_path / "token")
