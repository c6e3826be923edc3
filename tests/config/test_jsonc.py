"""JSON with comments and trailing commas."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailer.config.jsonc import MAX_DEPTH, JsonError, JsonObject, parse

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
fillers = st.sampled_from(["", " ", "\n", "// x\n", '// "a": 1, ]\n', "/* y */", '/* " */', "/**/", "/* // */", "\t/* a\nb */ "])


def error_of(text: str) -> str:
    with pytest.raises(JsonError) as raised:
        parse(text)
    return str(raised.value)


def test_comments_of_both_sorts_are_left_out() -> None:
    assert parse('{ // one\n "a": /* two */ 1 /* three\n four */ }') == {"a": 1}


@pytest.mark.parametrize("text", ["https://example.com", "/* no */", "a // b", 'say "//"', "back\\", "/", "*/"])
def test_what_looks_like_a_comment_inside_a_string_stays(text: str) -> None:
    assert parse(json.dumps({"a": text, "b": [text]})) == {"a": text, "b": [text]}


def test_trailing_commas_are_left_out() -> None:
    assert parse('{"a": [1, 2, ], "b": {"c": 1 , /* x */ }, // y\n}') == {"a": [1, 2], "b": {"c": 1}}


@pytest.mark.parametrize("text", ["[,]", "{,}", "[1,,]", "[,1]", '{"a":,}', ",", "[1],", '{"a" 1,}'])
def test_commas_that_trail_nothing_are_errors(text: str) -> None:
    assert error_of(text).startswith("line 1, column ")


def test_a_comma_inside_a_string_is_not_trailing() -> None:
    assert parse('["a,", ",]"]') == ["a,", ",]"]


def test_error_names_line_and_column_of_the_file_as_it_is() -> None:
    assert error_of('{\n  /* a\n comment */ "a": 1\n  "b": 2\n}').startswith("line 4, column 3: ")


def test_error_does_not_quote_the_text() -> None:
    assert "hunter2" not in error_of('{"password": "hunter2" "x"}')
    assert "hunter2" not in error_of('{"password": hunter2}')


def test_comment_without_end_is_an_error_at_its_beginning() -> None:
    assert error_of('{"a": 1}\n  /* b') == "line 2, column 3: comment without its end */"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("// only a comment", "empty"),
        ("{“a”: 1}", "quotation mark"),
        ("{'a': 1}", "double quotes"),
        ('{\u00a0"a": 1}', "no-break space"),
        ("[NaN]", "NaN"),
        ("[-Infinity]", "-Infinity"),
        ('["\n"]', "control character"),
    ],
)
def test_errors_say_what_people_usually_did(text: str, words: str) -> None:
    assert words in error_of(text)


def test_byte_order_mark_is_dropped() -> None:
    assert parse('\ufeff{"a": 1}') == {"a": 1}


def test_repeated_keys_are_known() -> None:
    made = parse('{"a": 1, "b": 2, "a": 3}')
    assert isinstance(made, JsonObject)
    assert made.repeated == ("a",)
    assert made["a"] == 3


def test_nesting_is_bounded() -> None:
    assert parse("[" * MAX_DEPTH + "]" * MAX_DEPTH) is not None
    assert error_of("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1)) == f"line 1, column {MAX_DEPTH + 1}: nested more than 32 deep"
    assert "nested" in error_of("[" * 200_000)


def test_a_number_of_a_million_digits_is_read_at_once() -> None:
    assert parse("[" + "9" * 1_000_000 + "]") == [float("inf")]


@given(json_values)
def test_plain_json_reads_as_the_standard_library_reads_it(value: object) -> None:
    text = json.dumps(value)
    assert parse(text) == json.loads(text)


@given(st.lists(st.integers(0, 9), max_size=5), st.lists(fillers, min_size=12, max_size=12), st.booleans())
def test_comments_between_any_two_tokens_change_nothing(items: list[int], between: list[str], trailing: bool) -> None:
    tokens = ["{", '"a"', ":", "["]
    for item in items:
        tokens += [str(item), ","]
    if items and not trailing:
        tokens.pop()
    tokens += ["]", ",", "}"]
    text = "".join(token + between[position % len(between)] for position, token in enumerate(tokens))
    assert parse(text) == {"a": items}


@given(st.text(alphabet=st.sampled_from(list('{}[],:"/*\\\n ab1')), max_size=60) | st.text())
def test_any_text_gives_a_value_or_an_error_with_its_place(text: str) -> None:
    with contextlib.suppress(JsonError):
        assert json.dumps(parse(text))
