"""MTA-STS policies found, fetched and kept: over a real nameserver and a real web server with a certificate of a test CA."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from mailer.dns.lookup import Dns
from mailer.transport.https import Https
from mailer.transport.sts import Mode
from mailer.transport.sts_cache import REFRESH_SECONDS, RETRY_SECONDS, StsCache
from mailer.transport.tlsrpt import Result
from tests.support.certificates import Certificate, issue, make_ca
from tests.support.nameserver import Nameserver
from tests.support.web import Request, WebServer, page
from tests.transport.deliveries import Clock
from tests.transport.test_peer import serving

DAY_SECONDS = 86400


def policy(mode: str = "enforce", mx: str = "*.a.test", max_age: int = 7 * DAY_SECONDS) -> str:
    return f"version: STSv1\nmode: {mode}\nmx: {mx}\nmax_age: {max_age}\n"


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_ca(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def certificate(ca: Certificate) -> Certificate:
    return issue(ca, "mta-sts.a.test", "mta-sts.b.test")


@pytest.fixture
def nameserver() -> Iterator[Nameserver]:
    with Nameserver({"mta-sts.a.test": {"A": "127.0.0.1"}, "mta-sts.b.test": {"A": "127.0.0.1"}}) as server:
        yield server


@pytest.fixture
def web(certificate: Certificate) -> Iterator[WebServer]:
    with WebServer(lambda _request: page(policy()), serving(certificate)) as server:
        yield server


class World:
    """A domain a.test with a policy, and a cache that starts again on the same folder when told."""

    def __init__(self, nameserver: Nameserver, web: WebServer, ca: Certificate, folder: Path) -> None:
        self.nameserver, self.web, self.folder, self.clock = nameserver, web, folder, Clock()
        self._ca = ca
        self.announce("1")
        self.cache = self.restart()

    def announce(self, *ids: str, domain: str = "a.test") -> None:
        self.nameserver.remove(f"_mta-sts.{domain}")
        for policy_id in ids:
            self.nameserver.add(f"_mta-sts.{domain}", "TXT", f'"v=STSv1; id={policy_id};"', ttl=0)
        if hasattr(self, "dns"):
            self.dns.forget()

    def restart(self) -> StsCache:
        self.dns = Dns([self.nameserver.address], 2.0)
        https = Https(lambda _host: ["127.0.0.1"], lambda: self._ca.cert_file, self.web.port)
        self.cache = StsCache(self.folder, self.dns.txt, https, self.clock)
        self.cache.allow_private = True
        self.cache.load()
        return self.cache

    def mode(self) -> Mode | None:
        found = self.cache.find("a.test").policy
        return found.mode if found is not None else None


@pytest.fixture
def world(nameserver: Nameserver, web: WebServer, ca: Certificate, tmp_path: Path) -> World:
    return World(nameserver, web, ca, tmp_path / "sts")


def test_an_announced_policy_is_fetched_once(world: World) -> None:
    assert [world.mode(), world.mode()] == [Mode.ENFORCE] * 2
    [request] = world.web.requests
    assert (request.host, request.path) == ("mta-sts.a.test", "/.well-known/mta-sts.txt")


def test_a_domain_without_a_record_is_not_asked_for_a_policy(world: World) -> None:
    world.announce()
    assert world.mode() is None
    assert world.web.requests == []


def test_a_policy_outlives_a_restart(world: World) -> None:
    assert world.mode() is Mode.ENFORCE
    world.restart()
    assert world.mode() is Mode.ENFORCE
    assert len(world.web.requests) == 1


def test_a_new_id_fetches_the_policy_anew(world: World) -> None:
    assert world.mode() is Mode.ENFORCE
    world.web.answer = lambda _request: page(policy("testing"))
    assert world.mode() is Mode.ENFORCE
    world.announce("2")
    assert world.mode() is Mode.TESTING


@pytest.mark.parametrize("loss", ["no record", "two records", "DNS in trouble"])
def test_a_policy_that_is_valid_holds_though_its_record_is_gone(world: World, loss: str) -> None:
    assert world.mode() is Mode.ENFORCE
    world.announce(*{"no record": [], "two records": ["2", "3"]}.get(loss, ["1"]))
    if loss == "DNS in trouble":
        world.nameserver.refuse("_mta-sts.a.test")
    assert world.mode() is Mode.ENFORCE
    world.clock.now += 7 * DAY_SECONDS
    assert world.mode() is None


BROKEN: dict[str, Callable[[], Iterable[bytes]]] = {
    "not found": lambda: page("no", "404 Not Found"),
    "redirect": lambda: page("", "302 Found", more="Location: https://mta-sts.b.test/\r\n"),
    "a page": lambda: page(policy(), kind="text/html"),
    "too long": lambda: page("x: y\n" * 20_000),
    "no answer": list,
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_policy_that_cannot_be_fetched_leaves_the_one_before(world: World, fault: str) -> None:
    assert world.mode() is Mode.ENFORCE
    world.announce("2")
    world.web.answer = lambda _request: BROKEN[fault]()
    found = world.cache.find("a.test")
    assert found.policy is not None
    assert found.policy.mode is Mode.ENFORCE
    assert found.failure is Result.FETCH_ERROR


def test_a_policy_that_is_none_is_told_apart(world: World) -> None:
    world.web.answer = lambda _request: page("version: STSv9\n")
    found = world.cache.find("a.test")
    assert (found.policy, found.failure) == (None, Result.POLICY_INVALID)


def test_a_web_server_that_cannot_show_who_it_is_sets_no_policy(
    nameserver: Nameserver, ca: Certificate, tmp_path: Path
) -> None:
    shown = issue(make_ca(tmp_path / "other", "another authority"), "mta-sts.a.test")
    with WebServer(lambda _request: page(policy()), serving(shown)) as web:
        found = World(nameserver, web, ca, tmp_path / "sts").cache.find("a.test")
    assert (found.policy, found.failure) == (None, Result.WEBPKI_INVALID)


def test_a_failed_fetch_is_not_repeated_for_each_message(world: World) -> None:
    world.web.answer = lambda _request: page("no", "500 Internal Server Error")
    assert [world.cache.find("a.test").failure for _ in range(3)] == [Result.FETCH_ERROR] * 3
    assert len(world.web.requests) == 1
    world.clock.now += RETRY_SECONDS + 1
    world.web.answer = lambda _request: page(policy())
    assert world.mode() is Mode.ENFORCE


def test_a_fetch_for_one_domain_keeps_nobody_else_waiting(world: World) -> None:
    """Two ask for a.test, whose web server stalls: one request. b.test is answered meanwhile."""
    go_on = threading.Event()

    def answer(request: Request) -> Iterable[bytes]:
        if request.host == "mta-sts.a.test":
            go_on.wait(20)
        return page(policy(mx="*.a.test"))

    world.web.answer = answer
    world.announce("1", domain="b.test")
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(world.cache.find("a.test").policy)) for _ in range(2)]
    for thread in threads:
        thread.start()
    world.web.wait_for(1)
    assert world.cache.find("b.test").policy is not None
    assert found == []
    go_on.set()
    for thread in threads:
        thread.join(20)
    assert found[0] is not None
    assert found[0] == found[1]
    assert sorted(r.host for r in world.web.requests) == ["mta-sts.a.test", "mta-sts.b.test"]


def test_a_policy_in_use_is_fetched_again_before_it_runs_out(world: World) -> None:
    assert [world.mode(), world.mode()] == [Mode.ENFORCE] * 2
    world.clock.now += REFRESH_SECONDS
    world.cache.step(world.clock.now)
    assert len(world.web.requests) == 2
    world.announce()  # an attacker who suppresses the record from now on gains nothing for the whole of max_age
    world.clock.now += 7 * DAY_SECONDS - 1
    assert world.mode() is Mode.ENFORCE


def test_a_policy_that_nobody_uses_is_forgotten_with_its_file(world: World) -> None:
    assert world.mode() is Mode.ENFORCE
    assert len(list(world.folder.iterdir())) == 1
    world.clock.now += 8 * DAY_SECONDS
    world.cache.step(world.clock.now)
    assert list(world.folder.iterdir()) == []
    assert len(world.web.requests) == 1


def test_a_clock_set_back_makes_a_policy_be_fetched_again(world: World) -> None:
    assert world.mode() is Mode.ENFORCE
    world.clock.now -= 10 * DAY_SECONDS
    assert world.mode() is Mode.ENFORCE
    assert len(world.web.requests) == 2


@pytest.mark.parametrize(
    "content",
    [b"", b"\0\xff", b"[]", b"{}", b'{"domain": 5, "id": "1", "policy": "x", "fetched_at": 0}', b"[" * 60_000],
)
def test_a_file_that_cannot_be_read_is_as_good_as_none(world: World, content: bytes) -> None:
    assert world.mode() is Mode.ENFORCE
    [path] = world.folder.iterdir()
    path.write_bytes(content)
    world.restart()
    assert world.mode() is Mode.ENFORCE
    assert len(world.web.requests) == 2
    assert json.loads(path.read_bytes())["domain"] == "a.test"


def test_a_file_under_the_name_of_another_domain_counts_for_neither(world: World) -> None:
    assert world.mode() is Mode.ENFORCE
    [path] = world.folder.iterdir()
    path.rename(path.with_name("0" * 40 + ".json"))
    world.restart()
    assert world.mode() is Mode.ENFORCE
    assert len(world.web.requests) == 2


def test_a_policy_that_cannot_be_stored_serves_from_memory(world: World) -> None:
    world.folder.write_text("a file where the folder should be")
    assert [world.mode(), world.mode()] == [Mode.ENFORCE] * 2
    assert len(world.web.requests) == 1
