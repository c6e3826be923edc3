"""One round of one message: which recipients are tried where next, and what an answer means for them (spec 4).

A round tries each way in order for the recipients still owed. This module is the rules alone: it sends nothing, waits
for nothing and asks no clock. A message may be under way to several domains at once, so whoever calls holds the message's
lock; ``Round`` has none of its own, and knows nothing of who is under way: such recipients are not given to it. Between
two attempts a round lives in the spool as ``Stored.progress``: after a crash it goes on, or begins anew if unreadable.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from mailer.mail.envelope import Recipient, State
from mailer.mail.outcome import Reply, Stage, Verdict
from mailer.routing import direct_domain

BREAKER_STAGES = frozenset({Stage.CONNECT, Stage.TLS, Stage.LOGIN})
"""Faults of these stages, and 421 anywhere, count against a provider's breaker."""

_POLICY_CODES = range(550, 555)
NOT_BEGUN = Reply(550, "5.0.0", "not tried: a recipient of an earlier batch was refused and continueOnError is false")


class Ways(Protocol):
    """What a round asks about the ways as they are at this moment."""

    def names(self, recipient: Recipient) -> Sequence[str]:
        """The recipient's ways in the order of the configuration of this moment."""
        ...

    def closed_until(self, way: str) -> float | None:
        """None when the way may be tried now, else the Unix time at which to look again."""
        ...

    def batch_size(self, way: str) -> int:
        """How many recipients one conversation may carry there."""
        ...


