"""What health, readiness and metrics say of the program's state (spec 5)."""

from __future__ import annotations

import dataclasses
import json
from http import HTTPStatus
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_prometheus

from mailer.events import DirectStatus, ProviderStatus
from mailer.spool.store import Totals
from mailer.web.guard import Guard
from mailer.web.request import Request, Response
from mailer.web.site import Site
from tests.web.program import GIB, NOW, Program, config

TOTALS = Totals(queued=7, parked=2, successful=6, failed=2, recipients=30, processing_seconds=3.0)
CLOSED = ProviderStatus("mx.example:25", "open", "breaker", NOW + 30, 1, 5, 50, None)


def get(program: Program, path: str, accept: str = "") -> Response:
    fields = {"accept": accept} if accept else {}
    return Site(program, Guard.of(config())).answer(Request("GET", path, "", fields, "localhost", b"", True), NOW)


def content(response: Response) -> Any:
    return json.loads(response.body)


def test_health_has_the_shape_that_callers_of_the_go_program_know() -> None:
    response = get(Program(counts=TOTALS, files=3, free=5 * GIB), "/health")
    assert response.status == HTTPStatus.OK
    page = content(response)
    assert (page["status"], page["timestamp"]) == ("ok", "2026-09-21T14:14:20.000Z")
    details = page["details"]
    assert details["disk_space_available_mb"] == 5 * 1024
    assert details["queued_emails"] == 7
    assert details["failed_emails"] == 3  # the files, not the count
    assert details["total_emails_processed"] == 10
    assert details["success_rate"] == 60
    assert details["reasons"] == []
    assert details["uptime_seconds"] == 60


def test_health_tells_how_direct_delivery_stands_where_it_is_on() -> None:
    details = content(get(Program(direct=DirectStatus(domains=7, closed=2, connections=3)), "/health"))["details"]
    assert details["direct"] == {"domains": 7, "closed": 2, "connections": 3}
    assert "direct" not in content(get(Program(), "/health"))["details"]


def test_success_rate_is_100_while_nothing_was_processed() -> None:
    assert content(get(Program(counts=Totals(queued=5)), "/health"))["details"]["success_rate"] == 100


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (Program(is_closed=True), "no way to deliver"),
        (Program(late=901), "901 s late"),
        (Program(free=GIB - 1), "1023 MiB left"),
    ],
)
def test_health_is_degraded_and_says_why(program: Program, reason: str) -> None:
    """G10: the Go program's health is always ok."""
    response = get(program, "/health")
    assert response.status == HTTPStatus.OK
    assert content(response)["status"] == "degraded"
    assert [reason in given for given in content(response)["details"]["reasons"]] == [True]


def test_health_is_ok_right_at_the_thresholds() -> None:
    assert content(get(Program(late=900, free=GIB), "/health"))["status"] == "ok"


def test_health_is_an_error_while_mail_cannot_be_accepted() -> None:
    response = get(Program(refusing="the spool cannot be written: disk full", is_closed=True), "/health")
    assert response.status == HTTPStatus.SERVICE_UNAVAILABLE
    page = content(response)
    assert page["status"] == "error"
    assert page["details"]["reasons"][0] == "the spool cannot be written: disk full"
    assert len(page["details"]["reasons"]) == 2


def test_health_shows_each_provider() -> None:
    (shown,) = content(get(Program(statuses=[CLOSED]), "/health"))["details"]["providers"]
    assert shown == {
        "name": "mx.example:25",
        "breaker": "open",
        "closed_by": "breaker",
        "open_at": "2026-09-21T14:14:50.000Z",
        "connections": 1,
    }


def test_unready_is_told_from_alive() -> None:
    program = Program(unready="a drain has begun")
    assert get(program, "/livez").status == HTTPStatus.OK
    response = get(program, "/readyz")
    assert response.status == HTTPStatus.SERVICE_UNAVAILABLE
    assert content(response)["error"] == "a drain has begun"
    program.unready = ""
    assert get(program, "/readyz").status == HTTPStatus.OK


def test_metrics_count_each_message_once_and_a_parked_one_as_failed() -> None:
    page = content(get(Program(counts=TOTALS), "/metrics"))
    assert page["total_emails"] == page["successful_emails"] + page["failed_emails"] == 10
    assert page["failed_emails"] == 4
    assert page["total_recipients"] == 30
    assert page["avg_processing_time_ms"] == 500


def test_average_is_zero_before_the_first_success() -> None:
    assert content(get(Program(), "/metrics"))["avg_processing_time_ms"] == 0


def test_prometheus_gets_text_it_can_read() -> None:
    program = Program(counts=TOTALS, statuses=[CLOSED])
    plain = get(program, "/metrics", "text/plain;version=0.0.4")
    assert plain.content_type.startswith("text/plain; version=0.0.4")
    names = {family.name for family in parse_prometheus(plain.body.decode())}
    assert {"mailer_messages", "mailer_provider_breaker_state"} <= names
    modern = get(program, "/metrics", "application/openmetrics-text;version=1.0.0")
    assert modern.content_type.startswith("application/openmetrics-text; version=1.0.0")
    families = parse_openmetrics(modern.body.decode())  # type: ignore[no-untyped-call]  # the library leaves it open
    assert {"mailer_messages", "mailer_commit_duration_seconds"} <= {family.name for family in families}
    assert ("Vary", "Accept") in modern.fields


def test_name_of_a_provider_is_text_and_never_markup_of_a_format() -> None:
    odd = dataclasses.replace(CLOSED, name='a"} 1\nforged 2')
    body = get(Program(statuses=[odd]), "/metrics", "text/plain").body.decode()
    families = {family.name: family for family in parse_prometheus(body)}
    assert "forged" not in families
    assert families["mailer_provider_connections"].samples[0].labels == {"provider": 'a"} 1\nforged 2'}
