"""Which Host and Origin are let in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailer.web.guard import Guard
from tests.web.program import config

GUARD = Guard.of(config(health_check_allowed_hosts=("Mail.Intranet", "fd00::1")))


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8025",
        "localhost.",
        "127.0.0.1",
        "127.0.0.1:8025",
        "192.0.2.7",
        "[::1]",
        "[::1]:8025",
        "[2001:db8::1]:80",
        "relay.example",
        "Relay.Example.:8025",
        "mail.intranet:8025",
    ],
)
def test_host_that_cannot_be_rebound_or_is_ours_is_let_in(host: str) -> None:
    assert GUARD.objection(host, "") == ""


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "localhost.evil.example",
        "evil.example:8025",
        "localhost@evil.example",
        "127.0.0.1.evil.example",
        "127.0.0.1 evil",
        "localhost, evil.example",
        "[::1",
        "::1",
        "[relay.example]",
        "1",
        "0x7f000001",
        "127.1",
        "localhost:",
        "localhost:80:80",
    ],
)
def test_any_other_host_is_refused(host: str) -> None:
    assert "healthCheckAllowedHosts" in GUARD.objection(host, "")


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1:8025", "http://127.0.0.1:8025"),
        ("localhost:8025", "HTTP://LOCALHOST:8025"),
        ("localhost", "http://localhost:80"),
        ("localhost:80", "http://localhost"),
        ("relay.example", "https://relay.example"),
        ("[::1]:8025", "http://[::1]:8025"),
    ],
)
def test_origin_that_is_the_host_is_let_in(host: str, origin: str) -> None:
    assert GUARD.objection(host, origin) == ""


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1:8025", "null"),
        ("127.0.0.1:8025", "http://127.0.0.1:3000"),
        ("127.0.0.1:8025", "http://localhost:8025"),
        ("localhost:8025", "http://evil.example"),
        ("localhost", "http://localhost.evil.example"),
        ("localhost", "http://localhost@evil.example"),
        ("localhost", "file://localhost"),
        ("localhost", "localhost"),
        ("localhost", "http://localhost http://evil.example"),
        (None, "http://localhost"),
    ],
)
def test_any_other_origin_is_refused(host: str | None, origin: str) -> None:
    assert "origin" in GUARD.objection(host, origin)


@given(st.text(max_size=40), st.text(min_size=1, max_size=40))
def test_no_text_makes_the_guard_fail(host: str, origin: str) -> None:
    assert isinstance(GUARD.objection(host, origin), str)