class Attempt(NamedTuple):
    """Try these recipients at this way, now."""

    way: str
    recipients: tuple[Recipient, ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing can be tried before ``until`` (Unix time): a back-off, or the delay between batches."""

    until: float


@dataclass(frozen=True, slots=True)
class Closed:
    """Nothing was tried in this round, and every way is closed until ``until``; there may be no way at all (None)."""

    until: float | None


@dataclass(frozen=True, slots=True)
class Over:
    """The round tried something and can do no more."""


Step = Attempt | Wait | Closed | Over


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings that a round obeys. Delays in seconds; ``jitter()`` is a random number in 0..1.

    ``attempts_per_provider`` and ``passes``, those over the servers of a domain: tries within one round.
    """

    attempts_per_provider: int
    passes: int
    base_delay: float
    max_delay: float
    batch_delay: float
    continue_on_error: bool
    jitter: Callable[[], float]

    def tries_at(self, way: str) -> int:
        return self.attempts_per_provider if direct_domain(way) is None else self.passes

    def back_off(self, tries: int) -> float:
        """How long to wait after that many tries at one provider: doubled each time, up to 10 % more at random."""
        delay: float = min(self.base_delay * 2.0 ** min(tries - 1, 32), self.max_delay)
        return delay * (1 + 0.1 * self.jitter())


class _Course:
    """What one recipient has behind it in this round."""

    __slots__ = ("due", "spent", "tries")

    def __init__(self) -> None:
        self.tries: dict[str, int] = {}  # way -> tries that ended in a temporary error
        self.spent: dict[str, bool] = {}  # way -> whether it refused (True), or is merely used up for this round
        self.due: dict[str, float] = {}  # way -> Unix time of the next try there

    @property
    def is_fresh(self) -> bool:
        return not (self.tries or self.spent)

    def __repr__(self) -> str:
        return f"_Course(tries={self.tries}, spent={self.spent}, due={self.due})"


_DELIVERED = _Course()
"""Of whoever was delivered to at the first try: nothing is ever added to it."""


class Round:
    """The state of a round. ``tripped`` names the ways whose fault was of the kind that opens a breaker.

    ``to_report``: indexes of the recipients that came to their end in this round and whose sender may have to be told, FAILED
    ones, and with ``tells_success`` those delivered where nobody else tells. ``under_way``: indexes of those that an attempt is
    being made for which has said so.
    """

    def __init__(self) -> None:
        self._courses: dict[int, _Course] = {}
        self._next_batch_at: dict[str, float] = {}  # by way: Unix time
        self.tripped: frozenset[str] = frozenset()
        self.has_tried = False
        self.tells_success = False
        self.to_report: set[int] = set()
        self.under_way: set[int] = set()

    def __repr__(self) -> str:
        return f"Round({self._courses!r}, tripped={sorted(self.tripped)})"

    def next_step(self, owed: Sequence[Recipient], ways: Ways, now: float, preferred: str = "") -> Step:
        """What to do now for the recipients still owed and not under way. ``preferred``: the way to take if it can be."""
        chosen: list[Recipient] = []
        chosen_way = ""
        waits: list[float] = []
        closings: list[float] = []
        for recipient in owed:
            way, at = self._next_way(recipient, ways, closings)
            if way is None:
                continue
            if at > now:
                waits.append(at)
            elif not chosen or (way == preferred != chosen_way):
                chosen_way = way
                chosen = [recipient]
            elif way == chosen_way and len(chosen) < ways.batch_size(way):
                chosen.append(recipient)
            elif chosen_way == preferred:
                break
        if chosen:
            return Attempt(chosen_way, tuple(chosen))
        if waits:
            return Wait(min(waits))
        if self.has_tried:
            return Over()
        return Closed(min(closings, default=None))

    def open_ways(self, owed: Sequence[Recipient], ways: Ways, now: float) -> dict[str, list[Recipient]]:
        """The ways at which some of these recipients could be tried now, each with those."""
        found: dict[str, list[Recipient]] = {}
        for recipient in owed:
            way, at = self._next_way(recipient, ways, [])
            if way is not None and at <= now:
                found.setdefault(way, []).append(recipient)
        return found

    def _next_way(self, recipient: Recipient, ways: Ways, closings: list[float]) -> tuple[str | None, float]:
        """The first way that is neither used up nor closed, and when it may be tried; closed ones add their time."""
        course = self._courses.get(recipient.index)
        for way in ways.names(recipient):
            if course is not None and way in course.spent:
                continue
            closed_until = ways.closed_until(way)
            if closed_until is not None:
                closings.append(closed_until)
            elif course is not None and not course.is_fresh:
                return way, course.due.get(way, 0.0)
            else:
                return way, self._next_batch_at.get(way, 0.0)
        return None, 0.0

    def begin(self, attempt: Attempt) -> None:
        """An attempt is under way, until ``end``: for others that look at the round meanwhile."""
        self.under_way.update(r.index for r in attempt.recipients)

    def end(self, attempt: Attempt) -> None:
        """It no longer is."""
        self.under_way.difference_update(r.index for r in attempt.recipients)

    def put_off(self, attempt: Attempt, until: float) -> None:
        """The way has no place for an attempt before ``until``: that is no try, and closes nothing."""
        self._next_batch_at[attempt.way] = until
        for recipient in attempt.recipients:
            self._courses.setdefault(recipient.index, _Course()).due[attempt.way] = until

    def apply(
        self, attempt: Attempt, verdicts: Mapping[int, Verdict], owed: Sequence[Recipient], rules: Rules, now: float
    ) -> list[Recipient]:
        """Take in what an attempt brought. Returns the recipients that changed, with their new state.

        ``owed``: all recipients still owed, those of the attempt among them.
        """
        changed = []
        refused = False
        self.has_tried = True
        for recipient in attempt.recipients:
            verdict = verdicts[recipient.index]
            state = self._take(recipient.index, attempt.way, verdict, rules, now)
            if state is State.FAILED:
                refused = True
                self.to_report.add(recipient.index)
            elif self.tells_success and state is State.SUCCESS and not verdict.took_dsn:
                self.to_report.add(recipient.index)
            tries = recipient.attempts + 1
            changed.append(Recipient(recipient.index, recipient.address, state, tries, attempt.way, verdict.reply, now))
        if rules.batch_delay and len(owed) > len(attempt.recipients):
            self._next_batch_at[attempt.way] = now + rules.batch_delay
        if refused and not rules.continue_on_error:
            changed += self._drop_batches_not_begun(owed, now)
        return changed

    def _take(self, index: int, way: str, verdict: Verdict, rules: Rules, now: float) -> State:
        if verdict.is_delivered:
            self._courses[index] = _DELIVERED
            return State.SUCCESS
        course = self._courses.setdefault(index, _Course())
        reply, stage = verdict.reply, verdict.stage
        if stage in BREAKER_STAGES or reply.code == 421:
            self.tripped |= {way}
        if reply.is_permanent and stage is Stage.RCPT and not _is_policy(reply):
            return State.FAILED
        if reply.is_permanent or stage is Stage.TLS or verdict.closed_for_seconds is not None:
            # At once to the next way. Only an answer to MAIL, RCPT or DATA can add up to a refusal of the message.
            course.spent[way] = reply.is_permanent and stage in (Stage.MAIL, Stage.RCPT, Stage.DATA)
            return State.RETRYING
        tries = course.tries[way] = course.tries.get(way, 0) + 1
        if tries >= rules.tries_at(way):
            course.spent[way] = False
        else:
            course.due[way] = now + rules.back_off(tries)
        return State.RETRYING

    def _drop_batches_not_begun(self, owed: Sequence[Recipient], now: float) -> list[Recipient]:
        begun = self.under_way.union(self._courses)
        dropped = [r for r in owed if r.index not in begun and r.attempts == 0]
        self.to_report.update(r.index for r in dropped)
        return [replace(r, state=State.FAILED, reply=NOT_BEGUN, updated_at=now) for r in dropped]

    def refused_everywhere(self, owed: Sequence[Recipient], ways: Ways, now: float) -> list[Recipient]:
        """At the end of the round: the recipients that every one of their ways answered with a 5xx, now FAILED.

        A way that was closed, or failed otherwise, leaves the recipient owed: it might have taken the message.
        """
        failed = []
        for recipient in owed:
            course = self._courses.get(recipient.index)
            names = ways.names(recipient)
            if course is not None and names and all(course.spent.get(way, False) for way in names):
                failed.append(replace(recipient, state=State.FAILED, updated_at=now))
        self.to_report.update(r.index for r in failed)
        return failed

    def to_progress(self) -> str:
        """The round as ``Stored.progress``: what it knows of recipients that may be tried again, and of the ways."""
        courses = {index: [c.tries, c.spent, c.due] for index, c in self._courses.items() if not c.is_fresh}
        state = {
            "courses": courses,
            "batch": self._next_batch_at,
            "tripped": sorted(self.tripped),
            "tried": self.has_tried,
            "report": sorted(self.to_report),
        }
        return json.dumps(state, separators=(",", ":"))

    @classmethod
    def from_progress(cls, progress: str) -> Round:
        """The round that ``to_progress`` wrote; a new one if the text is empty or cannot be read."""
        result = cls()
        if not progress:
            return result
        try:
            state = json.loads(progress)
            for index, (tries, spent, due) in state["courses"].items():
                course = result._courses[int(index)] = _Course()
                course.tries, course.spent, course.due = dict(tries), dict(spent), dict(due)
            result._next_batch_at = {str(way): float(at) for way, at in state["batch"].items()}
            result.tripped = frozenset(state["tripped"])
            result.has_tried = bool(state["tried"])
            result.to_report = {int(index) for index in state["report"]}
        except (ValueError, TypeError, KeyError, AttributeError):
            return cls()
        return result


def _is_policy(reply: Reply) -> bool:
    """Whether a refused recipient may fare better elsewhere: the peer's policy, not the address, is the reason."""
    return reply.code in _POLICY_CODES and reply.enhanced.startswith("5.7.")
