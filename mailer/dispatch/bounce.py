"""When the sender hears of a message's fate: which report is due, and its way into the spool (RFC 3461, 3464, 3834).

A report is a message of ours like any other: durable, archived, delivered by the ways of its recipient. It is stored before
the record that ends the round, under an id that follows from the message's own and from whom it speaks of. So a crash
between the two loses nothing, and repeats nothing: what has such an id already was told.

Called by worker threads that hold the message alone; no state of its own, so no lock. How it fails: ``submit`` says False
while a report cannot be stored. Nobody is told of a message without a sender, nor of a report.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from mailer.config.schema import Config
from mailer.dispatch.intake import Intake
from mailer.dispatch.ways import Ways
from mailer.mail.address import Address
from mailer.mail.content import Content, MemoryContent
from mailer.mail.dsn import NO_WISH, Dsn, Wish
from mailer.mail.envelope import Envelope, Recipient, State
from mailer.mail.fate import Action, Fate, Kind, Report
from mailer.mail.headers import own_name
from mailer.mail.report import compose, header_fields
from mailer.routing import LOCAL
from mailer.spool.store import SpoolError, Store

log = logging.getLogger(__name__)

_MAX_STEM_CHARS = 36  # of a message's id in its report's: an id has up to 64, and a hand-made one may have all of them
_BULK = frozenset((b"bulk", b"list", b"junk"))


class Reporter:
    """See the module."""

    def __init__(self, store: Store, intake: Intake, ways: Ways) -> None:
        self._store = store
        self._intake = intake
        self._ways = ways

    def due(self, envelope: Envelope, content: Content, ended: Collection[int], now: float) -> list[Report]:
        """The reports on the recipients with the indexes ``ended``, whose fate is sealed. None may be forgotten."""
        if not self._ways.config.bounce.enabled:
            return []
        if _is_nobodys(envelope):
            _tell_nobody(envelope, ended)
            return []
        wish = _wishes(envelope)
        recipients = [r for r in envelope.recipients if r.index in ended]
        failed = [r for r in recipients if r.state is State.FAILED and wish(r).wants_failure]
        delivered = [r for r in recipients if r.state is State.SUCCESS and wish(r).wants_success]
        by_kind = ((Kind.FAILURE, failed), (Kind.SUCCESS, delivered))
        return [self._report(kind, envelope, content, whom, now) for kind, whom in by_kind if whom]

    def is_late(self, envelope: Envelope, now: float) -> bool:
        """Whether a message that is still owed is so late that its sender may have to be warned."""
        bounce = self._ways.config.bounce
        return bounce.enabled and 0 < bounce.delay_warning <= now - envelope.accepted_at

    def warning(self, envelope: Envelope, content: Content, now: float) -> list[Report]:
        """The report that recipients of a late message are still owed, unless something forbids it."""
        if _is_nobodys(envelope):
            return []
        wish = _wishes(envelope)
        late = [r for r in envelope.owed if wish(r).wants_delay]
        return [self._report(Kind.DELAY, envelope, content, late, now)] if late and not _is_automatic(content) else []

    def submit(self, report: Report) -> bool:
        """Store a report, due now, unless it is there already. False when that cannot be done at the moment."""
        of, kind = report.envelope.id, report.kind.value
        try:
            if self._store.find(report.id) is not None:
                return True
            self._intake.accept_report(*_composed(report))
        except SpoolError as fault:
            log.error("report.not_stored of=%s kind=%s why=%s", of, kind, fault)
            return False
        log.info("report.stored id=%s of=%s kind=%s recipients=%d", report.id, of, kind, len(report.fates))
        return True

    def _report(
        self, kind: Kind, envelope: Envelope, content: Content, recipients: Sequence[Recipient], now: float
    ) -> Report:
        config = self._ways.config
        return Report(
            id=id_of_report(kind, envelope.id, recipients),
            kind=kind,
            envelope=envelope,
            content=content,
            fates=[_fate(kind, recipient, config) for recipient in recipients],
            hostname=config.hostname,
            sender=_daemon(config),
            language=config.bounce.language,
            at=now,
            until=envelope.accepted_at + config.retry.max_age,
        )


def id_of_report(kind: Kind, message_id: str, recipients: Sequence[Recipient]) -> str:
    """The id of the report on these recipients: the same whenever it is asked for. One warning a message, whoever is late."""
    if len(message_id) > _MAX_STEM_CHARS:
        message_id = f"{message_id[:_MAX_STEM_CHARS]}-{zlib.crc32(message_id.encode()):08x}"
    if kind is Kind.DELAY:
        return f"{message_id}-{kind.value}"
    indexes = ",".join(str(index) for index in sorted(recipient.index for recipient in recipients))
    return f"{message_id}-{kind.value}-{zlib.crc32(indexes.encode()):08x}"


def _wishes(envelope: Envelope) -> Callable[[Recipient], Wish]:
    """What was asked for a recipient."""
    wishes = dict(Dsn.of_text(envelope.options.dsn).wishes)
    return lambda recipient: wishes.get(str(recipient.address), NO_WISH)


def _is_nobodys(envelope: Envelope) -> bool:
    """Whether there is nobody to tell: reports about TLS have a sender, but no person who waits for them."""
    return not envelope.sender or envelope.options.is_report


def _tell_nobody(envelope: Envelope, ended: Collection[int]) -> None:
    failed = sum(r.index in ended and r.state is State.FAILED for r in envelope.recipients)
    if failed and envelope.options.is_report:
        log.warning("report.none of=%s failed=%d: nobody is told of a report", envelope.id, failed)
    elif failed:
        log.warning("report.none of=%s failed=%d: the message has no sender to tell (RFC 5321 4.5.5)", envelope.id, failed)


def _fate(kind: Kind, recipient: Recipient, config: Config) -> Fate:
    if kind is Kind.SUCCESS:
        action = Action.DELIVERED if recipient.provider == LOCAL else Action.RELAYED
    else:
        action = Action.FAILED if kind is Kind.FAILURE else Action.DELAYED
    remote = next((provider.host for provider in config.forward_providers if provider.name == recipient.provider), "")
    return Fate(recipient, action, remote)


def _daemon(config: Config) -> Address:
    """Who the report is from."""
    if config.bounce.sender:
        return Address.parse(config.bounce.sender, smtputf8=True)  # it was checked when the configuration was read
    return Address("MAILER-DAEMON", own_name(config.hostname))


def _composed(report: Report) -> tuple[Envelope, Content]:
    """The report, with nothing enclosed when the original cannot be read."""
    try:
        return compose(report)
    except OSError as error:
        log.error("report.encloses_nothing id=%s error=%r", report.id, str(error))
    return compose(replace(report, content=MemoryContent(b"")))


def _is_automatic(content: Content) -> bool:
    """Whether the message is of a list or from a machine: nobody is waiting for it (RFC 3834 2, RFC 2919)."""
    try:
        fields = header_fields(content)
    except OSError:
        return False
    for field in fields:
        value = field.value.strip().lower()
        if field.name == b"list-id" or (field.name == b"precedence" and value in _BULK):
            return True
        if field.name == b"auto-submitted" and value.partition(b";")[0].strip() != b"no":
            return True
    return False
