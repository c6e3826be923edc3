"""Access tokens: the grants, the file, renewal, and XOAUTH2 with them."""

from __future__ import annotations

import json
import logging
import os
import ssl
import threading
import time
from pathlib import Path

import pytest

from mailer.config.schema import OAuth2Config, Secret
from mailer.mail.outcome import Reply, Stage
from mailer.transport.faults import Fault
from mailer.transport.oauth2 import AHEAD_SECONDS, MARGIN_SECONDS, TokenSource
from mailer.transport.peer import Surroundings
from mailer.transport.provider import Provider
from tests.support.certificates import issue, make_ca
from tests.support.upstream import Behaviour, Login, Upstream
from tests.transport.deliveries import Clock, delivery_to, provider_for
from tests.transport.token_server import Form, TokenServer, tokens


def soon() -> float:
    return time.monotonic() + 20.0


def source(config: OAuth2Config, clock: Clock | None = None, **surroundings: object) -> TokenSource:
    return TokenSource(config, Surroundings(clock=clock or Clock(), **surroundings))  # type: ignore[arg-type]  # any of its fields


def by_refresh_token(url: str, token_file: str = "") -> OAuth2Config:
    return OAuth2Config(
        token_url=url,
        client_id="app",
        client_secret=Secret("app secret"),
        refresh_token=Secret("refresh-1"),
        token_file=token_file,
    )


def test_refresh_token_grant_and_its_cache() -> None:
    clock = Clock()
    with TokenServer(tokens({"access_token": "a1", "expires_in": 3600}, {"access_token": "a2", "expires_in": "3600"})) as server:
        access = source(by_refresh_token(server.url), clock)
        assert access.token(soon()) == "a1"
        clock.now += 3600 - MARGIN_SECONDS - 1
        assert access.token(soon()) == "a1"
        clock.now += 2
        assert access.token(soon()) == "a2", "renewed shortly before its end"
        assert server.forms[0] == {
            "grant_type": "refresh_token",
            "refresh_token": "refresh-1",
            "client_id": "app",
            "client_secret": "app secret",
        }
        assert len(server.forms) == 2


def test_client_credentials_grant() -> None:
    scope = "https://outlook.office365.com/.default"
    with TokenServer(tokens({"access_token": "a1"})) as server:
        config = OAuth2Config(token_url=server.url, client_id="app", client_secret=Secret("s"), scope=scope)
        assert source(config).token(soon()) == "a1"
        expected = {"grant_type": "client_credentials", "client_id": "app", "client_secret": "s", "scope": scope}
        assert server.forms == [expected]


def test_a_rotated_refresh_token_is_used_from_then_on() -> None:
    with TokenServer(tokens({"access_token": "a1", "refresh_token": "refresh-2"}, {"access_token": "a2"})) as server:
        access = source(by_refresh_token(server.url))
        assert access.token(soon()) == "a1"
        assert access.replacement("a1", soon()) == "a2"
        assert [form["refresh_token"] for form in server.forms] == ["refresh-1", "refresh-2"]


