"""One message to 1,000 recipients at 200 domains, straight to their servers: what 20 dead domains cost the recipients at the
others.

Timed: from the start of the submission until a server has the content for the last of the 900 recipients at the 180 living
domains. The peer is the same message without the dead domains, in the same call. Half of the dead servers refuse
connections, half take them and say nothing. Each round has domains of its own, so that nothing is known of any.
All servers are one, at one address: it does next to nothing for a message (receiver.py).
"""

from __future__ import annotations

import os
import smtplib
import socket
import statistics
import time
from contextlib import ExitStack

from bench.call import Call, say
from bench.names import Names
from bench.receiver import Receiver
from bench.subjects import Mailer
from bench.table import Row, Series, at_most

LIVING = 180
DEAD = 20
EACH = 5  # recipients at a domain
MESSAGES = 3  # of each kind in a round; their median is the round's
LIMIT_SECONDS = 120.0
REFUSING, SILENT = "127.0.7.1", "127.0.7.2"  # addresses without a server, and with one that says nothing
CONTENT = b"Subject: to all\r\n\r\n" + (b"X" * 78 + b"\r\n") * 50


def measure(call: Call) -> list[Row]:
    say("domains")
    with ExitStack() as stack:
        folder = stack.enter_context(call.room("domains"))
        servers = {"living.test": "127.0.0.1", "refusing.test": REFUSING, "silent.test": SILENT}
        names = stack.enter_context(Names(folder, servers))
        upstream = stack.enter_context(Receiver())
        stack.enter_context(socket.create_server((SILENT, upstream.port), backlog=1000))
        direct = {"enabled": True, "port": upstream.port, "allowPrivate": True}
        settings: dict[str, object] = {"directDelivery": direct, "dns": {"nameservers": [names.address]}, "forwardSMTP": False}
        mailer = stack.enter_context(Mailer(call.program, folder, [], **settings))
        sent = iter(range(1, 1000))

        def measured(dead: int) -> float:
            each = [_one(mailer, upstream, next(sent), dead) for _ in range(call.size(MESSAGES, 1))]
            say(f"  {dead} dead domains: {statistics.median(each):.3f} s")
            return statistics.median(each)

        measured(0)
        with_dead, without = call.alternate((DEAD, 0), measured)
    figure = f"{LIVING * EACH} recipients at {LIVING} domains, beside {DEAD} dead ones"
    return [Row(figure, "s", Series.of(with_dead), "without", Series.of(without), at_most(1.2))]


def _one(mailer: Mailer, upstream: Receiver, number: int, dead: int) -> float:
    """Seconds."""
    domains = []
    for place in range(LIVING + dead):
        is_dead = dead and place % ((LIVING + dead) // dead) == 0  # among the others, as in any list of addresses
        server = ("refusing", "silent")[place % 20 // 10] if is_dead else "living"
        domains.append(f"d{place}.m{number}.{server}.test")
    os.sync()
    before = upstream.count
    begun = time.monotonic()
    with smtplib.SMTP("127.0.0.1", mailer.port, "client.test", LIMIT_SECONDS) as client:
        client.sendmail("sender@bench.test", [f"user{i}@{domain}" for domain in domains for i in range(EACH)], CONTENT)
    return upstream.wait_for(before + LIVING * EACH, LIMIT_SECONDS) - begun
