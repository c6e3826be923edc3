"""What was asked about reports, as values and as text."""

from __future__ import annotations

import json

import pytest

from mailer.mail.dsn import NO_WISH, Dsn, Wish

WISHES = (("b@example.org", Wish("SUCCESS,FAILURE", "rfc822;b@example.org")), ("c@example.org", Wish("NEVER")))
ASKED = Dsn("HDRS", "QQ314159", WISHES)


def test_what_was_asked_survives_as_text() -> None:
    assert Dsn.of_text(ASKED.to_text()) == ASKED


def test_nothing_asked_is_no_text() -> None:
    assert Dsn().to_text() == ""
    assert Dsn.of_text("") == Dsn()


def test_a_recipient_is_asked_for_by_its_address() -> None:
    assert ASKED.wish("c@example.org") == Wish("NEVER")
    assert ASKED.wish("d@example.org") is NO_WISH


@pytest.mark.parametrize("text", ["{", "[]", "[1,2,3]", '["FULL"]', '["FULL","",{"b@x":[""]}]', '["FULL",1,{}]', "[" * 100_000])
def test_what_cannot_be_read_was_asked_by_nobody(text: str) -> None:
    assert Dsn.of_text(text) == Dsn()


def test_what_would_break_a_command_or_a_report_is_left_out() -> None:
    wishes = {"b@x.test": ["NEVER> RET=FULL", "rfc822;b\r\nDATA"], "c@x.test": ["never", "rfc822;c"]}
    text = json.dumps(["ALL", "a\r\nRSET", wishes])
    assert Dsn.of_text(text) == Dsn("", "", (("b@x.test", NO_WISH), ("c@x.test", Wish("NEVER", "rfc822;c"))))
