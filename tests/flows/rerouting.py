"""A running relay that is given other providers by reload, so that many stories share one start of the program."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from typing import Any

from tests.support.relay import Relay, eventually, provider_of
from tests.support.upstream import Upstream

DEBUG = {"level": "debug"}
"""The ``logging`` with which every message's end is a line, also of one that was delivered at the first attempt."""


def named(name: str, upstream: Upstream, **settings: Any) -> dict[str, Any]:
    """The configuration of a provider by a name of its own."""
    return {**provider_of(upstream), "name": name, **settings}


class Rerouting:
    """The relay, and what its configuration was at the start. Each reload begins from that.

    ``sink`` takes what an earlier story left behind.
    """

    def __init__(self, relay: Relay, sink: Upstream) -> None:
        self.relay = relay
        self._sink = sink
        self._plain = dict(relay.settings)

    def to(self, *providers: Mapping[str, Any], **settings: Any) -> Relay:
        """Forward to these providers from now on. Returns once their logins were checked, so that nothing but mail goes
        to them any more."""
        relay = self.relay
        since = len(relay.lines)
        relay.settings = {**self._plain, "forwardSMTP": True, "forwardProviders": list(providers), **settings}
        relay.write_config()
        relay.signal(signal.SIGHUP)
        relay.wait_for_line("reload.done", since)
        for provider in providers:
            relay.wait_for_line(rf"provider.login_(ok|failed) name={provider['name']} ", since)
        return relay

    def settle(self) -> None:
        """Let every message come to its end, the parked ones too."""
        if self._unfinished():
            self.to(named("sink", self._sink))
            self.relay.http("/admin/retry-failed", "POST")
            eventually(lambda: self._unfinished() == 0, "the end of every message")

    def _unfinished(self) -> int:
        metrics = self.relay.metrics()
        return int(metrics["queued_emails"] + metrics["parked_emails"])


def deliver(relay: Relay, text: str = "hello", to: str = "to@example.org") -> str:
    """Send a message and wait for its end, which is a success; its id. The relay logs as ``DEBUG`` says."""
    message_id = relay.send(text, to)
    relay.wait_for_line(f"message.finished id={message_id} delivered=1 failed=0")
    return message_id


def attempts(relay: Relay, message_id: str) -> list[str]:
    """The names of the providers that a message was tried at, in order, one for each conversation."""
    return re.findall(rf"delivery.attempt id={message_id} provider=(\S+)", relay.output)
