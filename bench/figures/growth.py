"""The rate with 1,000,000 messages waiting in the spool over the rate with an empty one.

They wait for a provider that refuses connections, another provider serves the load: what is measured is whether new mail
passes by a mountain of old mail. Two mailers of one configuration take turns; timed as ``rate`` is, reused connections.
"""

from __future__ import annotations

from contextlib import ExitStack

from bench.backlog import waiting, waiting_mailer
from bench.call import Call, say
from bench.figures.rate import LOAD, rates
from bench.run import Line, runs
from bench.table import Row, at_least
from bench.traffic import Sink


def measure(call: Call) -> list[Row]:
    say("growth")
    with ExitStack() as stack:
        sinks = [stack.enter_context(Sink()) for _ in range(2)]
        full = stack.enter_context(waiting_mailer(call, sinks[0].port))
        empty = stack.enter_context(waiting_mailer(call, sinks[1].port, stack.enter_context(call.room("growth"))))
        lines = [Line(stack.enter_context(mailer), sink) for mailer, sink in zip((full, empty), sinks, strict=True)]
        ours, theirs = runs(call, lines, LOAD.of(call.size(LOAD.messages, 200)))
    return [Row(f"rate, {waiting(call):,} waiting", "msg/s", rates(ours), "an empty spool", rates(theirs), at_least(0.8))]
