"""One message of 1,000 recipients: recipients served a second, mailer with batches of 100 and no delay between them.

Timed: from the start of smtp-source until the upstream has the content of the transaction that brings the number
of recipients to 1,000. Postfix runs with its defaults (50 recipients a transaction, several at once).
"""

from __future__ import annotations

import os
import statistics
import time
from contextlib import ExitStack

from bench.call import Call, say
from bench.peers import PostfixRelay
from bench.receiver import Receiver
from bench.subjects import Mailer, Relay, provider
from bench.table import Row, Series, at_least
from bench.traffic import Load

RECIPIENTS = 1000  # also mailer's maxRecipients, and Postfix's smtpd_recipient_limit
MESSAGES = 5  # one after the other in each round; their median is the round's
LIMIT_SECONDS = 300.0


def measure(call: Call) -> list[Row]:
    say("recipients")
    load = Load(1, sessions=1, size_bytes=4096, recipients=RECIPIENTS)
    with ExitStack() as stack:
        folder = stack.enter_context(call.room("recipients"))
        upstreams = [stack.enter_context(Receiver()) for _ in range(2)]
        settings: dict[str, object] = {"batchSize": 100, "batchDelay": 0}
        mailer = stack.enter_context(Mailer(call.program, folder, [provider(upstreams[0].port)], **settings))
        postfix = stack.enter_context(PostfixRelay(upstreams[1].port))

        def measured(pair: tuple[Relay, Receiver]) -> float:
            relay, upstream = pair
            rate = statistics.median(_one(relay, upstream, load) for _ in range(call.size(MESSAGES, 1)))
            say(f"  {relay.name}: {rate:.0f} recipients/s")
            return rate

        pairs: list[tuple[Relay, Receiver]] = [(mailer, upstreams[0]), (postfix, upstreams[1])]
        for relay, upstream in pairs:
            _one(relay, upstream, load)
        ours, theirs = call.alternate(pairs, measured)
    figure = "a message of 1,000 recipients"
    return [Row(figure, "recipients/s", Series.of(ours), postfix.name, Series.of(theirs), at_least(3))]


def _one(relay: Relay, upstream: Receiver, load: Load) -> float:
    """Recipients a second."""
    relay.wait_until_idle()
    os.sync()
    before = upstream.count
    begun = time.monotonic()
    load.send_to(relay.port, LIMIT_SECONDS)
    return load.recipients / (upstream.wait_for(before + load.recipients, LIMIT_SECONDS) - begun)
