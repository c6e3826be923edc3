"""xtext, NOTIFY and ORCPT: what is taken, what is not, and that what is written can be read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailer.mail.address import Address
from mailer.mail.xtext import (
    ascii_original,
    decode,
    encode,
    is_envelope_id,
    is_original,
    notify_of,
    original_of,
    plain_original,
)


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=33))
def test_what_is_encoded_is_xtext_and_decodes_to_what_it_was(text: str) -> None:
    assert is_envelope_id(encode(text))
    assert decode(encode(text)) == text


@pytest.mark.parametrize("text", ["a", "QQ314159", "a+2Bb", "a+3Db+20c", "x" * 100, "(),;<>@\"\\"])
def test_a_right_envelope_id(text: str) -> None:
    assert is_envelope_id(text)


@pytest.mark.parametrize("text", ["", "a b", "a=b", "a+", "a+2", "a+2b", "+0D+0A", "+00", "+7F", "+80", "ü", "a\n", "x" * 101])
def test_a_wrong_envelope_id(text: str) -> None:
    assert not is_envelope_id(text)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("never", "NEVER"), ("SUCCESS", "SUCCESS"), ("delay,Failure", "FAILURE,DELAY"), ("SUCCESS,SUCCESS", "SUCCESS"),
        ("", ""), ("NEVER,SUCCESS", ""), ("NEVER,NEVER", ""), ("SUCCESS,", ""), (",", ""), ("ALWAYS", ""), ("SUCCESS;DELAY", ""),
    ],
)  # fmt: skip
def test_notify_has_one_spelling_and_its_never_goes_with_nothing_else(said: str, meant: str) -> None:
    assert notify_of(said) == meant


@pytest.mark.parametrize(
    "text",
    [
        "rfc822;b@example.org", "RFC822;b+2Bc@example.org", "x400;/c=us/".replace("=", "+3D"), "unknown;+20",
        "utf-8;b@example.org", "UTF-8;\\x{7528}@example.org", "utf-8;a\\x{2B}b@example.org", "utf-8;\\x{1F600}@x",
        "rfc822;" + "x" * 493,
    ],
)  # fmt: skip
def test_a_right_original_recipient(text: str) -> None:
    assert is_original(text, allows_utf8=False)


@pytest.mark.parametrize(
    "text",
    [
        "", "rfc822", "rfc822;", ";b@example.org", "rfc 822;b@x", "rfc822;b c@x", "rfc822;b=c@x", "rfc822;b+c@x", "rfc822;+0D+0A",
        "rfc822;ü@x", "ü;b@x", "utf-8;\\x{0A}@x", "utf-8;\\x{85}@x", "utf-8;\\x{D800}@x", "utf-8;\\x{110000}@x", "utf-8;\\@x",
        "utf-8;\\x{7528", "utf-8;a\\x{e4}@x", "utf-8;\u0085@x", "utf-8;\u2028@x", "rfc822;" + "x" * 494, "utf-8;" + "用" * 165,
    ],
)  # fmt: skip
def test_a_wrong_original_recipient(text: str) -> None:
    assert not is_original(text)


def test_an_original_recipient_in_utf8_needs_smtputf8() -> None:
    assert is_original("utf-8;用户@example.org")
    assert not is_original("utf-8;用户@example.org", allows_utf8=False)
    assert ascii_original("utf-8;用户@example.org") == "utf-8;\\x{7528}\\x{6237}@example.org"


@pytest.mark.parametrize(
    ("address", "original"),
    [
        ("b@example.org", "rfc822;b@example.org"),
        ("b+c=d@example.org", "rfc822;b+2Bc+3Dd@example.org"),
        ('"b c"@example.org', 'rfc822;"b+20c"@example.org'),
        ("用+户@例.example", "utf-8;\\x{7528}\\x{2B}\\x{6237}@\\x{4F8B}.example"),
    ],
)
def test_a_recipient_without_orcpt_gets_its_own_address(address: str, original: str) -> None:
    made = original_of(Address.parse(address, smtputf8=True))
    assert made == original
    assert is_original(made, allows_utf8=False)
    assert plain_original(made).partition(";")[2] == address
