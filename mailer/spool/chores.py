"""Long work on the database in small steps that ride in the commits of others: promotion, making due, purging.

A chore runs in the spool's thread alone; the thread that wants its end waits on its gate. Fails with ``SpoolError`` at the
gate; what was done in steps before that stays done.
"""

from __future__ import annotations

from mailer.spool.batch import Batch
from mailer.spool.handover import Gate
from mailer.spool.store import Holder, SpoolError
from mailer.spool.tables import READY, WAITING

STEP_ROWS = 1000  # about 10 ms in the writer: what a session may wait longer for its 250
USAGE_KEPT_SECONDS = 2 * 86400.0  # the longest window is a day


class Promotion(Gate):
    """Messages of one lane whose time has come take their turn: they move into the index that ``fetch_due`` reads.

    The gate opens after the first step: there is something to fetch then. The rest follows by itself.
    """

    def __init__(self, lane: str, now: float) -> None:
        super().__init__()
        self._lane = lane
        self._now = now
        self._last = 0

    def step(self, batch: Batch) -> None:
        self._last = batch.connection.execute(
            "UPDATE messages SET turn = 0 WHERE seq IN (SELECT seq FROM messages"
            " WHERE turn = 1 AND lane = ? AND due_at <= ? ORDER BY due_at LIMIT ?)",
            (self._lane, self._now, STEP_ROWS),
        ).rowcount

    def committed(self) -> bool:
        self.settle()
        return self._last < STEP_ROWS

    def failed(self, error: SpoolError) -> None:
        self.settle(error)


class MakeDue(Gate):
    """Everything that waits for ``way``, or (None) every parked message, becomes due at ``now``."""

    def __init__(self, now: float, way: str | None) -> None:
        super().__init__()
        self._now = now
        self._way = way
        self._after = 0
        self._is_finished = False
        self.count = 0

    def step(self, batch: Batch) -> None:
        query, parameters = (
            ("SELECT seq FROM messages WHERE holder = ? AND holder <> 0 AND seq > ? ORDER BY seq LIMIT ?", [Holder.FILE.value])
            if self._way is None
            else ("SELECT seq FROM waits WHERE way = ? AND seq > ? ORDER BY seq LIMIT ?", [self._way])
        )
        seqs = [row[0] for row in batch.connection.execute(query, [*parameters, self._after, STEP_ROWS])]
        if seqs:
            marks = ", ".join(str(int(seq)) for seq in seqs)
            update = f"UPDATE messages SET due_at = ?, turn = 0, waits_for = '' WHERE turn IS NOT NULL AND seq IN ({marks})"  # noqa: S608 - integers only
            changed = batch.connection.execute(update, (self._now,))
            self.count += changed.rowcount
            batch.connection.execute(f"DELETE FROM waits WHERE seq IN ({marks})")  # noqa: S608 - integers only
            self._after = seqs[-1]
        self._is_finished = len(seqs) < STEP_ROWS

    def committed(self) -> bool:
        if self._is_finished:
            self.settle()
        return self._is_finished

    def failed(self, error: SpoolError) -> None:
        self.settle(error)


class BringForward(Gate):
    """What waits in one lane until later than ``latest`` becomes due at ``now``.

    A round under way begins anew: the times in it are of the same clock. Who got the message is in the recipients' rows.
    """

    def __init__(self, lane: str, now: float, latest: float) -> None:
        super().__init__()
        self._parameters = (now, READY, WAITING, lane, latest, STEP_ROWS)
        self._is_finished = False
        self.count = 0

    def step(self, batch: Batch) -> None:
        changed = batch.connection.execute(
            "UPDATE messages SET due_at = ?, turn = ?, progress = '' WHERE seq IN (SELECT seq FROM messages"
            " WHERE turn = ? AND lane = ? AND due_at > ? LIMIT ?)",
            self._parameters,
        ).rowcount
        self.count += changed
        self._is_finished = changed < STEP_ROWS

    def committed(self) -> bool:
        if self._is_finished:
            self.settle()
        return self._is_finished

    def failed(self, error: SpoolError) -> None:
        self.settle(error)


class Purge(Gate):
    """Messages finished before a time are forgotten, but for those whose file is not known to be gone."""

    def __init__(self, finished_before: float) -> None:
        super().__init__()
        self._before = finished_before
        self._is_finished = False
        self.count = 0

    def step(self, batch: Batch) -> None:
        seqs = [
            row[0]
            for row in batch.connection.execute(
                "SELECT seq FROM messages WHERE finished_at < ? AND holder <> ? ORDER BY finished_at LIMIT ?",
                (self._before, Holder.FILE_TO_CLEAR.value, STEP_ROWS),
            )
        ]
        if seqs:
            batch.forget(seqs)
        stale = batch.connection.execute(
            "DELETE FROM usage WHERE rowid IN (SELECT rowid FROM usage WHERE start < ? LIMIT ?)",
            (self._before - USAGE_KEPT_SECONDS, STEP_ROWS),
        ).rowcount
        self.count += len(seqs)
        self._is_finished = len(seqs) < STEP_ROWS and stale < STEP_ROWS

    def committed(self) -> bool:
        if self._is_finished:
            self.settle()
        return self._is_finished

    def failed(self, error: SpoolError) -> None:
        self.settle(error)
