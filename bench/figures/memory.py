"""mailer's resident memory: idle, with idle connections, with messages waiting, under large messages at once.

Summed over its processes as proportional memory (Pss): resident pages that two of them share count once, as they do for the
machine and for a container's limit. The first three are read when all has come to rest, the last is the highest of ten
looks a second. Every round starts anew. There is no peer: the bounds are absolute.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack

from bench.backlog import waiting, waiting_mailer
from bench.call import Call, say
from bench.client import idle_connections
from bench.figures.latency import IDLE_CONNECTIONS, allow_open_files
from bench.processes import MemoryPeak, proportional_mib
from bench.run import RUN_TIMEOUT_SECONDS
from bench.subjects import Mailer, provider
from bench.table import Row, Series, value_at_most
from bench.traffic import Load, Sink

SETTLE_SECONDS = 10.0  # caches, the schedule's first look, a breaker that opens: all come to rest well before
LARGE_AT_ONCE = 50
LARGE_BYTES = 25 * 1024 * 1024 - 64 * 1024  # maxMessageSize by default is 25 MiB, and a header comes on top


def measure(call: Call) -> list[Row]:
    return [
        _row(call, "resident memory, idle", 45, _idle),
        _row(call, f"resident memory, {_connections(call):,} idle connections", 100, _with_connections),
        _row(call, f"resident memory, {waiting(call):,} waiting", 150, _with_waiting),
        _row(call, f"resident memory, {_large(call)} × 25 MiB at once", 200, _with_large),
    ]


def _row(call: Call, figure: str, bound_mib: float, measured: Callable[[Call], float]) -> Row:
    say(f"memory: {figure}")
    values = []
    for _ in range(call.rounds):
        values.append(measured(call))
        say(f"  {values[-1]:.0f} MiB")
    return Row(figure, "MiB", Series.of(values), wanted=value_at_most(bound_mib))


def _idle(call: Call) -> float:
    with ExitStack() as stack:
        return _settled(call, _fresh(call, stack))


def _with_connections(call: Call) -> float:
    count = _connections(call)
    allow_open_files(count)
    with ExitStack() as stack:
        mailer = _fresh(call, stack)
        stack.enter_context(idle_connections(mailer.port, count))
        return _settled(call, mailer)


def _with_waiting(call: Call) -> float:
    with ExitStack() as stack:
        sink = stack.enter_context(Sink())
        return _settled(call, stack.enter_context(stack.enter_context(waiting_mailer(call, sink.port))))


def _with_large(call: Call) -> float:
    count = _large(call)
    load = Load(count, sessions=count, size_bytes=LARGE_BYTES)
    with ExitStack() as stack:
        sink = stack.enter_context(Sink())
        folder = stack.enter_context(call.room("memory"))
        mailer = stack.enter_context(Mailer(call.program, folder, [provider(sink.port)]))
        with MemoryPeak(mailer.group) as peak:
            load.send_to(mailer.port, RUN_TIMEOUT_SECONDS)
            sink.wait_for(count, RUN_TIMEOUT_SECONDS)
        return peak.mib


def _fresh(call: Call, stack: ExitStack) -> Mailer:
    folder = stack.enter_context(call.room("memory"))
    sink = stack.enter_context(Sink())
    return stack.enter_context(Mailer(call.program, folder, [provider(sink.port)]))


def _settled(call: Call, mailer: Mailer) -> float:
    time.sleep(call.size(int(SETTLE_SECONDS), 3))
    return proportional_mib(mailer.group)


def _connections(call: Call) -> int:
    return call.size(IDLE_CONNECTIONS, 100)


def _large(call: Call) -> int:
    return call.size(LARGE_AT_ONCE, 5)