def test_a_rotated_refresh_token_survives_a_restart_in_the_token_file(tmp_path: Path) -> None:
    file = tmp_path / "token.json"
    with TokenServer(tokens({"access_token": "a1", "refresh_token": "refresh-2"})) as server:
        config = by_refresh_token(server.url, str(file))
        source(config).token(soon())
        assert file.stat().st_mode & 0o777 == 0o600
        source(config).token(soon())
        assert server.forms[1]["refresh_token"] == "refresh-2"
        config = OAuth2Config(token_url=server.url, refresh_token=Secret("newly configured"), token_file=str(file))
        source(config).token(soon())
        assert server.forms[2]["refresh_token"] == "newly configured"


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"refresh_token": 5}', "\xff\x00"])
def test_a_damaged_store_of_refresh_tokens_is_passed_over(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "token.json"
    file.write_text(damage)
    with TokenServer(tokens({"access_token": "a1"})) as server:
        assert source(by_refresh_token(server.url, str(file))).token(soon()) == "a1"
        assert server.forms[0]["refresh_token"] == "refresh-1"


def test_many_threads_cause_one_request() -> None:
    with TokenServer(tokens({"access_token": "a1"}, {"access_token": "a2"})) as server:
        access, start = source(by_refresh_token(server.url)), threading.Barrier(8)
        got: list[str] = []

        def ask() -> None:
            start.wait()
            got.append(access.token(soon()))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert got == ["a1"] * 8
        assert len(server.forms) == 1
        assert access.replacement("an older one", soon()) == "a1", "what another thread has renewed since serves"


def test_renewal_ahead_of_time() -> None:
    clock = Clock()
    with TokenServer(tokens({"access_token": "a1", "expires_in": 3600}, {"access_token": "a2", "expires_in": 3600})) as server:
        access = source(by_refresh_token(server.url), clock)
        access.renew_ahead(clock())
        assert server.forms == [], "a token that nobody asked for is not bought"
        access.token(soon())
        access.renew_ahead(clock())
        assert len(server.forms) == 1
        clock.now += 3600 - AHEAD_SECONDS
        access.renew_ahead(clock())
        assert len(server.forms) == 2
        assert access.token(soon()) == "a2"


def test_a_failed_renewal_ahead_is_logged_and_the_old_token_serves(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with TokenServer(tokens({"access_token": "a1", "expires_in": 3600})) as server:
        access = source(by_refresh_token(server.url), clock)
        access.token(soon())
        server.answer = lambda _form: (503, b"")
        clock.now += 3600 - AHEAD_SECONDS
        access.renew_ahead(clock())
        access.renew_ahead(clock() + 1)
        assert caplog.text.count("provider.token_renewal_failed") == 1
        assert len(server.forms) == 2, "not tried at every step"
        assert access.token(soon()) == "a1"


def huge(_form: Form) -> tuple[int, bytes]:
    return 200, b'{"access_token": "' + b"a" * 200_000 + b'"}'


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda _: (400, b'{"error": "invalid_grant", "error_description": "too\\r\\nold"}'), "400: invalid_grant: too"),
        (lambda _: (500, b"<html>"), "answered 500"),
        (lambda _: (200, b"<html>"), "127.0.0.1:"),
        (lambda _: (200, b"[]"), "no usable access_token"),
        (lambda _: (200, b'{"access_token": 5}'), "no usable access_token"),
        (lambda _: (200, b'{"access_token": "a\\r\\nRCPT TO:<x>"}'), "no usable access_token"),
        (lambda _: (200, b'{"access_token": ""}'), "no usable access_token"),
        (lambda _: (302, b"http://127.0.0.1:1/elsewhere"), "answered 302"),
        (huge, "longer"),
    ],
)
def test_an_endpoint_that_gives_no_token(answer: object, said: str) -> None:
    with TokenServer(answer) as server:  # type: ignore[arg-type]  # lambdas of a table
        with pytest.raises(Fault) as raised:
            source(by_refresh_token(server.url)).token(soon())
        reply = raised.value.reply
        assert (reply.code, reply.enhanced) == (454, "4.7.0")
        assert said in reply.text
        assert "\n" not in reply.text
        assert "secret" not in reply.text
        assert "refresh-1" not in reply.text
        assert len(server.forms) == 1, "no redirect is followed"


def test_the_deadline_holds_whatever_the_endpoint_does() -> None:
    released = threading.Event()

    def stall(_form: Form) -> tuple[int, bytes]:
        released.wait(20.0)
        return 200, b'{"access_token": "late"}'

    with TokenServer(stall) as server:
        access = source(by_refresh_token(server.url))
        with pytest.raises(Fault, match="time-out"):
            access.token(time.monotonic() + 0.1)
        released.set()
        assert access.token(soon()) == "late", "what comes later serves the next"


def test_clear_text_is_for_loopback_only() -> None:
    with pytest.raises(Fault, match="https"):
        source(by_refresh_token("http://login.provider.test/token")).token(soon())
    with pytest.raises(Fault, match="https"):
        source(by_refresh_token("file:///etc/passwd")).token(soon())


