"""A real Postfix as the provider, with STARTTLS and a login: what it stored is what was submitted, byte for byte.

Postfix's own delivery adds fields on top and writes LF line ends; below our Received field nothing may differ.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.flows.rerouting import DEBUG, attempts, named
from tests.support.certificates import issue, make_ca
from tests.support.postfix import Login, Postfix, Setup, require
from tests.support.relay import Relay
from tests.support.upstream import Upstream

LOGIN = Login("app", "a pass\\word, s3cret")
REFUSING = {"smtpd_recipient_restrictions": "check_recipient_access inline:{ { gone@example.org = 550 5.1.1 no } }"}
HEAD = b"From: from@example.com\r\nTo: to@example.org\r\nDate: Tue, 14 Nov 2023 22:13:20 +0000\r\nMessage-ID: <1@example.com>\r\n"


@dataclass
class Scene:
    """A relay whose provider is a Postfix. ``seen``: how many messages of the mailbox earlier tests looked at."""

    postfix: Postfix
    relay: Relay
    seen: int = 0

    def submit(self, content: bytes, to: tuple[str, ...] = ("to@example.org",), options: tuple[str, ...] = ()) -> str:
        """Submit bytes as they are; the message's id."""
        with self.relay.connect() as client:
            client.ehlo()
            sender = "jürgen@example.com" if "SMTPUTF8" in options else "from@example.com"
            client.command_encoding = "utf-8"
            for command in (f"mail FROM:<{sender}> {' '.join(options)}".strip(), *(f"rcpt TO:<{r}>" for r in to)):
                code, reply = client.docmd(command)
                assert code == 250, reply
            code, reply = client.data(content)
            assert code == 250, reply
            return reply.decode().split()[-1]

    def new_messages(self, count: int) -> list[bytes]:
        """The messages that came since the last call, so many, with CRLF line ends."""
        messages = self.postfix.wait_for_messages(self.seen + count)[self.seen :]
        self.seen += count
        assert len(messages) == count
        return [message.replace(b"\n", b"\r\n") for message in messages]

    def delivered(self, content: bytes, options: tuple[str, ...] = ()) -> bytes:
        """What arrived for ``content``, below the Received field of ours."""
        message_id = self.submit(content, options=options)
        [message] = self.new_messages(1)
        ours = re.search(rb" id " + message_id.encode() + rb"\r\n([ \t].*\r\n)*", message)
        assert ours is not None, message[:2000]
        by_postfix = re.search(rb"with (\w+)", message)
        assert by_postfix is not None
        assert by_postfix[1] in (b"ESMTPSA", b"UTF8SMTPSA")  # within TLS, logged in (RFC 3848, RFC 6531)
        return message[ours.end() :]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    require(login=True)
    folder = tmp_path_factory.mktemp("postfix")
    ca = make_ca(folder)
    certificate = issue(ca, "localhost", "127.0.0.1")
    with Postfix(Setup(login=LOGIN, certificate=certificate, settings=REFUSING)) as postfix:
        relay = Relay(folder, [provider(postfix)], maxLineLength=2_000_000, logging=DEBUG)
        with relay.start({"SSL_CERT_FILE": str(ca.cert_file)}):
            yield Scene(postfix, relay)


def provider(postfix: Postfix, password: str = LOGIN.password) -> dict[str, object]:
    return {
        "name": "postfix",
        "host": postfix.host,
        "port": postfix.port,
        "username": LOGIN.user,
        "password": password,
        "tls": "required",
    }


SHAPES: dict[str, bytes] = {
    "plain": b"Subject: plain\r\n\r\nhello\r\n",
    "8-bit": "Subject: 8-bit\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
    "Content-Transfer-Encoding: 8bit\r\n\r\nGrüße, 你好, \xff\r\n".encode("latin-1", "ignore")
    + bytes(range(0x80, 0x100))
    + b"\r\n",
    "dots": b"Subject: dots\r\n\r\n.\r\n..\r\n. .\r\n.x\r\n\r\n.",
    "empty body": b"Subject: empty\r\n\r\n",
    "blank lines at the end": b"Subject: blank\r\n\r\nx\r\n\r\n\r\n\r\n",
    "From at the start of a line": b"Subject: mbox\r\n\r\nFrom here on\r\n>From there\r\n",
    "folded header": b"Subject: a\r\n folded\r\n\theader\r\nX-Odd:   spaces  \r\n\r\nx\r\n",
    "lines of 998": b"Subject: long\r\n\r\n" + b"x" * 998 + b"\r\n" + b"y" * 998 + b"\r\n",
    "trailing spaces": b"Subject: spaces\r\n\r\nx \r\n \r\n\t\r\n",
    "controls": b"Subject: controls\r\n\r\n" + bytes(set(range(1, 32)) - {10, 13}) + b"\x7f\r\n",
}


