"""REQUIRETLS on the way out (RFC 8689 4.2.1): only over verified TLS, and only to a server that offers it."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

import pytest

from mailer.mail.envelope import Options
from mailer.mail.outcome import Stage, Verdict
from mailer.transport.provider import Provider
from tests.support.certificates import Certificate, issue, make_ca
from tests.support.upstream import EXTENSIONS, Behaviour, Upstream
from tests.transport.deliveries import delivery_to
from tests.transport.test_peer import NAME, remote, serving

REQUIRED = Options(require_tls=True)
OFFERED = (*EXTENSIONS, "REQUIRETLS")


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_ca(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def good(ca: Certificate) -> ssl.SSLContext:
    return serving(issue(ca, NAME))


@pytest.fixture
def upstream(good: ssl.SSLContext) -> Iterator[Upstream]:
    with Upstream(Behaviour(extensions=OFFERED, tls=good)) as server:
        yield server


def attempt(provider: Provider) -> Verdict:
    try:
        return provider.deliver(delivery_to(options=REQUIRED))[0]
    finally:
        provider.close()


def test_requiretls_is_passed_on_over_verified_tls(upstream: Upstream, ca: Certificate) -> None:
    assert attempt(remote(upstream, ca, login=False)).is_delivered
    [message] = upstream.wait_for(1)
    assert message.tls
    assert "REQUIRETLS" in message.parameters.split()


def test_other_messages_do_not_ask_for_it(upstream: Upstream, ca: Certificate) -> None:
    provider = remote(upstream, ca, login=False)
    assert provider.deliver(delivery_to())[0].is_delivered
    provider.close()
    assert "REQUIRETLS" not in upstream.wait_for(1)[0].parameters


def test_a_server_that_does_not_offer_it_gets_nothing(good: ssl.SSLContext, ca: Certificate) -> None:
    with Upstream(Behaviour(tls=good)) as upstream:
        verdict = attempt(remote(upstream, ca, login=False))
        assert (verdict.stage, verdict.reply.code, verdict.reply.enhanced) == (Stage.MAIL, 550, "5.7.30")
        assert "MAIL" not in upstream.verbs()


def test_a_certificate_that_was_not_checked_is_not_enough(upstream: Upstream, ca: Certificate) -> None:
    verdict = attempt(remote(upstream, ca, login=False, insecure_skip_verify=True))
    assert (verdict.stage, verdict.reply.enhanced) == (Stage.MAIL, "5.7.30")
    assert "MAIL" not in upstream.verbs()


def test_clear_text_is_never_enough(ca: Certificate) -> None:
    with Upstream(Behaviour(extensions=OFFERED)) as upstream:
        verdict = attempt(remote(upstream, ca, login=False))
        assert (verdict.stage, verdict.reply.enhanced) == (Stage.MAIL, "5.7.30")
        assert "MAIL" not in upstream.verbs()


def test_the_connection_serves_the_next_message(good: ssl.SSLContext, ca: Certificate) -> None:
    with Upstream(Behaviour(tls=good)) as upstream:
        provider = remote(upstream, ca, login=False)
        assert provider.deliver(delivery_to(options=REQUIRED))[0].reply.enhanced == "5.7.30"
        assert provider.deliver(delivery_to())[0].is_delivered
        provider.close()
        assert upstream.connections == 1
