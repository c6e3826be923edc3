"""Signing as an operator meets it: the start without a key, reloads, a rotation, and what happens when it cannot be done."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.relay import ROOT, Relay
from tests.support.upstream import Upstream

pytest.importorskip("cryptography", reason="no wheels for free-threaded 3.13")

DKIM = {"enabled": True, "domain": "example.com"}


def mailer(relay: Relay, *words: str) -> subprocess.CompletedProcess[str]:
    """A command of the program, on the relay's configuration."""
    executable = os.environ.get("MAILER_EXECUTABLE")
    program = [executable] if executable else [sys.executable, str(ROOT / "mailer.py")]
    command = [*program, "-config", str(relay.config_path), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def with_key(folder: Path, upstream: Upstream, **dkim: Any) -> Relay:
    relay = Relay(folder, [upstream], dkim=DKIM | dkim)
    relay.write_config()
    assert mailer(relay, "dkim", "generate", "--domain", "example.com").returncode == 0
    return relay


def selectors(data: bytes) -> list[bytes]:
    return [word[2:-1] for word in data.split() if word.startswith(b"s=")]


def drop_in(relay: Relay, data: bytes) -> None:
    """A message with a header that no session takes."""
    message = {"ID": "endless", "From": "a@example.com", "To": ["b@x.test"], "Data": base64.b64encode(data).decode()}
    path = relay.data / "emails" / "failed" / "endless.json"
    path.with_suffix(".new").write_text(json.dumps(message))
    path.with_suffix(".new").rename(path)
    relay.http("/admin/retry-failed", "POST")


ENDLESS = b"X-Long: 0123456789\r\n" * 300_000 + b"From: a@example.com\r\n\r\nbody\r\n"


def test_a_missing_key_stops_the_start_and_names_the_command_that_makes_it(first: Upstream, tmp_path: Path) -> None:
    relay = Relay(tmp_path, [first], dkim=DKIM)
    relay.launch()
    assert relay.wait() == 78
    assert "make one with `mailer dkim generate --domain example.com --selector mail`" in relay.output
    assert mailer(relay, "check").returncode == 78


def test_a_reload_takes_what_a_rotation_left_and_refuses_a_key_that_cannot_sign(first: Upstream, tmp_path: Path) -> None:
    with with_key(tmp_path, first) as relay:
        keys = relay.data / "keys" / "example.com"
        assert mailer(relay, "dkim", "generate", "--domain", "example.com", "--selector", "mail2").returncode == 0
        relay.send("first")
        (keys / "mail.selector").write_text("mail2\n")
        relay.send("second")
        first.wait_for(2)
        relay.signal(signal.SIGHUP)
        assert "selector=mail2 kind=rsa bits=2048" in relay.wait_for_line(r"dkim\.key .*selector=mail2")
        relay.wait_for_line(r"reload\.done")
        relay.send("third")
        (keys / "mail2.private").write_text("damaged")
        relay.signal(signal.SIGHUP)
        relay.wait_for_line(r"reload\.rejected .*mail2\.private is not a private key.*the old configuration stays")
        relay.send("fourth")
        received = first.wait_for(4)
    signed = {message.data.rsplit(b"\r\n\r\n", 1)[1].strip(): selectors(message.data) for message in received}
    assert signed == {b"first": [b"mail"], b"second": [b"mail"], b"third": [b"mail2"], b"fourth": [b"mail2"]}


def test_signing_can_be_switched_on_and_off_by_a_reload(first: Upstream, tmp_path: Path) -> None:
    with with_key(tmp_path, first, enabled=False) as relay:
        for number, enabled in enumerate((True, False), 1):
            relay.send("before")
            first.wait_for(2 * number - 1)
            relay.configure(dkim=DKIM | {"enabled": enabled})
            relay.signal(signal.SIGHUP)
            relay.wait_for_line(r"reload\.done", count=number)
            relay.send("after")
            first.wait_for(2 * number)
        received = first.wait_for(4)
    assert [b"DKIM-Signature: " in message.data for message in received] == [False, True, True, False]


def test_what_cannot_be_signed_waits_and_log_and_reply_say_why(first: Upstream, tmp_path: Path) -> None:
    with with_key(tmp_path, first) as relay:
        drop_in(relay, ENDLESS)
        line = relay.wait_for_line(r"delivery\.attempt id=endless")
        assert "451 4.6.0 cannot be signed with DKIM: the header block is longer than" in line
        assert "it is kept and tried again (dkim.onError)" in line
        relay.wait_for_line(r"message\.parked id=endless .*cannot be signed with DKIM")
        assert first.messages == []


def test_what_cannot_be_signed_may_be_sent_unsigned_with_a_warning(first: Upstream, tmp_path: Path) -> None:
    with with_key(tmp_path, first, onError="send") as relay:
        drop_in(relay, ENDLESS)
        [message] = first.wait_for(1)
        assert b"DKIM-Signature" not in message.data
        assert "sent without a signature" in relay.wait_for_line(r"dkim\.unsigned error=")
