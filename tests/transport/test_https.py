"""Requests to hosts that strangers chose: what they may do to us, and that they may not."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from mailer.config.problems import ConfigError
from mailer.transport.https import MAX_BODY_BYTES, Https, HttpsError, Response
from tests.support.certificates import Certificate, issue, make_ca
from tests.support.web import Request, WebServer, page
from tests.transport.test_peer import serving

HOST = "mta-sts.a.test"


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_ca(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def certificate(ca: Certificate) -> Certificate:
    return issue(ca, HOST)


@pytest.fixture
def web(certificate: Certificate) -> Iterator[WebServer]:
    with WebServer(lambda _request: page("hello"), serving(certificate)) as server:
        yield server


def client(web: WebServer, ca: Certificate, *addresses: str, seconds: float = 20.0) -> Https:
    return Https(lambda _host: addresses or ("127.0.0.1",), lambda: ca.cert_file, web.port, seconds)


def test_a_page_is_fetched_over_a_verified_connection(web: WebServer, ca: Certificate) -> None:
    assert client(web, ca).get(HOST, "/a", True) == Response(200, "text/plain", b"hello")
    assert [(r.method, r.host, r.path) for r in web.requests] == [("GET", HOST, "/a")]


def test_a_body_is_handed_in(web: WebServer, ca: Certificate) -> None:
    assert client(web, ca).post(HOST, "/in?x=1", "application/tlsrpt+gzip", b"\x1f\x8b\0", True).status == 200
    [request] = web.requests
    assert (request.method, request.path, request.body) == ("POST", "/in?x=1", b"\x1f\x8b\0")
    assert "Content-Type: application/tlsrpt+gzip" in request.head


def test_a_response_in_chunks_is_put_together(web: WebServer, ca: Certificate) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: TEXT/Plain; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
    web.answer = lambda _request: [head, b"3\r\nabc\r\n", b"2\r\nde\r\n0\r\n\r\n"]
    assert client(web, ca).get(HOST, "/", True) == Response(200, "text/plain", b"abcde")


@pytest.mark.parametrize("fault", ["unknown authority", "wrong name", "expired"])
def test_a_certificate_that_is_not_the_hosts_ends_it(tmp_path: Path, ca: Certificate, fault: str) -> None:
    authority = make_ca(tmp_path, "another authority") if fault == "unknown authority" else ca
    shown = issue(authority, "www.a.test" if fault == "wrong name" else HOST, expired=fault == "expired")
    with WebServer(lambda _request: page("hello"), serving(shown)) as web:
        with pytest.raises(HttpsError, match="certificate") as raised:
            client(web, ca).get(HOST, "/", True)
        assert raised.value.is_certificate
        assert web.requests == []


def test_a_redirect_is_an_answer_and_is_not_followed(web: WebServer, ca: Certificate) -> None:
    web.answer = lambda _request: page("", "301 Moved", more="Location: https://mta-sts.a.test/elsewhere\r\n")
    assert client(web, ca).get(HOST, "/", True).status == 301
    assert len(web.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        [],
        [b"220 mail.a.test ESMTP\r\n"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ntoo short"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\nabc"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nhello"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffffff\r\nabc"],
        [b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(500)) + b"\r\n"],
        [b"HTTP/1.1 200 OK\r\n\r\n", b"x" * (MAX_BODY_BYTES + 1)],
        [b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 10_000_000],
        [b"\0" * 4096],
    ],
    ids=[
        "nothing", "not HTTP", "cut short", "chunks cut short", "more than there are numbers", "such a chunk",
        "too many header lines", "too long", "far too long", "zeros",
    ],
)
def test_what_is_no_proper_response_is_an_error(web: WebServer, ca: Certificate, answer: list[bytes]) -> None:
    web.answer = lambda _request: answer
    with pytest.raises(HttpsError, match=HOST):
        client(web, ca).get(HOST, "/", True)


def test_a_host_that_drips_its_answer_is_left_when_the_time_is_over(web: WebServer, ca: Certificate) -> None:
    over = threading.Event()

    def drip(_request: Request) -> Iterable[bytes]:
        yield b"HTTP/1.1 200 OK\r\n\r\n"
        for _ in itertools.takewhile(lambda _: not over.wait(0.01), itertools.count()):
            yield b"x"

    web.answer = drip
    with pytest.raises(HttpsError, match="time-out"):
        client(web, ca, seconds=0.3).get(HOST, "/", True)
    over.set()


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.169.254", "fd00::1"])
def test_a_private_address_is_not_talked_to(web: WebServer, ca: Certificate, address: str) -> None:
    with pytest.raises(HttpsError, match="private"):
        client(web, ca, address).get(HOST, "/", False)


def test_a_host_without_addresses_is_an_error(ca: Certificate) -> None:
    with pytest.raises(HttpsError, match="no address"):
        Https(lambda _host: (), lambda: ca.cert_file).get(HOST, "/", True)


def test_a_refused_connection_is_an_error(ca: Certificate, certificate: Certificate) -> None:
    with WebServer(lambda _request: page("hello"), serving(certificate)) as web:
        gone = client(web, ca)
    with pytest.raises(HttpsError, match="refused"):
        gone.get(HOST, "/", True)


def test_without_a_trust_store_nothing_is_asked(web: WebServer) -> None:
    def none() -> Path:
        raise ConfigError(["no certificate store found"])

    with pytest.raises(HttpsError, match="certificate store"):
        Https(lambda _host: ("127.0.0.1",), none, web.port).get(HOST, "/", True)
    assert web.requests == []
