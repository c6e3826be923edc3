"""The two forms of SMTP on the wire: replies, bounded; content, dot-stuffed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailer.transport.faults import Fault
from mailer.transport.wire import MAX_LINE_BYTES, MAX_LINES, MAX_REPLY_BYTES, ReplyReader, stuffed, stuffed_whole


def reader(*pieces: bytes) -> ReplyReader:
    source = iter(pieces)
    return ReplyReader(lambda _count: next(source, b""))


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(p % (len(data) + 1) for p in places)})
    return [data[a:b] for a, b in itertools.pairwise(edges)]


def unstuffed_by_a_strict_server(wire: bytes) -> bytes:
    """What RFC 5321 4.5.2 makes of ``wire``: content up to CRLF.CRLF, without the dots."""
    lines = (b"\r\n" + wire).split(b"\r\n")
    end = lines.index(b".", 1)
    assert lines[end:] == [b".", b""], "the end of data must be the end of what is sent"
    return b"".join(line[1:] + b"\r\n" if line.startswith(b".") else line + b"\r\n" for line in lines[1:end])


def test_one_line_reply() -> None:
    assert reader(b"250 2.0.0 ok\r\n").read() == (250, b"2.0.0 ok")


def test_several_lines_are_one_reply_and_the_next_is_left() -> None:
    replies = reader(b"250-a\r\n250-b\r\n250 c\r\n354 go\r\n")
    assert replies.read() == (250, b"a\nb\nc")
    assert replies.unread
    assert replies.read() == (354, b"go")
    assert not replies.unread


def test_reply_in_single_bytes() -> None:
    assert reader(*(bytes([b]) for b in b"550-5.1.1 no\r\n550 5.1.1 such\r\n")).read() == (550, b"5.1.1 no\n5.1.1 such")


def test_code_alone_and_bare_lf_are_replies() -> None:
    assert reader(b"250\r\n").read() == (250, b"")
    assert reader(b"250\n").read() == (250, b"")
    assert reader(b"250 ok\n").read() == (250, b"ok")


@pytest.mark.parametrize(
    "garbage",
    [b"HTTP/1.1 200 OK", b"", b"25", b"2500 ok", b"950 x", b"150 x", b"\xff\xfe\x00", b"2 0 x", "\u0662\u0665\u0660 x".encode()],
)
def test_garbage_is_a_fault(garbage: bytes) -> None:
    with pytest.raises(Fault) as raised:
        reader(garbage + b"\r\n").read()
    assert raised.value.reply.code == 451
    assert raised.value.reply.enhanced == "4.5.0"
    assert raised.value.is_lost


def test_codes_that_differ_within_a_reply_are_a_fault() -> None:
    with pytest.raises(Fault):
        reader(b"250-a\r\n550 b\r\n").read()


def test_end_of_connection_is_a_fault_even_in_the_middle_of_a_line() -> None:
    for pieces in ((), (b"250 o",), (b"250-a\r\n",)):
        with pytest.raises(Fault, match="closed"):
            reader(*pieces).read()


def test_long_line_is_cut() -> None:
    code, text = reader(b"550 " + b"x" * 10_000 + b"\r\n").read()
    assert (code, len(text)) == (550, MAX_LINE_BYTES - 4)


def test_endless_line_is_a_fault_after_a_bounded_read() -> None:
    taken = 0

    def endless(count: int) -> bytes:
        nonlocal taken
        taken += count
        return b"x" * count

    with pytest.raises(Fault, match="longer"):
        ReplyReader(endless).read()
    assert taken <= 2 * MAX_REPLY_BYTES


def test_endless_lines_are_a_fault() -> None:
    with pytest.raises(Fault, match="lines"):
        reader(b"250-x\r\n" * (MAX_LINES + 5)).read()
    with pytest.raises(Fault, match="longer"):
        reader(*(b"250-" + b"x" * 2000 + b"\r\n" for _ in range(80))).read()


@given(st.binary(max_size=400))
def test_any_bytes_are_a_reply_or_a_fault(data: bytes) -> None:
    try:
        code, text = reader(data).read()
    except Fault as fault:
        code, text = fault.reply.code, b""
    assert 200 <= code <= 599
    assert b"\r\n" not in text


_LINE = st.binary(max_size=60).map(lambda b: b.translate(None, b"\r\n"))
_REPLY = st.tuples(st.integers(200, 599), st.lists(_LINE, min_size=1))


@given(st.lists(_REPLY, max_size=5), st.lists(st.integers(0)))
def test_replies_are_the_same_however_they_arrive(replies: list[tuple[int, list[bytes]]], places: list[int]) -> None:
    wire = b""
    for code, lines in replies:
        wire += b"".join(b"%d-%s\r\n" % (code, line) for line in lines[:-1]) + b"%d %s\r\n" % (code, lines[-1])
    replies_reader = reader(*cut(wire, places))
    for code, lines in replies:
        assert replies_reader.read() == (code, b"\n".join(line.rstrip() for line in lines))
    assert not replies_reader.unread


_BITS = st.sampled_from([b"\r", b"\n", b".", b"\r\n", b"\r\n.", b"\r\n.\r\n", b"..", b"a", b"\0"])
_TRICKY = st.lists(_BITS, max_size=30).map(b"".join)


@given(_TRICKY | st.binary(max_size=300), st.lists(st.integers(0), max_size=10))
def test_a_strict_server_reads_back_what_was_stuffed(content: bytes, places: list[int]) -> None:
    wire = b"".join(stuffed(cut(content, places)))
    expected = content if content.endswith(b"\r\n") or not content else content + b"\r\n"
    assert unstuffed_by_a_strict_server(wire) == expected
    assert stuffed_whole(content) == wire


@given(_TRICKY, st.lists(st.integers(0), max_size=10))
def test_the_end_of_data_stands_only_in_the_last_piece(content: bytes, places: list[int]) -> None:
    pieces = list(stuffed(cut(content, places)))
    assert b"\r\n.\r\n" not in (b"\r\n" + b"".join(pieces[:-1]))
    assert (b"\r\n" + b"".join(pieces)).count(b"\r\n.\r\n") == 1


def test_small_content_is_one_piece_with_its_end() -> None:
    assert list(stuffed([b"a\r\n"])) == [b"a\r\n.\r\n"]
    assert list(stuffed([])) == [b".\r\n"]
    assert stuffed_whole(b"") == b".\r\n"


def test_the_end_is_not_sent_when_the_content_breaks_off() -> None:
    def breaks_off() -> Iterator[bytes]:
        yield b"a\r\n"
        yield b"b\r\n"
        raise OSError("disk")

    sent: list[bytes] = []
    with pytest.raises(OSError, match="disk"):
        sent.extend(stuffed(breaks_off()))
    assert sent == [b"a\r\n"]
