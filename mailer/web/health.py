"""How the program is: ``/health`` for people, ``/livez`` and ``/readyz`` for orchestrators, ``/metrics`` (spec 5).

No threads, no locks: each function makes a response of what the application says at that moment. What the application
raises passes through to the site, which answers with an error.
"""

from __future__ import annotations

from http import HTTPStatus

from mailer.events import ProviderStatus
from mailer.spool.store import Totals
from mailer.web.application import Application
from mailer.web.negotiation import Form, metrics_form
from mailer.web.request import Request, Response, error_response, json_response, timestamp

LATE_SECONDS = 15 * 60
"""A due message that has waited for so long makes the program degraded (spec 5)."""
LOW_DISK_BYTES = 1 << 30
_MIB = 1 << 20


def health(application: Application, now: float) -> Response:
    """``ok``, ``degraded`` (200) or ``error`` (503: mail cannot be accepted), with the reasons."""
    refusing = application.why_not_accepting()
    free = application.disk_free_bytes()
    late = application.oldest_due_seconds(now)
    reasons = [refusing] if refusing else []
    if application.no_way_open():
        reasons.append("mail is accepted, but no way to deliver it is open")
    if late > LATE_SECONDS:
        reasons.append(f"the oldest due message is {int(late)} s late")
    if free < LOW_DISK_BYTES:
        reasons.append(f"the disk has only {free // _MIB} MiB left")
    totals = application.totals()
    details: dict[str, object] = {
        "disk_space_available_mb": free // _MIB,
        "queued_emails": totals.queued,
        "failed_emails": application.failed_files(),
        "total_emails_processed": _total(totals),
        "success_rate": round(100 * totals.successful / _total(totals), 2) if _total(totals) else 100,
        "reasons": reasons,
        "version": application.version,
        "uptime_seconds": int(max(now - application.started_at, 0)),
        "oldest_due_seconds": int(late),
        "providers": [_provider(status) for status in application.provider_statuses()],
    }
    direct = application.direct_status()
    if direct is not None:
        details["direct"] = {"domains": direct.domains, "closed": direct.closed, "connections": direct.connections}
    status = "error" if refusing else "degraded" if reasons else "ok"
    code = HTTPStatus.SERVICE_UNAVAILABLE if refusing else HTTPStatus.OK
    return json_response(code, {"status": status, "timestamp": timestamp(now), "details": details})


def live(now: float) -> Response:
    """Whether the process answers: that it does is the answer."""
    return json_response(HTTPStatus.OK, {"status": "ok", "timestamp": timestamp(now)})


def ready(application: Application, now: float) -> Response:
    """Whether traffic should come here."""
    reason = application.why_not_ready()
    if reason:
        return error_response(HTTPStatus.SERVICE_UNAVAILABLE, reason, now)
    return json_response(HTTPStatus.OK, {"status": "ok", "timestamp": timestamp(now)})


def metrics(application: Application, request: Request, now: float) -> Response:
    """Numbers: JSON, or the text that a Prometheus scrape asks for."""
    form = metrics_form(request.field("accept"))
    varies = (("Vary", "Accept"),)
    if form is not Form.JSON:
        content_type, text = application.metrics_text(form is Form.OPENMETRICS)
        return Response(HTTPStatus.OK, content_type, text, varies)
    totals = application.totals()
    average = 1000 * totals.processing_seconds / totals.successful if totals.successful else 0.0
    numbers = {
        "total_emails": _total(totals),
        "successful_emails": totals.successful,
        "failed_emails": totals.failed + totals.parked,
        "total_recipients": totals.recipients,
        "avg_processing_time_ms": round(average, 3),
        "queued_emails": totals.queued,
        "parked_emails": totals.parked,
        "uptime_seconds": int(max(now - application.started_at, 0)),
        "version": application.version,
    }
    return json_response(HTTPStatus.OK, numbers, varies)


def _total(totals: Totals) -> int:
    """Each message once, by its present outcome; a parked one counts as failed until it is delivered (spec 5)."""
    return totals.successful + totals.failed + totals.parked


def _provider(status: ProviderStatus) -> dict[str, object]:
    return {
        "name": status.name,
        "breaker": status.breaker,
        "closed_by": status.why_closed,
        "open_at": None if status.open_at is None else timestamp(status.open_at),
        "connections": status.connections,
    }
