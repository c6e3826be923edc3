"""What MTA-STS records and policies say (RFC 8461 3)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailer.transport.sts import MAX_AGE_SECONDS, MAX_MX_PATTERNS, MIN_AGE_SECONDS, BadPolicy, Mode, StsPolicy, id_of, parse

POLICY = b"version: STSv1\r\nmode: enforce\r\nmx: mx1.a.test\r\nmx: *.b.test\r\nmax_age: 604800\r\n"


def policy(*mx: str) -> StsPolicy:
    return StsPolicy(Mode.ENFORCE, mx, 604800)


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        (["v=STSv1; id=20160831085700Z;"], "20160831085700Z"),
        (["v=STSv1;id=1"], "1"),
        (["v=STSv1; x=y; id=abc"], "abc"),
        (["v=spf1 -all", "v=STSv1; id=1;"], "1"),
        ([], ""),
        (["v=spf1 -all"], ""),
        (["v=STSv1"], ""),
        (["v=STSv1; id="], ""),
        (["v=STSv1; id=" + 33 * "1"], ""),
        (["v=STSv1; id=a-b"], ""),
        (["v=STSv2; id=1"], ""),
        ([" v=STSv1; id=1"], ""),
        (["v=STSv1; id=1;", "v=STSv1; id=2;"], ""),
    ],
)
def test_a_record_announces_a_policy_by_its_id(records: list[str], expected: str) -> None:
    assert id_of(records) == expected


def test_a_policy_says_mode_hosts_and_age() -> None:
    assert parse(POLICY) == StsPolicy(Mode.ENFORCE, ("mx1.a.test", "*.b.test"), 604800)


@pytest.mark.parametrize(
    "body",
    [
        POLICY.replace(b"\r\n", b"\n"),
        POLICY.rstrip(),
        POLICY + b"\r\n\r\n",
        POLICY.replace(b": ", b":"),
        POLICY.replace(b": ", b" :\t"),
        POLICY.replace(b"a.test", b"A.TEST."),
        POLICY + b"mode: none\r\nmax_age: 1\r\n",
        POLICY + b"extension: caf\xc3\xa9\r\n",
    ],
    ids=["LF", "no end", "empty lines", "no space", "odd space", "upper case", "repeated", "extension"],
)
def test_the_same_policy_in_other_words(body: bytes) -> None:
    assert parse(body) == parse(POLICY)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        POLICY.replace(b"STSv1", b"STSv2"),
        POLICY.replace(b"enforce", b"Enforce"),
        POLICY.replace(b"mode: enforce\r\n", b""),
        POLICY.replace(b"604800", b"-1"),
        POLICY.replace(b"604800", b"1e9"),
        POLICY.replace(b"604800", "\u0661".encode()),
        POLICY.replace(b"604800", b"9" * 11),
        POLICY.replace(b"max_age: 604800\r\n", b""),
        b"version: STSv1\nmode: enforce\nmax_age: 604800\n",
        POLICY.replace(b"*.b.test", b"*"),
        POLICY.replace(b"*.b.test", b"*.*.test"),
        POLICY.replace(b"*.b.test", b"mx.*.test"),
        POLICY.replace(b"*.b.test", b""),
        POLICY + b"<html>\r\n",
        POLICY + b"mx: a.test\r\n" * 100,
        b"\0" * 1000,
    ],
)
def test_what_is_no_policy_is_refused(body: bytes) -> None:
    with pytest.raises(BadPolicy):
        parse(body)


def test_a_policy_of_mode_none_needs_no_host() -> None:
    assert parse(b"version: STSv1\nmode: none\nmax_age: 86400\n") == StsPolicy(Mode.NONE, (), 86400)


@pytest.mark.parametrize(("said", "kept"), [(b"0", MIN_AGE_SECONDS), (b"9999999999", MAX_AGE_SECONDS), (b"86400", 86400)])
def test_the_age_is_kept_within_bounds(said: bytes, kept: int) -> None:
    assert parse(POLICY.replace(b"604800", said)).max_age_seconds == kept


@pytest.mark.parametrize(
    ("pattern", "host", "fits"),
    [
        ("mx.a.test", "mx.a.test", True),
        ("mx.a.test", "MX.A.test.", True),
        ("mx.a.test", "my.a.test", False),
        ("mx.a.test", "x.mx.a.test", False),
        ("*.a.test", "mx.a.test", True),
        ("*.a.test", "a.test", False),
        ("*.a.test", "x.mx.a.test", False),
        ("*.a.test", "mxa.test", False),
    ],
)
def test_a_star_stands_for_one_label(pattern: str, host: str, fits: bool) -> None:
    assert policy(pattern).allows(host) is fits


def test_what_a_report_cites_is_a_policy_again() -> None:
    assert parse("\n".join(parse(POLICY).lines()).encode()) == parse(POLICY)


@given(st.binary(max_size=300) | st.builds(POLICY.replace, st.sampled_from([b"mx", b"\r", b"1", b":"]), st.binary(max_size=9)))
def test_any_bytes_are_a_policy_or_none(body: bytes) -> None:
    try:
        found = parse(body)
    except BadPolicy:
        return
    assert MIN_AGE_SECONDS <= found.max_age_seconds <= MAX_AGE_SECONDS
    assert found.mx or found.mode is Mode.NONE


def test_blanks_however_many_take_no_time_and_mean_nothing() -> None:
    """A pattern that tries each of them with all behind it takes 8 s for these, and everything else waits."""
    blanks = b" " * 30_000
    body = b"version: STSv1\nmode:" + blanks + b"enforce" + blanks + b"\nmx: mx.a.test\nmax_age: 86400\nx: " + blanks * 2 + b"y\n"
    assert parse(body) == StsPolicy(Mode.ENFORCE, ("mx.a.test",), 86400)


def test_a_policy_has_few_and_short_patterns() -> None:
    """Thousands are kept, and anybody may write one for each of his domains."""
    long = "a" * 60 + ".test"
    for patterns in (["mx.a.test"] * (MAX_MX_PATTERNS + 1), [f"{n}.{long}.{long}.{long}" for n in range(30)]):
        lines = "".join(f"mx: {pattern}\n" for pattern in patterns)
        with pytest.raises(BadPolicy, match="patterns"):
            parse(f"version: STSv1\nmode: enforce\n{lines}max_age: 86400\n".encode())
