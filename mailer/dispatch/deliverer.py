"""What is done with one message: attempt after attempt of its round, until it is finished or must wait.

``Deliverer.process`` runs in the worker threads. A job belongs to the thread that took it, so nothing here needs a
lock. No worker sleeps: whatever has to wait becomes a due time in the spool. How it fails: while the spool cannot write
no attempt begins; a fault of ours puts the message back for later and is logged by the service.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from mailer.dispatch.ledger import Ledger, Message
from mailer.dispatch.parking import Gone, NotYet, Parking
from mailer.dispatch.queue import FairQueue, Job
from mailer.dispatch.round import Attempt, Closed, Wait
from mailer.dispatch.ways import FIRST_WAIT_SECONDS, Ways, WaysNow
from mailer.events import AttemptEnded, Hub
from mailer.mail.content import MemoryContent
from mailer.mail.envelope import State
from mailer.mail.outcome import Delivery, Reply, Verdict
from mailer.spool.store import ContentLost, Holder, Store

log = logging.getLogger(__name__)

NO_WAY = "(no way)"
"""What a message waits for that no provider serves: a reload makes it due."""
FAULT_WAIT_SECONDS = 300.0
UNWRITABLE_WAIT_SECONDS = 1.0

LOST = Reply(554, "5.3.0", "content lost or damaged on disk; what is left of it is in emails/quarantine")


class Deliverer:
    """Carries messages; see the module. ``clock`` gives Unix time."""

    def __init__(self, store: Store, queue: FairQueue, ways: Ways, ledger: Ledger, parking: Parking, hub: Hub) -> None:
        self._store = store
        self._queue = queue
        self._ways = ways
        self._ledger = ledger
        self._parking = parking
        self._hub = hub
        self.clock: Callable[[], float] = time.time

    def process(self, job: Job) -> None:
        """Carry a job as far as it goes now. Its slot and its place in memory are given back, whatever happens."""
        message: Message | None = None
        is_ours = True  # until the job waits in the queue again, for another way
        is_handled = False
        try:
            message = self._open(job)
            is_ours = message is None or self._carry(job, message)
            is_handled = True
        finally:
            if not is_handled:
                # Coming back at once would fail at once, so a fault of ours has its wait too.
                now = self.clock()
                message = message or Message(job.stored, MemoryContent(b""))
                self._ledger.wait(message, now + FAULT_WAIT_SECONDS, job.stored.lane, now)
            if is_ours:
                self._queue.leave(job.way)

    def _open(self, job: Job) -> Message | None:
        """The message with its content; None when there is nothing to carry now, and that is recorded."""
        stored, content = job.stored, job.content
        if stored.holder is Holder.FILE:
            return self._open_parked(Message(stored, MemoryContent(b"")))
        if content is not None:
            return Message(stored, content, self._ways.sign)
        try:
            return Message(stored, self._store.content(stored.envelope.id), self._ways.sign)
        except ContentLost as loss:
            log.error("message.lost id=%s why=%s", stored.envelope.id, loss)
            self._fail_owed(Message(stored, MemoryContent(b"")), LOST, self.clock())
            return None

    def _open_parked(self, message: Message) -> Message | None:
        now = self.clock()
        opened = self._parking.open(message.stored, now)
        if isinstance(opened, NotYet):
            self._ledger.wait(message, now + opened.seconds, message.stored.lane, now)
            return None
        if isinstance(opened, Gone):
            log.warning("message.cancelled id=%s why=%s", message.id, opened.reply)
            self._fail_owed(message, opened.reply, now)
            return None
        parked = Message(opened.stored, opened.content, self._ways.sign)
        parked.update(opened.changed)
        return parked

    def _fail_owed(self, message: Message, reply: Reply, now: float) -> None:
        message.update([replace(r, state=State.FAILED, reply=reply, updated_at=now) for r in message.owed])
        self._ledger.finish(message, now)

    def _carry(self, job: Job, message: Message) -> bool:
        """Attempt after attempt. Returns False when the job waits in the queue for another way: it is no longer ours."""
        while True:
            now = self.clock()
            if not message.owed:
                self._ledger.finish(message, now)
                return True
            # Too old, and not tried once: nothing is given up before one round, so a breaker does not deny this one.
            is_last_chance = message.row.rounds == 0 and self._ways.is_expiring(message.row, now)
            view = WaysNow(self._ways, message.id, now, is_last_chance, message.denied)
            step = message.round.next_step(message.owed, view, now)
            if isinstance(step, Attempt):
                if message.changed:
                    self._ledger.note(message, self._lane(message), now)
                if step.way != job.way and not self._change_way(job, message, step.way):
                    return False
                if not self._attempt(message, step, view):
                    return True
            elif isinstance(step, Wait):
                self._ledger.wait(message, step.until, self._lane(message), now)
                return True
            elif isinstance(step, Closed):
                self._wait_closed(message, step, view)
                return True
            else:
                self._end_round(message, view)
                return True

    def _lane(self, message: Message) -> str:
        return self._ways.lane(message.owed)

    def _change_way(self, job: Job, message: Message, way: str) -> bool:
        """Take a slot of another way, or leave the job waiting for one. After False nothing of it may be touched."""
        job.stored = replace(message.stored, progress=message.round.to_progress())
        return self._queue.change_way(job, way)

    # Attempts.

    def _attempt(self, message: Message, step: Attempt, view: WaysNow) -> bool:
        """Make one attempt. Returns False when the message had to be put back, because the disk cannot keep up."""
        now, wanted, setting = view.now, len(step.recipients), self._ways.setting
        if not self._ledger.begin(message):
            self._ledger.wait(message, now + UNWRITABLE_WAIT_SECONDS, self._lane(message), now)
            return False
        transport, admission = self._ways.admit(step.way, wanted, now, view.is_forced)
        if transport is None or admission.granted == 0:
            self._ways.cancel(step.way, admission, now)
            self._ledger.nothing_in_doubt(message)
            message.denied[step.way] = admission.closed_until or now + UNWRITABLE_WAIT_SECONDS
            return True
        if admission.granted < wanted:
            step = Attempt(step.way, step.recipients[: admission.granted])
        is_first = message.row.rounds == 0 and not message.round.has_tried
        began = time.monotonic()
        deadline = began + setting.config.processing_timeout
        verdicts = transport.deliver(Delivery(message.stored.envelope, step.recipients, message.render, deadline))
        seconds = time.monotonic() - began
        message.update(message.round.apply(step, verdicts, message.owed, setting.rules, self.clock()))
        queue_seconds = max(0.0, now - message.row.envelope.accepted_at) if is_first else None
        ended = _ended(message.id, step.way, list(verdicts.values()), seconds, queue_seconds)
        if not ended.delivered:
            self._ledger.nothing_in_doubt(message)
        self._hub.publish(ended)
        return True

    # The end of a round.

    def _wait_closed(self, message: Message, step: Closed, view: WaysNow) -> None:
        """Nothing was tried: every way is closed, or there is none."""
        now, stored = view.now, message.row
        lane = self._lane(message)
        if self._ways.is_expiring(stored, now) and (stored.rounds > 0 or step.until is None):
            self._give_up(message, now)
        elif step.until is None:
            first_wait = min(FIRST_WAIT_SECONDS, self._ways.config.retry.failed_retry_interval)
            self._ledger.wait(message, now + first_wait, lane, now, (NO_WAY,))
        elif lane == stored.lane and self._ways.lane_opens_at(lane, now) > now:
            self._ledger.leave(message)
        else:
            self._ledger.wait(message, max(step.until, now + UNWRITABLE_WAIT_SECONDS), lane, now)

    def _end_round(self, message: Message, view: WaysNow) -> None:
        now = view.now
        message.update(message.round.refused_everywhere(message.owed, view, now))
        if not message.owed:
            self._ledger.finish(message, now)
            return
        retry = self._ways.config.retry
        rounds = message.row.rounds + 1
        expires_at = message.row.envelope.accepted_at + retry.max_age
        if now >= expires_at or 0 < retry.max_attempts <= rounds:
            self._give_up(message, now)
            return
        wait = min(FIRST_WAIT_SECONDS * 2.0 ** min(rounds - 1, 32), retry.failed_retry_interval)
        closed = {name for r in message.owed for name in view.names(r) if self._ways.opens_at(name, now) > now}
        waits_for = sorted(message.round.tripped | closed)
        self._ledger.park(message, min(now + wait, expires_at), self._lane(message), now, waits_for)

    def _give_up(self, message: Message, now: float) -> None:
        owed = message.owed
        age = now - message.row.envelope.accepted_at
        given_up = message.round_ended(message.row.due_at)
        log.warning(
            "message.given_up id=%s recipients=%d age=%ds last_reply=%s file=emails/dead/%s.json",
            message.id, len(owed), age, owed[0].reply, message.id,
        )  # fmt: skip
        message.update([replace(r, state=State.FAILED, updated_at=now) for r in owed])
        self._ledger.finish(message, now, given_up)


def _ended(message_id: str, way: str, verdicts: Sequence[Verdict], seconds: float, queue_seconds: float | None) -> AttemptEnded:
    delivered = refused = 0
    wrong = None  # the first that went wrong says more than the many that went well
    for verdict in verdicts:
        if verdict.is_delivered:
            delivered += 1
            continue
        wrong = wrong or verdict.reply
        refused += verdict.reply.is_permanent
    reply, deferred = wrong or verdicts[0].reply, len(verdicts) - delivered - refused
    return AttemptEnded(message_id, way, delivered, deferred, refused, reply, seconds, queue_seconds)
