"""Secrets show themselves to nobody."""

from __future__ import annotations

from mailer.config.schema import Config, ProviderConfig
from mailer.config.secret import Secret


def test_a_secret_shows_itself_only_on_request() -> None:
    secret = Secret("hunter2")
    assert secret.reveal() == "hunter2"
    for shown in (str(secret), repr(secret), f"{secret}", f"{secret!r}", "%s" % secret, "{}".format(secret)):  # noqa: UP031, UP032 - all the ways there are
        assert "hunter2" not in shown
        assert "***" in shown


def test_a_configuration_in_a_traceback_shows_no_secret() -> None:
    config = Config(
        default_password=Secret("hunter2"),
        forward_providers=(ProviderConfig(host="h.example", port=25, password=Secret("hunter3")),),
    )
    assert "hunter" not in repr(config)


def test_an_empty_secret_is_false_and_shows_as_empty() -> None:
    assert not Secret()
    assert not Secret("")
    assert Secret(" ")
    assert str(Secret()) == ""
    assert "***" not in repr(Secret())


def test_secrets_are_equal_when_their_texts_are() -> None:
    assert Secret("päss") == Secret("päss")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert Secret("\ud800") == Secret("\ud800")
    assert hash(Secret("a")) == hash(Secret("a"))
