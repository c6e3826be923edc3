"""The relay rate with a DKIM signature (rsa-sha256, 2048 bits) on each message. The load is that of ``rate``, reused.

mailer that signs takes turns with mailer that does not, and with Postfix whose messages OpenDKIM signs as a milter: the same
key, relaxed/relaxed, From oversigned in both. OpenDKIM signs when a message comes in, mailer when it goes out; both rates are
end to end. ``CPU per message`` is that of mailer's processes from rest to rest, so the difference is what a signature costs.
"""

from __future__ import annotations

from contextlib import ExitStack

from bench.call import Call, say
from bench.figures.rate import LOAD, rates
from bench.peers import SigningPostfixRelay
from bench.run import Line, runs
from bench.subjects import Mailer, provider
from bench.table import Row, Series, at_least
from bench.traffic import SENDER_DOMAIN, Sink
from mailer.signing.keys import RSA, make_key
from mailer.signing.places import write_key_file

SELECTOR = "bench"


def measure(call: Call) -> list[Row]:
    say("signed")
    load = LOAD.of(call.size(LOAD.messages, 200))
    with ExitStack() as stack:
        sinks = [stack.enter_context(Sink()) for _ in range(3)]
        rooms = [stack.enter_context(call.room("signed")) for _ in range(3)]
        key_file = rooms[2] / "key.private"
        write_key_file(key_file, make_key(RSA))
        dkim = {"enabled": True, "domain": SENDER_DOMAIN, "selector": SELECTOR, "privateKeyPath": str(key_file)}
        signing = stack.enter_context(Mailer(call.program, rooms[0], [provider(sinks[0].port)], dkim=dkim))
        plain = stack.enter_context(Mailer(call.program, rooms[1], [provider(sinks[1].port)]))
        postfix = stack.enter_context(SigningPostfixRelay(sinks[2].port, rooms[2], key_file, SENDER_DOMAIN, SELECTOR))
        lines = [Line(signing, sinks[0]), Line(plain, sinks[1]), Line(postfix, sinks[2])]
        ours, unsigned, theirs = runs(call, lines, load)
    cpu, plain_cpu = (Series.of(run.cpu_ms for run in of) for of in (ours, unsigned))
    return [
        Row("rate, each message signed", "msg/s", rates(ours), "mailer, unsigned", rates(unsigned), at_least(0.7)),
        Row("rate, each message signed", "msg/s", rates(ours), postfix.name, rates(theirs), at_least(2)),
        Row("CPU per message, signed", "ms", cpu, "mailer, unsigned", plain_cpu),
    ]
