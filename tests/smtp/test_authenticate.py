"""Logins: every mechanism, everything a client can do wrong in one, and what guessing costs."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import replace

import pytest

from mailer.config.schema import SecurityConfig
from mailer.events import SubmissionRefused
from mailer.policy.auth import FREE_FAILURES, MAX_DELAY_SECONDS
from mailer.smtp.session import Session
from mailer.smtp.terms import Peer
from mailer.smtp.wire import Wire
from tests.smtp.script import EHLO, MAIL, PATIENT, RCPT, STRANGER, ScriptSocket, Setting, codes, converse, with_login


def encoded(text: bytes) -> bytes:
    return base64.b64encode(text)


def test_a_right_login_in_every_form() -> None:
    plain = encoded(b"\0app\0s3cret")
    for attempt in (
        [b"AUTH PLAIN " + plain + b"\r\n"],
        [b"auth plain\r\n", plain + b"\r\n"],
        [b"AUTH PLAIN " + encoded(b"app\0app\0s3cret") + b"\r\n"],
        [b"AUTH LOGIN\r\n", encoded(b"app") + b"\r\n", encoded(b"s3cret") + b"\r\n"],
        [b"AUTH LOGIN " + encoded(b"app") + b"\r\n", encoded(b"s3cret") + b"\r\n"],
    ):
        setting = with_login()
        replies = converse(EHLO, *attempt, MAIL + RCPT + b"DATA\r\n.\r\n", setting=setting)
        assert codes(replies)[-5:] == ["235 2.7.0", "250 2.1.0", "250 2.1.5", "354", "250 2.0.0"]
        [(envelope, content)] = setting.intake.messages
        assert envelope.options.login == "app"
        assert b" with ESMTPA id " in content


class CramSocket(ScriptSocket):
    """Answers the challenge with ``password``."""

    def __init__(self, password: bytes) -> None:
        super().__init__([EHLO + b"AUTH CRAM-MD5\r\n"])
        self._password = password

    def sendall(self, data: bytes, /) -> None:
        super().sendall(data)
        if match := re.search(rb"^334 (\S+)\r\n", data, re.MULTILINE):
            digest = hmac.new(self._password, base64.b64decode(match[1]), hashlib.md5).hexdigest()
            self._pieces.append(encoded(b"app " + digest.encode()) + b"\r\n")


@pytest.mark.parametrize(("password", "code"), [(b"s3cret", "235 2.7.0"), (b"wrong", "535 5.7.8")])
def test_cram_md5_proves_the_password(password: bytes, code: str) -> None:
    setting = with_login()
    sock = CramSocket(password)
    Session(Wire(sock, PATIENT), Peer.at("127.0.0.1"), setting.terms, setting.services()).run()
    assert codes(sock.sent.decode().split("\r\n")[:-1])[-1] == code


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ([b"AUTH PLAIN " + encoded(b"\0app\0wrong")], "535 5.7.8"),
        ([b"AUTH PLAIN " + encoded(b"\0App\0s3cret")], "535 5.7.8"),
        ([b"AUTH PLAIN " + encoded(b"root\0app\0s3cret")], "535 5.7.8"),
        ([b"AUTH PLAIN " + encoded(b"\0\0")], "535 5.7.8"),
        ([b"AUTH PLAIN " + encoded(b"app\0s3cret")], "501 5.5.2"),
        ([b"AUTH PLAIN ="], "501 5.5.2"),
        ([b"AUTH PLAIN not*base64"], "501 5.5.2"),
        ([b"AUTH PLAIN", b"*"], "501 5.5.2"),
        ([b"AUTH LOGIN", encoded(b"app"), encoded(b"\xff\xfe")], "535 5.7.8"),
        ([b"AUTH LOGIN", encoded(b"app"), b"*"], "501 5.5.2"),
        ([b"AUTH LOGIN", b"x" * 13_000], "500 5.5.2"),
        ([b"AUTH CRAM-MD5 " + encoded(b"app x")], "501 5.5.2"),
        ([b"AUTH CRAM-MD5", encoded(b"app")], "535 5.7.8"),
        ([b"AUTH"], "501 5.5.2"),
        ([b"AUTH PLAIN a b"], "501 5.5.2"),
        ([b"AUTH GSSAPI"], "504 5.5.4"),
        ([b"AUTH \xff\xff"], "504 5.5.4"),
    ],
)
def test_a_login_that_is_not_right_is_refused(said: list[bytes], expected: str) -> None:
    replies = converse(EHLO, *(line + b"\r\n" for line in said), MAIL, setting=with_login())
    assert codes(replies)[-2:] == [expected, "530 5.7.0"]


def test_a_long_response_is_taken() -> None:
    password = "p" * 3000
    setting = with_login(password=password)
    replies = converse(EHLO, b"AUTH PLAIN\r\n", encoded(b"\0app\0" + password.encode()) + b"\r\n", setting=setting)
    assert codes(replies)[-1] == "235 2.7.0"


def test_a_login_is_required_where_there_is_one() -> None:
    setting = with_login()
    assert codes(converse(EHLO + MAIL, setting=setting))[-1] == "530 5.7.0"
    assert SubmissionRefused("auth") in setting.events


def test_any_login_is_taken_where_there_is_none() -> None:
    replies = converse(EHLO, b"AUTH PLAIN " + encoded(b"\0any\0thing") + b"\r\n", MAIL)
    assert "250-AUTH PLAIN LOGIN" in replies
    assert codes(replies)[-2:] == ["235 2.7.0", "250 2.1.0"]


def test_no_login_is_offered_or_taken_in_clear_text_beyond_loopback() -> None:
    replies = converse(EHLO, b"AUTH PLAIN " + encoded(b"\0app\0s3cret") + b"\r\n", setting=with_login(client=STRANGER))
    assert not any("AUTH" in line for line in replies)
    assert codes(replies)[-1] == "538 5.7.11"


def test_no_login_is_taken_where_none_is_configured_beyond_loopback() -> None:
    setting = Setting(client=STRANGER)
    setting.config = replace(setting.config, smtp_host="192.0.2.1", security=SecurityConfig(require_auth=False))
    assert codes(converse(EHLO, b"AUTH PLAIN =\r\n", setting=setting))[-1] == "502 5.5.1"


def test_one_login_a_session_and_none_amid_a_message() -> None:
    login = b"AUTH PLAIN " + encoded(b"\0app\0s3cret") + b"\r\n"
    assert codes(converse(login, setting=with_login()))[-1] == "503 5.5.1"
    assert codes(converse(b"HELO x\r\n" + login, setting=with_login()))[-1] == "503 5.5.1"
    assert codes(converse(EHLO + login + login, setting=with_login()))[-1] == "503 5.5.1"
    assert codes(converse(EHLO + login + MAIL + login, setting=with_login()))[-1] == "503 5.5.1"


def test_guesses_are_delayed_more_and_more_by_session_on_loopback() -> None:
    setting = with_login().with_limits(bad_commands=100)
    wrong = b"AUTH PLAIN " + encoded(b"\0app\0wrong") + b"\r\n"
    converse(EHLO, *([wrong] * (FREE_FAILURES + 8)), setting=setting)
    assert setting.pauses == [1.0, 2.0, 4.0, 8.0, 16.0, MAX_DELAY_SECONDS, MAX_DELAY_SECONDS, MAX_DELAY_SECONDS]
    setting.pauses.clear()
    converse(EHLO, wrong, setting=setting)
    assert setting.pauses == []


def test_no_secret_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG"):
        converse(EHLO, b"AUTH PLAIN " + encoded(b"\0app\0gu3ss") + b"\r\n", setting=with_login())
        converse(EHLO, b"AUTH LOGIN\r\n" + encoded(b"app") + b"\r\n" + encoded(b"gu3ss") + b"\r\n", setting=with_login())
    assert "smtp.refused" in caplog.text
    for secret in ("gu3ss", "s3cret", encoded(b"gu3ss").decode(), encoded(b"\0app\0gu3ss").decode()):
        assert secret not in caplog.text
