"""TLS policies under many threads: one fetch a domain at a time, each with its own policy; no result counted twice or lost."""

from __future__ import annotations

import collections
import threading
from pathlib import Path

from mailer.dns.lookup import Answer, Status
from mailer.transport.https import Https, Response
from mailer.transport.sts_cache import StsCache
from mailer.transport.tlsrpt import Detail, PolicyName, Result, Tally
from tests.stress.together import THREADS, many
from tests.transport.deliveries import Clock

DOMAINS = 8
ROUNDS = 300


class Fetched(Https):
    """Policies without a network: each names its domain, and a fetch that runs beside another of its domain is noted."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards all below
        self._under_way: set[str] = set()
        self.count: collections.Counter[str] = collections.Counter()
        self.beside_another: list[str] = []

    def get(self, host: str, path: str, allow_private: bool) -> Response:
        with self._lock:
            self.count[host] += 1
            if host in self._under_way:
                self.beside_another.append(host)
            self._under_way.add(host)
        text = f"version: STSv1\nmode: enforce\nmx: mx.{host.removeprefix('mta-sts.')}\nmax_age: 86400\n"
        with self._lock:
            self._under_way.discard(host)
        return Response(200, "text/plain", text.encode())


def test_each_policy_is_fetched_once_for_each_id_and_is_that_of_its_domain(tmp_path: Path) -> None:
    ids = {f"{number}.test": 0 for number in range(DOMAINS)}
    fetched = Fetched()

    def txt(name: str) -> Answer[str]:
        domain = name.removeprefix("_mta-sts.")
        return Answer(Status.FOUND, (f"v=STSv1; id={ids[domain]}",), False, "", name)

    clock = Clock()
    cache = StsCache(tmp_path / "sts", txt, fetched, clock)
    wrong: list[object] = []

    def ask(number: int) -> None:
        for round_number in range(ROUNDS):
            domain = f"{(number + round_number) % DOMAINS}.test"
            found = cache.find(domain).policy
            if found is None or found.mx != (f"mx.{domain}",):
                wrong.append((domain, found))
            if round_number % 50 == 0:
                cache.step(clock.now)

    many(ask)
    assert (wrong, fetched.beside_another) == ([], [])
    assert set(fetched.count.values()) == {1}
    for domain in ids:
        ids[domain] = 1
    many(ask)
    assert (wrong, fetched.beside_another) == ([], [])
    assert set(fetched.count.values()) == {2}
    again = StsCache(tmp_path / "sts", txt, fetched, clock)
    again.load()
    assert {domain: again.find(domain).policy for domain in ids} == {domain: cache.find(domain).policy for domain in ids}
    assert set(fetched.count.values()) == {2}, "what is on disk is whole, and of the last id"


def test_every_session_is_counted_once_though_the_counts_are_saved_meanwhile(tmp_path: Path) -> None:
    clock = Clock(20_000 * 86400.0)
    tally = Tally(tmp_path / "tlsrpt.json", clock)
    tally.is_counting = True
    told: collections.Counter[str] = collections.Counter()

    def work(number: int) -> None:
        policy = PolicyName(f"{number % DOMAINS}.test")
        for round_number in range(ROUNDS):
            tally.success(policy)
            tally.failure(policy, Detail(Result.EXPIRED, f"mx{round_number % 5}.test"))
            if number == 0 and round_number % 20 == 0:
                tally.save()

    many(work)
    clock.now += 86400
    for day, domain in tally.domains_before(20_001):
        for counts in tally.of(day, domain).values():
            told["successes"] += counts.successes
            told["failures"] += counts.failures
            told["details"] += sum(counts.details.values())
        tally.forget(day, domain)
    assert told == {"successes": THREADS * ROUNDS, "failures": THREADS * ROUNDS, "details": THREADS * ROUNDS}
    assert tally.domains_before(20_001) == []
