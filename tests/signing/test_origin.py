"""Which domains a message is from, whatever its From looks like."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailer.mail.fields import split_header
from mailer.signing.origin import from_domains, is_at_or_under


def domains(value: bytes) -> list[str]:
    return from_domains(split_header(b"To: x@to.test\r\nFrom:" + value + b"\r\nSubject: a@subject.test\r\n"))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b" a@x.test", ["x.test"]),
        (b"a@X.Test.", ["x.test"]),
        (b" <a@x.test>", ["x.test"]),
        (b" Ann <a@x.test>", ["x.test"]),
        (b" Ann\r\n\t<a@x.test>", ["x.test"]),
        (b' "a@no.test" <a@x.test>', ["x.test"]),
        (b' "a <b@no.test> c" <a@x.test>', ["x.test"]),
        (rb' "quote \" <b@no.test>" <a@x.test>', ["x.test"]),
        (b" a@no.test <a@x.test>", ["x.test"]),
        (b" a@x.test (b@no.test)", ["x.test"]),
        (b" a(c)@(d (e) <b@no.test>)x.test", ["x.test"]),
        (b' "a@no.test"@x.test', ["x.test"]),
        (b" a@x.test, B <b@y.test>", ["x.test", "y.test"]),
        (b" Team: a@x.test, b@y.test;", ["x.test", "y.test"]),
        (" 用户 <a@bücher.test>".encode(), ["xn--bcher-kva.test"]),
        (b" a@b@x.test", ["x.test"]),
        (b" Ann", []),
        (b" <>", []),
        (b" a@", []),
        (b" a@[192.0.2.1]", ["[192.0.2.1]"]),
        (b" a@x;d=evil.test", ["x"]),
        (b"", []),
    ],
)
def test_the_domain_is_that_of_each_mailbox(value: bytes, expected: list[str]) -> None:
    assert domains(value) == expected


def test_every_from_counts_when_there_are_several() -> None:
    header = split_header(b"From: a@x.test\r\nFROM : b@y.test\r\nResent-From: c@no.test\r\n")
    assert from_domains(header) == ["x.test", "y.test"]


@given(st.binary(max_size=400))
def test_no_value_stops_it(value: bytes) -> None:
    found = domains(value.replace(b"\r", b"").replace(b"\n", b"\r\n "))
    assert all(domain.isascii() and " " not in domain for domain in found)


@pytest.mark.parametrize("piece", [b"(", b'"', b"<", b"\\", b"@", b"(a", b'"a\\', b"a@b,", b"()"])
def test_a_long_value_takes_no_long_time(piece: bytes) -> None:
    """Bounded by the time-out of the test: a quadratic reader of this would take minutes."""
    assert len(domains(piece * 300_000)) <= 1


def test_at_or_under() -> None:
    assert is_at_or_under("x.test", "x.test")
    assert is_at_or_under("a.b.x.test", "x.test")
    assert not is_at_or_under("ax.test", "x.test")
    assert not is_at_or_under("test", "x.test")
