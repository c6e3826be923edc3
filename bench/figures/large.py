"""50 messages of 10 MB, 5 at once: MB a second end to end, and the highest memory while they pass.

Timed as ``rate`` is. 10 MB are the largest message that Postfix takes by default. Memory is proportional (Pss), summed over
all processes of the relay and looked at ten times a second, the same way for both: resident memory would count the pages
that Postfix's many processes share once for each. Neither counts the page cache, in which both keep the files they write.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from bench.call import Call, say
from bench.peers import PostfixRelay
from bench.processes import MemoryPeak
from bench.run import Line, Run, run
from bench.subjects import Mailer, provider
from bench.table import Row, Series, at_least, at_most
from bench.traffic import Load, Sink

MB = 1_000_000
LOAD = Load(50, sessions=5, size_bytes=10 * MB)


@dataclass(frozen=True, slots=True)
class _Watched:
    run: Run
    peak_mib: float


def measure(call: Call) -> list[Row]:
    say("large")
    load = LOAD.of(call.size(LOAD.messages, 10))
    with ExitStack() as stack:
        folder = stack.enter_context(call.room("large"))
        sinks = [stack.enter_context(Sink()) for _ in range(2)]
        mailer = stack.enter_context(Mailer(call.program, folder, [provider(sinks[0].port)]))
        postfix = stack.enter_context(PostfixRelay(sinks[1].port))
        lines = [Line(mailer, sinks[0]), Line(postfix, sinks[1])]
        for line in lines:
            run(line, load.of(load.sessions))
        ours, theirs = call.alternate(lines, lambda line: _watched(line, load))
    mb = load.size_bytes / MB
    speeds = [Series.of(one.run.rate * mb for one in of) for of in (ours, theirs)]
    peaks = [Series.of(one.peak_mib for one in of) for of in (ours, theirs)]
    return [
        Row(f"{load.messages} × 10 MB, {load.sessions} at once", "MB/s", speeds[0], postfix.name, speeds[1], at_least(1.3)),
        Row("the same, highest memory (PSS)", "MiB", peaks[0], postfix.name, peaks[1], at_most(1)),
    ]


def _watched(line: Line, load: Load) -> _Watched:
    with MemoryPeak(line.relay.group) as peak:
        done = run(line, load)
    return _Watched(done, peak.mib)
