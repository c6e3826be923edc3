"""Messages by BDAT: the same content however it is cut into chunks, bounded memory and time, and nothing left behind."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailer.events import SubmissionRefused
from mailer.mail.content import Content
from mailer.mail.envelope import Envelope
from mailer.smtp.pace import Pace
from mailer.smtp.replies import TOO_SLOW, Disconnect
from mailer.smtp.wire import LAST_BUFFER_BYTES, Wire
from mailer.spool.content import SpoolContentWriter, SpooledFile
from mailer.spool.places import Places
from mailer.spool.store import SpoolError, SpoolFull
from tests.smtp.script import EHLO, HEAD, MAIL, NOW, PATIENT, RCPT, FakeClock, ScriptSocket, Setting, added, codes, converse

BEGIN = EHLO + MAIL + RCPT
ODD = st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"\r\n.\r\n", b"RSET\r\n", b"BDAT 3\r\n", b"abc", b"x" * 3000])


def chunked(content: bytes, places: list[int]) -> bytes:
    """``content`` as BDAT commands, cut at these places; the last is LAST."""
    marks = sorted({place % (len(content) + 1) for place in places} | {0, len(content)})
    pieces = [content[a:b] for a, b in itertools.pairwise(marks)] or [b""]
    commands = [b"BDAT %d\r\n" % len(piece) + piece for piece in pieces[:-1]]
    return b"".join(commands) + b"BDAT %d LAST\r\n" % len(pieces[-1]) + pieces[-1]


def wire(*pieces: bytes | float, pace: Pace = PATIENT, clock: FakeClock | None = None) -> Wire:
    clock = clock or FakeClock()
    return Wire(ScriptSocket(pieces, clock), pace, clock)


PLACES = st.lists(st.integers(0, 9999), max_size=6)


@given(st.lists(ODD, max_size=12).map(b"".join), PLACES, PLACES)
def test_a_message_does_not_depend_on_how_it_is_cut_into_chunks_and_packets(
    body: bytes, places: list[int], packets: list[int]
) -> None:
    setting = Setting()
    stream = BEGIN + chunked(HEAD + body, places) + b"QUIT\r\n"
    marks = sorted({packet % (len(stream) + 1) for packet in packets} | {0, len(stream)})
    replies = converse(*(stream[a:b] for a, b in itertools.pairwise(marks)), setting=setting)
    assert codes(replies)[-2:] == ["250 2.0.0", "221 2.0.0"]
    lines = (HEAD + body).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    whole = lines if lines.endswith(b"\n") else lines + b"\n"
    assert [added(content) for content in setting.intake.contents] == [whole.replace(b"\n", b"\r\n")]


def test_the_envelope_is_the_same_as_by_data() -> None:
    setting = Setting()
    before = EHLO + b"MAIL FROM:<a@example.com> BODY=8BITMIME SIZE=9 RET=FULL\r\n" + RCPT
    converse(before + chunked(HEAD, [5]) + before[len(EHLO) :] + b"DATA\r\n" + HEAD + b".\r\n", setting=setting)
    (by_chunks, one), (by_data, other) = setting.intake.messages
    assert replace(by_chunks, id="") == replace(by_data, id="")
    assert one.replace(by_chunks.id.encode(), b"") == other.replace(by_data.id.encode(), b"")


def test_an_empty_message_is_a_message() -> None:
    setting = Setting()
    assert codes(converse(BEGIN + b"BDAT 0 LAST\r\nNOOP\r\n", setting=setting))[-2:] == ["250 2.0.0", "250 2.0.0"]
    assert added(setting.intake.contents[0]).endswith(b"+0000\r\n\r\n")


@pytest.mark.parametrize("chunk_bytes", [1000, LAST_BUFFER_BYTES, LAST_BUFFER_BYTES + 1, 3_000_000])
def test_a_large_message_goes_to_its_file_in_bounded_pieces(tmp_path: Path, chunk_bytes: int) -> None:
    places = Places(tmp_path)
    places.content.mkdir(parents=True)
    setting = Setting()
    kept: list[Content] = []

    def accept(envelope: Envelope, content: Content) -> None:
        assert envelope.size == content.size
        kept.append(content)

    setting.intake.new_content = lambda message_id: SpoolContentWriter(places, message_id)  # type: ignore[method-assign]
    setting.intake.accept = accept  # type: ignore[method-assign]
    content = HEAD + b"." * 70 + b"\r\n" * 1_000_000
    stream = BEGIN + chunked(content, list(range(0, len(content), chunk_bytes)))
    assert codes(converse(stream, setting=setting))[-1] == "250 2.0.0"
    [file] = kept
    assert isinstance(file, SpooledFile)
    assert added(b"".join(file.chunks())) == content


def test_pieces_are_bounded_and_the_memory_is_given_back() -> None:
    reader = wire(b"y" * 1_000_000 + b"NOOP\r\n")
    sizes = [len(piece) for piece in reader.read_chunk(1_000_000, is_first=True)]
    assert sum(sizes) == 1_000_000
    assert max(sizes) <= LAST_BUFFER_BYTES
    assert reader.read_line() == b"NOOP"
    assert len(reader._buffer) < LAST_BUFFER_BYTES


def test_a_chunk_that_trickles_in_is_cut_off() -> None:
    clock = FakeClock()
    pieces = [part for _ in range(100) for part in (b"x" * 100, 1.0)]
    reader = wire(*pieces, pace=Pace(300, min_data_rate=256), clock=clock)
    with pytest.raises(Disconnect) as end:
        list(reader.read_chunk(50_000, is_first=True))
    assert end.value.reply is TOO_SLOW
    assert 30 <= clock.now - 1000 <= 32


def test_many_small_chunks_with_pauses_are_as_slow_as_one_that_trickles() -> None:
    setting = Setting().with_limits(min_data_rate=256)
    chunk: list[bytes | float] = [b"BDAT 20\r\n" + b"x" * 10, 5.0, b"x" * 10, 20.0]
    replies = converse(BEGIN, *(chunk * 50), setting=setting)
    assert codes(replies)[-1] == "421 4.4.2"
    assert len(replies) < 20
    assert setting.intake.writers[0].is_discarded


def test_a_client_that_says_nothing_between_chunks_is_given_up_after_the_idle_time() -> None:
    setting = Setting()
    replies = converse(BEGIN + b"BDAT 3\r\nabc", 1000.0, setting=setting)
    assert codes(replies)[-2:] == ["250 2.0.0", "421 4.4.2"]
    assert setting.intake.writers[0].is_discarded


@pytest.mark.parametrize(
    "end", [b"", b"QUIT\r\n", b"RSET\r\n", b"EHLO x\r\n", b"HELO x\r\n", b"BDAT LAST\r\n", b"BDAT 9\r\nhalf"]
)
def test_chunks_without_a_last_one_leave_nothing_behind(end: bytes) -> None:
    setting = Setting().with_rate_limits(max_per_hour=1)
    converse(BEGIN + b"BDAT 3\r\nabc" + end, setting=setting)
    assert setting.intake.messages == []
    assert setting.intake.writers[0].is_discarded
    assert setting.windows.counts("sender:a@example.com", NOW) == (0, 0)


@pytest.mark.parametrize(("error", "code"), [(SpoolFull("full"), "452 4.3.1"), (SpoolError("broken"), "451 4.3.0")])
@pytest.mark.parametrize("when", ["write_error", "accept_error"])
def test_a_spool_that_cannot_take_it_is_a_temporary_refusal(error: SpoolError, code: str, when: str) -> None:
    setting = Setting()
    setattr(setting.intake, when, error)
    replies = converse(BEGIN + chunked(HEAD + b"RSET\r\n", [len(HEAD)]) + MAIL + RCPT + b"NOOP\r\n", setting=setting)
    assert codes(replies)[-4:] == [code, "250 2.1.0", "250 2.1.5", "250 2.0.0"]
    assert setting.intake.messages == []
    assert setting.intake.writers[0].is_discarded
    assert setting.events.count(SubmissionRefused("disk")) == 1


def test_a_fault_of_ours_ends_this_session_with_421() -> None:
    setting = Setting()
    setting.intake.accept_error = ZeroDivisionError("a bug")
    assert codes(converse(BEGIN + b"BDAT 0 LAST\r\nNOOP\r\n", setting=setting))[-1] == "421 4.3.0"
    assert setting.intake.writers[0].is_discarded


def test_long_lines_are_measured_across_chunks() -> None:
    setting = Setting()
    converse(BEGIN + chunked(HEAD + b"x" * 999, [len(HEAD) + 10, len(HEAD) + 500]), setting=setting)
    assert setting.intake.messages[0][0].options.has_long_lines


def test_chunks_in_the_pipeline_behind_a_refused_one_are_not_bad_commands() -> None:
    setting = Setting().with_limits(bad_commands=3)
    replies = converse(EHLO + MAIL + b"BDAT 5\r\nRSET " * 50 + b"BDAT 0 LAST\r\nNOOP\r\n", setting=setting)
    assert codes(replies)[3:] == ["554 5.5.1"] * 51 + ["250 2.0.0"]
    assert len(setting.events) == 1, "it is one message"


def test_chunks_without_a_message_are_bad_commands() -> None:
    setting = Setting().with_limits(bad_commands=3)
    replies = converse(EHLO + b"BDAT 5\r\nRSET " * 50, setting=setting)
    assert codes(replies)[2:] == ["503 5.5.1"] * 3 + ["421 4.7.0"]


def test_refused_chunks_without_end_end_the_session() -> None:
    setting = Setting()
    setting.config = replace(setting.config, max_message_size=1000)
    replies = converse(EHLO + MAIL, *([b"BDAT 300000\r\n" + b"x" * 300_000] * 10), setting=setting)
    assert codes(replies)[3:] == ["554 5.5.1"] * 3 + ["421 4.3.4"]


def test_a_message_by_chunks_far_beyond_the_limit_ends_the_session_and_is_not_kept() -> None:
    setting = Setting()
    setting.config = replace(setting.config, max_message_size=100_000)
    replies = converse(BEGIN + b"BDAT 9000000\r\n", *([b"x" * 70 + b"\r\n"] * 100_000), setting=setting)
    assert codes(replies)[-1] == "421 4.3.4"
    assert setting.intake.writers[0].size <= 200_000


def test_one_line_a_refused_message(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        converse(EHLO + MAIL + b"BDAT 5\r\nRSET " * 3 + b"BDAT 0 LAST\r\n")
    assert [record.getMessage().split()[0] for record in caplog.records] == ["smtp.refused"]
    assert "verb=BDAT" in caplog.text
    assert "from=a@example.com" in caplog.text
