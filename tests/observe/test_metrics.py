"""What is counted, and that both text formats say it."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_prometheus

from mailer.events import (
    AttemptEnded,
    BreakerChanged,
    DirectStatus,
    Event,
    Hub,
    MessageAccepted,
    MessageFinished,
    MessageParked,
    ProviderStatus,
    SubmissionRefused,
)
from mailer.mail.outcome import Reply
from mailer.observe.metrics import Metrics, Sources
from mailer.observe.tally import MAX_PROVIDERS, REFUSAL_REASONS
from mailer.spool.store import Totals

OK = Reply(250, "2.0.0", "Ok")
BUSY = Reply(451, "4.3.0", "Busy")
STATUS = ProviderStatus("first", "open", "breaker", 1000.0, 3, 40, 500, 900.5)


class Watched:
    """A hub with metrics, and the samples of a scrape by name and labels."""

    def __init__(self, statuses: Iterable[ProviderStatus] = (), direct: DirectStatus | None = None) -> None:
        self.hub = Hub()
        totals = Totals(queued=4, parked=3, successful=2, failed=1, recipients=12, queued_reports=6)
        sources = Sources(lambda: totals, lambda: list(statuses), lambda: direct, lambda: 5, lambda: 6)
        self.metrics = Metrics(self.hub, sources, "1.2.3")

    def tell(self, *events: Event) -> Watched:
        for event in events:
            self.hub.publish(event)
        return self

    def families(self) -> list[Metric]:
        return list(parse_prometheus(self.metrics.exposition(openmetrics=False)[1].decode()))

    def value(self, name: str, **labels: str) -> float:
        found = [s.value for f in self.families() for s in f.samples if s.name == name and s.labels == labels]
        assert len(found) == 1, f"{name} {labels}: {found}"
        return found[0]


def attempt(
    provider: str = "first", delivered: int = 1, deferred: int = 0, refused: int = 0, queue: float | None = None
) -> AttemptEnded:
    return AttemptEnded("0abc", provider, delivered, deferred, refused, OK if delivered else BUSY, 0.02, queue)


def test_accepted_messages_are_counted_and_their_commit_timed() -> None:
    watched = Watched().tell(MessageAccepted("a", 2, 4096, False, 0.004), MessageAccepted("b", 1, 4, False, 7.0))
    assert watched.value("mailer_accepted_messages_total") == 2
    assert watched.value("mailer_accepted_recipients_total") == 3
    assert watched.value("mailer_accepted_bytes_total") == 4100
    assert watched.value("mailer_commit_duration_seconds_bucket", le="0.002") == 0
    assert watched.value("mailer_commit_duration_seconds_bucket", le="0.005") == 1
    assert watched.value("mailer_commit_duration_seconds_bucket", le="5.0") == 1
    assert watched.value("mailer_commit_duration_seconds_bucket", le="+Inf") == 2
    assert watched.value("mailer_commit_duration_seconds_sum") == pytest.approx(7.004)


def test_our_own_reports_are_counted_apart() -> None:
    watched = Watched().tell(MessageAccepted("a", 1, 10, True, 0.001), MessageFinished("a", 1, 0, True, 1.0))
    assert watched.value("mailer_reports_total") == 1
    assert watched.value("mailer_accepted_messages_total") == 0
    assert watched.value("mailer_finished_messages_total", outcome="delivered") == 0


@pytest.mark.parametrize(
    ("event", "outcome"),
    [
        (attempt(delivered=2), "delivered"),
        (attempt(delivered=1, refused=1), "partial"),
        (attempt(delivered=1, deferred=1), "partial"),
        (attempt(delivered=0, deferred=1, refused=1), "deferred"),
        (attempt(delivered=0, refused=1), "refused"),
    ],
)
def test_attempt_has_one_outcome(event: AttemptEnded, outcome: str) -> None:
    watched = Watched().tell(event)
    for each in ("delivered", "partial", "deferred", "refused"):
        assert watched.value("mailer_attempts_total", provider="first", outcome=each) == (each == outcome)
    assert watched.value("mailer_attempt_recipients_total", provider="first", outcome="refused") == event.refused


def test_only_a_first_attempt_has_a_queue_time() -> None:
    watched = Watched().tell(attempt(queue=0.3), attempt(queue=None))
    assert watched.value("mailer_queue_duration_seconds_count") == 1
    assert watched.value("mailer_delivery_duration_seconds_count", provider="first") == 2


def test_finished_message_is_failed_if_any_recipient_is() -> None:
    watched = Watched().tell(MessageFinished("a", 2, 1, False, 3.0), MessageFinished("b", 1, 0, False, 1.0), MessageParked("c"))
    assert watched.value("mailer_finished_messages_total", outcome="failed") == 1
    assert watched.value("mailer_finished_messages_total", outcome="delivered") == 1
    assert watched.value("mailer_processing_duration_seconds_sum") == 4
    assert watched.value("mailer_parked_messages_total") == 1


def test_refusals_have_a_fixed_set_of_reasons() -> None:
    watched = Watched().tell(*(SubmissionRefused(reason) for reason in (*REFUSAL_REASONS, "rate", 'made"up\n', "another")))
    assert watched.value("mailer_refused_submissions_total", reason="rate") == 2
    assert watched.value("mailer_rate_limit_hits_total") == 2
    assert watched.value("mailer_refused_submissions_total", reason="other") == 2
    assert watched.value("mailer_refused_submissions_total", reason="size") == 1


def test_names_of_providers_are_bounded() -> None:
    watched = Watched().tell(*(attempt(f"p{number}") for number in range(MAX_PROVIDERS + 10)))
    assert watched.value("mailer_attempts_total", provider="other", outcome="delivered") == 10
    rows = [s for f in watched.families() for s in f.samples if s.name == "mailer_delivery_duration_seconds_count"]
    assert len(rows) == MAX_PROVIDERS + 1


def test_all_domains_of_direct_delivery_count_as_one() -> None:
    domains = [f"direct:d{number}.test" for number in range(3)]
    watched = Watched().tell(*(attempt(domain) for domain in domains), *(BreakerChanged(name, "open") for name in domains))
    assert watched.value("mailer_attempts_total", provider="direct", outcome="delivered") == 3
    assert watched.value("mailer_breaker_opened_total", provider="direct") == 3
    assert b"d1.test" not in watched.metrics.exposition(openmetrics=False)[1]


def test_direct_delivery_is_shown_where_it_is_on() -> None:
    watched = Watched(direct=DirectStatus(domains=7, closed=2, connections=3))
    assert watched.value("mailer_direct_domains", state="open") == 5
    assert watched.value("mailer_direct_domains", state="closed") == 2
    assert watched.value("mailer_direct_connections") == 3
    assert b"mailer_direct" not in Watched().metrics.exposition(openmetrics=False)[1]


def test_provider_is_shown_as_it_stands() -> None:
    watched = Watched([STATUS]).tell(BreakerChanged("first", "open"), BreakerChanged("first", "probing"))
    assert watched.value("mailer_provider_breaker_state", provider="first", state="open") == 1
    assert watched.value("mailer_provider_breaker_state", provider="first", state="closed") == 0
    assert watched.value("mailer_provider_usable", provider="first") == 0
    assert watched.value("mailer_provider_connections", provider="first") == 3
    assert watched.value("mailer_provider_quota_used_recipients", provider="first", window="hour") == 40
    assert watched.value("mailer_provider_quota_used_recipients", provider="first", window="day") == 500
    assert watched.value("mailer_provider_last_delivered_timestamp_seconds", provider="first") == 900.5
    assert watched.value("mailer_breaker_opened_total", provider="first") == 1
    assert watched.value("mailer_attempts_total", provider="first", outcome="delivered") == 0  # there before its first


def test_messages_are_shown_by_state_and_losses_counted() -> None:
    watched = Watched()
    states = {state: watched.value("mailer_messages", state=state) for state in ("queued", "parked", "successful", "failed")}
    assert states == {"queued": 4, "parked": 3, "successful": 2, "failed": 1}
    assert watched.value("mailer_log_lines_dropped_total") == 5
    assert watched.value("mailer_archive_dropped_total") == 6
    assert watched.value("mailer_build_info", version="1.2.3") == 1


def test_process_is_shown() -> None:
    watched = Watched()
    assert watched.value("process_resident_memory_bytes") > 1_000_000
    assert watched.value("process_open_fds") > 2
    assert watched.value("process_start_time_seconds") > 1_000_000_000
    assert watched.value("mailer_threads") >= 1


def test_both_formats_say_the_same() -> None:
    watched = Watched([STATUS]).tell(attempt(queue=0.1), MessageAccepted("a", 1, 1, False, 0.001))
    content_type, text = watched.metrics.exposition(openmetrics=True)
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert text.endswith(b"# EOF\n")
    families = parse_openmetrics(text.decode())  # type: ignore[no-untyped-call]  # the library leaves it open
    modern = {
        (s.name, tuple(sorted(s.labels.items()))): s.value for f in families for s in f.samples if f.name.startswith("mailer_")
    }
    classic = {
        (s.name, tuple(sorted(s.labels.items()))): s.value
        for f in watched.families()
        for s in f.samples
        if f.name.startswith("mailer_")
    }
    assert modern == classic


def test_every_name_follows_the_conventions() -> None:
    for family in Watched([STATUS]).families():
        assert family.name.startswith(("mailer_", "process_"))
        assert family.documentation
        if family.type == "histogram":
            assert family.name.endswith("_seconds")


def test_two_programs_in_one_process_share_nothing() -> None:
    one, two = Watched().tell(MessageParked("a")), Watched()
    assert (one.value("mailer_parked_messages_total"), two.value("mailer_parked_messages_total")) == (1, 0)


def test_clock_set_back_makes_no_negative_time() -> None:
    watched = Watched().tell(MessageFinished("a", 1, 0, False, -5.0))
    assert watched.value("mailer_processing_duration_seconds_sum") == 0
    assert watched.value("mailer_processing_duration_seconds_bucket", le="0.01") == 1


def test_no_event_is_lost_between_threads() -> None:
    watched = Watched()
    threads = [
        threading.Thread(target=watched.tell, args=[attempt(), MessageAccepted("a", 1, 1, False, 0.001)] * 500) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert watched.value("mailer_accepted_messages_total") == 4000
    assert watched.value("mailer_attempts_total", provider="first", outcome="delivered") == 4000
