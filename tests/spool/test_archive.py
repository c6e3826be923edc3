"""The archive: mbox files that mail readers take, off the hot path, and never in the way of the mail itself."""

from __future__ import annotations

import io
import itertools
import logging
import mailbox
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailer.mail.content import FileContent, MemoryContent
from mailer.spool import archive as module
from mailer.spool.archive import Archive
from mailer.spool.mbox import mboxrd, quoted
from tests.spool.messages import T0, WAIT_SECONDS, envelope

DAY = time.strftime("%Y-%m-%d", time.localtime(T0))


def written(data_dir: Path, day: str = DAY) -> bytes:
    return (data_dir / "emails" / "archive" / f"{day}.mbox").read_bytes()


def test_messages_are_kept_by_day_with_their_envelope(tmp_path: Path) -> None:
    archive = Archive(tmp_path, 7)
    archive.start()
    content = MemoryContent(b"Subject: a\r\n\r\nFrom here\r\n>From there\r\nend")
    archive.add(envelope(to=["x@example.org", "bcc@example.org"]), content)
    archive.add(envelope(sender="", at=T0 + 3 * 86400), MemoryContent(b"Subject: b\r\n\r\n"))
    archive.close()
    assert re.fullmatch(
        rb"From app@example.com \w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d 2027\nEnvelope-To: x@example.org\n"
        rb"Envelope-To: bcc@example.org\nSubject: a\n\n>From here\n>>From there\nend\n\n",
        written(tmp_path),
    )
    later = time.strftime("%Y-%m-%d", time.localtime(T0 + 3 * 86400))
    assert written(tmp_path, later).startswith(b"From MAILER-DAEMON ")
    assert (tmp_path / "emails" / "archive" / f"{DAY}.mbox").stat().st_mode & 0o777 == 0o600
    assert archive.dropped == 0


def test_mail_readers_find_every_message(tmp_path: Path) -> None:
    archive = Archive(tmp_path, 7)
    archive.start()
    for number in range(50):
        archive.add(envelope(sender='"a b"@example.com'), MemoryContent(b"Subject: %d\r\n\r\nFrom x\r\n" % number))
    archive.close()
    box = mailbox.mbox(tmp_path / "emails" / "archive" / f"{DAY}.mbox")
    assert [found["Subject"] for found in box] == [str(number) for number in range(50)]
    box.close()


def test_large_content_may_be_unlinked_once_it_is_added(tmp_path: Path) -> None:
    path = tmp_path / "content"
    body = b"From the start\r\n" + b"a long line" * 200_000 + b"\r\n"
    path.write_bytes(body)
    archive = Archive(tmp_path, 7)
    archive.add(envelope(), FileContent(path, len(body)))
    path.unlink()
    archive.start()
    archive.close()
    assert written(tmp_path).endswith(b">From the start\n" + b"a long line" * 200_000 + b"\n\n")


def test_full_queue_drops_with_a_count_and_makes_only_one_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROOM_WAIT_SECONDS", 0.05)
    archive = Archive(tmp_path, 7)
    most = module.MOST_MESSAGES * module.UNDER_WAY_FACTOR
    for _ in range(most + 5):
        archive.wait_for_room(1)
        archive.add(envelope(), MemoryContent(b"x"))
    assert archive.dropped == 5
    archive.start()
    archive.close()
    assert written(tmp_path).count(b"From app@") == most


def test_waiting_for_room_ends_when_the_thread_has_made_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROOM_WAIT_SECONDS", WAIT_SECONDS)
    archive = Archive(tmp_path, 7)
    for _ in range(module.MOST_MESSAGES):
        archive.add(envelope(), MemoryContent(b"x"))

    def accept() -> None:
        archive.wait_for_room(4)
        archive.add(envelope("last"), MemoryContent(b"last"))

    waiting = threading.Thread(target=accept)
    waiting.start()
    archive.start()
    waiting.join(WAIT_SECONDS)
    archive.close()
    assert archive.dropped == 0
    assert written(tmp_path).endswith(b"\nlast\n\n")


def test_bytes_in_the_queue_are_bounded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROOM_WAIT_SECONDS", 0.0)
    archive = Archive(tmp_path, 7)
    body = bytes(module.MOST_BYTES * module.UNDER_WAY_FACTOR)
    archive.add(envelope(), MemoryContent(body + b"more than fits, but alone"))
    archive.add(envelope(), MemoryContent(b"x"))
    assert archive.dropped == 1


