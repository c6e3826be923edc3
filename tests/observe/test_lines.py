"""Log lines: readable, parseable, and not to be forged."""

from __future__ import annotations

import json
import logging
import re
import shlex
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailer.mail.address import NULL_SENDER, Address
from mailer.mail.outcome import Reply, Stage
from mailer.observe.lines import MAX_VALUE_CHARS, Entry, Lines

AT = 1795322281.1239  # 2026-11-22T04:38:01.123Z
ALICE = Address("alice", "example.com")


def entry(form: object, *args: object, traceback: str = "", level: int = logging.INFO) -> Entry:
    return Entry(AT, level, "mailer.smtp", form, args, "smtp-3", traceback)


def text(form: object, *args: object, mask: bool = False, traceback: str = "") -> str:
    return Lines(as_json=False, mask_addresses=mask).line(entry(form, *args, traceback=traceback))


def fields(form: object, *args: object, mask: bool = False, traceback: str = "") -> dict[str, Any]:
    line = Lines(as_json=True, mask_addresses=mask).line(entry(form, *args, traceback=traceback))
    assert line.endswith("\n")
    assert line.count("\n") == 1
    row = json.loads(line)
    assert isinstance(row, dict)
    return row


def test_text_line_has_time_level_event_and_fields() -> None:
    line = text("smtp.accepted id=%s from=%s size=%d took=%.1fms", "0abc", ALICE, 4096, 1.25)
    assert line == "2026-11-22T04:38:01.123Z INFO smtp.accepted id=0abc from=alice@example.com size=4096 took=1.2ms\n"


def test_json_line_has_fields_of_their_own_type() -> None:
    row = fields(
        "x.y id=%s size=%d rate=%.2f ok=%s reply=%s none=%s next=%gs",
        "0abc",
        4096,
        2.5,
        True,
        Reply(250, "2.0.0", "Ok"),
        None,
        3.0,
    )
    assert row == {
        "time": "2026-11-22T04:38:01.123Z",
        "level": "INFO",
        "event": "x.y",
        "id": "0abc",
        "size": 4096,
        "rate": 2.5,
        "ok": True,
        "reply": "250 2.0.0 Ok",
        "none": None,
        "next": "3s",
        "thread": "smtp-3",
    }


def test_value_with_spaces_is_quoted_in_text() -> None:
    assert 'reply="250 2.0.0 Ok"' in text("x.y reply=%s", Reply(250, "2.0.0", "Ok"))
    assert 'error="say \\"hi\\" \\\\o/"' in text("x.y error=%s", 'say "hi" \\o/')
    assert 'name=""' in text("x.y name=%s", "")


def test_quotes_of_the_format_and_of_repr_are_not_doubled() -> None:
    for form in ('x.y a="%s"', "x.y a='%s'", "x.y a=%r", "x.y a=%s"):
        assert text(form, "two words").endswith(' a="two words"\n')
        assert fields(form, "two words")["a"] == "two words"


def test_value_can_forge_neither_line_nor_field() -> None:
    forged = 'x\n2026-11-22T04:38:01.123Z INFO smtp.accepted id=evil\r\n"id="evil\x1b[2J\u2028\u202e\x85'
    line = text("smtp.refused id=%s text=%s why=%s", "0abc", forged, "w")
    assert line.count("\n") == 1
    assert line[:-1].isprintable()
    words = shlex.split(line)
    assert [word for word in words if word.startswith("id=")] == ["id=0abc"]
    assert words[-1] == "why=w"
    assert len(words) == 6
    row = fields("smtp.refused id=%s text=%s why=%s", "0abc", forged, "w")
    assert row["id"] == "0abc"
    assert row["text_"] == forged


@given(st.text(max_size=200), st.binary(max_size=200))
def test_no_argument_makes_a_second_line_or_field(one: str, two: bytes) -> None:
    for form in ("x.y id=%s a=%s b=%r end=%d", "x.y id=%s said %s and <%s> end=%d"):
        line = text(form, "0abc", one, two, 7)
        assert line[:-1].isprintable()
        assert re.findall(r"(?:^| )(id=\S+)(?= )", re.sub(r'"(?:[^"\\]|\\.)*"', '""', line)) == ["id=0abc"]
        assert line.endswith(" end=7\n")
        row = fields(form, "0abc", one, two, 7)
        assert (row["id"], row["end"]) == ("0abc", 7)


class Careful(str):
    """A text that a log line is made of with care, since its kind is none of the usual ones."""

    __slots__ = ()


VALUES = st.one_of(
    st.text(max_size=20),
    st.text(st.sampled_from('ab =@"\\\'<[%\n'), max_size=8),
    st.sampled_from(["None", "b'x'", "250 2.0.0 Ok", "x id=evil", 'a" b="c', "x" * 2001]),
)
FORMS = [
    "x.y id=%s a=%s b=%r", "x.y a=%r b=%r c=%r", "x.y id=%s: said <%s> to '%s'", "%s %s %s", "x.y a=%s.json b=%s%s",
    "x.y a=<%r> b=%5s c=%s", 'x.y 100%% "q" a=%s b=%s c="%s"', "x.y é a=%s b=%s c=%s", "x.y =%s a==%s %r",
]  # fmt: skip


@given(st.sampled_from(FORMS), st.tuples(VALUES, VALUES, VALUES), st.booleans())
def test_line_is_the_same_with_and_without_care(form: str, values: tuple[str, str, str], mask: bool) -> None:
    assert text(form, *values, mask=mask) == text(form, *map(Careful, values), mask=mask)


REPLIES = [Reply(250, "2.0.0", "Ok"), Reply(250, "", ""), Reply(550, "", 'a"@b'), Reply(451, "", "a\nb")]
WHO = [ALICE, NULL_SENDER, Address('"a b"', "x"), Stage.DATA, *REPLIES]


