"""Every event that any thread publishes is counted once, and a copy is of one moment."""

from __future__ import annotations

from mailer.events import AttemptEnded, BreakerChanged, Hub, MessageAccepted, MessageFinished, MessageParked, SubmissionRefused
from mailer.mail.outcome import Reply
from mailer.observe.tally import Tally
from tests.stress.together import THREADS, many

ROUNDS = 400
OK = Reply(250, "2.0.0", "ok")


def test_every_event_is_counted_once_and_copies_agree_with_themselves() -> None:
    hub, tally = Hub(), Tally()
    hub.subscribe(tally.note)
    heard = [0] * THREADS

    def publish(number: int) -> None:
        for round_number in range(ROUNDS):
            if number == 0:
                counts = tally.counts()
                heard[0] = counts.accepted_messages
                assert counts.accepted_recipients == 2 * counts.accepted_messages
                assert sum(counts.commit.counts) == counts.accepted_messages
                continue
            hub.publish(MessageAccepted("m", 2, 3, False, 0.001))
            hub.publish(AttemptEnded("m", f"way{round_number % 3}", 1, 1, 0, OK, 0.01, 0.001))
            hub.publish(MessageFinished("m", 2, 0, False, 1.0))
            hub.publish(MessageParked("m"))
            hub.publish(SubmissionRefused("rate"))
            hub.publish(BreakerChanged("way0", "open"))

    many(publish)
    counts, published = tally.counts(), (THREADS - 1) * ROUNDS
    assert (counts.accepted_messages, counts.accepted_bytes, counts.parked) == (published, 3 * published, published)
    assert counts.finished == {"delivered": published}
    assert counts.refused == {"rate": published}
    assert counts.breaker_opened == {"way0": published}
    assert sum(counts.attempts.values()) == published
    assert sum(counts.attempt_recipients.values()) == 2 * published
    assert sum(sum(histogram.counts) for histogram in counts.delivery.values()) == published
    assert sum(counts.queue.counts) == sum(counts.processing.counts) == published
