"""The relay rate end to end: 4 KiB, 20 sessions, all messages of a session over one connection, then a connection each.

Timed: from the start of smtp-source until smtp-sink has taken the last message (``bench/traffic.py``). Every relay runs with
its defaults, the tuned Postfix aside, and every one has each message fsync'd before its 250; mailer keeps its archive too.
Each has a sink of its own, they take turns within a round, and before each run the relay is idle and the disk synced.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

from bench.call import Call, say
from bench.peers import TUNED, Ceiling, PlainRelay, PostfixRelay
from bench.run import Line, Run, runs
from bench.subjects import Mailer, Relay, provider
from bench.table import Row, Series, Wanted, at_least
from bench.traffic import Load, Sink

LOAD = Load(5000, sessions=20, size_bytes=4096)
_MODES = {True: "reused connections", False: "a connection each"}
# Wanted over (Postfix, Postfix tuned), by mode; the stock interpreter, then a free-threaded one.
_STOCK: dict[bool, tuple[Wanted | None, Wanted | None]] = {True: (at_least(4), at_least(3)), False: (at_least(3.5), None)}
_FREE_THREADED: dict[bool, tuple[Wanted | None, Wanted | None]] = {True: (at_least(6), at_least(3)), False: (at_least(5), None)}


def measure(call: Call) -> list[Row]:
    with ExitStack() as stack:
        lines = _lines(call, stack)
        rows = []
        for reuse, mode in _MODES.items():
            say(f"rate, {mode}")
            load = replace(LOAD.of(call.size(LOAD.messages, 200)), reuse=reuse)
            ours, *theirs = runs(call, lines, load)
            wanted = (_FREE_THREADED if call.is_free_threaded else _STOCK)[reuse]
            bounds = (*wanted, *[None] * len(theirs))
            for line, of_peer, bound in zip(lines[1:], theirs, bounds, strict=False):
                rows.append(_row(f"end-to-end rate, {mode}", ours, line.relay.name, of_peer, bound))
    return rows


def _lines(call: Call, stack: ExitStack) -> list[Line]:
    """mailer first, then its peers."""
    folder = stack.enter_context(call.room("rate"))
    sinks = [stack.enter_context(Sink()) for _ in range(5)]
    relays: tuple[Relay, ...] = (
        stack.enter_context(Mailer(call.program, folder, [provider(sinks[0].port)])),
        stack.enter_context(PostfixRelay(sinks[1].port)),
        stack.enter_context(PostfixRelay(sinks[2].port, "Postfix tuned", TUNED)),
        stack.enter_context(PlainRelay(sinks[3].port, folder)),
        Ceiling(sinks[4]),
    )
    return [Line(relay, sink) for relay, sink in zip(relays, sinks, strict=True)]


def _row(figure: str, ours: list[Run], peer_name: str, theirs: list[Run], wanted: Wanted | None) -> Row:
    twice = sum(run.extra for run in ours)
    if twice:
        figure += f" ({twice} came twice)"
    return Row(figure, "msg/s", rates(ours), peer_name, rates(theirs), wanted)


def rates(of: list[Run]) -> Series:
    return Series.of(run.rate for run in of)
