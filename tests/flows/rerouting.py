"""A running relay that is given other providers by reload, so that many stories share one start of the program."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from typing import Any

from tests.support.relay import Relay, provider_of
from tests.support.upstream import Upstream


def named(name: str, upstream: Upstream, **settings: Any) -> dict[str, Any]:
    """The configuration of a provider by a name of its own."""
    return {**provider_of(upstream), "name": name, **settings}


class Rerouting:
    """The relay, and what its configuration was at the start. Each reload begins from that."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
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
            relay.wait_for_line(rf"provider.login_(ok|failed) name={provider['name']}\b", since)
        return relay


def attempts(relay: Relay, message_id: str) -> list[str]:
    """The names of the providers that a message was tried at, in order, one for each conversation."""
    return re.findall(rf"delivery.attempt id={message_id} provider=(\S+)", relay.output)
