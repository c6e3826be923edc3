"""The private Postfix does what the tests that use it rely on."""

from __future__ import annotations

import os
import smtplib
import ssl
from pathlib import Path

import pytest

from tests.support.certificates import issue, make_ca
from tests.support.postfix import Login, Postfix, PostfixError, Setup, require

MESSAGE = b"Subject: hello\r\n\r\n.dot\r\n"


def test_two_instances_pass_a_message_on_from_one_to_the_other() -> None:
    require()
    with Postfix() as last, Postfix(Setup(relay_to=(last.host, last.port))) as first:
        with smtplib.SMTP(first.host, first.port) as client:
            client.sendmail("a@x.test", ["b@y.test", "c@z.test"], MESSAGE)
        delivered = last.wait_for_messages(2)
        folders = [first.folder, last.folder]
    assert sorted(line for one in delivered for line in one.splitlines() if line.startswith(b"X-Original-To")) == [
        b"X-Original-To: b@y.test",
        b"X-Original-To: c@z.test",
    ]
    assert all(one.endswith(b"\n\n.dot\n") for one in delivered)
    assert not any(folder.exists() for folder in folders)


def test_login_is_needed_and_offered_only_behind_starttls(tmp_path: Path) -> None:
    require(login=True)
    ca = make_ca(tmp_path)
    certificate = issue(ca, "localhost", "127.0.0.1")
    trusting_ca = ssl.create_default_context(cafile=ca.cert_file)
    with Postfix(Setup(login=Login("user", "a pass\\word"), certificate=certificate)) as server:
        with smtplib.SMTP(server.host, server.port) as client:
            client.ehlo()
            assert not client.has_extn("auth")
            with pytest.raises(smtplib.SMTPRecipientsRefused):
                client.sendmail("a@x.test", ["b@y.test"], MESSAGE)
            client.starttls(context=trusting_ca)
            with pytest.raises(smtplib.SMTPAuthenticationError):
                client.login("user", "wrong")
        with smtplib.SMTP(server.host, server.port) as client:
            client.starttls(context=trusting_ca)
            client.login("user", "a pass\\word")
            client.sendmail("a@x.test", ["b@y.test"], MESSAGE)
        [delivered] = server.wait_for_messages(1)
    assert b"ESMTPSA" in delivered


def test_a_start_that_fails_says_where_and_leaves_nothing() -> None:
    require()
    server = Postfix(Setup(settings={"inet_interfaces": "198.51.100.1"}))
    with pytest.raises(PostfixError, match="check: exit status 1"):
        server.start()
    assert server.folder == Path()


def test_without_root_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(PostfixError, match="needs root"):
        Postfix().start()
