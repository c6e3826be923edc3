"""Opening a conversation: TLS by policy, certificates, G7, and what never goes over clear text."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailer.config.problems import ConfigError
from mailer.config.schema import Secret
from mailer.mail.outcome import Reply, Stage, Verdict
from mailer.transport.dial import SocketAddress
from mailer.transport.peer import Surroundings
from mailer.transport.provider import Provider
from mailer.transport.resolve import Resolver
from tests.support.certificates import Certificate, issue, make_ca
from tests.support.upstream import Behaviour, Disconnect, Login, Stall, Upstream
from tests.transport.deliveries import delivery_to, provider_for

NAME = "smtp.provider.test"
LOGIN = Login("user", "secret word")


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_ca(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def good(ca: Certificate) -> ssl.SSLContext:
    return serving(issue(ca, NAME, "127.0.0.1"))


@pytest.fixture
def upstream(good: ssl.SSLContext) -> Iterator[Upstream]:
    with Upstream(Behaviour(tls=good, login=LOGIN)) as server:
        yield server


def serving(certificate: Certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.cert_file, certificate.key_file)
    return context


def to_loopback(_host: str, port: int) -> list[SocketAddress]:
    return [(socket.AF_INET, ("127.0.0.1", port))]


def remote(upstream: Upstream, ca: Certificate, *, login: bool = True, **settings: object) -> Provider:
    """A provider at a host that is not loopback as far as the configuration knows."""
    surroundings = Surroundings(resolver=Resolver(to_loopback), trust_store=lambda: ca.cert_file)
    if login:
        settings |= {"username": LOGIN.username, "password": Secret(LOGIN.password)}
    return provider_for(upstream, surroundings=surroundings, settings={"host": NAME, **settings})


def attempt(provider: Provider) -> Verdict:
    try:
        return provider.deliver(delivery_to())[0]
    finally:
        provider.close()


def no_secret_was_sent(upstream: Upstream) -> bool:
    return not {"AUTH", "MAIL"} & set(upstream.verbs())


def test_login_and_message_go_over_starttls(upstream: Upstream, ca: Certificate) -> None:
    assert attempt(remote(upstream, ca)).is_delivered
    [message] = upstream.wait_for(1)
    assert message.tls
    assert message.login == LOGIN.username
    assert upstream.verbs()[:4] == ["EHLO", "STARTTLS", "EHLO", "AUTH"], "RFC 3207 4.2: what was learnt before is forgotten"


def test_implicit_tls(good: ssl.SSLContext, ca: Certificate) -> None:
    with Upstream(Behaviour(tls=good, implicit_tls=True, login=LOGIN)) as upstream:
        assert attempt(remote(upstream, ca, ssl=True)).is_delivered
        assert upstream.wait_for(1)[0].tls


def test_an_address_is_checked_against_the_certificate_too(upstream: Upstream, ca: Certificate) -> None:
    assert attempt(remote(upstream, ca, host="127.0.0.1", tls="required")).is_delivered
    assert upstream.wait_for(1)[0].tls
    verdict = attempt(remote(upstream, ca, host="127.0.0.2", tls="required"))
    assert verdict.stage is Stage.CONNECT or "match" in verdict.reply.text or "127.0.0.2" in verdict.reply.text
    assert not verdict.is_delivered


@pytest.mark.parametrize("implicit", [False, True], ids=["starttls", "implicit"])
@pytest.mark.parametrize("fault", ["unknown authority", "wrong name", "expired"])
def test_a_certificate_that_fails_its_check_is_a_tls_fault(tmp_path: Path, ca: Certificate, fault: str, implicit: bool) -> None:
    authority = make_ca(tmp_path, "another authority") if fault == "unknown authority" else ca
    name = "other.provider.test" if fault == "wrong name" else NAME
    certificate = issue(authority, name, expired=fault == "expired")
    with Upstream(Behaviour(tls=serving(certificate), implicit_tls=implicit, login=LOGIN)) as upstream:
        for login in (True, False):
            verdict = attempt(remote(upstream, ca, login=login, ssl=implicit))
            assert (verdict.stage, verdict.reply.code, verdict.reply.enhanced) == (Stage.TLS, 454, "4.7.5")
            assert "certificate" in verdict.reply.text
        assert no_secret_was_sent(upstream)
        assert attempt(remote(upstream, ca, ssl=implicit, insecure_skip_verify=True)).is_delivered


def test_without_a_trust_store_nothing_is_sent(upstream: Upstream) -> None:
    def none() -> Path:
        raise ConfigError(["no certificate store found"])

    surroundings = Surroundings(resolver=Resolver(to_loopback), trust_store=none)
    verdict = attempt(provider_for(upstream, surroundings=surroundings, settings={"host": NAME, "tls": "required"}))
    assert (verdict.stage, verdict.reply.enhanced) == (Stage.TLS, "4.7.5")
    assert "certificate store" in verdict.reply.text
    assert no_secret_was_sent(upstream)


def test_required_tls_that_is_not_offered_is_a_tls_fault(ca: Certificate) -> None:
    with Upstream(Behaviour(login=LOGIN)) as upstream:
        for tls in ("required", "opportunistic", ""):
            verdict = attempt(remote(upstream, ca, tls=tls))
            assert (verdict.stage, verdict.reply.enhanced) == (Stage.TLS, "4.7.0")
        assert no_secret_was_sent(upstream)


def test_a_login_goes_over_clear_text_only_where_that_is_configured(ca: Certificate) -> None:
    with Upstream(Behaviour(login=LOGIN)) as upstream:
        assert attempt(remote(upstream, ca, tls="none")).is_delivered
        assert attempt(remote(upstream, ca, host="127.0.0.1")).is_delivered
        assert [m.tls for m in upstream.wait_for(2)] == [False, False]


STARTTLS_FAULTS = {
    "refused": "454 4.7.0 TLS not available",
    "not implemented": "502 5.5.1 what",
    "hangs up": Disconnect(),
    "garbage for a handshake": b"220 go ahead\r\n" + b"\x15\x03\x01\x00\x02\x02\x28" * 20,
    "a reply injected before the handshake": b"220 go ahead\r\n250 injected\r\n",
}


@pytest.mark.parametrize("answer", STARTTLS_FAULTS.values(), ids=STARTTLS_FAULTS.keys())
class TestFailedStarttls:
    """G7: a failed STARTTLS never goes on over the broken connection, and no login ever follows in clear text."""

    def test_with_a_login_is_a_tls_fault(self, upstream: Upstream, ca: Certificate, answer: str | bytes | Disconnect) -> None:
        upstream.on("starttls", answer)
        for tls in ("required", "opportunistic"):
            assert attempt(remote(upstream, ca, tls=tls)).stage is Stage.TLS
        assert no_secret_was_sent(upstream)
        assert upstream.connections == 2

    def test_without_a_login_required_is_a_tls_fault(
        self, upstream: Upstream, ca: Certificate, answer: str | bytes | Disconnect
    ) -> None:
        upstream.on("starttls", answer)
        assert attempt(remote(upstream, ca, login=False, tls="required")).stage is Stage.TLS
        assert no_secret_was_sent(upstream)

    def test_without_a_login_opportunistic_goes_over_a_new_connection(
        self, upstream: Upstream, ca: Certificate, answer: str | bytes | Disconnect
    ) -> None:
        upstream.on("starttls", answer)
        assert attempt(remote(upstream, ca, login=False)).is_delivered
        [message] = upstream.wait_for(1)
        assert not message.tls
        assert message.connection == 2
        assert "MAIL" not in upstream.verbs(connection=1)


def test_a_handshake_that_stalls_ends_by_the_deadline(upstream: Upstream, ca: Certificate) -> None:
    upstream.on("starttls", Stall())
    provider = remote(upstream, ca)
    verdict = provider.deliver(delivery_to(seconds=0.4))[0]
    assert (verdict.stage, verdict.reply.enhanced) == (Stage.TLS, "4.4.2")
    provider.close()


def test_a_plain_server_on_an_implicit_tls_port_is_a_tls_fault(ca: Certificate) -> None:
    with Upstream() as upstream:
        assert attempt(remote(upstream, ca, ssl=True)).stage is Stage.TLS


def test_nobody_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        verdict = attempt(provider_for(unused.getsockname()[1]))
    assert verdict == Verdict(Stage.CONNECT, Reply(451, "4.4.1", "connection refused"))


@pytest.mark.parametrize("reply", ["554 5.3.2 no service", "451 4.3.2 later", "220-a\n250 b", "250 hello"])
def test_a_greeting_other_than_220_is_no_connection(reply: str) -> None:
    with Upstream() as upstream:
        upstream.on("connect", reply)
        assert attempt(provider_for(upstream)).stage is Stage.CONNECT


@pytest.mark.parametrize("reply", ["502 5.5.1 no EHLO", "451 4.3.0 later"])
def test_a_refused_ehlo_ends_the_attempt(reply: str) -> None:
    with Upstream() as upstream:
        upstream.on("ehlo", reply)
        assert attempt(provider_for(upstream)) == Verdict(Stage.EHLO, Reply.received(int(reply[:3]), reply[4:]))
        assert upstream.verbs() == ["EHLO"]


def test_every_address_of_a_host_is_tried(upstream: Upstream, ca: Certificate) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        dead = unused.getsockname()[1]
        addresses: list[SocketAddress] = [(socket.AF_INET6, ("::1", dead, 0, 0)), (socket.AF_INET, ("127.0.0.1", upstream.port))]
        surroundings = Surroundings(resolver=Resolver(lambda _host, _port: addresses), trust_store=lambda: ca.cert_file)
        assert attempt(provider_for(upstream, surroundings=surroundings, settings={"host": NAME})).is_delivered


def test_a_dns_failure_is_temporary(upstream: Upstream) -> None:
    def fails(_host: str, _port: int) -> list[SocketAddress]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    surroundings = Surroundings(resolver=Resolver(fails))
    verdict = attempt(provider_for(upstream, surroundings=surroundings, settings={"host": NAME}))
    assert (verdict.stage, verdict.reply.code, verdict.reply.enhanced) == (Stage.CONNECT, 451, "4.4.3")


def test_an_ipv6_literal_in_brackets() -> None:
    with Upstream(Behaviour(host="::1")) as upstream:
        assert attempt(provider_for(upstream, settings={"host": "[::1]"})).is_delivered


def test_our_host_name_is_what_ehlo_says() -> None:
    with Upstream() as upstream:
        attempt(provider_for(upstream))
        assert upstream.commands[0][1].lower() == "ehlo mailer.test"


def test_a_spent_deadline_asks_nothing() -> None:
    with Upstream() as upstream:
        provider = provider_for(upstream)
        verdict = provider.deliver(delivery_to(seconds=-time.monotonic()))[0]
        assert (verdict.stage, verdict.reply.code) == (Stage.CONNECT, 451)
        assert upstream.transactions == []
