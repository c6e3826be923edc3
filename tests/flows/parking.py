"""What the stories about ``emails/failed`` share: parking a message, looking at the folder, dropping a file in."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.relay import Relay, eventually, message
from tests.support.upstream import Upstream


def arrivals(upstream: Upstream, recipient: str) -> int:
    return sum(recipient in transaction.recipients for transaction in upstream.messages)


def retry(relay: Relay) -> None:
    """Make all that is parked due; the process may die of it."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        relay.http("/admin/retry-failed", "POST")


def retry_until(relay: Relay, condition: Callable[[], bool], what: str) -> None:
    """The same until it has shown effect: what is being tried at the moment of the call has had its turn."""

    def tried() -> bool:
        retry(relay)
        return condition()

    eventually(tried, what)


def counts(relay: Relay) -> tuple[int, int, int]:
    """Messages delivered, failed (parked ones too) and queued."""
    numbers = relay.metrics()
    return numbers["successful_emails"], numbers["failed_emails"], numbers["queued_emails"]


def in_failed(relay: Relay) -> list[str]:
    """All names in ``emails/failed``, hidden ones too."""
    return sorted(path.name for path in (relay.data / "emails" / "failed").iterdir())


def park(relay: Relay, to: list[str]) -> str:
    """A message that is parked, its file in place; the program ends in order after that."""
    with relay:
        message_id = relay.send(to=to)
        relay.wait_for_line(f"message.parked id={message_id}")
        eventually(lambda: in_failed(relay) == [f"{message_id}.json"], "the parked file")
        assert relay.terminate() == 0
    return message_id


def drop(relay: Relay, name: str, fields: dict[str, Any], text: str = "dropped in") -> Path:
    """Put a file into ``emails/failed`` as the Go program writes it."""
    folder = relay.data / "emails" / "failed"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps({**fields, "Data": base64.b64encode(message(text)).decode()}))
    return path
