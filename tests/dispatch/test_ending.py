"""How a round ends where the sender has to be told of it, or cannot be told yet: over a real spool."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mailer.config.schema import Config
from mailer.dispatch.bounce import Reporter
from mailer.dispatch.dispatcher import Dispatcher
from mailer.dispatch.ending import REPORT_WAIT_SECONDS, Ending
from mailer.dispatch.intake import Intake
from mailer.dispatch.ledger import Ledger, Message
from mailer.dispatch.parking import REMOVED, Parking
from mailer.dispatch.queue import FairQueue
from mailer.dispatch.round import Over
from mailer.dispatch.schedule import Schedule
from mailer.dispatch.ways import WaysNow
from mailer.events import Hub
from mailer.mail.content import Content, MemoryContent
from mailer.mail.envelope import Address, Envelope, Recipient, State
from mailer.mail.outcome import Reply
from mailer.spool.failed import FailedStore
from mailer.spool.sqlite import SqliteSpool
from mailer.spool.store import SpoolFull, Stored
from mailer.transport.providers import ProviderSet, Surroundings
from mailer.window import Windows
from tests.support.relay import eventually

NOW = 1_800_000_000.0
HELLO = MemoryContent(b"Subject: hello\r\n\r\nhello\r\n")
LOST = Reply(554, "5.3.0", "content lost")


class FullIntake(Intake):
    """Takes nothing while ``is_full``, as on a full disk."""

    is_full = False

    def accept(self, envelope: Envelope, content: Content) -> None:
        if self.is_full:
            raise SpoolFull("no space left")
        super().accept(envelope, content)


class Desk:
    """Everything that ends a round, over a spool of its own; nothing is delivered."""

    def __init__(self, folder: Path) -> None:
        self.spool = SqliteSpool.open(folder)
        hub, failed = Hub(), FailedStore(folder)
        config = Config(hostname="relay.test", data_dir=folder)
        providers = ProviderSet(config, Windows(lambda _name: ()), hub, Surroundings())
        self.ways = Dispatcher(config, self.spool, failed, providers, hub).ways
        schedule = Schedule(self.spool, FairQueue(10, lambda _way: 1), self.ways, lambda: None)
        parking = Parking(self.spool, failed, schedule, self.ways.lane, lambda: None)
        self.intake = FullIntake(self.spool, schedule, self.ways, hub)
        ledger = Ledger(self.spool, schedule, parking, hub, 4)
        self.ending = Ending(self.ways, ledger, Reporter(self.spool, self.intake, self.ways))

    def submit(self) -> str:
        recipients = tuple(Recipient(i, Address(f"user{i}", "example.org")) for i in range(2))
        envelope = Envelope("0m7q4tz3v9k2c5xya", Address("from", "example.com"), recipients, HELLO.size, NOW)
        self.spool.submit(envelope, HELLO, "local")
        return envelope.id

    def row(self, message_id: str) -> Stored:
        found = self.spool.find(message_id)
        assert found is not None
        return found

    def reaches(self, message_id: str, state: State) -> Stored:
        """Its row once a record has made it so."""
        eventually(lambda: self.row(message_id).state is state, f"{state}")
        return self.row(message_id)

    @property
    def reports(self) -> int:
        return self.spool.totals().queued_reports


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.spool.close()


def test_a_message_whose_content_is_lost_is_reported(desk: Desk) -> None:
    message_id = desk.submit()
    desk.ending.fail_owed(Message(desk.row(message_id), MemoryContent(b"")), LOST, NOW)
    assert desk.reports == 1  # before the end is recorded
    row = desk.reaches(message_id, State.FAILED)
    assert [r.reply for r in row.envelope.recipients] == [LOST, LOST]


def test_a_message_that_a_hand_removed_is_not_reported(desk: Desk) -> None:
    message_id = desk.submit()
    desk.ending.fail_owed(Message(desk.row(message_id), HELLO), REMOVED, NOW)
    desk.reaches(message_id, State.FAILED)
    assert desk.reports == 0


def test_a_round_whose_report_cannot_be_stored_is_not_over_until_it_can(desk: Desk) -> None:
    message_id = desk.submit()
    desk.intake.is_full = True
    message = Message(desk.row(message_id), HELLO)
    desk.ending.fail_owed(message, LOST, NOW)
    waiting = desk.reaches(message_id, State.RETRYING)
    eventually(lambda: desk.row(message_id).due_at == NOW + REPORT_WAIT_SECONDS, "the wait")
    assert waiting.envelope.owed == ()
    assert desk.reports == 0
    desk.intake.is_full = False
    again = Message(desk.row(message_id), HELLO)  # as after a crash: what is to be told is in the row
    later = NOW + REPORT_WAIT_SECONDS
    desk.ending.go_on(again, Over(), WaysNow(desk.ways, message_id, later))
    assert desk.reports == 1
    row = desk.reaches(message_id, State.FAILED)
    assert (row.due_at, row.progress) == (None, "")


def test_a_round_that_ends_twice_is_reported_once(desk: Desk) -> None:
    message_id = desk.submit()
    row = desk.row(message_id)
    for _ in range(2):  # a crash has taken the record of the end, and not the report
        desk.ending.fail_owed(Message(row, HELLO), LOST, NOW)
    desk.reaches(message_id, State.FAILED)
    assert desk.reports == 1
