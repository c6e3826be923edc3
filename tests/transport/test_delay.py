"""The delay that a reply names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailer.mail.outcome import Reply
from mailer.transport.delay import MAX_DELAY_SECONDS, named_delay


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("try again in 300 seconds", 300),
        ("Try again in 300 Seconds.", 300),
        ("Too many connections, please retry in 5 minutes", 300),
        ("please wait 1 hour", 3600),
        ("wait for 90s", 90),
        ("try again after 2 min.", 120),
        ("Greylisted for 5 minutes", 300),
        ("rate exceeded; retry after 1 day", 86400),
        ("please try again\nin 10 seconds", 10),
        ("try again later, in 60 sec", None),
        ("come back in at least 30 secs", 30),
        ("retry in 500 hours", MAX_DELAY_SECONDS),
    ],
)
def test_named_delays(text: str, seconds: float | None) -> None:
    assert named_delay(Reply(451, "4.7.1", text)) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "try again later",
        "you exceeded 100 messages per 1 hour, try again later",
        "limit is 60 messages a minute",
        "try again, at most 5 messages per 10 minutes",
        "error 300 seconds",
        "retry in 12345678 seconds",
        "wait 0 seconds",
        "retry in 5 miles",
        "",
    ],
)
def test_what_names_no_delay(text: str) -> None:
    assert named_delay(Reply(451, "", text)) is None


def test_only_temporary_refusals_name_a_delay() -> None:
    assert named_delay(Reply(550, "", "try again in 300 seconds")) is None
    assert named_delay(Reply(250, "", "try again in 300 seconds")) is None


@given(st.text(max_size=200))
def test_no_text_names_more_than_a_day(text: str) -> None:
    delay = named_delay(Reply(451, "", "wait " + text))
    assert delay is None or 0 < delay <= MAX_DELAY_SECONDS
