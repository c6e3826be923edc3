"""From a file to a configuration: what is accepted, and how faults are told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mailer.config.load import EX_CONFIG, MAX_FILE_BYTES, ConfigError, load
from mailer.mail.outcome import MailerError
from tests.config.conftest import loaded, problems


def test_an_empty_object_is_a_configuration() -> None:
    assert loaded("{}").config.smtp_port == 25


def test_a_wrong_type_names_the_path_and_what_was_found() -> None:
    text = '{"forwardProviders": [{"host": "a.example", "port": 587}, {"host": "b.example", "port": "587x"}]}'
    assert problems(text) == ['forwardProviders[1].port: expected integer, got "587x"']


def test_all_problems_are_listed_at_once() -> None:
    text = """{"smtpPort": -1, "limits": {"idleTimeout": "x", "nope": 1}, "logging": [], "enableHealthCheck": "yes",
               "security": {"allowedNetworks": "10.0.0.0/8"}, "forwardProviders": [{"port": 25}, 7], "bareNewlines": "keep",
               "tls": {"certFile": "a"}, "dkim": {"enabled": true}, "retry": {"maxAge": 1.5}}"""
    assert sorted(problems(text)) == [
        'bareNewlines: expected "normalize" or "reject", got "keep"',
        "dkim.domain: is needed: the domain that signs, and whose DNS holds the public key",
        'enableHealthCheck: expected true or false, got "yes"',
        "forwardProviders[0].host: missing: it is required",
        "forwardProviders[1]: expected object, got a number",
        'limits.idleTimeout: expected integer, got "x"',
        "limits.nope: unknown key",
        "logging: expected object, got a list",
        "retry.maxAge: expected integer, got 1.5",
        "security.allowedNetworks: expected list, got a string",
        "smtpPort: expected integer from 0 to 65535, got -1",
        "tls.certFile: is given without tls.keyFile",
    ]


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ('{"smtpProt": 1}', "smtpPort"),
        ('{"smtp_port": 1}', "smtpPort"),
        ('{"maxPerHour": 1}', "rateLimits.maxPerHour"),
        ('{"rateLimits": {"maxHour": 1}}', "rateLimits.maxPerHour"),
        ('{"forwardProviders": [{"host": "a", "port": 1, "user": "u"}]}', "forwardProviders[0].username"),
        ('{"security": {"allowLocal": true}}', "security.allowLocalOnly"),
    ],
)
def test_an_unknown_key_suggests_the_nearest(text: str, near: str) -> None:
    (problem,) = problems(text)
    assert problem.endswith(f"unknown key; did you mean {near}?")


def test_a_key_in_another_letter_case_is_applied_with_a_warning() -> None:
    made = loaded('{"SMTPPORT": 2525, "RateLimits": {"maxperhour": 7}}')
    assert made.config.smtp_port == 2525
    assert made.config.rate_limits.max_per_hour == 7
    assert "SMTPPORT: taken for smtpPort: the letter case differs" in made.warnings
    assert "rateLimits.maxperhour: taken for maxPerHour: the letter case differs" in made.warnings


def test_keys_for_notes_are_ignored_with_a_warning() -> None:
    made = loaded('{"_note": {"a": [1]}, "// smtpPort": 1, "limits": {"_x": 1}}')
    assert made.config.smtp_port == 25
    assert [line.partition(":")[0] for line in made.warnings if "ignored" in line] == ["_note", "// smtpPort", "limits._x"]


def test_a_repeated_key_is_an_error() -> None:
    assert problems('{"smtpPort": 1, "smtpPort": 2}') == ["smtpPort: the key is there more than once"]
    assert problems('{"limits": {"idleTimeout": 1, "IdleTimeout": 2}}') == [
        "limits.IdleTimeout: the same key as idleTimeout: remove one"
    ]
    assert problems('{"forwardProviders": [{"host": "a", "port": 1, "port": 1}]}') == [
        "forwardProviders[0].port: the key is there more than once"
    ]


def test_null_counts_as_not_given() -> None:
    text = '{"smtpPort": null, "limits": null, "dkim": null, "forwardProviders": null, "tls": {"certFile": null}}'
    config = loaded(text).config
    assert (config.smtp_port, config.limits.idle_timeout, config.forward_providers) == (25, 300, ())
    assert problems('{"forwardProviders": [{"host": null, "port": 25}, null]}') == [
        "forwardProviders[0].host: missing: it is required",
        "forwardProviders[1]: must not be null",
    ]


def test_an_empty_string_is_the_default() -> None:
    config = loaded('{"smtpHost": "", "hostname": "", "bareNewlines": "", "logging": {"level": ""}, "dataDir": ""}').config
    assert (config.smtp_host, config.bare_newlines, config.logging.level) == ("127.0.0.1", "normalize", "info")
    assert config.hostname
    assert config.data_dir == Path()


def test_truth_is_not_a_number() -> None:
    assert problems('{"smtpPort": true}') == ["smtpPort: expected integer, got true"]


@pytest.mark.parametrize("key", ["smtpPort", "healthCheckPort"])
def test_port_zero_picks_one(key: str) -> None:
    assert loaded(json.dumps({key: 0})).config


@pytest.mark.parametrize("port", [0, -1, 65536, "25", 25.0, True, None])
def test_a_provider_needs_a_port(port: object) -> None:
    (problem,) = problems(json.dumps({"forwardProviders": [{"host": "a.example", "port": port}]}))
    assert problem.startswith("forwardProviders[0].port: ")


@pytest.mark.parametrize(
    "path", ["workerCount", "queueSize", "processingTimeout", "maxMessageSize", "limits.idleTimeout", "retry.attemptsPerProvider"]
)
def test_what_cannot_be_zero(path: str) -> None:
    section, _, key = path.rpartition(".")
    tree = {section: {key: 0}} if section else {key: 0}
    assert problems(json.dumps(tree)) == [f"{path}: expected integer, 1 or more, got 0"]


def test_a_batch_delay_of_zero_is_no_delay_and_a_negative_one_an_error() -> None:
    assert loaded('{"batchDelay": 0}').config.batch_delay == 0
    assert problems('{"batchDelay": -1}') == ["batchDelay: expected integer, 0 or more, got -1"]


def test_zero_and_less_stand_for_the_default_where_the_go_program_says_so() -> None:
    config = loaded('{"batchSize": -3, "directDelivery": {"retryCount": 0}, "forwardPort": 0}').config
    assert (config.batch_size, config.direct_delivery.retry_count, config.forward_port) == (20, 3, 587)


def test_words_are_taken_in_any_letter_case() -> None:
    assert loaded('{"logging": {"level": "INFO", "format": "Json"}}').config.logging.format == "json"


def test_no_problem_shows_a_secret() -> None:
    text = """{"defaultPassword": 7777, "forwardPassword": ["hunter2"], "forwardProviders": [
        {"host": "a.example", "port": 1, "password": {"x": "hunter2"}, "oauth2": "hunter2"}, "smtp://u:hunter2@h"],
        "limits": "hunter2"}"""
    lines = problems(text)
    assert len(lines) == 6
    assert not any("hunter2" in line or "7777" in line for line in lines)


def test_what_is_shown_is_short_and_printable() -> None:
    for line in problems(json.dumps({"smtpPort": "\x1b[31m" + "x" * 10_000, "a\nb": 1, "y" * 500: 1, "": 2})):
        assert line.isprintable()
        assert len(line) < 250


def test_a_file_full_of_faults_gives_a_bounded_list() -> None:
    lines = problems(json.dumps({f"key{number}": 1 for number in range(50_000)}))
    assert len(lines) == 101
    assert lines[-1] == "… and more"


def test_the_root_must_be_an_object() -> None:
    assert problems("[]") == ["configuration: expected an object in { }, got a list"]
    assert problems("") == ["configuration: line 1, column 1: the file is empty: expected an object in { }"]


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        load(tmp_path / "config.json", {})
    assert "config.example.json" in str(raised.value)
    assert "-config" in str(raised.value)
    assert isinstance(raised.value, MailerError)
    assert EX_CONFIG == 78


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    for content, words in (
        (b'{"a": "\xff"}', "is not UTF-8 (byte 8)"),
        ('{"smtpPort": 1}'.encode("utf-16"), "UTF-16"),
        (b" " * (MAX_FILE_BYTES + 1), "larger than"),
    ):
        path.write_bytes(content)
        with pytest.raises(ConfigError) as raised:
            load(path, {})
        assert str(path) in str(raised.value)
        assert words in str(raised.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path, {})


def test_a_syntax_error_names_file_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{\n  "smtpPort": 25\n  "smtpHost": "127.0.0.1"\n}')
    with pytest.raises(ConfigError) as raised:
        load(path, {})
    assert raised.value.problems == [f"{path}: line 3, column 3: expecting ',' delimiter"]


def test_a_file_with_a_byte_order_mark_and_comments_loads(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes('\ufeff// Größe\r\n{"smtpPort": 2525, /* x */ }\r\n'.encode())
    assert load(path, {}).config.smtp_port == 2525


GO_CONFIG = """{
  "smtpHost": "127.0.0.1",
  "smtpPort": 2500,
  "defaultUsername": "billing@shop.example",
  "defaultPassword": "s3cret",
  "forwardSMTP": true,
  "forwardProviders": [
    {"host": "one.example", "port": 587, "username": "u1", "password": "p1", "ssl": false, "priority": 0},
    {"host": "two.example", "port": 465, "username": "u2", "password": "p2", "ssl": true, "priority": 0},
    {"host": "one.example", "port": 587, "username": "u3", "password": "p3", "ssl": false, "priority": 0}
  ],
  "forwardHost": "old.example", "forwardPort": 25, "forwardUsername": "", "forwardPassword": "", "forwardSSL": false,
  "directDelivery": {"enabled": false, "ehloDomain": "shop.example", "insecureSkipVerify": false, "retryCount": 0},
  "dkim": {"enabled": false, "domain": "", "selector": "", "privateKeyPath": "", "headersToSign": [], "signatureExpiry": 0},
  "batchSize": 0,
  "batchDelay": 500,
  "enableHealthCheck": true,
  "healthCheckPort": 8025,
  "rateLimits": {"enabled": true, "maxPerHour": 500, "maxPerDay": 2000},
  "security": {"allowLocalOnly": true, "logAllEmails": true, "requireAuth": true}
}"""


def test_a_configuration_of_the_go_program_works_unchanged() -> None:
    config = loaded(GO_CONFIG).config
    assert [provider.name for provider in config.forward_providers] == ["one.example:587", "two.example:465", "one.example:587#2"]
    assert [provider.priority for provider in config.forward_providers] == [0, 0, 0]
    assert [provider.tls for provider in config.forward_providers] == ["required"] * 3
    assert config.batch_size == 20
    assert config.security.require_auth
    assert config.dkim.selector == "mail"
    assert len(config.dkim.headers_to_sign) == 8
    assert config.dkim.domain == "shop.example"
