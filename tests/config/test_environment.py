"""Environment variables over the file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mailer.config.environment import GO_KEYS, variable_name
from mailer.config.reading import leaves
from tests.config.conftest import loaded, problems


def test_every_key_answers_to_its_name_with_the_prefix() -> None:
    names = [variable_name(path) for path, _ in leaves()]
    assert len(set(names)) == len(names)
    for name in ("SMTP_HOST", "FORWARD_SMTP", "FORWARD_SSL", "RATE_LIMITS_MAX_PER_HOUR", "DIRECT_DELIVERY_IPV4_ONLY"):
        assert name in names


def test_the_environment_wins_over_the_file() -> None:
    text = '{"smtpPort": 25, "limits": {"idleTimeout": 9}}'
    config = loaded(text, MAILER_SMTP_PORT="2525", MAILER_LIMITS_BAD_COMMANDS="3").config
    assert config.smtp_port == 2525
    assert (config.limits.idle_timeout, config.limits.bad_commands) == (9, 3)


def test_the_environment_wins_over_a_key_in_another_letter_case() -> None:
    assert loaded('{"SMTPPort": 25}', MAILER_SMTP_PORT="2525").config.smtp_port == 2525


def test_empty_means_unset() -> None:
    assert loaded('{"smtpPort": 2526}', MAILER_SMTP_PORT="", SMTP_PORT="  ").config.smtp_port == 2526


def test_keys_of_the_go_program_answer_without_the_prefix() -> None:
    config = loaded("{}", SMTP_PORT="2525", DEFAULT_USERNAME="u", DEFAULT_PASSWORD="p", SECURITY_LOG_ALL_EMAILS="false").config
    assert config.smtp_port == 2525
    assert config.default_password.reveal() == "p"
    assert not config.security.log_all_emails


def test_the_prefixed_variable_wins() -> None:
    assert loaded("{}", SMTP_PORT="2525", MAILER_SMTP_PORT="2526").config.smtp_port == 2526


def test_other_keys_answer_with_the_prefix_only() -> None:
    made = loaded("{}", HOSTNAME="container", MAX_MESSAGE_SIZE="1", DATA_DIR="/nowhere", LOGGING_LEVEL="debug")
    assert made.config.hostname != "container"
    assert made.config.max_message_size == 26214400
    assert made.config.logging.level == "info"
    assert loaded("{}", MAILER_HOSTNAME="mx.example.com").config.hostname == "mx.example.com"
    assert "hostname" not in GO_KEYS


def test_every_key_of_the_go_program_is_one_of_ours() -> None:
    assert {path for path, _ in leaves()} >= GO_KEYS


def test_a_wrong_value_without_the_prefix_is_ignored_with_a_warning() -> None:
    made = loaded('{"smtpPort": 2526}', SMTP_PORT="tcp://10.0.0.7:25", QUEUE_SIZE="0")
    assert made.config.smtp_port == 2526
    assert made.config.queue_size == 1000
    assert any(line.startswith('SMTP_PORT: expected integer, got "tcp://10.0.0.7:25" (ignored') for line in made.warnings)
    assert any(line.startswith("QUEUE_SIZE: expected integer, 1 or more, got 0 (ignored") for line in made.warnings)


def test_a_wrong_value_with_the_prefix_is_an_error() -> None:
    assert problems("{}", MAILER_SMTP_PORT="tcp://10.0.0.7:25", MAILER_ENABLE_HEALTH_CHECK="si") == [
        'MAILER_SMTP_PORT: expected integer, got "tcp://10.0.0.7:25"',
        'MAILER_ENABLE_HEALTH_CHECK: expected true or false, got "si"',
    ]


def test_a_value_out_of_range_names_the_variable() -> None:
    assert problems("{}", MAILER_SMTP_PORT="70000") == ["MAILER_SMTP_PORT: expected integer from 0 to 65535, got 70000"]


@pytest.mark.parametrize("text", ["10.0.0.0/8,192.168.0.0/16", " 10.0.0.0/8 ,192.168.0.0/16,", '["10.0.0.0/8","192.168.0.0/16"]'])
def test_a_list_is_json_or_separated_by_commas_and_replaces_the_whole_list(text: str) -> None:
    config = loaded('{"security": {"allowedNetworks": ["172.17.0.0/16"]}}', MAILER_SECURITY_ALLOWED_NETWORKS=text).config
    assert [str(network) for network in config.security.allowed_networks] == ["10.0.0.0/8", "192.168.0.0/16"]


def test_a_fault_in_a_list_names_the_variable_and_the_position() -> None:
    assert problems("{}", MAILER_SECURITY_ALLOWED_NETWORKS="10.0.0.0/8,lan") == [
        'MAILER_SECURITY_ALLOWED_NETWORKS[1]: expected network in CIDR notation, such as 172.17.0.0/16, got "lan"'
    ]


def test_providers_come_as_json() -> None:
    text = '[{"host": "a.example", "port": 25}, {"host": "b.example", "port": 465, "ssl": true}]'
    file = '{"forwardSMTP": true, "forwardProviders": [{"host": "c.example", "port": 1}]}'
    config = loaded(file, FORWARD_PROVIDERS=text).config
    assert [provider.host for provider in config.forward_providers] == ["a.example", "b.example"]
    assert [provider.priority for provider in config.forward_providers] == [0, 1]


def test_a_fault_in_providers_names_the_variable() -> None:
    text = '[{"host": "a.example", "port": "587x"}]'
    assert problems("{}", MAILER_FORWARD_PROVIDERS=text) == ['MAILER_FORWARD_PROVIDERS[0].port: expected integer, got "587x"']
    made = loaded("{}", FORWARD_PROVIDERS=text)
    assert made.warnings[0].startswith('FORWARD_PROVIDERS[0].port: expected integer, got "587x" (ignored')


def test_providers_that_are_not_json_are_not_quoted() -> None:
    (problem,) = problems("{}", MAILER_FORWARD_PROVIDERS="smtp://user:hunter2@example.com")
    assert problem.startswith("MAILER_FORWARD_PROVIDERS: expected list in JSON, but at line 1, column 1")
    assert "hunter2" not in problem
    assert problems("{}", MAILER_FORWARD_PROVIDERS='"hunter2"') == ["MAILER_FORWARD_PROVIDERS: expected list, got a string"]


def test_a_password_is_taken_as_it_is() -> None:
    assert loaded("{}", MAILER_DEFAULT_PASSWORD=" p,[ ").config.default_password.reveal() == " p,[ "


def test_a_file_holds_a_secret(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hunter2\r\n")
    for name in ("MAILER_DEFAULT_PASSWORD_FILE", "DEFAULT_PASSWORD_FILE"):
        assert loaded("{}", **{name: str(tmp_path / "secret")}).config.default_password.reveal() == "hunter2"


def test_a_missing_file_is_an_error_with_and_without_the_prefix(tmp_path: Path) -> None:
    """A login that silently is not there would let anybody in."""
    for name in ("MAILER_DEFAULT_PASSWORD_FILE", "DEFAULT_PASSWORD_FILE"):
        (problem,) = problems("{}", DEFAULT_USERNAME="u", **{name: str(tmp_path / "none")})
        assert problem.startswith(f'{name}: file "{tmp_path / "none"}" cannot be read: No such file')


def test_a_password_that_cannot_be_one_is_an_error_without_the_prefix_too() -> None:
    assert problems("{}", DEFAULT_USERNAME="u", DEFAULT_PASSWORD="two\nlines") == [
        'DEFAULT_PASSWORD: expected string, "env:NAME" or "file:/path", got a string'
    ]
    assert problems("{}", DEFAULT_PASSWORD="a", DEFAULT_PASSWORD_FILE="b")[0].startswith("DEFAULT_PASSWORD: ")


def test_a_file_holds_the_providers(tmp_path: Path) -> None:
    (tmp_path / "providers").write_text(json.dumps([{"host": "a.example", "port": 25}]))
    config = loaded('{"forwardSMTP": true}', FORWARD_PROVIDERS_FILE=str(tmp_path / "providers")).config
    assert [provider.host for provider in config.forward_providers] == ["a.example"]


def test_a_value_and_its_file_at_once_are_an_error(tmp_path: Path) -> None:
    assert problems("{}", MAILER_DEFAULT_PASSWORD="a", MAILER_DEFAULT_PASSWORD_FILE="/b") == [
        "MAILER_DEFAULT_PASSWORD: MAILER_DEFAULT_PASSWORD_FILE is set too: unset one of them"
    ]


def test_only_secrets_and_providers_come_from_files() -> None:
    made = loaded("{}", MAILER_SMTP_HOST_FILE="/etc/host", SMTP_HOST_FILE="/etc/host")
    assert made.config.smtp_host == "127.0.0.1"
    assert "MAILER_SMTP_HOST_FILE: sets nothing; did you mean MAILER_SMTP_HOST?" in made.warnings


def test_an_unknown_variable_with_the_prefix_is_a_warning_with_the_nearest_name() -> None:
    made = loaded("{}", MAILER_SMTP_PROT="25", MAILER_="1", MAILER_COLOUR_OF_THE_SKY_AT_NIGHT="", OTHER="1")
    assert "MAILER_SMTP_PROT: sets nothing; did you mean MAILER_SMTP_PORT?" in made.warnings
    assert not any("COLOUR" in line or "OTHER" in line for line in made.warnings)


def test_bytes_that_are_not_text_are_an_error() -> None:
    (problem,) = problems("{}", MAILER_DEFAULT_USERNAME="u\udcff")
    assert problem.startswith("MAILER_DEFAULT_USERNAME: expected string")
    assert problem.isprintable()
