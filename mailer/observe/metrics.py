"""The metrics: what was counted since the start and how things stand now, as Prometheus or OpenMetrics text.

The only importer of prometheus_client, and of that only the text formats: its counters take a lock per observation, ten
for each message, where ``Tally`` takes one per event.

No thread of its own: a scrape runs in the caller's thread, copies the counts under the tally's lock and asks ``Sources``
for the rest. It raises what a source raises.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as CONTENT_TYPE_OPENMETRICS
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector

from mailer.events import DirectStatus, Hub, ProviderStatus
from mailer.observe.tally import (
    ATTEMPT_OUTCOMES,
    MESSAGE_OUTCOMES,
    OTHER,
    RATE_LIMITED,
    RECIPIENT_OUTCOMES,
    REFUSAL_REASONS,
    Counts,
    Histogram,
    Tally,
)

BREAKER_STATES = ("closed", "open", "probing")


class MessageTotals(Protocol):
    """How many messages stand where: what of the spool's totals is shown here."""

    @property
    def queued(self) -> int: ...
    @property
    def parked(self) -> int: ...
    @property
    def successful(self) -> int: ...
    @property
    def failed(self) -> int: ...
    @property
    def recipients(self) -> int: ...
    @property
    def queued_reports(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Sources:
    """What is asked at each scrape; each must be quick, and callable from any thread."""

    totals: Callable[[], MessageTotals]
    providers: Callable[[], Sequence[ProviderStatus]]
    direct: Callable[[], DirectStatus | None]
    log_lines_dropped: Callable[[], int]
    archive_dropped: Callable[[], int]


class Metrics:
    """Counts what the hub tells from now on, and writes it down when asked."""

    def __init__(self, hub: Hub, sources: Sources, version: str) -> None:
        self._tally = Tally()
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._registry.register(_Snapshot(self._tally, sources, version))
        hub.subscribe(self._tally.note)

    def __repr__(self) -> str:
        return f"Metrics({self._tally!r})"

    def exposition(self, openmetrics: bool) -> tuple[str, bytes]:
        """Content-Type and text: OpenMetrics 1.0, or Prometheus text format 0.0.4."""
        if openmetrics:
            text: bytes = generate_openmetrics(self._registry)  # type: ignore[no-untyped-call]  # the library leaves it open
            return CONTENT_TYPE_OPENMETRICS, text
        return CONTENT_TYPE_PLAIN_0_0_4, generate_latest(self._registry)


class _Snapshot(Collector):
    """Everything of ours at the moment of a scrape."""

    def __init__(self, tally: Tally, sources: Sources, version: str) -> None:
        self._tally = tally
        self._sources = sources
        self._version = version
        self._started_at = time.time()

    def collect(self) -> Iterator[Metric]:
        counts = self._tally.counts()
        statuses = self._sources.providers()
        yield InfoMetricFamily("mailer_build", "The version that runs.", {"version": self._version})
        yield GaugeMetricFamily("mailer_start_time_seconds", "Unix time of the start.", self._started_at, unit="seconds")
        yield GaugeMetricFamily("mailer_threads", "Threads of the program.", threading.active_count())
        yield from _messages(self._sources.totals())
        yield from _accepted(counts)
        yield from _attempts(counts, statuses)
        yield from _providers(statuses)
        direct = self._sources.direct()
        if direct is not None:
            yield from _direct(direct)
        yield _count("mailer_log_lines_dropped", "Log lines that were never written.", self._sources.log_lines_dropped())
        yield _count("mailer_archive_dropped", "Messages missing from the archive.", self._sources.archive_dropped())


def _messages(totals: MessageTotals) -> Iterator[Metric]:
    states = GaugeMetricFamily("mailer_messages", "Messages by their present state; counts survive a restart.", labels=["state"])
    states.add_metric(["queued"], totals.queued)
    states.add_metric(["parked"], totals.parked)
    states.add_metric(["successful"], totals.successful)
    states.add_metric(["failed"], totals.failed)
    yield states
    yield GaugeMetricFamily("mailer_recipients", "Recipients of all messages ever accepted.", totals.recipients)
    yield GaugeMetricFamily("mailer_queued_reports", "Reports to senders that wait to be delivered.", totals.queued_reports)


def _accepted(counts: Counts) -> Iterator[Metric]:
    yield _count("mailer_accepted_messages", "Messages accepted.", counts.accepted_messages)
    yield _count("mailer_accepted_recipients", "Recipients of accepted messages.", counts.accepted_recipients)
    yield _count("mailer_accepted_bytes", "Bytes of accepted messages.", counts.accepted_bytes)
    yield _count("mailer_reports", "Reports made for senders.", counts.reports)
    refused = CounterMetricFamily("mailer_refused_submissions", "Refusals to clients.", labels=["reason"])
    for reason in (*REFUSAL_REASONS, OTHER):
        refused.add_metric([reason], counts.refused[reason])
    yield refused
    yield _count("mailer_rate_limit_hits", "Messages refused by a rate limit.", counts.refused[RATE_LIMITED])
    finished = CounterMetricFamily("mailer_finished_messages", "Messages that became final.", labels=["outcome"])
    for outcome in MESSAGE_OUTCOMES:
        finished.add_metric([outcome], counts.finished[outcome])
    yield finished
    yield _count("mailer_parked_messages", "Rounds that ended with a message parked.", counts.parked)
    yield _histogram("mailer_commit_duration_seconds", "Wait for the disk before a 250.", [([], counts.commit)])
    yield _histogram("mailer_queue_duration_seconds", "From acceptance to the first attempt.", [([], counts.queue)])
    yield _histogram("mailer_processing_duration_seconds", "From acceptance to the end.", [([], counts.processing)])


def _attempts(counts: Counts, statuses: Sequence[ProviderStatus]) -> Iterator[Metric]:
    providers = sorted({status.name for status in statuses} | counts.delivery.keys())
    attempts = CounterMetricFamily("mailer_attempts", "Conversations with a provider.", labels=["provider", "outcome"])
    recipients = CounterMetricFamily(
        "mailer_attempt_recipients", "Recipients in those conversations.", labels=["provider", "outcome"]
    )
    opened = CounterMetricFamily("mailer_breaker_opened", "Times a breaker opened.", labels=["provider"])
    for provider in providers:
        for outcome in ATTEMPT_OUTCOMES:
            attempts.add_metric([provider, outcome], counts.attempts[provider, outcome])
        for outcome in RECIPIENT_OUTCOMES:
            recipients.add_metric([provider, outcome], counts.attempt_recipients[provider, outcome])
        opened.add_metric([provider], counts.breaker_opened[provider])
    yield attempts
    yield recipients
    yield opened
    yield _histogram(
        "mailer_delivery_duration_seconds",
        "Time of a conversation with a provider.",
        [([provider], histogram) for provider, histogram in sorted(counts.delivery.items())],
        ["provider"],
    )


def _providers(statuses: Sequence[ProviderStatus]) -> Iterator[Metric]:
    breaker = GaugeMetricFamily("mailer_provider_breaker_state", "1 for the breaker's state.", labels=["provider", "state"])
    usable = GaugeMetricFamily("mailer_provider_usable", "1 when it can be tried now.", labels=["provider"])
    connections = GaugeMetricFamily("mailer_provider_connections", "Open connections.", labels=["provider"])
    used = GaugeMetricFamily(
        "mailer_provider_quota_used_recipients", "Recipients counted in the window.", labels=["provider", "window"]
    )
    delivered = GaugeMetricFamily(
        "mailer_provider_last_delivered_timestamp_seconds", "Unix time of the last delivery.", labels=["provider"]
    )
    for status in statuses:
        for state in BREAKER_STATES:
            breaker.add_metric([status.name, state], status.breaker == state)
        usable.add_metric([status.name], not status.why_closed)
        connections.add_metric([status.name], status.connections)
        used.add_metric([status.name, "hour"], status.hour_used)
        used.add_metric([status.name, "day"], status.day_used)
        if status.last_delivered_at is not None:
            delivered.add_metric([status.name], status.last_delivered_at)
    yield from (breaker, usable, connections, used, delivered)


def _direct(status: DirectStatus) -> Iterator[Metric]:
    domains = GaugeMetricFamily("mailer_direct_domains", "Recipient domains that mail went to of late.", labels=["state"])
    domains.add_metric(["open"], status.domains - status.closed)
    domains.add_metric(["closed"], status.closed)
    yield domains
    yield GaugeMetricFamily("mailer_direct_connections", "Open connections to their mail servers.", status.connections)


def _count(name: str, text: str, value: int) -> Metric:
    return CounterMetricFamily(name, text, value)


def _histogram(
    name: str, text: str, rows: Iterable[tuple[list[str], Histogram]], labels: Sequence[str] = ()
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, text, labels=labels, unit="seconds")
    for values, histogram in rows:
        bounds = [*map(str, histogram.bounds), "+Inf"]
        family.add_metric(values, list(zip(bounds, accumulate(histogram.counts), strict=True)), histogram.total)
    return family