@pytest.mark.parametrize("shape", SHAPES)
def test_message_of_any_shape_arrives_byte_for_byte(scene: Scene, shape: str) -> None:
    content = HEAD + SHAPES[shape]
    expected = content if content.endswith(b"\r\n") else content + b"\r\n"
    assert scene.delivered(content) == expected


def test_message_of_5_mb_arrives_whole(scene: Scene) -> None:
    lines = b"".join(b"%06d %s\r\n" % (n, b"." * (n % 70)) for n in range(120_000))
    content = HEAD + b"Subject: large\r\n\r\n" + lines
    assert len(content) > 5_000_000
    assert scene.delivered(content) == content


def test_line_beyond_998_bytes_is_encoded_so_that_its_text_arrives(scene: Scene) -> None:
    text = b"word " * 20_000
    message = scene.delivered(HEAD + b"Subject: long\r\nContent-Type: text/plain\r\n\r\n" + text + b"\r\n")
    head, _, body = message.partition(b"\r\n\r\n")
    assert b"quoted-printable" in head.lower()
    assert max(len(line) for line in message.split(b"\r\n")) <= 998
    assert body.replace(b"=\r\n", b"").replace(b"=20", b" ") == text + b"\r\n"


def test_addresses_and_header_beyond_ascii_arrive_over_smtputf8(scene: Scene) -> None:
    content = "From: jürgen@example.com\r\nDate: x\r\nMessage-ID: <2@example.com>\r\nSubject: Grüße\r\n\r\n你好\r\n".encode()
    assert scene.delivered(content, ("SMTPUTF8", "BODY=8BITMIME")) == content


def test_each_of_many_recipients_gets_one_copy(scene: Scene) -> None:
    everybody = tuple(f"user{n:03}@example.org" for n in range(250))
    message_id = scene.submit(HEAD + b"Subject: many\r\n\r\nx\r\n", everybody)
    copies = scene.new_messages(len(everybody))
    scene.relay.wait_for_line(f"message.finished id={message_id} delivered=250 failed=0")
    recipients = [re.search(rb"^X-Original-To: (\S+)\r$", copy, re.MULTILINE) for copy in copies]
    assert sorted(found[1].decode() for found in recipients if found) == list(everybody)


def test_bcc_is_not_shown_to_anybody(scene: Scene) -> None:
    message = scene.delivered(HEAD + b"Bcc: secret@example.org,\r\n other@example.org\r\nSubject: bcc\r\n\r\nx\r\n")
    assert message == HEAD + b"Subject: bcc\r\n\r\nx\r\n"


def test_wrong_password_takes_the_message_to_the_next_provider(scene: Scene, second: Upstream) -> None:
    relay = scene.relay
    since = len(relay.lines)
    relay.configure(forwardProviders=[provider(scene.postfix, "wrong"), named("second", second)])
    try:
        relay.signal(1)
        relay.wait_for_line("provider.login_failed name=postfix .*535", since)
        message_id = relay.send("over the second")
        assert second.wait_for(1)[0].data.endswith(b"over the second\r\n")
        relay.wait_for_line(f"message.finished id={message_id} delivered=1 failed=0")
        assert attempts(relay, message_id) == ["postfix", "second"]
        assert LOGIN.password not in relay.output
    finally:
        relay.configure(forwardProviders=[provider(scene.postfix)])
        relay.signal(1)
        relay.wait_for_line("provider.login_ok name=postfix", since)


def test_recipient_that_postfix_refuses_fails_alone(scene: Scene) -> None:
    message_id = scene.submit(HEAD + b"\r\nx\r\n", ("here@example.org", "gone@example.org", "there@example.org"))
    scene.relay.wait_for_line(f"message.finished id={message_id} delivered=2 failed=1")
    assert not any(b"gone@example.org" in copy for copy in scene.new_messages(2))


@pytest.mark.slow
def test_mail_goes_on_when_postfix_is_replaced(tmp_path: Path) -> None:
    require()
    with Postfix() as postfix:
        ports = {"host": postfix.host, "port": postfix.port}
        with Relay(tmp_path, [ports], logging=DEBUG) as relay:
            relay.send("before")
            postfix.wait_for_messages(1)
            postfix.stop()
            waiting = relay.send("meanwhile")
            relay.wait_for_line(f"message.parked id={waiting}")
            with Postfix() as again:
                relay.configure(forwardProviders=[{"host": again.host, "port": again.port}])
                relay.signal(1)
                relay.wait_for_line("reload.done")
                relay.http("/admin/retry-failed", "POST")
                assert again.wait_for_messages(1)[0].endswith(b"\n\nmeanwhile\n")


def test_without_postfix_ci_fails_and_others_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for name in ("CI", "MAILER_CI"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(pytest.skip.Exception, match="root"):
        require()
    for name in ("CI", "MAILER_CI"):
        with monkeypatch.context() as environment:
            environment.setenv(name, "true")
            with pytest.raises(pytest.fail.Exception, match="CI must run this test"):
                require()
