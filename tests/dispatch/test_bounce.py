"""Which report is due when, and that each gets into the spool once: over a real spool."""

from __future__ import annotations

import email
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mailer.config.schema import Config, ProviderConfig
from mailer.config.sections import BounceConfig, RetryConfig
from mailer.dispatch.bounce import Reporter, id_of_report
from mailer.dispatch.dispatcher import Dispatcher
from mailer.events import Hub
from mailer.mail.address import NULL_SENDER, Address
from mailer.mail.content import FileContent, MemoryContent
from mailer.mail.dsn import Dsn, Wish
from mailer.mail.envelope import Envelope, Options, Recipient, State, is_message_id
from mailer.mail.fate import Action, Kind, Report
from mailer.mail.outcome import Reply
from mailer.spool.failed import FailedStore
from mailer.spool.sqlite import SqliteSpool
from mailer.transport.providers import ProviderSet, Surroundings
from mailer.window import Windows

NOW = 1_800_000_000.0
DAY = 86400.0
HELLO = MemoryContent(b"Subject: hello\r\n\r\nhello\r\n")
CONFIG = Config(
    hostname="relay.test",
    forward_smtp=True,
    forward_providers=(ProviderConfig(name="upstream", host="mx.example.net", port=25),),
    bounce=BounceConfig(delay_warning=3600),
    retry=RetryConfig(max_age=int(DAY)),
)


class Desk:
    """A reporter over a spool of its own, nothing of which is delivered."""

    def __init__(self, folder: Path) -> None:
        self.spool = SqliteSpool.open(folder)
        hub = Hub()
        config = replace(CONFIG, data_dir=folder)
        providers = ProviderSet(config, Windows(lambda _name: ()), hub, Surroundings())
        self.dispatcher = Dispatcher(config, self.spool, FailedStore(folder), providers, hub)
        self.reporter = Reporter(self.spool, self.dispatcher.intake, self.dispatcher.ways)

    def configure(self, bounce: BounceConfig) -> None:
        ways = self.dispatcher.ways
        ways.configure(replace(ways.config, bounce=bounce), ways.setting.rules)

    def due(self, envelope: Envelope) -> list[Report]:
        """Where everyone has come to an end."""
        return self.reporter.due(envelope, HELLO, {r.index for r in envelope.recipients}, NOW)

    def warned(self, envelope: Envelope, content: MemoryContent = HELLO, now: float = NOW) -> bool:
        return self.reporter.is_late(envelope, now) and bool(self.reporter.warning(envelope, content, now))


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.spool.close()


def message(*states: State, wish: str = "", sender: str = "from@example.com", age: float = 60.0) -> Envelope:
    reply = Reply(550, "5.1.1", "no such user")
    recipients = tuple(
        Recipient(i, Address.parse(f"user{i}@example.org"), state, 1, "upstream", reply, NOW) for i, state in enumerate(states)
    )
    asked = Dsn(wishes=tuple((str(r.address), Wish(wish)) for r in recipients)) if wish else Dsn()
    address = Address.parse(sender) if sender else NULL_SENDER
    return Envelope("0m7q4tz3v9k2c5xya", address, recipients, HELLO.size, NOW - age, Options(dsn=asked.to_text()))


def summary(reports: list[Report]) -> list[tuple[Kind, list[int]]]:
    return [(report.kind, [fate.recipient.index for fate in report.fates]) for report in reports]


@pytest.mark.parametrize(
    ("wish", "kinds"),
    [
        ("", [(Kind.FAILURE, [0, 2])]),
        ("FAILURE", [(Kind.FAILURE, [0, 2])]),
        ("SUCCESS", [(Kind.SUCCESS, [1])]),
        ("SUCCESS,FAILURE", [(Kind.FAILURE, [0, 2]), (Kind.SUCCESS, [1])]),
        ("DELAY", []),
        ("NEVER", []),
    ],
)
def test_each_recipient_is_reported_as_its_sender_asked(desk: Desk, wish: str, kinds: list[tuple[Kind, list[int]]]) -> None:
    assert summary(desk.due(message(State.FAILED, State.SUCCESS, State.FAILED, wish=wish))) == kinds


def test_only_those_who_came_to_their_end_in_this_round_are_reported(desk: Desk) -> None:
    envelope = message(State.FAILED, State.FAILED, State.RETRYING)
    assert summary(desk.reporter.due(envelope, HELLO, {1}, NOW)) == [(Kind.FAILURE, [1])]


def test_nobody_is_told_where_there_is_no_sender_or_no_reports(desk: Desk) -> None:
    assert desk.due(message(State.FAILED, sender="")) == []
    assert not desk.warned(message(State.RETRYING, sender="", age=DAY))
    desk.configure(BounceConfig(enabled=False))
    assert desk.due(message(State.FAILED)) == []
    assert not desk.warned(message(State.RETRYING, age=DAY))