@given(st.integers(), st.floats(), st.sampled_from(WHO), st.booleans())
def test_numbers_and_our_values_are_the_same_with_and_without_care(one: int, two: float, who: object, mask: bool) -> None:
    for form in ("x.y a=%d b=%.3f c=%s d=%s", "x.y a=%s b=%s c=%r d=%r", "x.y a=%ds b=%gs c=<%s> d=%s", "%d %f %s %s"):
        assert text(form, one, two, who, "x", mask=mask) == text(form, one, two, who, Careful("x"), mask=mask)


@given(st.text(max_size=300))
def test_message_without_arguments_makes_one_line(message: str) -> None:
    assert text(message)[:-1].isprintable()
    fields(message)


def test_field_named_like_one_of_the_line_does_not_replace_it() -> None:
    row = fields("x.y level=%s time=%s thread=%s a=%s a=%s", "l", "t", "h", 1, 2)
    assert (row["level"], row["time"][:4], row["thread"]) == ("INFO", "2026", "smtp-3")
    assert (row["level_"], row["time_"], row["thread_"], row["a"], row["a_"]) == ("l", "t", "h", 1, 2)


def test_traceback_is_indented_in_text_and_a_field_in_json() -> None:
    trace = 'Traceback:\n  File "x"\nValueError: a\n2026-11-22T04:38:01.123Z INFO forged\r\x1b\n'
    first, *rest = text("x.y id=%s", "0abc", traceback=trace).splitlines()
    assert first.endswith("x.y id=0abc")
    assert len(rest) == 4
    assert all(row.startswith("    ") and row.isprintable() for row in rest)
    assert fields("x.y id=%s", "0abc", traceback=trace)["traceback"] == trace


def test_long_value_is_cut() -> None:
    line = text("x.y a=%s b=%d", "x" * 1_000_000, 5)
    assert len(line) < MAX_VALUE_CHARS + 100
    assert line.endswith(" b=5\n")
    assert len(text("x.y a=%s", b"x" * 1_000_000)) < MAX_VALUE_CHARS + 100
    assert text("x.y a=%s", [ALICE] * 30).endswith(",…(+10)\n")


@pytest.mark.parametrize(
    ("form", "args"),
    [("x.y a=%s b=%s", (1,)), ("x.y a=%x", ("word",)), ("x.y a=%s", (1, 2)), ("x.y a=%*d", (3, 4)), ("x.y a=%s", (10**5000,))],
)
def test_call_whose_arguments_do_not_fit_still_makes_a_line(form: str, args: tuple[object, ...]) -> None:
    assert "INFO log.unformattable format=" in text(form, *args)
    assert fields(form, *args)["event"] == "log.unformattable"


def test_argument_that_cannot_be_shown_still_makes_a_line() -> None:
    class Sulky:
        def __str__(self) -> str:
            raise ValueError

    loop: list[object] = []
    loop.append(loop)
    for arg in (Sulky(), loop):
        assert "log.unformattable" in text("x.y a=%s", arg)


def test_message_of_a_library_is_one_quoted_word() -> None:
    assert text("Some message with %d things", 3).endswith("INFO Some message with 3 things\n")
    row = fields("Some message with %d things", 3)
    assert (row["event"], row["text"]) == ("mailer.smtp", "Some message with 3 things")
    assert fields(ValueError("odd"))["text"] == "odd"


def test_numbers_that_json_lacks_are_text() -> None:
    row = fields("x.y a=%s b=%f", float("nan"), float("inf"))
    assert (row["a"], row["b"]) == ("nan", "inf")


def test_mapping_argument_is_taken_and_cannot_forge() -> None:
    line = Lines(False, False).line(Entry(AT, logging.INFO, "x", "x.y a=%(a)s", {"a": "1 id=evil"}, "t", ""))
    assert line.endswith('INFO "x.y a=1 id=evil"\n')


@pytest.mark.parametrize(
    ("arg", "shown"),
    [
        (ALICE, "a***@example.com"),
        (NULL_SENDER, ""),
        (Address('"john smith"', "example.com"), "j***@example.com"),
        ("alice@example.com", "a***@example.com"),
        ("<alice@example.com>, bob.b+x=y.example@sub.example.org;", "<a***@example.com>, b***@sub.example.org;"),
        ('"john smith"@example.com', "j***@example.com"),
        ("o'brien@example.com", "o***@example.com"),
        ("用户@例子.广告", "用***@例子.广告"),
        (Reply(550, "5.1.1", "<alice@example.com> unknown"), "550 5.1.1 <a***@example.com> unknown"),
        ([ALICE, Address("bob", "example.com")], "a***@example.com,b***@example.com"),
        (b"alice@example.com", "a***@example.com"),
        ("no address here", "no address here"),
    ],
)
def test_addresses_are_masked_wherever_they_stand(arg: object, shown: str) -> None:
    assert fields("x.y a=%s", arg, mask=True)["a"] == shown
    unmasked = fields("x.y a=%s", arg)["a"]
    assert "***" not in unmasked


def test_address_in_a_traceback_or_a_plain_message_is_masked() -> None:
    assert "alice" not in text("x.y", mask=True, traceback="ValueError: alice@example.com\n")
    assert "alice" not in text("x.y to=alice@example.com", mask=True)


@given(st.lists(st.sampled_from(["a", "@", '"', " ", "b.c", "<", ">", "=", "\\"]), max_size=3000).map("".join))
def test_masking_leaves_no_local_part_of_two_letters(value: str) -> None:
    shown = fields("x.y a=%s", value, mask=True)["a"]
    assert re.search(r"[a-z.]{2,}@[a-z]", shown) is None
