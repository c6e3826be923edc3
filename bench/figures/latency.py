"""How long one client waits on an idle server, and how long its message then takes to the upstream.

Timed: from before the client connects until it has the 250 for its content, with a connection for each message and a wait
for each answer, as applications without a library's cleverness do; and from that 250 until the upstream
has the last byte. Client and upstream share a process and so a clock. mailer and Postfix, with their defaults, take turns
message by message; between two messages there is a pause in which the one before is cleared away. Each round gives one p50
and one p99 of its messages; the table has the medians of these.

``idle`` is the same between two mailers, one of which has 1,000 idle connections open all the while.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

from bench.call import Call, say
from bench.client import idle_connections, message, submit
from bench.peers import PostfixRelay
from bench.receiver import Receiver
from bench.subjects import Mailer, Relay, provider
from bench.table import Row, Series, Wanted, at_most, percentile

MESSAGES = 300  # a round: p99 is then the fourth from the top
CONTENT = message(4096)
PAUSE_SECONDS = 0.02  # records, removal from the queue: both are over long before
UPSTREAM_SECONDS = 60.0
IDLE_CONNECTIONS = 1000
AS_FAST = 1.1  # "as fast as with none": two equal servers differ by so much from one call to the next
_MS = 1000.0


@dataclass(slots=True)
class _Round:
    """The times of one relay in one round, in seconds."""

    accepted: list[float] = field(default_factory=list)
    onward: list[float] = field(default_factory=list)


def measure(call: Call) -> list[Row]:
    say("latency")
    with ExitStack() as stack:
        folder = stack.enter_context(call.room("latency"))
        upstreams = [stack.enter_context(Receiver()) for _ in range(2)]
        mailer = stack.enter_context(Mailer(call.program, folder, [provider(upstreams[0].port)]))
        postfix = stack.enter_context(PostfixRelay(upstreams[1].port))
        ours, theirs = _rounds(call, [mailer, postfix], upstreams)

    def row(figure: str, wanted: Wanted, kind: str, percent: float) -> Row:
        both = [Series.of(_MS * percentile(getattr(one, kind), percent) for one in of) for of in (ours, theirs)]
        return Row(figure, "ms", both[0], postfix.name, both[1], wanted)

    return [
        row("connect to 250, idle server, p50", at_most(0.8), "accepted", 50),
        row("connect to 250, idle server, p99", at_most(1), "accepted", 99),
        row("from 250 to the upstream, p50", at_most(1.2), "onward", 50),
    ]


def measure_idle(call: Call) -> list[Row]:
    say("idle")
    count = call.size(IDLE_CONNECTIONS, 100)
    allow_open_files(2 * count)
    with ExitStack() as stack:
        upstreams = [stack.enter_context(Receiver()) for _ in range(2)]
        mailers = []
        for upstream in upstreams:
            folder = stack.enter_context(call.room("idle"))
            mailers.append(
                stack.enter_context(Mailer(call.program, folder, [provider(upstream.port)], maxConnections=count + 100))
            )
        stack.enter_context(idle_connections(mailers[0].port, count))
        ours, theirs = _rounds(call, mailers, upstreams)
    both = [Series.of(_MS * percentile(one.accepted, 50) for one in of) for of in (ours, theirs)]
    figure = f"one more client beside {count} idle connections, connect to 250, p50"
    return [Row(figure, "ms", both[0], "mailer with none", both[1], at_most(AS_FAST))]


def allow_open_files(wanted: int) -> None:
    """Raise our own limit; the relays raise theirs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted + 200:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, wanted + 200) if hard > 0 else wanted + 200, hard))


def _rounds(call: Call, relays: Sequence[Relay], upstreams: Sequence[Receiver]) -> list[list[_Round]]:
    """Of each relay, round by round."""
    pairs = list(zip(relays, upstreams, strict=True))
    for relay, upstream in pairs:
        for _ in range(20):
            _one(relay, upstream, _Round())
    results: list[list[_Round]] = [[] for _ in relays]
    for number in range(call.rounds):
        now = [_Round() for _ in relays]
        turns = [partial(_one, *pair, of) for pair, of in zip(pairs, now, strict=True)]
        for count in range(call.size(MESSAGES, 50)):
            for turn in turns if (number + count) % 2 == 0 else reversed(turns):
                turn()
        for of_relay, one in zip(results, now, strict=True):
            of_relay.append(one)
        medians = [f"{_MS * percentile(one.accepted, 50):.2f}" for one in now]
        say(f"  {' | '.join(relay.name for relay in relays)}: {' | '.join(medians)} ms")
    return results


def _one(relay: Relay, upstream: Receiver, into: _Round) -> None:
    before = upstream.count
    sent = submit(relay.port, CONTENT)
    received_at = upstream.wait_for(before + 1, UPSTREAM_SECONDS)
    into.accepted.append(sent.seconds)
    into.onward.append(max(0.0, received_at - sent.accepted_at))
    time.sleep(PAUSE_SECONDS)