def test_a_report_is_stored_once_however_often_it_is_submitted(desk: Desk) -> None:
    envelope = message(State.FAILED, State.FAILED)
    [report] = desk.due(envelope)
    assert desk.reporter.submit(report)
    assert desk.reporter.submit(desk.due(envelope)[0])
    stored = desk.spool.find(report.id)
    assert stored is not None
    assert not stored.envelope.sender
    assert stored.envelope.options.is_report
    assert [str(r.address) for r in stored.envelope.recipients] == ["from@example.com"]
    assert desk.spool.totals().queued == 0
    assert desk.spool.totals().queued_reports == 1
    text = b"".join(desk.spool.content(report.id).chunks())
    assert email.message_from_bytes(text)["From"] == "Mail Delivery System <MAILER-DAEMON@relay.test>"
    assert b"Remote-MTA: dns; mx.example.net\r\n" in text


def test_a_report_on_other_recipients_of_the_message_is_due_all_the_same(desk: Desk) -> None:
    """A crash may have cut a round short whose second half ends otherwise."""
    envelope = message(State.FAILED, State.FAILED)
    [first] = desk.reporter.due(envelope, HELLO, {0}, NOW)
    [both] = desk.reporter.due(envelope, HELLO, {0, 1}, NOW)
    assert desk.reporter.submit(first)
    assert desk.reporter.submit(both)
    assert desk.spool.totals().queued_reports == 2


def test_the_id_of_a_report_follows_from_its_message_and_is_fit_for_a_file_name() -> None:
    people = message(State.FAILED, State.FAILED).recipients
    for message_id in ("0m7q4tz3v9k2c5xya", "A" * 64):
        ids = {id_of_report(kind, message_id, whom) for kind in Kind for whom in (people, people[:1], people[::-1])}
        assert len(ids) == 5  # one warning, and of two sets of people a failure and a success each
        assert all(is_message_id(report_id) for report_id in ids)
    assert id_of_report(Kind.FAILURE, "A" * 64, people) != id_of_report(Kind.FAILURE, "A" * 63, people)


def test_a_report_that_cannot_be_stored_is_no_exception(desk: Desk) -> None:
    [report] = desk.due(message(State.FAILED))
    desk.spool.close()
    assert not desk.reporter.submit(report)


def test_a_report_on_a_message_that_cannot_be_read_encloses_nothing(desk: Desk, tmp_path: Path) -> None:
    [report] = desk.due(message(State.FAILED))
    assert desk.reporter.submit(replace(report, content=FileContent(tmp_path / "gone", 10)))
    stored = email.message_from_bytes(b"".join(desk.spool.content(report.id).chunks()))
    assert [part.get_content_type() for part in stored.walk()][1:3] == ["text/plain", "message/delivery-status"]


def test_what_is_in_local_files_was_delivered_and_what_a_server_took_was_relayed(desk: Desk) -> None:
    envelope = message(State.SUCCESS, State.SUCCESS, wish="SUCCESS")
    first, second = envelope.recipients
    local = replace(envelope, recipients=(replace(first, provider="local"), second))
    assert [fate.action for fate in desk.due(local)[0].fates] == [Action.DELIVERED, Action.RELAYED]


def test_a_late_message_is_warned_of_from_then_on_and_once(desk: Desk) -> None:
    envelope = message(State.RETRYING, State.SUCCESS, age=3600.0)
    assert not desk.warned(envelope, now=NOW - 1)
    assert desk.warned(envelope)
    for at in (NOW, NOW + 60):
        [warning] = desk.reporter.warning(envelope, HELLO, at)
        assert summary([warning]) == [(Kind.DELAY, [0])]
        assert warning.until == envelope.accepted_at + DAY
        assert desk.reporter.submit(warning)
    assert desk.spool.totals().queued_reports == 1
    desk.configure(BounceConfig(delay_warning=0))
    assert not desk.warned(message(State.RETRYING, age=DAY))


@pytest.mark.parametrize(
    ("field", "is_warned"),
    [
        (b"Precedence: list", False),
        (b"precedence: Bulk", False),
        (b"Precedence: junk", False),
        (b"Precedence: first-class", True),
        (b"List-ID: Some list <l.example.org>", False),
        (b"Auto-Submitted: auto-replied; owner=x", False),
        (b"Auto-Submitted: no", True),
        (b"X-Other: yes\r\n Precedence: list", True),
    ],
)
def test_lists_and_machines_are_not_warned(desk: Desk, field: bytes, is_warned: bool) -> None:
    content = MemoryContent(b"Subject: x\r\n" + field + b"\r\n\r\nPrecedence: list\r\n")
    assert desk.warned(message(State.RETRYING, age=DAY), content) is is_warned


@pytest.mark.parametrize(("wish", "is_warned"), [("DELAY", True), ("FAILURE,DELAY", True), ("FAILURE", False), ("NEVER", False)])
def test_a_delay_is_told_of_only_to_whom_it_concerns(desk: Desk, wish: str, is_warned: bool) -> None:
    assert desk.warned(message(State.RETRYING, wish=wish, age=DAY)) is is_warned


def test_a_report_with_a_sender_causes_no_other(desk: Desk) -> None:
    """Reports about TLS have one: their failure would be told to an address that mostly nobody reads."""
    plain = message(State.FAILED, age=DAY)
    report = replace(plain, options=replace(plain.options, is_report=True))
    assert desk.due(plain)
    assert not desk.due(report)
    assert not desk.warned(replace(report, recipients=message(State.RETRYING).recipients))
