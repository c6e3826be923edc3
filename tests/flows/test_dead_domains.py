"""Domains whose servers are not there: they hold up neither the other recipients of a message nor other messages.

All is shown by order: nothing answers for the dead ones before the tests end, and everything else arrives meanwhile.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.internet import Internet
from tests.support.relay import Relay, eventually
from tests.support.upstream import Upstream

DEAD = 40  # more than twice the threads that work
LIVE = 10


@pytest.fixture
def internet() -> Iterator[Internet]:
    with Internet() as internet:
        yield internet


def silent(internet: Internet, stack: contextlib.ExitStack) -> None:
    """``DEAD`` domains whose servers take the connection and never say a word."""
    for number in range(DEAD):
        address = internet.address()
        stack.enter_context(socket.create_server((address, internet.port)))
        internet.dns.add(f"mx.dead{number}.test", "A", address)
        internet.dns.add(f"dead{number}.test", "MX", f"10 mx.dead{number}.test")


def live(internet: Internet) -> list[Upstream]:
    return [internet.domain(f"live{number}.test")[0] for number in range(LIVE)]


def relay_to(folder: Path, internet: Internet) -> Relay:
    direct = {"enabled": True, "port": internet.port, "allowPrivate": True}
    return Relay(folder, [], directDelivery=direct, dns={"nameservers": [internet.dns.address], "timeout": 30})


def send_past_the_dead(relay: Relay, upstreams: list[Upstream]) -> None:
    """A message to each dead domain and then to each live one, which all arrive."""
    for number in range(DEAD):
        relay.send("into the void", f"x@dead{number}.test")
    for number in range(LIVE):
        relay.send("hello", f"x@live{number}.test")
    for upstream in upstreams:
        upstream.wait_for(1)


def test_dead_domains_do_not_hold_up_the_other_recipients_of_a_message(tmp_path: Path, internet: Internet) -> None:
    upstreams = live(internet)
    with contextlib.ExitStack() as stack:
        silent(internet, stack)
        with relay_to(tmp_path, internet) as relay:
            dead = [f"x@dead{number}.test" for number in range(DEAD)]
            relay.send("to all", dead + [f"x@live{number}.test" for number in range(LIVE)])
            for upstream in upstreams:
                upstream.wait_for(1)
            relay.kill()


def test_mail_to_dead_domains_does_not_hold_up_other_mail(tmp_path: Path, internet: Internet) -> None:
    upstreams = live(internet)
    with contextlib.ExitStack() as stack:
        silent(internet, stack)
        with relay_to(tmp_path, internet) as relay:
            send_past_the_dead(relay, upstreams)
            relay.kill()


def test_domains_whose_dns_says_nothing_do_not_hold_up_other_mail(tmp_path: Path, internet: Internet) -> None:
    upstreams = live(internet)
    for number in range(DEAD):
        internet.dns.swallow(f"dead{number}.test")
    with relay_to(tmp_path, internet) as relay:
        send_past_the_dead(relay, upstreams)
        eventually(lambda: relay.metrics()["queued_emails"] == DEAD, "the record of what was delivered")
        relay.kill()


def test_threads_that_waited_for_dead_domains_end(tmp_path: Path, internet: Internet) -> None:
    live(internet)
    for number in range(DEAD):
        internet.dns.hold(f"dead{number}.test")

    def threads() -> int:
        return len(list(Path(f"/proc/{relay.pid}/task").iterdir()))

    with relay_to(tmp_path, internet) as relay:
        relay.send("hello", "x@live0.test")
        relay.send("into the void", [f"x@dead{number}.test" for number in range(DEAD)])
        eventually(lambda: threads() > DEAD, "a thread for each domain that says nothing")
        internet.dns.release()
        eventually(lambda: threads() < DEAD, "the end of the threads")
