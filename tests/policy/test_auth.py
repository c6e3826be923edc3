"""The listener's login, and what wrong guesses cost."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from mailer.config.schema import Config, Secret
from mailer.policy.auth import (
    FORGET_AFTER_SECONDS,
    FREE_FAILURES,
    MAX_ADDRESSES,
    MAX_DELAY_SECONDS,
    Credentials,
    FailedLogins,
    delay_after,
)

APP = Credentials("app", Secret("s3cret"), accepts_any=False)
ANY = Credentials("", Secret(""), accepts_any=True)
NONE = Credentials("", Secret(""), accepts_any=False)


@pytest.mark.parametrize(
    ("username", "password", "is_right"),
    [
        (b"app", b"s3cret", True),
        (b"app", b"s3cre", False),
        (b"App", b"s3cret", False),
        (b"", b"", False),
        (b"app", b"\xff", False),
    ],
)
def test_name_and_password_must_both_be_right(username: bytes, password: bytes, is_right: bool) -> None:
    assert APP.accept(username, password) is is_right


def test_a_password_beyond_ascii_is_compared_as_utf8() -> None:
    assert Credentials("ü", Secret("pässwörd"), accepts_any=False).accept("ü".encode(), "pässwörd".encode())


def test_without_a_login_either_any_is_taken_or_none() -> None:
    assert ANY.accept(b"whoever", b"")
    assert not NONE.accept(b"", b"")
    assert not ANY.accept_digest(b"", b"<1@x>", hmac.new(b"", b"<1@x>", hashlib.md5).hexdigest().encode())


def test_mechanisms_follow_from_what_is_configured() -> None:
    assert APP.mechanisms == ("PLAIN", "LOGIN", "CRAM-MD5")
    assert ANY.mechanisms == ("PLAIN", "LOGIN")
    assert NONE.mechanisms == ()


def test_half_a_login_is_none() -> None:
    config = Config(default_username="app")
    assert Credentials.of(config).accept(b"app", b"")  # loopback, so any login is taken
    assert Credentials.of(config).mechanisms == ("PLAIN", "LOGIN")


def test_cram_md5_of_the_rfc() -> None:
    """RFC 2195 2, its example."""
    tim = Credentials("tim", Secret("tanstaaftanstaaf"), accepts_any=False)
    challenge = b"<1896.697170952@postoffice.reston.mci.net>"
    assert tim.accept_digest(b"tim", challenge, b"b913a602c7eda7a495b4e6e7334d3890")
    assert tim.accept_digest(b"tim", challenge, b"B913A602C7EDA7A495B4E6E7334D3890")
    assert not tim.accept_digest(b"tom", challenge, b"b913a602c7eda7a495b4e6e7334d3890")
    assert not tim.accept_digest(b"tim", challenge, b"")


def test_no_secret_shows_itself() -> None:
    assert "s3cret" not in repr(APP)


def test_the_delay_begins_after_the_free_failures_and_is_bounded() -> None:
    assert [delay_after(count) for count in range(FREE_FAILURES + 1)] == [0.0] * (FREE_FAILURES + 1)
    delays = [delay_after(FREE_FAILURES + count) for count in range(1, 2000, 7)]
    assert delays[0] == 1.0
    assert delays == sorted(delays)
    assert max(delays) == MAX_DELAY_SECONDS


def test_failures_count_by_address_and_are_forgotten() -> None:
    failed = FailedLogins()
    assert [failed.count("a", now) for now in (0.0, 1.0, 2.0)] == [1, 2, 3]
    assert failed.count("b", 2.0) == 1
    assert failed.count("a", 3.0 + FORGET_AFTER_SECONDS) == 1
    failed.forget("a")
    failed.forget("nobody")
    assert failed.count("a", 4.0 + FORGET_AFTER_SECONDS) == 1


def test_the_map_of_failures_is_bounded() -> None:
    failed = FailedLogins()
    for number in range(MAX_ADDRESSES + 100):
        failed.count(f"address{number}", 0.0)
    assert f"addresses={MAX_ADDRESSES})" in repr(failed)
    assert failed.count("address0", 0.0) == 1
    assert failed.count(f"address{MAX_ADDRESSES + 99}", 0.0) == 2
