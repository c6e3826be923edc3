"""Checks that need more than one setting, or a look at a file."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from tests.config.conftest import loaded, make_certificate, problems

PROVIDER = {"host": "smtp.example.com", "port": 587}
TOKENS = {"tokenUrl": "https://tokens.example/", "clientId": "c", "clientSecret": "s"}


def of_tls(**tls: object) -> str:
    return json.dumps({"tls": tls})


def of_provider(**values: object) -> str:
    return json.dumps({"forwardSMTP": True, "forwardProviders": [PROVIDER | values]})


def of_dkim(**dkim: object) -> str:
    return json.dumps({"dkim": {"enabled": True} | dkim})


def test_signing_needs_a_domain_whose_name_a_signature_can_hold() -> None:
    assert problems(of_dkim()) == ["dkim.domain: is needed: the domain that signs, and whose DNS holds the public key"]
    assert problems(of_dkim(domain="a." + "b" * 60 + ".example")) == [
        "dkim.domain: is longer than 67 characters, so it cannot sign"
    ]
    assert loaded(of_dkim(keys=[{"domain": "b.example"}])).config.dkim.domain == ""


def test_two_keys_with_one_selector_are_an_error_and_two_selectors_of_a_domain_are_not() -> None:
    keys = [{"domain": "a.example", "selector": "Ed"}, {"domain": "a.example", "selector": "ed"}]
    assert problems(of_dkim(keys=keys)) == ["dkim.keys[1].selector: a.example has a key with the selector ed before it"]
    assert len(loaded(of_dkim(domain="a.example", keys=keys[:1])).config.dkim.keys) == 1


@pytest.mark.parametrize("selector", ["a;b", "../x", "a..b", "-", "x" * 64, "é"])
def test_what_is_no_selector_is_refused(selector: str) -> None:
    (problem,) = problems(of_dkim(domain="a.example", selector=selector))
    assert problem.startswith("dkim.selector: expected DKIM selector")


def test_a_header_field_that_changes_on_the_way_should_not_be_signed() -> None:
    warnings = loaded(of_dkim(domain="a.example", headersToSign=["From", "Received"])).warnings
    assert "dkim.headersToSign: Received changes on the way, which breaks the signature: take it out" in warnings
    assert problems(of_dkim(domain="a.example", headersToSign=["dkim-signature"])) == [
        "dkim.headersToSign: dkim-signature cannot be signed"
    ]
    (problem,) = problems(of_dkim(domain="a.example", headersToSign=["To:"]))
    assert problem.startswith("dkim.headersToSign[0]: expected name of a header field")


def test_accepting_any_certificate_is_said_at_each_start() -> None:
    warnings = loaded('{"directDelivery": {"enabled": true, "insecureSkipVerify": true}}').warnings
    [warning] = [warning for warning in warnings if "any cert" in warning]
    assert warning.startswith("directDelivery.insecureSkipVerify: any certificate is accepted")
    assert not any("any cert" in w for w in loaded('{"directDelivery": {"enabled": true}}').warnings)


def test_without_a_certificate_store_direct_delivery_says_what_it_cannot_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent/ca.pem")
    direct = '{"directDelivery": {"enabled": true}}'
    [warning] = [warning for warning in loaded(direct).warnings if "MTA-STS" in warning]
    assert 'SSL_CERT_FILE: there is no file "/nonexistent/ca.pem"' in warning
    monkeypatch.setenv("SSL_CERT_FILE", __file__)  # any file that is there: it is not read before it is needed
    assert not any("(MTA-STS)" in warning for warning in loaded(direct).warnings)


def test_without_cryptography_dane_is_off_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "cryptography" else find(name, *rest))
    assert any("DANE is off" in w for w in loaded('{"directDelivery": {"enabled": true}}').warnings)
    assert not any("DANE" in w for w in loaded("{}").warnings)


def test_reports_about_tls_need_direct_delivery() -> None:
    said = "tlsReports.enabled: has no effect without directDelivery.enabled"
    assert said in loaded('{"tlsReports": {"enabled": true}}').warnings
    assert said not in loaded('{"tlsReports": {"enabled": true}, "directDelivery": {"enabled": true}}').warnings


def test_a_certificate_and_its_key_load(tmp_path: Path) -> None:
    cert_file, key_file = make_certificate(tmp_path)
    assert loaded(of_tls(certFile=str(cert_file), keyFile=str(key_file), implicitPort=4650)).config.tls.implicit_port == 4650


def test_a_certificate_without_its_key_is_an_error_and_the_other_way_round() -> None:
    assert problems(of_tls(certFile="a.pem")) == ["tls.certFile: is given without tls.keyFile"]
    assert problems(of_tls(keyFile="a.key")) == ["tls.keyFile: is given without tls.certFile"]
    assert problems(of_tls(implicitPort=465)) == [
        "tls.implicitPort: needs a certificate: set tls.certFile and tls.keyFile, or this to 0"
    ]


def test_a_certificate_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    cert_file, key_file = make_certificate(tmp_path)
    assert problems(of_tls(certFile=str(tmp_path / "none"), keyFile=str(key_file))) == [
        f'tls.certFile: file "{tmp_path / "none"}" cannot be read: No such file or directory'
    ]
    assert problems(of_tls(certFile=str(cert_file), keyFile=str(tmp_path))) == [
        f'tls.keyFile: file "{tmp_path}" cannot be read: Is a directory'
    ]


def test_a_relative_certificate_starts_at_the_data_folder(tmp_path: Path) -> None:
    make_certificate(tmp_path / "certificates")
    text = of_tls(certFile="certificates/localhost.pem", keyFile="certificates/localhost.key")
    assert loaded(text, MAILER_DATA_DIR=str(tmp_path)).config.tls.cert_file == str(tmp_path / "certificates" / "localhost.pem")


def test_a_key_of_another_certificate_is_an_error(tmp_path: Path) -> None:
    cert_file, _ = make_certificate(tmp_path, "one")
    _, key_file = make_certificate(tmp_path, "two")
    (problem,) = problems(of_tls(certFile=str(cert_file), keyFile=str(key_file)))
    assert problem.startswith(f'tls.certFile: "{cert_file}" with the key "{key_file}" cannot be used: ')


def test_an_encrypted_key_is_an_error_and_asks_nobody_for_its_password(tmp_path: Path) -> None:
    cert_file, key_file = make_certificate(tmp_path, password="secret")
    (problem,) = problems(of_tls(certFile=str(cert_file), keyFile=str(key_file)))
    assert "cannot be used" in problem


def test_a_file_that_is_no_certificate_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("nonsense")
    assert "cannot be used" in problems(of_tls(certFile=str(tmp_path / "a"), keyFile=str(tmp_path / "a")))[0]


def test_two_listeners_cannot_share_a_port() -> None:
    assert problems('{"smtpPort": 8025}') == ["healthCheckPort: port 8025 is taken by smtpPort"]
    assert loaded('{"smtpPort": 8025, "enableHealthCheck": false}')
    assert loaded('{"smtpPort": 0, "healthCheckPort": 0}')


def test_ssl_and_tls_none_contradict_each_other() -> None:
    assert problems(of_provider(ssl=True, tls="none")) == ['forwardProviders[0].tls: "none" contradicts ssl: true']


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"password": "p"}, "forwardProviders[0].username"),
        ({"username": "u"}, "forwardProviders[0].password"),
        ({"username": "u", "password": "p", "tls": "none"}, "forwardProviders[0].tls"),
        ({"insecureSkipVerify": True}, "forwardProviders[0].insecureSkipVerify"),
    ],
)
def test_what_a_person_should_know_of_a_provider_is_a_warning(values: dict[str, object], place: str) -> None:
    assert any(line.startswith(f"{place}: ") for line in loaded(of_provider(**values)).warnings)


def test_warnings_of_the_older_keys_name_those() -> None:
    warnings = loaded('{"forwardSMTP": true, "forwardHost": "a.example", "forwardUsername": "u"}').warnings
    assert any(line.startswith("forwardPassword: is empty") for line in warnings)


def test_a_usual_provider_is_no_warning() -> None:
    made = loaded(of_provider(username="u", password="p"), MAILER_SECURITY_REQUIRE_AUTH="false")
    assert made.warnings == []


@pytest.mark.parametrize(
    ("oauth2", "place"),
    [
        ({}, "tokenUrl"),
        (TOKENS | {"tokenUrl": "http://tokens.example/"}, "tokenUrl"),
        (TOKENS | {"tokenUrl": "tokens.example"}, "tokenUrl"),
        (TOKENS | {"clientId": ""}, "clientId"),
        (TOKENS | {"clientSecret": ""}, "refreshToken"),
    ],
)
def test_tokens_need_a_source(oauth2: dict[str, str], place: str) -> None:
    (problem,) = problems(of_provider(username="u", oauth2=oauth2))
    assert problem.startswith(f"forwardProviders[0].oauth2.{place}: ")


@pytest.mark.parametrize(
    "oauth2",
    [TOKENS, {"tokenFile": "token"}, TOKENS | {"tokenUrl": "http://127.0.0.1:8080/"}, TOKENS | {"tokenUrl": "http://[::1]:80/"}],
)
def test_tokens_with_a_source_are_fine(oauth2: dict[str, str]) -> None:
    assert loaded(of_provider(username="u", auth="xoauth2", oauth2=oauth2)).config.forward_providers[0].oauth2


def test_a_token_is_for_an_account() -> None:
    (problem,) = problems(of_provider(oauth2=TOKENS))
    assert problem.startswith("forwardProviders[0].username: is needed with oauth2")
    assert problems(of_provider(username="u", auth="xoauth2")) == ['forwardProviders[0].oauth2: is needed with auth "xoauth2"']


def test_a_network_of_everyone_is_a_warning() -> None:
    text = '{"security": {"allowedNetworks": ["10.0.0.0/8", "::/0"], "requireAuth": false}}'
    assert loaded(text).warnings == ["security.allowedNetworks[1]: ::/0 is everyone"]


def test_waits_that_cannot_grow_are_a_warning() -> None:
    assert any(line.startswith("retry.maxDelay: ") for line in loaded('{"retry": {"baseDelay": 100000}}').warnings)


@pytest.mark.parametrize("given", [{"name": "direct:mx"}, {"host": "direct", "port": 25}])
def test_a_provider_cannot_have_the_name_of_a_way_of_direct_delivery(given: dict[str, object]) -> None:
    (problem,) = problems(of_provider(**given))
    assert problem.startswith("forwardProviders[0].name: direct:")
