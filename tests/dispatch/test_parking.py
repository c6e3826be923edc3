"""Files that somebody drops into ``emails/failed`` become messages of ours, or go to quarantine with the reason."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailer.dispatch.parking import UNREADABLE_WAIT_SECONDS, Parking
from mailer.dispatch.queue import FairQueue
from mailer.dispatch.schedule import Schedule
from mailer.mail.content import MemoryContent
from mailer.mail.envelope import Address, Envelope, Recipient, State
from mailer.spool.failed import FailedStore
from mailer.spool.sqlite import SqliteSpool
from mailer.spool.store import Holder, Record, SpoolFull, Stored

NOW = 1_700_000_000.0
HI = MemoryContent(b"x")


class OneWay:
    """A planner with one way, which is open."""

    def first_way(self, stored: Stored, now: float) -> str:
        return "a"

    def open_way(self, stored: Stored, now: float) -> str | None:
        return "a"

    def first_ways(self, lane: str, now: float) -> list[str]:
        return [lane]

    def lane_opens_at(self, lane: str, now: float) -> float:
        return now

    def is_expiring(self, stored: Stored, now: float) -> bool:
        return False


class Yard:
    """Parking over a real spool and a real folder."""

    def __init__(self, folder: Path) -> None:
        self.spool = SqliteSpool.open(folder)
        self.failed = FailedStore(folder)
        queue = FairQueue(100, lambda way: 10)
        self.queue = queue
        schedule = Schedule(self.spool, queue, OneWay(), lambda: None)
        self.parking = Parking(self.spool, self.failed, schedule, lambda recipients: "a", lambda: None)
        self.folder = folder / "emails"

    def drop(self, name: str, **keys: object) -> None:
        message: dict[str, object] = {
            "ID": name,
            "From": "from@example.com",
            "To": ["to@example.org"],
            "Data": base64.b64encode(b"Subject: x\r\n\r\nhello\r\n").decode(),
        }
        (self.folder / "failed" / f"{name}.json").write_text(json.dumps({**message, **keys}))

    def adopted(self) -> list[Stored]:
        return list(self.spool.held_by(Holder.FILE))


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    yard = Yard(tmp_path)
    yard.parking.recover()
    yield yard
    yard.spool.close()


def test_dropped_file_is_taken_up_once_and_due(yard: Yard) -> None:
    yard.drop("message-1")
    yard.parking.scan(NOW)
    yard.parking.scan(NOW + 1)
    [row] = yard.adopted()
    assert (row.envelope.id, row.due_at, row.envelope.accepted_at) == ("message-1", NOW, NOW)
    assert yard.spool.totals().parked == 1


def test_message_whose_file_was_removed_is_brought_up_to_be_cancelled(yard: Yard) -> None:
    yard.drop("message-1")
    yard.parking.scan(NOW)
    (yard.folder / "failed" / "message-1.json").unlink()
    yard.parking.scan(NOW + 1)
    job = yard.queue.take(0)
    assert job is not None
    assert job.stored.envelope.id == "message-1"


def test_message_that_ends_while_its_row_is_read_is_not_taken_for_one_whose_file_was_removed(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was delivered, and its file cleared away, between the reading of the row and the look for the file."""
    yard.drop("message-1")
    yard.parking.scan(NOW)
    held_by = yard.spool.held_by

    def read_slowly(holder: Holder) -> Iterator[Stored]:
        rows = list(held_by(holder))
        if holder is Holder.FILE:
            recorded = threading.Event()
            yard.failed.remove("message-1")
            yard.spool.record(Record("message-1", State.SUCCESS, None, holder=Holder.SPOOL, at=NOW), recorded.set)
            assert recorded.wait(30)
            assert [row.envelope.id for row in rows] == ["message-1"]
        return iter(rows)

    monkeypatch.setattr(yard.spool, "held_by", read_slowly)
    yard.parking.scan(NOW + 1)
    assert yard.queue.take(0) is None


@pytest.mark.parametrize("bad_id", ["", "../../etc/passwd", "a b", "x" * 65, ".hidden", 7])
def test_bad_id_is_replaced_by_the_name_of_the_file(yard: Yard, bad_id: object) -> None:
    yard.drop("message-1", ID=bad_id)
    yard.parking.scan(NOW)
    yard.parking.scan(NOW + UNREADABLE_WAIT_SECONDS)
    yard.parking.scan(NOW + 2 * UNREADABLE_WAIT_SECONDS)
    names = [row.envelope.id for row in yard.adopted()]
    quarantined = sorted(p.name for p in (yard.folder / "quarantine").glob("*.json*"))
    assert names == ["message-1"] or (isinstance(bad_id, int) and quarantined)


def test_taken_id_is_replaced(yard: Yard) -> None:
    yard.drop("message-1")
    yard.parking.scan(NOW)
    yard.drop("other", ID="message-1")
    yard.parking.scan(NOW + 1)
    assert sorted(row.envelope.id for row in yard.adopted()) == ["message-1", "other"]


@pytest.mark.parametrize("keys", [{"To": None}, {"To": []}, {"From": "not an address"}, {"Data": "%%%"}])
def test_file_that_is_no_message_goes_to_quarantine_with_the_reason_once_unchanged(yard: Yard, keys: dict[str, object]) -> None:
    yard.drop("broken", **keys)
    yard.parking.scan(NOW)
    assert yard.failed.has("broken"), "somebody may still be writing it"
    yard.parking.scan(NOW + UNREADABLE_WAIT_SECONDS)
    assert not yard.failed.has("broken")
    assert yard.adopted() == []
    assert len(list((yard.folder / "quarantine").glob("broken*"))) == 2, "the file and its reason"


def test_what_waited_for_a_provider_is_due_although_the_disk_was_full_when_it_came_back(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    due = yard.spool.make_due
    asked: list[str | None] = []

    def full_at_first(now: float, waits_for: str | None = None) -> int:
        asked.append(waits_for)
        if len(asked) <= 2:
            raise SpoolFull("no space left")
        return due(now, waits_for)

    monkeypatch.setattr(yard.spool, "make_due", full_at_first)
    yard.spool.submit(Envelope("one", Address("a", "b.example"), (Recipient(0, Address("c", "d.example")),), 1, NOW), HI, "a")
    durable = threading.Event()
    yard.spool.record(Record("one", State.RETRYING, NOW + 300, waits_for=["a"], at=NOW), durable.set)
    assert durable.wait(30)
    yard.parking.opened_again("a")
    assert yard.parking.step(NOW) <= 1.0, "it is tried again soon"
    assert yard.parking.step(NOW + 1) <= 1.0
    yard.parking.step(NOW + 2)
    found = yard.spool.find("one")
    assert found is not None
    assert found.due_at == NOW + 2
    yard.parking.step(NOW + 3)
    assert asked == ["a", "a", "a"], "and not once more than needed"
