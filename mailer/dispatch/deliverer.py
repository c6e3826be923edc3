"""What is done with one message: attempt after attempt of its round, until it is finished or must wait.

``Deliverer.process`` runs in the worker threads. A message to several domains is delivered to them side by side: its job
sends out branches, one for each further way, as jobs of their own; they share the ``Message``, under its lock. A branch that
finds nothing more to try lets go of it, and whoever does so last decides how the round goes on. The lock is not held over
an attempt. No worker sleeps: whatever has to wait becomes a due time in the spool. How it fails: while the spool cannot
write no attempt begins; a fault of ours puts the message back for later and is logged by the service.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from mailer.dispatch.crew import Worker
from mailer.dispatch.ending import Ending
from mailer.dispatch.ledger import Ledger, Message
from mailer.dispatch.parking import Gone, NotYet, Parking
from mailer.dispatch.queue import FairQueue, Job
from mailer.dispatch.round import Attempt, Step, Wait
from mailer.dispatch.ways import Ways, WaysNow
from mailer.events import AttemptEnded, Hub
from mailer.mail.content import MemoryContent
from mailer.mail.outcome import Delivery, Reply, Verdict
from mailer.mail.verp import with_verp
from mailer.routing import LOCAL
from mailer.spool.store import ContentLost, Holder, Store
from mailer.transport.admission import BUSY

log = logging.getLogger(__name__)

FAULT_WAIT_SECONDS = 300.0
UNWRITABLE_WAIT_SECONDS = 1.0
MAX_BRANCHED = 64
"""Messages that have branches at a time: while one of them waits in the queue, it is open and holds its content, up to
256 KiB of memory."""

LOST = Reply(554, "5.3.0", "content lost or damaged on disk; what is left of it is in emails/quarantine")


class Deliverer:
    """Carries messages; see the module. ``clock`` gives Unix time."""

    def __init__(self, store: Store, queue: FairQueue, ways: Ways, ending: Ending, parking: Parking, hub: Hub) -> None:
        self._store = store
        self._queue = queue
        self._ways = ways
        self._ending = ending
        self._ledger = ending.ledger
        self._parking = parking
        self._hub = hub
        self.clock: Callable[[], float] = time.time
        self._lock = threading.Lock()  # guards the next
        self._branched = 0  # messages with branches

    def process(self, job: Job, worker: Worker) -> None:
        """Carry a job as far as it goes now. Its slot and its place in memory are given back, whatever happens."""
        message = job.message
        is_ours = True  # until the job waits in the queue again, for another way
        is_handled = False
        try:
            if message is None:
                message = self._open(job)
                if message is not None and len(message.owed) > 1:
                    self._branch(job, message)
            is_ours = message is None or self._carry(job, message, worker)
            is_handled = True
        finally:
            if not is_handled:
                self._put_back(job, message)
            if is_ours:
                self._queue.leave(job.way)

    def _put_back(self, job: Job, message: Message | None) -> None:
        """After a fault of ours. Coming back at once would fail at once, so it has its wait too."""
        now = self.clock()
        message = message or Message(job.stored, MemoryContent(b""))
        with message.lock:
            message.put_off_until = now + FAULT_WAIT_SECONDS  # for the other branches
            message.branches -= 1
            is_last = message.branches <= 0  # below: the fault came when it was let go of already
        if is_last:
            self._joined(message)
            self._ledger.wait(message, message.put_off_until, job.stored.lane, now)

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
            self._ending.fail_owed(Message(stored, MemoryContent(b"")), LOST, self.clock())
            return None

    def _open_parked(self, message: Message) -> Message | None:
        now = self.clock()
        opened = self._parking.open(message.stored, now)
        if isinstance(opened, NotYet):
            self._ledger.wait(message, now + opened.seconds, message.stored.lane, now)
            return None
        if isinstance(opened, Gone):
            log.warning("message.cancelled id=%s why=%s", message.id, opened.reply)
            self._ending.fail_owed(message, opened.reply, now)
            return None
        parked = Message(opened.stored, opened.content, self._ways.sign)
        parked.update(opened.changed)
        return parked

    def _branch(self, job: Job, message: Message) -> None:
        """Send out a branch for each way but the job's own that could be tried now, as far as the queue has room.

        Not where what comes later depends on what came before (``continueOnError`` false).
        """
        if not self._ways.config.continue_on_error:
            return
        now = self.clock()
        ways = message.round.open_ways(message.owed, WaysNow(self._ways, message.id, now), now)
        own = ways.pop(job.way, ())
        if not ways or not self._may_branch(message):
            return
        job.begun_for = [r.index for r in own]
        for way, recipients in ways.items():
            branch = Job(message.row, way)
            branch.message = message
            branch.begun_for = [r.index for r in recipients]
            with message.lock:
                message.branches += 1
            if not self._queue.offer(branch):
                with message.lock:
                    message.branches -= 1
                return

    def _may_branch(self, message: Message) -> bool:
        with self._lock:
            message.is_branched = self._branched < MAX_BRANCHED
            self._branched += message.is_branched
        return message.is_branched

    def _joined(self, message: Message) -> None:
        """The message is in the hands of one thread alone."""
        if message.is_branched:
            with self._lock:
                self._branched -= 1
            message.is_branched = False

    def _carry(self, job: Job, message: Message, worker: Worker) -> bool:
        """Attempt after attempt. Returns False when the job waits in the queue for another way: it is no longer ours."""
        while True:
            now = self.clock()
            with message.lock:
                row = message.row
                # Too old, and not tried once: nothing is given up before one round, so a breaker does not deny this one.
                is_last_chance = row.rounds == 0 and self._ways.is_expiring(row, now)
                view = WaysNow(self._ways, message.id, now, is_last_chance, message.denied)
                step = self._next_step(job, message, view) if now >= message.put_off_until else Wait(message.put_off_until)
                if message.changed and (message.branches > 1 or isinstance(step, Attempt)):
                    self._ledger.note(message, now)
                if isinstance(step, Attempt):
                    is_first = row.rounds == 0 and not message.round.has_tried and not message.round.under_way
                    if message.is_branched and step.way == job.way:
                        message.round.begin(step)
                else:
                    message.branches -= 1
                    if message.branches:
                        return True
            if not isinstance(step, Attempt):
                self._joined(message)
                self._ending.go_on(message, step, view)
                return True
            if step.way == job.way:
                self._attempt(message, step, view, worker, is_first)
                if not message.owed and not message.is_branched:  # as nearly always: no need to look for more
                    self._ending.finish(message, self.clock())
                    return True
            elif not self._change_way(job, message, step.way):
                return False

    def _next_step(self, job: Job, message: Message, view: WaysNow) -> Step:
        """First for those whom the branch was begun for: with 200 branches that each look at all, most time would go there."""
        if job.begun_for:
            step = message.round.next_step(message.idle_of(job.begun_for), view, view.now, job.way)
            if isinstance(step, Attempt):
                return step
            job.begun_for = ()
        return message.round.next_step(message.idle, view, view.now, job.way)

    def _change_way(self, job: Job, message: Message, way: str) -> bool:
        """Take a slot of another way, or leave the job waiting for one. After False nothing of it may be touched."""
        with message.lock:
            is_alone = message.branches == 1
        if is_alone:  # what waits in the queue keeps no content but what the queue counts
            job.message = None
            job.stored = replace(message.stored, progress=message.round.to_progress())
            self._joined(message)
        else:
            job.message = message
        return self._queue.change_way(job, way)

    # Attempts.

    def _attempt(self, message: Message, step: Attempt, view: WaysNow, worker: Worker, is_first: bool) -> None:
        now, setting, wanted = view.now, self._ways.setting, len(step.recipients)
        watch = _Watch(self._ledger, worker)
        ended: AttemptEnded | None = None
        began = time.monotonic()
        try:
            transport, admission = self._ways.admit(step.way, wanted, now, view.is_forced)
            if transport is None or admission.granted == 0:
                self._ways.cancel(step.way, admission, now)
                until = admission.closed_until or now + UNWRITABLE_WAIT_SECONDS
                with message.lock:
                    if admission.why == BUSY:
                        message.round.put_off(step, until)
                    else:
                        message.denied[step.way] = until
                return
            tried = step if admission.granted == wanted else Attempt(step.way, step.recipients[: admission.granted])
            deadline = began + setting.config.processing_timeout
            envelope = message.row.envelope
            if setting.config.bounce.verp and step.way != LOCAL:
                envelope = with_verp(envelope, tried.recipients)
            verdicts = transport.deliver(Delivery(envelope, tried.recipients, message.render, deadline, watch))
            queue_seconds = max(0.0, now - message.row.envelope.accepted_at) if is_first else None
            ended = _ended(message.id, step.way, list(verdicts.values()), time.monotonic() - began, queue_seconds)
        finally:
            with message.lock:
                if message.is_branched:
                    message.round.end(step)
                if watch.is_refused:
                    message.put_off_until = now + UNWRITABLE_WAIT_SECONDS
                elif ended is not None:
                    message.update(message.round.apply(tried, verdicts, message.owed, setting.rules, self.clock()))
                if watch.has_leave:
                    self._ledger.end(message, ended is not None and ended.delivered > 0)
        if not watch.is_refused:
            self._hub.publish(ended)


class _Watch:
    """Watches one attempt: it asks the ledger for leave once, however many servers the attempt comes to."""

    __slots__ = ("_ledger", "_worker", "has_leave", "is_refused")

    def __init__(self, ledger: Ledger, worker: Worker) -> None:
        self._ledger = ledger
        self._worker = worker
        self.has_leave = self.is_refused = False

    def dialing(self) -> None:
        self._worker.dialing()

    def begin(self) -> bool:
        if self._worker.dialing_since:
            self._worker.working()
        if not self.has_leave:
            self.has_leave = self._ledger.begin()
            self.is_refused = not self.has_leave
        return self.has_leave


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
