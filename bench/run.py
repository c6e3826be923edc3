"""One run of a load through one relay, from rest to rest. No threads; fails with ``BenchError``."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from bench import processes
from bench.call import Call, say
from bench.subjects import Relay
from bench.traffic import Load

RUN_TIMEOUT_SECONDS = 600.0
WARM_UP_MESSAGES = 200  # Postfix starts its processes with the first messages, mailer opens its connections


class Upstream(Protocol):
    """Where the mail ends: smtp-sink, or a ``Receiver``."""

    @property
    def port(self) -> int: ...

    @property
    def count(self) -> int:
        """Messages (of one recipient) that have come since the start."""
        ...

    def wait_for(self, count: int, timeout_seconds: float) -> float:
        """When (``time.monotonic``) it had so many. Raises BenchError."""
        ...


@dataclass(frozen=True, slots=True)
class Line:
    """A relay and what is behind it."""

    relay: Relay
    upstream: Upstream


@dataclass(frozen=True, slots=True)
class Run:
    """Seconds from the start of smtp-source until the last 250 (``taken``), until the upstream had the last message
    (``delivered``); processor seconds of all processes of the relay until its queue was empty; messages that came twice."""

    messages: int
    taken_seconds: float
    delivered_seconds: float
    cpu_seconds: float
    extra: int

    @property
    def rate(self) -> float:
        """Messages a second, end to end."""
        return self.messages / self.delivered_seconds

    @property
    def cpu_ms(self) -> float:
        """A message."""
        return 1000 * self.cpu_seconds / self.messages


def run(line: Line, load: Load) -> Run:
    """Send the load. Before the clock runs the relay is idle and the disk synced. Raises BenchError."""
    relay, upstream = line.relay, line.upstream
    relay.wait_until_idle()
    os.sync()
    before = upstream.count
    cpu = processes.cpu_seconds(relay.group) if relay.group else 0.0
    begun = time.monotonic()
    load.send_to(relay.port, RUN_TIMEOUT_SECONDS)
    sent = time.monotonic()
    arrived = upstream.wait_for(before + load.messages, RUN_TIMEOUT_SECONDS)
    relay.wait_until_idle()
    cpu = (processes.cpu_seconds(relay.group) if relay.group else 0.0) - cpu
    done = Run(load.messages, sent - begun, arrived - begun, cpu, upstream.count - before - load.messages)
    twice = f", {done.extra} came twice" if done.extra else ""
    say(f"  {relay.name}: {done.rate:.0f}/s, taken {load.messages / done.taken_seconds:.0f}/s, {done.cpu_ms:.2f} ms CPU{twice}")
    return done


def warm_up(call: Call, line: Line, load: Load) -> None:
    """A few messages that nobody measures."""
    run(line, load.of(call.size(WARM_UP_MESSAGES, 20)))


def runs(call: Call, lines: list[Line], load: Load, measure: Callable[[Line], Run] | None = None) -> list[list[Run]]:
    """Warm every relay up, then let them take turns; the runs of each, round by round. ``measure``: instead of ``run``."""
    for line in lines:
        warm_up(call, line, load)
    return call.alternate(lines, measure or (lambda line: run(line, load)))