def test_https_is_verified(tmp_path: Path) -> None:
    ca = make_ca(tmp_path / "ca")
    other = make_ca(tmp_path / "other")
    certificate = issue(ca, "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.cert_file, certificate.key_file)
    with TokenServer(tokens({"access_token": "a1"}), context) as server:
        assert source(by_refresh_token(server.url), trust_store=lambda: ca.cert_file).token(soon()) == "a1"
        with pytest.raises(Fault, match="certificate verify failed"):
            source(by_refresh_token(server.url), trust_store=lambda: other.cert_file).token(soon())


class TestTokenFile:
    @pytest.mark.parametrize("text", ["t1", "t1\n", '{"access_token": "t1", "expires_in": 5}'])
    def test_holds_the_token_as_text_or_json_and_is_read_again_when_it_changes(self, tmp_path: Path, text: str) -> None:
        file = tmp_path / "token"
        file.write_text(text)
        access = source(OAuth2Config(token_file=str(file)))
        assert access.token(soon()) == "t1"
        file.write_text("t2")
        os.utime(file, ns=(1, 1))
        assert access.token(soon()) == "t2"

    @pytest.mark.parametrize("text", ["", "two words", "{}", "a\x00b", "{"])
    def test_without_a_token_says_so(self, tmp_path: Path, text: str) -> None:
        file = tmp_path / "token"
        file.write_text(text)
        with pytest.raises(Fault, match="tokenFile"):
            source(OAuth2Config(token_file=str(file))).token(soon())

    def test_that_is_missing_says_so(self, tmp_path: Path) -> None:
        with pytest.raises(Fault, match="No such file"):
            source(OAuth2Config(token_file=str(tmp_path / "none"))).token(soon())

    def test_with_a_refused_token_is_read_anew_once(self, tmp_path: Path) -> None:
        file = tmp_path / "token"
        file.write_text("t1")
        access = source(OAuth2Config(token_file=str(file)))
        with pytest.raises(Fault, match="refused"):
            access.replacement(access.token(soon()), soon())
        file.write_text("t2")
        assert access.replacement("t1", soon()) == "t2"


class TestLogin:
    def provider(self, upstream: Upstream, config: OAuth2Config) -> Provider:
        return provider_for(upstream, settings={"username": "me@x.test", "oauth2": config})

    def test_by_xoauth2(self) -> None:
        with TokenServer(tokens({"access_token": "a1"})) as server:
            with Upstream(Behaviour(login=Login("me@x.test", token="a1", mechanisms="PLAIN XOAUTH2"))) as upstream:
                assert self.provider(upstream, by_refresh_token(server.url)).deliver(delivery_to())[0].is_delivered
                assert upstream.wait_for(1)[0].login == "me@x.test"

    def test_a_refused_token_is_renewed_once_and_tried_again(self) -> None:
        with TokenServer(tokens({"access_token": "revoked"}, {"access_token": "a2"})) as server:
            with Upstream(Behaviour(login=Login("me@x.test", token="a2", mechanisms="XOAUTH2"))) as upstream:
                assert self.provider(upstream, by_refresh_token(server.url)).deliver(delivery_to())[0].is_delivered
                assert upstream.connections == 1
            assert len(server.forms) == 2

    def test_two_refused_tokens_are_a_refused_login(self) -> None:
        with TokenServer(tokens({"access_token": "bad1"}, {"access_token": "bad2"})) as server:
            with Upstream(Behaviour(login=Login("me@x.test", token="good", mechanisms="XOAUTH2"))) as upstream:
                verdict = self.provider(upstream, by_refresh_token(server.url)).deliver(delivery_to())[0]
                assert (verdict.stage, verdict.reply) == (Stage.LOGIN, Reply(535, "5.7.8", "bad login"))
                assert upstream.verbs().count("AUTH") == 2
            assert len(server.forms) == 2

    def test_no_token_is_a_fault_of_the_login(self) -> None:
        with TokenServer(lambda _form: (401, json.dumps({"error": "invalid_client"}).encode())) as server:
            with Upstream(Behaviour(login=Login("me@x.test", token="a", mechanisms="XOAUTH2"))) as upstream:
                verdict = self.provider(upstream, by_refresh_token(server.url)).deliver(delivery_to())[0]
                assert verdict.stage is Stage.LOGIN
                assert "invalid_client" in verdict.reply.text
                assert "AUTH" not in upstream.verbs()

    def test_no_token_is_ever_logged(self, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
        caplog.set_level(logging.DEBUG)
        with TokenServer(tokens({"access_token": "token-a", "refresh_token": "token-b"}, {"access_token": "token-c"})) as server:
            with Upstream(Behaviour(login=Login("me@x.test", token="token-c", mechanisms="XOAUTH2"))) as upstream:
                provider = self.provider(upstream, by_refresh_token(server.url))
                assert provider.deliver(delivery_to())[0].is_delivered
                assert "token-" not in caplog.text + repr(provider) + repr(provider.tokens)
        assert "refresh_token_rotated" in caplog.text
