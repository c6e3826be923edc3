"""Failover over the whole process where a provider's TLS cannot be trusted: at once to the next, nothing in clear text."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows.rerouting import DEBUG, Rerouting, attempts, named
from tests.support.certificates import Certificate, issue, make_ca
from tests.support.relay import Relay
from tests.support.upstream import Behaviour, Login, Upstream

PASSWORD = "s3cret-pa55word"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def ca(folder: Path) -> Certificate:
    """The authority that the relay trusts, through SSL_CERT_FILE."""
    return make_ca(folder / "trusted")


@pytest.fixture(scope="module")
def trusting_relay(folder: Path, ca: Certificate, sink: Upstream) -> Iterator[Rerouting]:
    relay = Relay(folder, logging=DEBUG)
    with relay.start({"SSL_CERT_FILE": str(ca.cert_file)}):
        yield Rerouting(relay, sink)


@pytest.fixture
def trusting(trusting_relay: Rerouting) -> Rerouting:
    trusting_relay.settle()
    return trusting_relay


@pytest.fixture(scope="module")
def certificates(folder: Path, ca: Certificate) -> dict[str, Certificate]:
    return {
        "right": issue(ca, "127.0.0.1", "localhost"),
        "unknown authority": issue(make_ca(folder / "unknown", "somebody else"), "127.0.0.1", "localhost"),
        "expired": issue(ca, "127.0.0.1", "localhost", expired=True),
        "wrong name": issue(ca, "mail.example.com"),
    }


def server(certificate: Certificate, implicit: bool = False) -> Upstream:
    """An upstream with that certificate and a login, which it offers without TLS too."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.cert_file, certificate.key_file)
    return Upstream(Behaviour(tls=context, implicit_tls=implicit, login=Login("app", PASSWORD)))


@pytest.mark.parametrize("implicit", [False, True], ids=["STARTTLS", "implicit TLS"])
@pytest.mark.parametrize("fault", ["unknown authority", "expired", "wrong name"])
def test_certificate_that_cannot_be_verified_sends_the_message_to_the_next_provider_at_once(
    trusting: Rerouting, certificates: dict[str, Certificate], second: Upstream, fault: str, implicit: bool
) -> None:
    with server(certificates[fault], implicit) as first:
        # A login alone would not ask for TLS here: the host is loopback.
        login = {"username": "app", "password": PASSWORD, "ssl": implicit, "tls": "required"}
        relay = trusting.to(named("first", first, **login), named("second", second))
        message_id = relay.send()
        second.wait_for(1)
        relay.wait_for_line(f"message.finished id={message_id} delivered=1")
        assert attempts(relay, message_id) == ["first", "second"]
        assert not {"AUTH", "MAIL"} & set(first.verbs())


def test_verified_certificate_protects_login_and_message(trusting: Rerouting, certificates: dict[str, Certificate]) -> None:
    for implicit in (False, True):
        with server(certificates["right"], implicit) as first:
            login = {"username": "app", "password": PASSWORD, "ssl": implicit, "tls": "required"}
            relay = trusting.to(named("first", first, **login))
            relay.send()
            [message] = first.wait_for(1)
            assert (message.tls, message.login) == (True, "app")


def test_certificate_may_be_left_unverified_where_that_is_configured(
    trusting: Rerouting, certificates: dict[str, Certificate]
) -> None:
    with server(certificates["unknown authority"]) as first:
        relay = trusting.to(named("first", first, tls="required", insecureSkipVerify=True))
        relay.send()
        assert first.wait_for(1)[0].tls


def test_required_tls_that_is_not_offered_sends_the_message_to_the_next_provider(trusting: Rerouting, second: Upstream) -> None:
    with Upstream(Behaviour(login=Login("app", PASSWORD))) as first:
        login = {"username": "app", "password": PASSWORD, "tls": "required"}
        relay = trusting.to(named("first", first, **login), named("second", second))
        message_id = relay.send()
        second.wait_for(1)
        relay.wait_for_line(f"message.finished id={message_id} delivered=1")
        assert attempts(relay, message_id) == ["first", "second"]
        assert not {"AUTH", "MAIL"} & set(first.verbs())


def test_reply_injected_before_the_handshake_is_not_taken_for_one_within_it(
    trusting: Rerouting, certificates: dict[str, Certificate], second: Upstream
) -> None:
    with server(certificates["right"]) as first:
        login = {"username": "app", "password": PASSWORD, "tls": "required"}
        relay = trusting.to(named("first", first, **login), named("second", second))
        first.on("starttls", b"220 2.0.0 go ahead\r\n250-injected\r\n250 AUTH PLAIN\r\n")
        message_id = relay.send()
        second.wait_for(1)
        relay.wait_for_line(f"message.finished id={message_id} delivered=1")
        assert attempts(relay, message_id) == ["first", "second"]
        assert "MAIL" not in first.verbs()
        assert first.verbs().count("AUTH") == 1  # the login check's, before the injection


def test_tls_fault_never_makes_a_message_final(trusting: Rerouting, certificates: dict[str, Certificate]) -> None:
    with server(certificates["expired"]) as first:
        relay = trusting.to(named("first", first, tls="required"))
        message_id = relay.send()
        relay.wait_for_line(f"message.parked id={message_id} owed=1")
        assert first.messages == []
