"""The pages and who may see them: a request in, a response out.

The table of pages is ``_pages``, one line a page. No threads of its own: ``answer`` runs in the connections' threads;
``guard`` is a value that a reload replaces. What stops a page (MailerError, OSError) becomes an error response.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus

from mailer.mail.outcome import MailerError
from mailer.web import admin, health
from mailer.web.application import Application
from mailer.web.guard import Guard
from mailer.web.request import Request, Response, error_response

log = logging.getLogger(__name__)

PROBES = frozenset({"/livez", "/readyz"})
"""Asked every few seconds for ever: no log line (spec 5)."""

_Page = Callable[[Request, float], Response]


class Site:
    """Answers requests for one application."""

    def __init__(self, application: Application, guard: Guard) -> None:
        self.guard = guard
        self._pages = _pages(application)

    def __repr__(self) -> str:
        return f"Site(pages={sorted(self._pages)})"

    def answer(self, request: Request, now: float) -> Response:
        """The response to one request. For HEAD it is that to GET; whoever sends it leaves out the body."""
        objection = self.guard.objection(request.host, request.field("origin"))
        if objection:
            return error_response(HTTPStatus.FORBIDDEN, objection, now)
        methods = self._pages.get(request.path)
        if methods is None:
            return error_response(HTTPStatus.NOT_FOUND, "there is no such page", now)
        page = methods.get("GET" if request.method == "HEAD" else request.method)
        if page is None:
            allowed = ", ".join(sorted(methods) + (["HEAD"] if "GET" in methods else []))
            text = f"this page is for {allowed}"
            return error_response(HTTPStatus.METHOD_NOT_ALLOWED, text, now, (("Allow", allowed),))
        try:
            return page(request, now)
        except MailerError as error:
            log.warning("http.page_fault path=%s error=%s", request.path, error)
            return error_response(HTTPStatus.SERVICE_UNAVAILABLE, str(error), now)
        except OSError as error:
            log.warning("http.page_fault path=%s error=%s", request.path, error)
            return error_response(HTTPStatus.INTERNAL_SERVER_ERROR, error.strerror or str(error), now)


def _pages(application: Application) -> Mapping[str, Mapping[str, _Page]]:
    """Every page: its path, and what answers which method."""
    return {
        "/health": {"GET": lambda _, now: health.health(application, now)},
        "/livez": {"GET": lambda _, now: health.live(now)},
        "/readyz": {"GET": lambda _, now: health.ready(application, now)},
        "/metrics": {"GET": lambda request, now: health.metrics(application, request, now)},
        "/admin/retry-failed": {"POST": lambda _request, _now: admin.retry_failed(application)},
    }
