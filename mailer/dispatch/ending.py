"""What follows when nothing more can be tried at this moment: the message waits, is parked, finished or given up.

Whatever the sender has to hear of a round is stored before the record that ends it (``bounce.py``); while it cannot be, the
round does not end, and the message comes back to it.

Called by the one worker thread that has the message then; no state of its own, so no lock. Nothing here fails but by a fault
of ours, which the caller makes a wait.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from mailer.dispatch.bounce import Reporter
from mailer.dispatch.ledger import Ledger, Message
from mailer.dispatch.parking import REMOVED
from mailer.dispatch.round import Closed, Step, Wait
from mailer.dispatch.ways import FIRST_WAIT_SECONDS, Ways, WaysNow
from mailer.mail.envelope import State
from mailer.mail.outcome import Reply
from mailer.spool.store import Stored

log = logging.getLogger(__name__)

NO_WAY = "(no way)"
"""What a message waits for that no provider serves: a reload makes it due."""
CLOSED_WAIT_SECONDS = 1.0
"""At least, before ways that are all closed are looked at again."""
REPORT_WAIT_SECONDS = 10.0
"""Before a report that could not be stored is tried again: the sender shall hear soon after there is space again."""


class Ending:
    """See the module. ``ledger`` is where it writes."""

    def __init__(self, ways: Ways, ledger: Ledger, reporter: Reporter) -> None:
        self._ways = ways
        self.ledger = ledger
        self._reporter = reporter

    def go_on(self, message: Message, step: Step, view: WaysNow) -> None:
        """``step``, which is no attempt, is what the round says."""
        now = view.now
        if not message.owed:
            self.finish(message, now)
        elif isinstance(step, Wait):
            self.ledger.wait(message, step.until, self._lane(message), now)
        elif isinstance(step, Closed):
            self._wait_closed(message, step, view)
        else:
            self._end_round(message, view)

    def fail_owed(self, message: Message, reply: Reply, now: float) -> None:
        """There is no message any more. Who has removed it needs no report."""
        if reply != REMOVED:
            message.round.to_report.update(r.index for r in message.owed)
        message.update([replace(r, state=State.FAILED, reply=reply, updated_at=now) for r in message.owed])
        self.finish(message, now)

    def _lane(self, message: Message) -> str:
        return self._ways.lane(message.owed)

    def _wait_closed(self, message: Message, step: Closed, view: WaysNow) -> None:
        """Nothing was tried: every way is closed, or there is none."""
        now, stored = view.now, message.row
        lane = self._lane(message)
        if self._ways.is_expiring(stored, now) and (stored.rounds > 0 or step.until is None):
            self._give_up(message, now)
            return
        self._warn(message, now)
        if step.until is None:
            first_wait = min(FIRST_WAIT_SECONDS, self._ways.config.retry.failed_retry_interval)
            self.ledger.wait(message, now + first_wait, lane, now, (NO_WAY,))
        elif lane == stored.lane and self._ways.lane_opens_at(lane, now) > now:
            self.ledger.leave(message)
        else:
            self.ledger.wait(message, max(step.until, now + CLOSED_WAIT_SECONDS), lane, now)

    def _end_round(self, message: Message, view: WaysNow) -> None:
        now = view.now
        message.update(message.round.refused_everywhere(message.owed, view, now))
        if not message.owed:
            self.finish(message, now)
            return
        retry = self._ways.config.retry
        rounds = message.row.rounds + 1
        expires_at = message.row.envelope.accepted_at + retry.max_age
        if now >= expires_at or 0 < retry.max_attempts <= rounds:
            self._give_up(message, now)
            return
        if not self._is_told(message, now):
            return
        self._warn(message, now)
        wait = min(FIRST_WAIT_SECONDS * 2.0 ** min(rounds - 1, 32), retry.failed_retry_interval)
        closed = {name for r in message.owed for name in view.names(r) if self._ways.opens_at(name, now) > now}
        waits_for = sorted(message.round.tripped | closed)
        self.ledger.park(message, min(now + wait, expires_at), self._lane(message), now, waits_for)

    def _give_up(self, message: Message, now: float) -> None:
        owed = message.owed
        age = now - message.row.envelope.accepted_at
        given_up = message.round_ended(message.row.due_at)
        log.warning(
            "message.given_up id=%s recipients=%d age=%ds last_reply=%s file=emails/dead/%s.json",
            message.id, len(owed), age, owed[0].reply, message.id,
        )  # fmt: skip
        message.round.to_report.update(r.index for r in owed)
        message.update([replace(r, state=State.FAILED, updated_at=now) for r in owed])
        self.finish(message, now, given_up)

    def finish(self, message: Message, now: float, given_up: Stored | None = None) -> None:
        """Every recipient has its final state."""
        if self._is_told(message, now):
            self.ledger.finish(message, now, given_up)

    # Reports.

    def _is_told(self, message: Message, now: float) -> bool:
        """Whether the sender has been told what is to be told of this round; else the message waits, and is let go of."""
        if not message.round.to_report:
            return True
        reports = self._reporter.due(message.stored.envelope, message.content, message.round.to_report, now)
        if reports and message.changed:
            self.ledger.note(message, now)  # first: after a crash the round ends as the report says
        for report in reports:
            if not self._reporter.submit(report):
                self.ledger.wait(message, now + REPORT_WAIT_SECONDS, self._lane(message), now)
                return False
        return True

    def _warn(self, message: Message, now: float) -> None:
        """Tell of a delay if it is time. What cannot be told is told at the end of the next round."""
        if self._reporter.is_late(message.row.envelope, now):
            for report in self._reporter.warning(message.stored.envelope, message.content, now):
                self._reporter.submit(report)
