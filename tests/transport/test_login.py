"""Logging in: mechanisms, refusals, and what a server may not do to us."""

from __future__ import annotations

import logging

import pytest

from mailer.config.schema import Secret
from mailer.mail.outcome import Reply, Stage, Verdict
from mailer.transport.provider import Provider
from tests.support.upstream import Answer, Behaviour, Disconnect, Login, Stall, Upstream
from tests.transport.deliveries import delivery_to, provider_for

PASSWORD = "pässwörd \\ with spaces"


def provider(upstream: Upstream, auth: str = "auto", password: str = PASSWORD) -> Provider:
    return provider_for(upstream, settings={"username": "jürgen", "password": Secret(password), "auth": auth})


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
@pytest.mark.parametrize("auth", ["auto", "named"])
def test_mechanism(mechanism: str, auth: str) -> None:
    with Upstream(Behaviour(login=Login("jürgen", PASSWORD, mechanisms=mechanism))) as upstream:
        sender = provider(upstream, mechanism.lower() if auth == "named" else "auto")
        assert sender.deliver(delivery_to())[0].is_delivered
        assert upstream.wait_for(1)[0].login == "jürgen"
        sender.close()


def test_over_clear_text_the_password_is_not_shown_if_it_need_not_be() -> None:
    with Upstream(Behaviour(login=Login("jürgen", PASSWORD, mechanisms="LOGIN PLAIN CRAM-MD5"))) as upstream:
        sender = provider(upstream)
        assert sender.deliver(delivery_to())[0].is_delivered
        assert any("AUTH CRAM-MD5" in line for _, line in upstream.commands)
        sender.close()


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
def test_a_refused_login_is_a_verdict_at_login(mechanism: str) -> None:
    with Upstream(Behaviour(login=Login("jürgen", PASSWORD, mechanisms=mechanism))) as upstream:
        verdict = provider(upstream, password="wrong").deliver(delivery_to())[0]
        assert verdict == Verdict(Stage.LOGIN, Reply(535, "5.7.8", "bad login"))
        assert "MAIL" not in upstream.verbs()


@pytest.mark.parametrize(
    "answer",
    ["334 !!!not base64", "334 ", "250 fine", "454 4.7.0 later", b"nonsense\r\n", Disconnect(), Disconnect("421 4.3.0 bye")],
    ids=repr,
)
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
def test_odd_answers_end_at_login(mechanism: str, answer: Answer) -> None:
    with Upstream(Behaviour(login=Login("jürgen", PASSWORD, mechanisms=mechanism))) as upstream:
        upstream.on("auth", answer)
        upstream.on("quit", Stall())
        verdict = provider(upstream).deliver(delivery_to(seconds=20.0))[0]
        assert verdict.stage is Stage.LOGIN
        assert not verdict.is_delivered
        assert "MAIL" not in upstream.verbs()


@pytest.mark.parametrize("behaviour", [Behaviour(), Behaviour(login=Login("x", "y", mechanisms="GSSAPI NTLM"))])
def test_no_mechanism_in_common(behaviour: Behaviour) -> None:
    with Upstream(behaviour) as upstream:
        verdict = provider(upstream).deliver(delivery_to())[0]
        assert (verdict.stage, verdict.reply.code) == (Stage.LOGIN, 454)
        assert "AUTH" not in upstream.verbs()


def test_xoauth2_without_oauth2_settings_says_what_to_do() -> None:
    with Upstream(Behaviour(login=Login("jürgen", token="t", mechanisms="XOAUTH2"))) as upstream:
        verdict = provider(upstream, "xoauth2").deliver(delivery_to())[0]
        assert verdict.stage is Stage.LOGIN
        assert "oauth2" in verdict.reply.text


def test_no_secret_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with Upstream(Behaviour(login=Login("jürgen", PASSWORD))) as upstream:
        for password in (PASSWORD, "another one"):
            sender = provider(upstream, password=password)
            sender.deliver(delivery_to())
            assert password not in caplog.text
            assert password not in repr(sender)
        assert caplog.text.count("delivery.attempt") == 2
