"""The rules of a round, case by case: what an answer means, and where a recipient is tried next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailer.dispatch.round import NOT_BEGUN, Attempt, Closed, Over, Round, Rules, Wait
from mailer.mail.address import Address
from mailer.mail.envelope import Recipient, State
from mailer.mail.outcome import Reply, Stage, Verdict

NOW = 1_700_000_000.0
RULES = Rules(
    attempts_per_provider=3, passes=2, base_delay=1.0, max_delay=60.0, batch_delay=1.0, continue_on_error=True, jitter=lambda: 0.0
)

OK = Verdict(Stage.DATA, Reply(250, "2.0.0", "queued"))
NO_SUCH_USER = Verdict(Stage.RCPT, Reply(550, "5.1.1", "no such user"))
BUSY = Verdict(Stage.DATA, Reply(451, "4.3.0", "busy"))
REFUSED = Verdict(Stage.CONNECT, Reply(451, "4.4.1", "connection refused"))


@dataclass
class Config:
    """Ways as a configuration of the moment would give them."""

    order: tuple[str, ...] = ("a", "b")
    closed: dict[str, float] = field(default_factory=dict)
    batch: int = 20

    def names(self, recipient: Recipient) -> Sequence[str]:
        return self.order

    def closed_until(self, way: str) -> float | None:
        return self.closed.get(way)

    def batch_size(self, way: str) -> int:
        return self.batch


def people(count: int = 1) -> list[Recipient]:
    return [Recipient(i, Address(f"user{i}", "example.com")) for i in range(count)]


class Story:
    """Plays a round: ``says`` applies verdicts at the step that is due."""

    def __init__(self, config: Config, recipients: list[Recipient], rules: Rules = RULES) -> None:
        self.config, self.recipients, self.rules, self.now = config, recipients, rules, NOW
        self.round = Round()

    @property
    def owed(self) -> list[Recipient]:
        return [r for r in self.recipients if not r.state.is_final]

    def step(self) -> Attempt | Wait | Closed | Over:
        self.round = Round.from_progress(self.round.to_progress())  # between any two steps a crash may come
        return self.round.next_step(self.owed, self.config, self.now)

    def attempt(self) -> Attempt:
        step = self.step()
        assert isinstance(step, Attempt)
        return step

    def says(self, *verdicts: Verdict) -> list[Recipient]:
        attempt = self.attempt()
        given = {r.index: verdicts[min(i, len(verdicts) - 1)] for i, r in enumerate(attempt.recipients)}
        changed = self.round.apply(attempt, given, self.owed, self.rules, self.now)
        for recipient in changed:
            self.recipients[recipient.index] = recipient
        return changed

    def passes(self, seconds: float) -> Story:
        self.now += seconds
        return self


def test_delivered_message_needs_nothing_more() -> None:
    story = Story(Config(), people())
    [changed] = story.says(OK)
    assert (changed.state, changed.provider, changed.attempts, changed.reply) == (State.SUCCESS, "a", 1, OK.reply)
    assert story.owed == []


def test_temporary_error_is_tried_three_times_with_doubling_waits_then_the_next_provider() -> None:
    story = Story(Config(), people())
    story.says(BUSY)
    assert story.step() == Wait(NOW + 1.0)
    story.passes(1.0).says(BUSY)
    assert story.step() == Wait(NOW + 1.0 + 2.0)
    assert story.passes(2.0).attempt().way == "a"
    story.says(BUSY)
    assert story.attempt().way == "b"


def test_back_off_is_capped_and_jittered_by_at_most_a_tenth() -> None:
    rules = replace(RULES, max_delay=5.0, jitter=lambda: 1.0)
    assert [rules.back_off(n) for n in (1, 2, 3, 4, 50)] == pytest.approx([1.1, 2.2, 4.4, 5.5, 5.5])


@pytest.mark.parametrize(
    "verdict",
    [
        Verdict(Stage.LOGIN, Reply(535, "5.7.8", "bad login")),
        Verdict(Stage.TLS, Reply(451, "4.7.5", "certificate not trusted")),
        Verdict(Stage.EHLO, Reply(550, "", "go away")),
        Verdict(Stage.MAIL, Reply(553, "5.1.8", "sender not owned")),
        Verdict(Stage.DATA, Reply(554, "5.6.0", "content")),
        Verdict(Stage.CONNECT, Reply(554, "", "no service here")),
        Verdict(Stage.RCPT, Reply(550, "5.7.1", "relaying denied")),
        Verdict(Stage.RCPT, Reply(554, "5.7.606", "banned")),
        Verdict(Stage.DATA, Reply(451, "4.7.0", "try again in 300 seconds"), closed_for_seconds=300.0),
    ],
    ids=lambda v: f"{v.stage.value}-{v.reply.code}",
)
def test_goes_at_once_to_the_next_provider(verdict: Verdict) -> None:
    story = Story(Config(), people())
    [changed] = story.says(verdict)
    assert changed.state is State.RETRYING
    assert story.attempt().way == "b"


@pytest.mark.parametrize(("code", "enhanced"), [(550, "5.1.1"), (553, "5.1.3"), (550, ""), (501, "5.7.1"), (555, "5.7.1")])
def test_permanent_refusal_of_a_recipient_is_final_for_it_alone(code: int, enhanced: str) -> None:
    story = Story(Config(), people(2))
    changed = story.says(Verdict(Stage.RCPT, Reply(code, enhanced, "no")), OK)
    assert [r.state for r in changed] == [State.FAILED, State.SUCCESS]


def test_recipient_that_every_way_refuses_is_failed_at_the_end_of_the_round_only() -> None:
    story = Story(Config(), people())
    story.says(Verdict(Stage.MAIL, Reply(550, "5.7.1", "no")))
    story.says(Verdict(Stage.DATA, Reply(554, "5.6.0", "no")))
    assert story.owed != []
    assert isinstance(story.step(), Over)
    [failed] = story.round.refused_everywhere(story.owed, story.config, NOW)
    assert failed.state is State.FAILED
    assert failed.reply == Reply(554, "5.6.0", "no")


@pytest.mark.parametrize(
    "other",
    [
        REFUSED,
        BUSY,
        Verdict(Stage.LOGIN, Reply(535, "5.7.8", "bad login")),
        Verdict(Stage.EHLO, Reply(550, "", "no")),
        Verdict(Stage.CONNECT, Reply(554, "", "no")),
        Verdict(Stage.TLS, Reply(550, "5.7.5", "no")),
    ],
    ids=lambda v: f"{v.stage.value}-{v.reply.code}",
)
def test_one_refusal_and_one_fault_leave_the_recipient_owed(other: Verdict) -> None:
    story = Story(Config(), people(), replace(RULES, attempts_per_provider=1))
    story.says(Verdict(Stage.MAIL, Reply(550, "5.7.1", "no")))
    story.says(other)
    assert isinstance(story.step(), Over)
    assert story.round.refused_everywhere(story.owed, story.config, NOW) == []


def test_refusal_is_not_final_while_another_way_is_closed() -> None:
    story = Story(Config(closed={"b": NOW + 30}), people())
    story.says(Verdict(Stage.MAIL, Reply(550, "5.7.1", "no")))
    assert isinstance(story.step(), Over)
    assert story.round.refused_everywhere(story.owed, story.config, NOW) == []


def test_refusal_is_not_final_when_a_reload_has_taken_all_ways_away() -> None:
    story = Story(Config(), people())
    story.says(Verdict(Stage.MAIL, Reply(550, "5.7.1", "no")))
    assert story.round.refused_everywhere(story.owed, Config(order=()), NOW) == []


def test_closed_way_is_passed_over_without_a_try() -> None:
    assert Story(Config(closed={"a": NOW + 30}), people()).attempt().way == "b"


def test_message_whose_every_way_is_closed_has_had_no_round() -> None:
    story = Story(Config(closed={"a": NOW + 30, "b": NOW + 10}), people())
    assert story.step() == Closed(NOW + 10)
    assert not story.round.has_tried


def test_message_that_no_way_serves_says_so() -> None:
    assert Story(Config(order=()), people()).step() == Closed(None)


def test_way_that_closes_during_the_back_off_gives_the_message_to_the_next_at_once() -> None:
    story = Story(Config(), people())
    story.says(REFUSED)
    assert isinstance(story.step(), Wait)
    story.config.closed["a"] = NOW + 30
    assert story.attempt().way == "b"


def test_round_is_over_when_what_is_left_is_closed_and_something_was_tried() -> None:
    story = Story(Config(order=("a",)), people())
    story.says(REFUSED)
    story.config.closed["a"] = NOW + 30
    assert isinstance(story.step(), Over)
    assert story.round.tripped == {"a"}


@pytest.mark.parametrize(
    ("verdict", "trips"),
    [
        (REFUSED, True),
        (Verdict(Stage.MAIL, Reply(421, "4.3.2", "closing")), True),
        (Verdict(Stage.LOGIN, Reply(535, "5.7.8", "no")), True),
        (BUSY, False),
        (NO_SUCH_USER, False),
        (Verdict(Stage.RCPT, Reply(450, "4.2.1", "greylisted")), False),
    ],
)
def test_only_faults_of_the_breakers_kind_make_a_message_wait_for_the_breaker(verdict: Verdict, trips: bool) -> None:
    story = Story(Config(), people())
    story.says(verdict)
    assert (story.round.tripped == {"a"}) is trips


def test_recipients_go_in_batches_with_a_delay_between_them() -> None:
    story = Story(Config(batch=2), people(5))
    assert [r.index for r in story.attempt().recipients] == [0, 1]
    story.says(OK)
    assert story.step() == Wait(NOW + 1.0)
    story.passes(1.0)
    assert [r.index for r in story.attempt().recipients] == [2, 3]
    story.says(OK)
    story.passes(1.0).says(OK)
    assert story.owed == []


def test_no_batch_delay_means_no_wait() -> None:
    story = Story(Config(batch=2), people(4), replace(RULES, batch_delay=0.0))
    story.says(OK)
    assert [r.index for r in story.attempt().recipients] == [2, 3]


def test_failed_batch_goes_on_to_the_next_provider_without_the_batch_delay() -> None:
    story = Story(Config(batch=2), people(4))
    story.says(Verdict(Stage.MAIL, Reply(550, "5.7.1", "no")))
    assert story.attempt() == Attempt("b", tuple(story.recipients[:2]))


def test_recipient_that_got_the_message_is_never_tried_again_when_a_later_batch_fails() -> None:
    story = Story(Config(order=("a",), batch=1), people(2), replace(RULES, attempts_per_provider=1))
    story.says(OK)
    story.passes(1.0).says(REFUSED)
    assert [r.index for r in story.owed] == [1]
    assert isinstance(story.step(), Over)


def test_batches_not_begun_are_failed_after_a_refusal_unless_told_to_continue() -> None:
    story = Story(Config(batch=1), people(3), replace(RULES, continue_on_error=False))
    changed = story.says(NO_SUCH_USER)
    assert [(r.index, r.state, r.reply) for r in changed] == [
        (0, State.FAILED, NO_SUCH_USER.reply),
        (1, State.FAILED, NOT_BEGUN),
        (2, State.FAILED, NOT_BEGUN),
    ]


def test_batches_not_begun_go_on_after_a_temporary_error() -> None:
    story = Story(Config(batch=1), people(2), replace(RULES, continue_on_error=False))
    story.says(BUSY)
    assert len(story.owed) == 2


def test_recipients_put_off_wait_for_that_way_and_are_not_counted_as_tried() -> None:
    story = Story(Config(batch=2), people(3))
    begun = story.round.next_step(story.owed, story.config, NOW)
    assert isinstance(begun, Attempt)
    story.round.begin(begun)
    story.round.put_off(begun, NOW + 5)
    for restored in (story.round, Round.from_progress(story.round.to_progress())):
        assert restored.next_step(story.owed, story.config, NOW) == Wait(NOW + 5), "and no step to the next way"
        assert restored.next_step(story.owed, story.config, NOW + 5) == begun
        assert not restored.has_tried


def test_recipients_put_off_between_two_tries_wait_as_well() -> None:
    story = Story(Config(), people())
    story.says(BUSY)
    again = story.round.next_step(story.owed, story.config, NOW + 1)
    assert isinstance(again, Attempt)
    story.round.put_off(again, NOW + 5)
    assert story.round.next_step(story.owed, story.config, NOW + 1) == Wait(NOW + 5)
    assert story.round.next_step(story.owed, story.config, NOW + 5) == again


def test_unreadable_progress_begins_the_round_anew() -> None:
    for progress in ("{", "[]", '{"courses": {"x": 1}}', '{"courses": {"0": [{}, {}]}}', "null"):
        assert not Round.from_progress(progress).has_tried


VERDICTS = st.builds(
    Verdict,
    st.sampled_from(list(Stage)),
    st.builds(Reply, st.sampled_from([250, 421, 450, 535, 550, 554]), st.sampled_from(["", "5.7.1", "4.2.0"]), st.just("x")),
    closed_for_seconds=st.sampled_from([None, None, None, 60.0]),
)


@given(st.data())
def test_every_round_ends_and_no_recipient_is_forgotten(data: st.DataObject) -> None:
    """Whatever servers say: each recipient ends up delivered, refused, or owed with every way used up or closed."""
    story = Story(Config(order=("a", "b", "c"), batch=2), people(5))
    for _ in range(200):
        step = story.step()
        if isinstance(step, Wait):
            assert step.until > story.now
            story.now = step.until
        elif isinstance(step, Attempt):
            way = data.draw(st.sampled_from(["a", "b", "c", None]))
            if way:
                story.config.closed[way] = story.now + 30
            else:
                story.config.closed.clear()
            story.now += 0.5
            step = story.step()
            if isinstance(step, Attempt):
                assert len(step.recipients) <= 2
                assert all(not r.state.is_final for r in step.recipients)
                story.says(*[data.draw(VERDICTS) for _ in step.recipients])
        else:
            break
    else:
        pytest.fail("the round does not end")
    assert isinstance(step, Over | Closed)
    for recipient in story.recipients:
        assert recipient.state.is_final or recipient in story.owed
        assert recipient.state is not State.SUCCESS or (recipient.reply is not None and recipient.reply.code == 250)


def test_a_round_remembers_over_a_restart_who_came_to_an_end_in_it() -> None:
    story = Story(Config(), people(3))
    story.says(OK, NO_SUCH_USER, BUSY)
    assert story.round.to_report == {1}
    again = Round.from_progress(story.round.to_progress())
    assert again.to_report == {1}


def test_who_is_dropped_or_refused_everywhere_came_to_an_end_too() -> None:
    story = Story(Config(batch=1), people(3), replace(RULES, continue_on_error=False))
    story.says(NO_SUCH_USER)
    assert story.round.to_report == {0, 1, 2}
    refused = Story(Config(order=("a",)), people())
    refused.says(Verdict(Stage.DATA, Reply(554, "5.6.0", "no")))
    assert refused.round.to_report == set()
    assert len(refused.round.refused_everywhere(refused.owed, refused.config, NOW)) == 1
    assert refused.round.to_report == {0}


@pytest.mark.parametrize("took_dsn", [True, False])
def test_success_is_ours_to_tell_only_if_asked_and_if_the_peer_does_not(took_dsn: bool) -> None:
    for is_asked in (True, False):
        state = Round()
        state.tells_success = is_asked
        state.apply(Attempt("a", tuple(people())), {0: OK._replace(took_dsn=took_dsn)}, people(), RULES, NOW)
        assert state.to_report == ({0} if is_asked and not took_dsn else set())
