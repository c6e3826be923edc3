"""Replies as they come from a server and as they go to a client; verdicts."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailer.mail.outcome import MAX_REPLY_TEXT_CHARS, Reply, Stage, Verdict


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [
        (250, "2.1.5 Ok", Reply(250, "2.1.5", "Ok")),
        (250, "Ok", Reply(250, "", "Ok")),
        (550, "5.1.1", Reply(550, "5.1.1", "")),
        (550, "2.1.1 a class that is not the code's", Reply(550, "", "2.1.1 a class that is not the code's")),
        (450, "4.7.1234 too many digits", Reply(450, "", "4.7.1234 too many digits")),
        (220, "", Reply(220, "", "")),
        (0, "5.0.0 odd", Reply(0, "", "5.0.0 odd")),
    ],
)
def test_an_enhanced_code_is_split_off_a_received_reply(code: int, text: str, expected: Reply) -> None:
    assert Reply.received(code, text) == expected


@given(st.integers(0, 999), st.text(alphabet=st.characters(codec="utf-8")))
def test_a_received_reply_is_bounded_and_can_forge_no_line(code: int, text: str) -> None:
    reply = Reply.received(code, text)
    assert len(reply.text) <= MAX_REPLY_TEXT_CHARS
    assert len(str(reply).splitlines()) == 1
    assert not any(unicodedata.category(char) == "Cc" for char in str(reply))


def test_terminal_control_characters_are_gone() -> None:
    assert Reply.received(550, "no\x1b[2J\r\nsuch\tuser\x9b2J\x7f\0").text == "no [2J \nsuch user 2J"


def test_every_line_of_a_reply_has_code_and_enhanced_code() -> None:
    assert Reply(550, "5.7.1", "no\nnot ever").to_wire() == b"550-5.7.1 no\r\n550 5.7.1 not ever\r\n"


def test_a_reply_without_an_enhanced_code_goes_without() -> None:
    assert Reply(220, "", "mx.test ESMTP").to_wire() == b"220 mx.test ESMTP\r\n"


@given(st.integers(200, 599), st.text(alphabet=st.characters(exclude_characters="\r\n")))
def test_a_reply_without_line_feeds_is_one_line_on_the_wire(code: int, text: str) -> None:
    assert Reply(code, "", text).to_wire().count(b"\n") == 1


@pytest.mark.parametrize(
    ("code", "kinds"), [(199, ""), (200, "s"), (299, "s"), (354, ""), (400, "t"), (499, "t"), (500, "p"), (599, "p"), (600, "")]
)
def test_a_reply_is_of_the_class_its_first_digit_says(code: int, kinds: str) -> None:
    reply = Reply(code, "", "")
    assert (reply.is_success, reply.is_transient, reply.is_permanent) == ("s" in kinds, "t" in kinds, "p" in kinds)


def test_a_reply_in_a_log_is_one_line() -> None:
    assert str(Reply(451, "4.3.0", "try\nlater")) == "451 4.3.0 try later"
    assert str(Reply(220, "", "")) == "220"


@pytest.mark.parametrize("word", ["2.0.0", "4.7.1", "5.999.999"])
def test_enhanced_codes_are_known(word: str) -> None:
    assert Reply.received(int(word[0]) * 100 + 50, f"{word} text").enhanced == word


@pytest.mark.parametrize("word", ["", "3.0.0", "5.1", "5.1.1.1", "5.1234.1", "5.1.1\n", "٥.1.1", "5.١.1"])
def test_what_is_no_enhanced_code_is_none(word: str) -> None:
    assert not Reply.received(550, f"{word} text").enhanced


@pytest.mark.parametrize("stage", list(Stage))
@pytest.mark.parametrize("code", [250, 354, 451, 550])
def test_delivered_means_a_2xx_at_the_end_of_data(stage: Stage, code: int) -> None:
    assert Verdict(stage, Reply(code, "", "")).is_delivered is (stage is Stage.DATA and code == 250)
