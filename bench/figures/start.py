"""The start with 1,000,000 messages waiting beside one with an empty spool: seconds until the first client is greeted.

Timed: from the start of the process until a client has read the 220; the client tries every 5 ms. Both have the same
configuration and take turns. The pages of the spool may be in the page cache, as after a restart of the program, not of
the machine.
"""

from __future__ import annotations

from contextlib import ExitStack

from bench.backlog import waiting, waiting_mailer
from bench.call import Call, say
from bench.subjects import Mailer
from bench.table import Row, Series, at_most
from bench.traffic import Sink


def measure(call: Call) -> list[Row]:
    say("start")
    with ExitStack() as stack:
        sink = stack.enter_context(Sink())
        full = stack.enter_context(waiting_mailer(call, sink.port))
        empty = stack.enter_context(waiting_mailer(call, sink.port, stack.enter_context(call.room("start"))))
        ours, theirs = call.alternate([full, empty], _started)
    figure = f"start with {waiting(call):,} waiting"
    return [Row(figure, "s", Series.of(ours), "an empty spool", Series.of(theirs), at_most(3))]


def _started(mailer: Mailer) -> float:
    seconds = mailer.start()
    say(f"  {mailer.waiting} waiting: {seconds:.2f} s")
    mailer.stop()
    return seconds