def test_archive_that_cannot_be_written_says_so_once_a_minute(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "emails").write_text("in the way")
    archive = Archive(tmp_path, 7)
    with caplog.at_level(logging.WARNING):
        for second in (0, 1, 30, 61):
            archive.add(envelope(), MemoryContent(b"x"))
            archive.step(T0 + second)
    assert archive.dropped == 4
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert "messages=1" in told[0]
    assert "messages=3" in told[1]


def test_message_that_fails_in_the_middle_leaves_no_trace(tmp_path: Path) -> None:
    class Broken:
        size = 300_000

        def chunks(self) -> Iterator[bytes]:
            yield b"half of it\r\n" * 25_000
            raise OSError("gone")

    archive = Archive(tmp_path, 7)
    archive.add(envelope(), MemoryContent(b"first"))
    archive.add(envelope(), Broken())
    archive.add(envelope(), MemoryContent(b"third"))
    archive.step(T0)
    assert written(tmp_path).count(b"From app@") == 2
    assert b"half" not in written(tmp_path)
    assert archive.dropped == 1


def test_messages_written_together_are_tried_alone_when_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = module._write_all

    def fail_for_second(box: io.FileIO, piece: bytes) -> None:
        write(box, piece[: len(piece) // 2])  # half of it was written when the disk was full
        if b"second" in piece:
            raise OSError("no space left")
        write(box, piece[len(piece) // 2 :])

    monkeypatch.setattr(module, "_write_all", fail_for_second)
    archive = Archive(tmp_path, 7)
    for text in (b"first", b"second", b"third"):
        archive.add(envelope(), MemoryContent(text))
    archive.step(T0)
    assert re.findall(rb"^(first|second|third)$", written(tmp_path), re.MULTILINE) == [b"first", b"third"]
    assert written(tmp_path).count(b"From app@") == 2
    assert archive.dropped == 1


def test_files_are_removed_after_their_days(tmp_path: Path) -> None:
    folder = tmp_path / "emails" / "archive"
    folder.mkdir(parents=True)
    days = [time.strftime("%Y-%m-%d", time.localtime(T0 - 86400 * back)) for back in range(10)]
    for name in [*(f"{day}.mbox" for day in days), "notes.mbox", "2000-01-01.mbox.bak"]:
        (folder / name).touch()
    archive = Archive(tmp_path, 7)
    archive.step(T0)
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [*(f"{day}.mbox" for day in days[:8]), "notes.mbox", "2000-01-01.mbox.bak"]
    )
    archive.days = 0
    archive.step(T0 + 86400 * 100)
    assert len(list(folder.iterdir())) == 10


def test_symbolic_link_in_the_days_place_is_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "emails" / "archive"
    folder.mkdir(parents=True)
    target = tmp_path / "elsewhere"
    target.touch()
    (folder / f"{DAY}.mbox").symlink_to(target)
    archive = Archive(tmp_path, 7)
    archive.add(envelope(), MemoryContent(b"x"))
    archive.step(T0)
    assert target.read_bytes() == b""
    assert archive.dropped == 1


def test_added_after_the_end_is_dropped(tmp_path: Path) -> None:
    archive = Archive(tmp_path, 7)
    archive.start()
    archive.close()
    archive.add(envelope(), MemoryContent(b"x"))
    assert archive.dropped == 1


@given(
    st.lists(st.sampled_from([b"From ", b">", b"\r\n", b"\n", b"F", b"rom x", b"abc", b"abc ", b">From "]), max_size=30),
    st.lists(st.integers(0), max_size=10),
)
def test_quoting_does_not_depend_on_how_the_content_is_cut(words: list[bytes], places: list[int]) -> None:
    whole = b"".join(words)
    edges = sorted({0, len(whole), *(place % (len(whole) + 1) for place in places)})
    got = b"".join(quoted(whole[start:end] for start, end in itertools.pairwise(edges)))
    assert got == b"".join(quoted(iter([whole])))
    lines = whole.replace(b"\r\n", b"\n")
    expected = b"".join(
        b">" + line if re.match(rb">*From ", line) else line for line in io.BytesIO(lines).readlines()
    )
    assert got == (expected + b"\n" if expected and not expected.endswith(b"\n") else expected)
    in_memory = b"".join(mboxrd(envelope(), MemoryContent(whole), None))
    assert in_memory == b"".join(mboxrd(envelope(), FileContent(Path("gone"), len(whole)), io.BytesIO(whole)))
    assert in_memory.endswith(b"x@example.org\n" + got + b"\n")
