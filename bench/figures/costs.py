"""What a relayed message costs: processor time, and calls that wait for the disk. The load is that of ``rate``, reused.

``cpu``: user and system time of all processes of the relay, ended ones included, from rest until its queue is empty again,
over the messages. What a relay does behind the last delivery (records, removal) so counts as well.

``fsync``: fsync, fdatasync and their like in all processes of the relay, counted by the kernel's tracepoints in runs of
their own. Nothing is stopped at a call, so groups of messages that share one form as they do unwatched.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from bench.call import Call, say
from bench.figures.rate import LOAD
from bench.peers import PostfixRelay
from bench.processes import SyncCalls
from bench.run import Line, run, runs, warm_up
from bench.subjects import Mailer, provider
from bench.table import Row, Series, at_most, value_at_most
from bench.traffic import Sink


def measure_cpu(call: Call) -> list[Row]:
    say("cpu")
    with _two_lines(call, "cpu") as lines:
        ours, theirs = (Series.of(one.cpu_ms for one in of) for of in runs(call, lines, LOAD.of(call.size(LOAD.messages, 1000))))
    return [Row("CPU per message, all processes", "ms", ours, "Postfix", theirs, at_most(0.2))]


def measure_fsync(call: Call) -> list[Row]:
    say("fsync")
    load = LOAD.of(call.size(LOAD.messages, 200))

    def counted(line: Line) -> float:
        with SyncCalls(line.relay.group) as calls:
            run(line, load)
        return calls.count / load.messages

    with _two_lines(call, "fsync") as lines:
        for line in lines:
            warm_up(call, line, load)
        ours, theirs = (Series.of(of) for of in call.alternate(lines, counted))
    return [Row("fsync calls per message", "", ours, "Postfix", theirs, value_at_most(0.2))]


@contextmanager
def _two_lines(call: Call, name: str) -> Iterator[list[Line]]:
    """mailer and Postfix, each with a sink."""
    with ExitStack() as stack:
        folder = stack.enter_context(call.room(name))
        sinks = [stack.enter_context(Sink()) for _ in range(2)]
        mailer = stack.enter_context(Mailer(call.program, folder, [provider(sinks[0].port)]))
        yield [Line(mailer, sinks[0]), Line(stack.enter_context(PostfixRelay(sinks[1].port)), sinks[1])]
