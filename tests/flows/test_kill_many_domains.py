"""``kill -9`` while messages are under way to several domains at once: each recipient gets what was promised, whole, and hardly
any twice (spec 4). One domain is dead and one defers every fifth message, so some branches of a message end long after others.
"""

from __future__ import annotations

import random
import re
import smtplib
import threading
from collections import Counter
from pathlib import Path

from tests.flows.parking import counts
from tests.support.internet import Internet
from tests.support.relay import FAST_RETRIES, WAIT_SECONDS, Relay, eventually, submit
from tests.support.upstream import Upstream
from tests.support.upstream_script import Said

WORKERS = 3
IN_DOUBT_A_CRASH = 4 * WORKERS
DOMAINS = 8
CRASHES = 5
SESSIONS = 3
_ID = re.compile(rb" id ([0-9a-z]+)")


class Promises:
    """The recipients of each message that was answered 250, by its id."""

    def __init__(self) -> None:
        self.news = threading.Condition()  # guards the next
        self.recipients: dict[str, list[str]] = {}

    def add(self, message_id: str, recipients: list[str]) -> None:
        with self.news:
            self.recipients[message_id] = recipients
            self.news.notify_all()

    def wait_for(self, more: int) -> None:
        with self.news:
            wanted = len(self.recipients) + more
            assert self.news.wait_for(lambda: len(self.recipients) >= wanted, WAIT_SECONDS), "no more come"


def session(number: int, relay: Relay, promises: Promises, serves: threading.Event, ends: threading.Event) -> None:
    draw = random.Random(number)
    while not ends.is_set():
        serves.wait(WAIT_SECONDS)
        try:
            with relay.connect() as client:
                while serves.is_set() and not ends.is_set():
                    domains = draw.sample(range(DOMAINS), draw.randint(1, DOMAINS))
                    recipients = [f"to@d{domain}.test" for domain in domains]
                    promises.add(submit(client, f"session {number}", recipients), recipients)
        except (OSError, smtplib.SMTPException):
            continue  # the relay died, or said so


def arrivals(upstreams: list[Upstream]) -> Counter[tuple[str, str]]:
    """How often each recipient got each message."""
    found: Counter[tuple[str, str]] = Counter()
    for upstream in upstreams:
        for transaction in upstream.messages:
            message_id = _ID.search(transaction.data)
            assert message_id is not None
            found.update((message_id[1].decode(), recipient) for recipient in transaction.recipients)
    return found


def test_crashes_lose_no_recipient_of_messages_to_several_domains_and_repeat_few(tmp_path: Path) -> None:
    moods, moments, promises = random.Random(1), random.Random(2), Promises()

    def mood(_: str) -> Said | None:
        return "451 4.3.0 busy" if moods.random() < 0.2 else None

    serves, ends = threading.Event(), threading.Event()
    serves.set()
    with Internet() as internet:
        upstreams = [internet.domain(f"d{number}.test")[0] for number in range(DOMAINS)]
        upstreams[3].on("dot", mood)
        upstreams[5].on("connect", "421 4.3.2 not now")
        relay = Relay(
            tmp_path,
            workerCount=WORKERS,
            directDelivery={"enabled": True, "port": internet.port, "allowPrivate": True, "retryCount": 1},
            dns={"nameservers": [internet.dns.address]},
            retry={**FAST_RETRIES, "failedRetryInterval": 1},
        )
        with relay:
            threads = [threading.Thread(target=session, args=(n, relay, promises, serves, ends)) for n in range(SESSIONS)]
            for thread in threads:
                thread.start()
            for _ in range(CRASHES):
                promises.wait_for(moments.randint(1, 60))
                serves.clear()
                relay.kill()
                relay.start()
                serves.set()
            promises.wait_for(20)
            ends.set()
            for thread in threads:
                thread.join(WAIT_SECONDS)
            upstreams[3].on("dot")
            upstreams[5].on("connect")
            eventually(lambda: relay.http("/admin/retry-failed", "POST")[0] == 200 and counts(relay)[1:] == (0, 0), "the end")
            assert relay.metrics()["failed_emails"] == 0
    times = arrivals(upstreams)
    owed = {(message_id, to) for message_id, recipients in promises.recipients.items() for to in recipients}
    assert sorted(owed - set(times)) == []
    assert times.total() - len(times) <= CRASHES * IN_DOUBT_A_CRASH
