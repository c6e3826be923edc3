"""Parked messages on a machine that lacks descriptors or space: put off, never thrown away."""

from __future__ import annotations

import base64
import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailer.dispatch.parking import NotYet, Opened
from mailer.mail.content import LARGE_BYTES, MemoryContent
from mailer.mail.envelope import State
from mailer.spool.failed import ParkedFile
from mailer.spool.store import Holder, Record, Stored
from tests.dispatch.test_parking import NOW, Yard
from tests.spool.messages import envelope, record

LARGE = MemoryContent(b"Subject: large\r\n\r\n" + (b"x" * 70 + b"\r\n") * (LARGE_BYTES // 72 + 10))
ID = "parked1"


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    made = Yard(tmp_path)
    yield made
    made.spool.close()


@contextlib.contextmanager
def limited(what: int, limit: int) -> Iterator[None]:
    """This process may use no more of it meanwhile."""
    soft, hard = resource.getrlimit(what)
    resource.setrlimit(what, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(what, (soft, hard))


def no_descriptors() -> contextlib.AbstractContextManager[None]:
    descriptor = os.open(os.devnull, os.O_RDONLY)  # the lowest that is free
    os.close(descriptor)
    return limited(resource.RLIMIT_NOFILE, descriptor)


def no_space_for_large_files() -> contextlib.AbstractContextManager[None]:
    """EFBIG is among the errors that mean a lack of space, and needs no disk of our own to come."""
    return limited(resource.RLIMIT_FSIZE, LARGE_BYTES // 2)


def hand_over(yard: Yard, publish: bool = True) -> Stored:
    """A message whose file in ``emails/failed`` is the message."""
    message = envelope(ID, at=NOW, size=LARGE.size)
    yard.spool.submit(message, LARGE, "a")
    yard.failed.prepare(ParkedFile.of(Stored(message, "a", rounds=1), LARGE))
    record(yard.spool, Record(ID, State.RETRYING, NOW, rounds=1, holder=Holder.FILE, at=NOW))
    if publish:
        yard.failed.publish(ID)
    row = yard.spool.find(ID)
    assert row is not None
    return row


def visible(yard: Yard) -> list[str]:
    return sorted(path.name for path in (yard.folder / "failed").iterdir())


@pytest.mark.parametrize("lack", [no_descriptors, no_space_for_large_files])
def test_message_that_cannot_be_read_for_lack_of_something_waits_however_long(yard: Yard, lack: object) -> None:
    stored = hand_over(yard)
    for now in (NOW, NOW + 60, NOW + 3600):
        with no_descriptors() if lack is no_descriptors else no_space_for_large_files():
            opened = yard.parking.open(stored, now)
        assert isinstance(opened, NotYet)
    opened = yard.parking.open(stored, NOW + 3601)
    assert isinstance(opened, Opened)
    assert b"".join(opened.content.chunks()) == b"".join(LARGE.chunks())
    assert not (yard.folder / "quarantine").exists()


def test_hidden_file_that_cannot_be_read_at_start_is_kept(yard: Yard) -> None:
    """The spool holds nothing of that message any more: its file is all there is."""
    hand_over(yard, publish=False)
    with no_space_for_large_files():
        yard.parking.recover()
    assert visible(yard) == [f"{ID}.json"]
    yard.parking.step(NOW)
    assert visible(yard) == [f"{ID}.json"]


def test_hidden_file_that_was_cut_short_goes_where_the_file_before_it_is_there(yard: Yard) -> None:
    hand_over(yard)
    (yard.folder / "failed" / f".{ID}.json.tmp").write_bytes(b'{"ID": "par')
    yard.parking.recover()
    assert visible(yard) == [f"{ID}.json"]


def test_start_goes_on_though_a_file_cannot_be_shown(yard: Yard, caplog: pytest.LogCaptureFixture) -> None:
    hand_over(yard, publish=False)
    obstacle = yard.folder / "failed" / f"{ID}.json"
    obstacle.mkdir()
    yard.parking.recover()
    assert "parked.hidden" in caplog.text
    obstacle.rmdir()
    yard.parking.recover()
    assert visible(yard) == [f"{ID}.json"]


def test_dropped_file_that_cannot_be_read_for_lack_of_space_is_taken_up_later(yard: Yard) -> None:
    yard.drop("dropped", Data=base64.b64encode(b"".join(LARGE.chunks())).decode())
    for now in (NOW, NOW + 11, NOW + 22):
        with no_space_for_large_files():
            yard.parking.step(now)
        assert yard.spool.find("dropped") is None
        assert visible(yard) == ["dropped.json"]
    yard.parking.step(NOW + 33)
    row = yard.spool.find("dropped")
    assert row is not None
    assert row.holder is Holder.FILE
