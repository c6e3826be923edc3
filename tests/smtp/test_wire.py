"""The wire: lines and content, however the bytes are cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailer.mail.outcome import Reply
from mailer.smtp.pace import Pace
from mailer.smtp.replies import BARE_NEWLINE, IDLE, LINE_TOO_LONG, TOO_SLOW, Disconnect, Refused
from mailer.smtp.wire import AUTH_LINE_BYTES, COMMAND_LINE_BYTES, LAST_BUFFER_BYTES, Wire
from tests.smtp.script import PATIENT, FakeClock, ScriptSocket


def wire(*pieces: bytes | float, pace: Pace = PATIENT, clock: FakeClock | None = None) -> Wire:
    clock = clock or FakeClock()
    return Wire(ScriptSocket(pieces, clock), pace, clock)


def lines_of(*pieces: bytes) -> list[bytes | Reply]:
    """Every line up to the end of input, refusals among them."""
    reader = wire(*pieces)
    found: list[bytes | Reply] = []
    while True:
        try:
            found.append(reader.read_line())
        except Refused as refused:
            found.append(refused.reply)
        except Disconnect:
            return found


def data_of(*pieces: bytes) -> tuple[bytes, bytes | int | None]:
    """Content, and the line behind it: its code if it is refused, None if there is none."""
    reader = wire(*pieces)
    content = b"".join(reader.read_data())
    try:
        return content, reader.read_line()
    except Refused as refused:
        return content, refused.reply.code
    except Disconnect:
        return content, None


def test_lines_end_in_crlf_and_are_given_one_by_one() -> None:
    assert lines_of(b"EHLO a\r\nNOOP\r\n\r\nQUIT") == [b"EHLO a", b"NOOP", b""]


@pytest.mark.parametrize("bad", [b"HELP\nNOOP\r\n", b"HELP\rNOOP\r\n", b"HELP\0\r\n", b"HELP\r\r\n", b"\nNOOP\r\n"])
def test_a_line_with_a_bare_newline_or_nul_is_one_bad_line(bad: bytes) -> None:
    assert lines_of(bad + b"QUIT\r\n") == [BARE_NEWLINE, b"QUIT"]


def test_a_bare_newline_is_answered_before_its_line_ends_and_the_rest_is_dropped() -> None:
    reader = wire(b"HELP\n", b"MAIL FROM:<a@b>\r", b"\nQUIT\r\n")
    with pytest.raises(Refused) as refused:
        reader.read_line()
    assert refused.value.reply is BARE_NEWLINE
    assert reader.read_line() == b"QUIT"


def test_a_line_over_the_limit_is_read_to_its_end() -> None:
    longest = b"N" * COMMAND_LINE_BYTES
    assert lines_of(longest + b"\r\n", longest + b"N\r\nQUIT\r\n") == [longest, LINE_TOO_LONG, b"QUIT"]


@pytest.mark.parametrize("size", [AUTH_LINE_BYTES, AUTH_LINE_BYTES + 1, 200_000])
def test_a_line_far_over_the_limit_uses_bounded_memory(size: int) -> None:
    reader = wire(*([b"x" * 1000] * (size // 1000)), b"\r\nQUIT\r\n")
    with pytest.raises(Refused) as refused:
        reader.read_line()
    assert refused.value.reply is LINE_TOO_LONG
    assert len(reader._buffer) <= 2 * AUTH_LINE_BYTES
    assert reader.read_line() == b"QUIT"


def test_a_login_may_be_longer() -> None:
    login = b"auth PLAIN " + b"A" * (AUTH_LINE_BYTES - 11)
    assert lines_of(login + b"\r\n", login + b"A\r\nQUIT\r\n") == [login, LINE_TOO_LONG, b"QUIT"]


def test_a_silent_client_is_given_up_after_the_idle_time() -> None:
    clock = FakeClock()
    reader = wire(b"NOO", 295.0, b"P", 1000.0, clock=clock)
    began = clock.now
    with pytest.raises(Disconnect) as end:
        reader.read_line()
    assert end.value.reply is IDLE
    assert 300 <= clock.now - began <= 311  # the clock is looked at every 10 s


def test_replies_wait_until_input_is_waited_for() -> None:
    sock = ScriptSocket([b"A\r\nB\r\nC\r\n"])
    reader = Wire(sock, PATIENT)
    for expected in (b"A", b"B", b"C"):
        assert reader.read_line() == expected
        reader.say(Reply(250, "2.0.0", "Ok"))
        assert sock.sent == b""
    with pytest.raises(Disconnect):
        reader.read_line()
    assert sock.sent == b"250 2.0.0 Ok\r\n" * 3


def test_replies_that_pile_up_are_sent() -> None:
    sock = ScriptSocket([])
    reader = Wire(sock, PATIENT)
    for _ in range(2000):
        reader.say(Reply(250, "2.0.0", "Ok"))
    assert len(sock.sent) > 10_000


@pytest.mark.parametrize(
    ("sent", "content"),
    [
        (b".\r\n", b""),
        (b"a\r\n.\r\n", b"a\r\n"),
        (b"\r\n.\r\n", b"\r\n"),
        (b"..\r\n.\r\n", b".\r\n"),
        (b"a\r\n..b\r\n.\r\n", b"a\r\n.b\r\n"),
        (b"a\r\n.b\r\n.\r\n", b"a\r\nb\r\n"),
        (b"...\r\n..\r\n.\r\n", b"..\r\n.\r\n"),
        (b"a\n.\nb\r\n.\r\n", b"a\n.\nb\r\n"),
        (b"a\n.\r\nb\r\n.\r\n", b"a\n.\r\nb\r\n"),
        (b"a\r.\r\nb\r\n.\r\n", b"a\r.\r\nb\r\n"),
        (b"a\r\n.\nb\r\n.\r\n", b"a\r\n\nb\r\n"),
        (b"a\r\n.\r\r\nb\r\n.\r\n", b"a\r\n\r\r\nb\r\n"),
        (b"a\r\r\n.\r\n", b"a\r\r\n"),
    ],
)
def test_only_crlf_dot_crlf_ends_a_message(sent: bytes, content: bytes) -> None:
    assert data_of(sent + b"QUIT\r\n") == (content, b"QUIT")
    assert data_of(*(bytes([byte]) for byte in sent + b"QUIT\r\n")) == (content, b"QUIT")


@pytest.mark.parametrize(
    "sent", [b"a\n.\r\n", b"a\r\n.\n", b"a\r\n.\r", b"a\r\n", b"", b".\n", b".\r", b".", b"a.\r\n", b"\r.\r\n"]
)
def test_a_message_without_a_real_end_is_no_message(sent: bytes) -> None:
    with pytest.raises(Disconnect):
        data_of(sent)


@pytest.mark.parametrize("line", [b"x" * 100 + b"\r\n", b"x" * 300_000 + b"\r\n", b"\r\n", b".\r\n", b"..\r\n", b"\r", b"\n"])
def test_a_large_message_comes_in_bounded_pieces_that_part_no_crlf(line: bytes) -> None:
    content = b"begin\r\n" + line * (1_200_000 // len(line)) + b"\r\n"
    stuffed = content.replace(b"\r\n.", b"\r\n..")
    reader = wire(stuffed + b".\r\n")
    pieces = list(reader.read_data())
    assert b"".join(pieces) == content
    assert len(pieces) > 5
    assert max(map(len, pieces)) <= LAST_BUFFER_BYTES
    for before, after in itertools.pairwise(pieces):
        assert not (before.endswith(b"\r") and after.startswith(b"\n"))
    assert len(reader._buffer) < LAST_BUFFER_BYTES  # and the memory is given back


@pytest.mark.parametrize("before", [b"", b"begin\r\n"])
@pytest.mark.parametrize("off", range(-4, 3))
def test_a_crlf_at_the_edge_of_the_buffer_stays_together(off: int, before: bytes) -> None:
    content = before + b"x" * (LAST_BUFFER_BYTES + off) + b"\r\n.y\r\n"
    reader = wire(content.replace(b"\r\n.", b"\r\n..") + b".\r\n")
    pieces = list(reader.read_data())
    assert b"".join(pieces) == content
    assert not any(piece.endswith(b"\r") for piece in pieces)


def test_data_that_trickles_in_is_cut_off() -> None:
    clock = FakeClock()
    pieces: list[bytes | float] = []
    for _ in range(100):
        pieces += [b"x" * 100, 1.0]
    reader = wire(*pieces, pace=Pace(300, min_data_rate=256), clock=clock)
    began = clock.now
    with pytest.raises(Disconnect) as end:
        list(reader.read_data())
    assert end.value.reply is TOO_SLOW
    assert 30 <= clock.now - began <= 32


def test_data_that_stops_is_cut_off() -> None:
    clock = FakeClock()
    reader = wire(b"x" * 10_000, 1000.0, pace=Pace(300, min_data_rate=256), clock=clock)
    with pytest.raises(Disconnect) as end:
        list(reader.read_data())
    assert end.value.reply is TOO_SLOW
    assert clock.now - 1000 <= 75


@pytest.mark.parametrize("first", [[], [b"begin"]], ids=["nothing at all", "a beginning"])
def test_a_client_that_is_silent_after_data_is_cut_off(first: list[bytes]) -> None:
    clock = FakeClock()
    reader = wire(*first, 1000.0, pace=Pace(300, min_data_rate=256), clock=clock)
    with pytest.raises(Disconnect) as end:
        list(reader.read_data())
    assert end.value.reply is TOO_SLOW
    assert 30 <= clock.now - 1000 <= 41  # the clock is looked at every 10 s


def test_a_line_that_comes_in_part_has_one_idle_time_for_all_of_it() -> None:
    clock = FakeClock()
    reader = wire(b"NO", 200.0, b"O", 200.0, b"P\r\n", clock=clock)
    with pytest.raises(Disconnect) as end:
        reader.read_line()
    assert end.value.reply is IDLE
    assert clock.now - 1000 <= 311


def test_data_fast_enough_with_a_pause_is_taken() -> None:
    pieces: list[bytes | float] = []
    for _ in range(10):
        pieces += [b"x" * 50_000, 25.0]
    reader = wire(*pieces, b"\r\n.\r\n", pace=Pace(300, min_data_rate=256))
    assert sum(map(len, reader.read_data())) == 500_002


def test_a_short_message_is_never_too_slow() -> None:
    assert b"".join(wire(b"a\r", 20.0, b"\n.\r\n", pace=Pace(300, min_data_rate=256)).read_data()) == b"a\r\n"


# --- properties

ODD = st.sampled_from(
    [b"\r", b"\n", b"\r\n", b".", b"\r\n.", b"\r\n.\r\n", b"\0", b"a", b"ab ", b"AUTH ", b"x" * 3000, b"\r\n..\r\n"]
)
STREAMS = st.lists(ODD, max_size=30).map(b"".join)


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    marks = sorted({place % (len(stream) + 1) for place in places})
    return [stream[a:b] for a, b in zip([0, *marks], [*marks, len(stream)], strict=True)]


def spell(lines: list[bytes | Reply]) -> list[bytes | int]:
    return [line.code if isinstance(line, Reply) else line for line in lines]


@given(STREAMS, st.lists(st.integers(0, 10_000), max_size=20))
@example(b"HELP\nNOOP\r\nQUIT\r\n", [5])
def test_lines_do_not_depend_on_how_the_bytes_are_cut(stream: bytes, places: list[int]) -> None:
    stream += b"\r\n"
    whole = spell(lines_of(stream))
    assert spell(lines_of(*cut(stream, places))) == whole
    assert len(whole) == stream.count(b"\r\n")
    for line in whole:
        assert isinstance(line, int) or not (set(line) & set(b"\r\n\0"))


@given(STREAMS, st.lists(st.integers(0, 10_000), max_size=20))
def test_content_does_not_depend_on_how_the_bytes_are_cut(stream: bytes, places: list[int]) -> None:
    stream += b"\r\n.\r\n"
    message = (b"\r\n" + stream).partition(b"\r\n.\r\n")[0]
    expected = (message + b"\r\n").replace(b"\r\n.", b"\r\n")[2:]
    assert data_of(stream)[0] == expected
    assert data_of(stream) == data_of(*cut(stream, places))


@given(st.binary(max_size=200))
def test_what_is_stuffed_comes_out_as_it_went_in(content: bytes) -> None:
    """For any content of whole lines; a bare newline before a dot is left alone both ways."""
    content = content.replace(b"\r\n.", b"").replace(b".", b"") + b"\r\n.dot\r\n"
    stuffed = (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:]
    assert data_of(stuffed + b".\r\n")[0] == content
