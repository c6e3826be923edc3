"""What an operator can have done over HTTP (spec 5): so far, parked mail tried again at once.

No threads, no locks. What the application raises passes through to the site, which answers with an error.
"""

from __future__ import annotations

import logging
from http import HTTPStatus

from mailer.web.application import Application
from mailer.web.request import Response, json_response

log = logging.getLogger(__name__)


def retry_failed(application: Application) -> Response:
    """Make every parked message due at once."""
    count = application.retry_failed()
    log.info("admin.retry_failed count=%d", count)
    message = f"{count} failed message{'' if count == 1 else 's'} will be tried again now" if count else "no failed messages"
    return json_response(HTTPStatus.OK, {"status": "ok", "message": message, "count": count})
