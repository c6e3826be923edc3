"""The hash of a body is that of dkimpy's relaxed form, in whatever pieces the body comes."""

from __future__ import annotations

import hashlib
import itertools

import pytest
from dkim.canonicalization import Relaxed  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from mailer.signing.canonical import BodyHash

EMPTY = hashlib.sha256(b"").digest()

lines = st.lists(st.sampled_from([b" ", b"\t", b"a", b"b ", b"\x00", b"\xff", b"  \t", b"."]), max_size=6).map(b"".join)
bodies = st.lists(lines, max_size=8).map(lambda found: b"".join(line + b"\r\n" for line in found))


def digest(*pieces: bytes) -> bytes:
    body = BodyHash()
    for piece in pieces:
        body.update(piece)
    return body.digest()


def dkimpys(body: bytes) -> bytes:
    return hashlib.sha256(Relaxed.canonicalize_body(body)).digest()


@given(bodies, st.lists(st.integers(0, 60), max_size=6))
def test_in_any_pieces_it_is_dkimpys(body: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    assert digest(*(body[start:end] for start, end in itertools.pairwise(places))) == dkimpys(body)


@given(lines, bodies)
def test_a_last_line_without_its_end_counts_as_the_line_it_is_on_the_wire(last: bytes, body: bytes) -> None:
    assert digest(body + last) == dkimpys(body + last + (b"\r\n" if last else b""))


@pytest.mark.parametrize("body", [b"", b"\r\n", b"\r\n\r\n", b" \t\r\n\t\r\n", b" "])
def test_a_body_without_text_is_empty(body: bytes) -> None:
    """RFC 6376 3.4.4: no line end is added to it."""
    assert digest(body) == EMPTY


def test_byte_by_byte_it_is_the_same() -> None:
    body = b"a \t b\r\n \r\n\t\r\nc  \r\n\r\n\r\n"
    assert digest(*(body[at : at + 1] for at in range(len(body)))) == dkimpys(body)


def test_a_million_empty_lines_before_the_last_word_count_and_behind_it_do_not() -> None:
    blank = b"\r\n" * 1_000_000
    assert digest(b"a", blank, b"b", blank) == hashlib.sha256(b"a" + blank + b"b\r\n").digest()
