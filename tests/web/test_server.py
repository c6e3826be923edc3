"""The HTTP port over real sockets: what it serves, whom, and what it survives."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import socket
import threading
from collections.abc import Iterator
from http import HTTPStatus
from ipaddress import ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailer.config.schema import Config, SecurityConfig
from mailer.spool.store import SpoolError
from mailer.web.connection import Patience
from mailer.web.guard import Guard
from mailer.web.request import MAX_BODY_BYTES
from mailer.web.server import MAX_CONNECTIONS, WebListenError, WebServer
from tests.web.program import Program, config, serving

TIMEOUT_SECONDS = 10.0
IMPATIENT = Patience(idle=0.3, request=0.3, answer=5.0, linger=0.2)


@pytest.fixture
def program() -> Program:
    return Program()


@pytest.fixture
def server(program: Program) -> Iterator[WebServer]:
    with serving(program) as running:
        yield running


def connect(server: WebServer, host: str = "127.0.0.1") -> http.client.HTTPConnection:
    return http.client.HTTPConnection(host, server.port, timeout=TIMEOUT_SECONDS)


def ask(
    server: WebServer, method: str, path: str, fields: dict[str, str] | None = None, body: bytes | None = None
) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = connect(server)
    try:
        connection.request(method, path, body, fields or {})
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def say(server: WebServer, data: bytes, half_close: bool = False) -> bytes:
    """Everything that the server answers to these bytes until it hangs up."""
    with socket.create_connection(("127.0.0.1", server.port), TIMEOUT_SECONDS) as client:
        with contextlib.suppress(ConnectionError):  # it may hang up before it has read all
            client.sendall(data)
            if half_close:
                client.shutdown(socket.SHUT_WR)
        return read_all(client)


def read_all(client: socket.socket) -> bytes:
    answer = b""
    try:
        while piece := client.recv(65536):
            answer += piece
    except ConnectionResetError:
        pass
    return answer


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def test_port_zero_picks_a_port_and_logs_it(program: Program, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), serving(program) as server:
        assert server.port > 0
        assert f"http.listening host=127.0.0.1 port={server.port}" in caplog.text


def test_taken_port_is_an_error_that_names_the_key(program: Program, server: WebServer) -> None:
    """G12: never another port, silently or not."""
    second = WebServer(Config(health_check_port=server.port), program)
    with pytest.raises(WebListenError, match=rf"127\.0\.0\.1:{server.port}.*taken.*healthCheckPort"):
        second.start()
    assert second.port == 0


def test_address_of_another_machine_is_an_error_that_names_the_key(program: Program) -> None:
    with pytest.raises(WebListenError, match="healthCheckHost"):
        WebServer(config(health_check_host="192.0.2.1"), program).start()


def test_ipv6_loopback_is_served(program: Program) -> None:
    with serving(program, config(health_check_host="::1")) as server:
        connection = connect(server, "::1")
        connection.request("GET", "/health")
        assert connection.getresponse().status == HTTPStatus.OK
        connection.close()


def test_connection_is_kept_for_further_requests(server: WebServer) -> None:
    connection = connect(server)
    local_ports = set()
    for path in ("/health", "/metrics", "/livez", "/nowhere"):
        connection.request("GET", path)
        connection.getresponse().read()
        assert connection.sock is not None
        local_ports.add(connection.sock.getsockname())
    connection.close()
    assert len(local_ports) == 1


def test_pipelined_requests_are_answered_in_order(server: WebServer) -> None:
    request = b"GET /%s HTTP/1.1\r\nHost: localhost\r\n%s\r\n"
    answer = say(server, request % (b"livez", b"") + request % (b"nowhere", b"Connection: close\r\n"))
    assert answer.index(b"200 OK") < answer.index(b"404 Not Found")


def test_head_gets_the_fields_of_get_and_no_body(server: WebServer) -> None:
    _, get_fields, body = ask(server, "GET", "/health")
    status, fields, nothing = ask(server, "HEAD", "/health")
    assert (status, nothing) == (HTTPStatus.OK, b"")
    assert fields["Content-Length"] == get_fields["Content-Length"] == str(len(body))


def test_every_answer_forbids_sniffing_and_storing(server: WebServer) -> None:
    for path in ("/health", "/nowhere"):
        _, fields, _ = ask(server, "GET", path)
        assert fields["X-Content-Type-Options"] == "nosniff"
        assert fields["Cache-Control"] == "no-store"
        assert "Python" not in fields["Server"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/health", "GET, HEAD"),
        ("DELETE", "/metrics", "GET, HEAD"),
        ("GET", "/admin/retry-failed", "POST"),
        ("HEAD", "/admin/retry-failed", "POST"),
        ("OPTIONS", "/livez", "GET, HEAD"),
    ],
)
def test_wrong_method_is_told_the_right_ones(server: WebServer, method: str, path: str, allowed: str) -> None:
    status, fields, _ = ask(server, method, path)
    assert status == HTTPStatus.METHOD_NOT_ALLOWED
    assert fields["Allow"] == allowed


def test_errors_have_one_form(server: WebServer) -> None:
    for answer in (
        ask(server, "GET", "/nowhere"),
        ask(server, "PUT", "/health"),
        ask(server, "GET", "/health", {"Host": "evil.example"}),
    ):
        content = json.loads(answer[2])
        assert content["status"] == "error"
        assert content["error"]
        assert content["timestamp"] == "2026-09-21T14:14:20.000Z"


def test_foreign_host_and_origin_are_refused_before_anything_is_done(program: Program, server: WebServer) -> None:
    """G12: the Go program's admin calls take any Host and Origin."""
    for fields in ({"Host": "attacker.example"}, {"Origin": "http://attacker.example"}, {"Origin": "null"}):
        status, _, _ = ask(server, "POST", "/admin/retry-failed", fields)
        assert status == HTTPStatus.FORBIDDEN
    assert program.retries == 0


def test_absolute_target_counts_as_host(server: WebServer) -> None:
    assert (
        status_of(say(server, b"GET http://evil.example/livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")) == 403
    )
    assert status_of(say(server, b"GET http://localhost/livez HTTP/1.1\r\nHost: evil\r\nConnection: close\r\n\r\n")) == 200


def test_reload_changes_who_may_ask(program: Program, server: WebServer) -> None:
    fields = {"Host": "mail.intranet"}
    assert ask(server, "GET", "/health", fields)[0] == HTTPStatus.FORBIDDEN
    server.configure(config(health_check_allowed_hosts=("mail.intranet",)))
    assert ask(server, "GET", "/health", fields)[0] == HTTPStatus.OK


def test_reload_does_not_move_the_port(server: WebServer) -> None:
    port = server.port
    server.configure(config(health_check_host="127.0.0.2"))
    assert server.port == port


def test_peer_outside_the_networks_gets_403_unheard(program: Program) -> None:
    """Every address of this machine is loopback to itself, so the rule is replaced by one that admits nobody."""

    class Nobody:
        def admits(self, address: str) -> bool:
            return False

    with serving(program) as server:
        object.__setattr__(server._site.guard, "access", Nobody())
        with socket.create_connection(("127.0.0.1", server.port), TIMEOUT_SECONDS) as client:
            answer = read_all(client)
    assert status_of(answer) == HTTPStatus.FORBIDDEN
    assert b"security.allowedNetworks" in answer


def test_networks_of_the_configuration_are_admitted() -> None:
    guard = Guard.of(config(security=SecurityConfig(allowed_networks=(ip_network("10.1.0.0/16"),))))
    assert guard.admits("10.1.2.3")
    assert guard.admits("::ffff:10.1.2.3")
    assert guard.admits("127.0.0.1")
    assert not guard.admits("10.2.0.1")
    assert not guard.admits("garbage")


POST = b"POST /admin/retry-failed HTTP/1.1\r\nHost: localhost\r\n"

MALFORMED = {
    "no HTTP": (b"GARBAGE\r\n\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n", 400),
    "SMTP": (b"EHLO localhost\r\n", 400),
    "HTTP/2": (b"GET /livez HTTP/2.0\r\n\r\n", 505),
    "two spaces": (b"GET  /livez HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "no slash": (b"GET livez HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "no Host": (b"GET /livez HTTP/1.1\r\n\r\n", 400),
    "two Hosts": (b"GET /livez HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400),
    "folded field": (b"GET /livez HTTP/1.1\r\nHost: localhost\r\n folded: x\r\n\r\n", 400),
    "space before colon": (b"GET /livez HTTP/1.1\r\nHost : localhost\r\n\r\n", 400),
    "NUL in a field": (b"GET /livez HTTP/1.1\r\nHost: local\x00host\r\n\r\n", 400),
    "bare CR": (b"GET /livez HTTP/1.1\r\nHost: localhost\rX: y\r\n\r\n", 400),
    "long line": (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
    "long field": (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 17000 + b"\r\n\r\n", 431),
    "many fields": (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: a\r\n" * 200 + b"\r\n", 431),
    "announced too large": (POST + b"Content-Length: 100000\r\n\r\n", 413),
    "negative length": (POST + b"Content-Length: -1\r\n\r\n", 400),
    "two lengths": (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
    "length and chunks": (POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    "unknown coding": (POST + b"Transfer-Encoding: gzip\r\n\r\n", 501),
    "chunk too large": (POST + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFF\r\n", 413),
    "chunk without size": (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    "chunks in HTTP/1.0": (b"POST /admin/retry-failed HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_or_oversized_request_is_refused_and_the_connection_ends(
    program: Program, server: WebServer, name: str
) -> None:
    data, status = MALFORMED[name]
    answer = say(server, data)
    assert status_of(answer) == status
    assert b"Connection: close" in answer
    assert answer.count(b"Server: mailer") == 1
    assert program.retries == 0


def test_http_1_0_probe_without_host_is_answered_and_hung_up_on(server: WebServer) -> None:
    assert status_of(say(server, b"GET /livez HTTP/1.0\r\n\r\n")) == HTTPStatus.OK


@pytest.mark.parametrize(
    "data",
    [
        b"Content-Length: 5\r\n\r\nhello",
        b"Transfer-Encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: x\r\n\r\n",
        b"\r\n",
    ],
)
def test_body_is_read_and_ignored(program: Program, server: WebServer, data: bytes) -> None:
    """What follows the body is the next request, so none of the body can be taken for one."""
    program.parked = 3
    head = b"POST /admin/retry-failed HTTP/1.1\r\nHost: localhost\r\n"
    answer = say(server, head + data + b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert answer.count(b"HTTP/1.1 200 OK") == 2
    assert b'"count": 3' in answer
    assert program.retries == 1


def test_largest_body_is_read(server: WebServer) -> None:
    assert ask(server, "POST", "/admin/retry-failed", body=b"x" * MAX_BODY_BYTES)[0] == HTTPStatus.OK
    assert ask(server, "POST", "/admin/retry-failed", body=b"x" * (MAX_BODY_BYTES + 1))[0] == HTTPStatus.REQUEST_ENTITY_TOO_LARGE


def test_client_that_sends_too_much_still_gets_the_answer(server: WebServer) -> None:
    """Its bytes are read and dropped for a while: closing on them would reset the connection in its face."""
    size = 3 * MAX_BODY_BYTES
    with socket.socket() as client:
        client.settimeout(TIMEOUT_SECONDS)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        client.connect(("127.0.0.1", server.port))
        client.sendall(POST + b"Content-Length: %d\r\n\r\n" % size + bytes(size))
        assert status_of(read_all(client)) == HTTPStatus.REQUEST_ENTITY_TOO_LARGE


def test_client_that_waits_for_continue_is_told_to_go_on(server: WebServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), TIMEOUT_SECONDS) as client:
        client.sendall(POST + b"Expect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n")
        assert client.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"{}")
        assert status_of(read_all(client)) == HTTPStatus.OK


def test_fault_of_the_spool_is_reported(program: Program, server: WebServer) -> None:
    program.fault = SpoolError("the spool is closed")
    status, _, body = ask(server, "POST", "/admin/retry-failed")
    assert status == HTTPStatus.SERVICE_UNAVAILABLE
    assert json.loads(body)["error"] == "the spool is closed"


def test_unforeseen_fault_is_a_500_without_details_and_the_server_goes_on(
    program: Program, server: WebServer, caplog: pytest.LogCaptureFixture
) -> None:
    program.fault = ZeroDivisionError("secret detail")
    status, _, body = ask(server, "POST", "/admin/retry-failed")
    assert status == HTTPStatus.INTERNAL_SERVER_ERROR
    assert b"secret" not in body
    assert "secret detail" in caplog.text
    assert ask(server, "GET", "/livez")[0] == HTTPStatus.OK


def test_slow_request_gets_408(program: Program) -> None:
    with serving(program, patience=IMPATIENT) as server:
        assert status_of(say(server, b"GET /livez HTTP/1.1\r\nHost: loc")) == HTTPStatus.REQUEST_TIMEOUT


def test_dripping_bytes_gain_no_time(program: Program) -> None:
    """Slow loris: a byte every now and then, each within any time-out for a single read."""
    with (
        serving(program, patience=IMPATIENT) as server,
        socket.create_connection(("127.0.0.1", server.port), TIMEOUT_SECONDS) as client,
    ):
        ended = threading.Event()
        client.sendall(b"GET /livez HTTP/1.1\r\nX: ")

        def drip() -> None:
            while not ended.wait(0.05):
                try:
                    client.send(b"a")
                except OSError:
                    return

        dripper = threading.Thread(target=drip)
        dripper.start()
        answer = read_all(client)
        ended.set()
        dripper.join()
    assert status_of(answer) == HTTPStatus.REQUEST_TIMEOUT


def test_silent_client_is_hung_up_on_without_a_word_or_a_line(program: Program, caplog: pytest.LogCaptureFixture) -> None:
    with serving(program, patience=IMPATIENT) as server:
        caplog.clear()
        with caplog.at_level(logging.DEBUG):
            assert say(server, b"") == b""
        assert caplog.text == ""


def test_idle_connection_ends(program: Program) -> None:
    with serving(program, patience=IMPATIENT) as server:
        assert say(server, b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").count(b"HTTP/1.1") == 1


def test_body_that_never_comes_gets_408(program: Program) -> None:
    with serving(program, patience=IMPATIENT) as server:
        assert (
            status_of(say(server, b"POST /admin/retry-failed HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nabc"))
            == HTTPStatus.REQUEST_TIMEOUT
        )
    assert program.retries == 0


def test_connections_are_bounded_and_a_place_that_gets_free_is_used(program: Program) -> None:
    with serving(program) as server:
        held = [socket.create_connection(("127.0.0.1", server.port), TIMEOUT_SECONDS) for _ in range(MAX_CONNECTIONS)]
        try:
            with socket.create_connection(("127.0.0.1", server.port), TIMEOUT_SECONDS) as one_more:
                assert status_of(read_all(one_more)) == HTTPStatus.SERVICE_UNAVAILABLE
            held.pop().close()
            while b"200 OK" not in say(server, b"GET /livez HTTP/1.0\r\n\r\n"):
                pass  # the ended connection's thread has not given its place back yet
        finally:
            for client in held:
                client.close()


def test_crowded_server_keeps_no_connection_open(program: Program) -> None:
    with serving(program) as server:
        held = [socket.create_connection(("127.0.0.1", server.port), TIMEOUT_SECONDS) for _ in range(MAX_CONNECTIONS - 1)]
        try:
            answer = say(server, b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        finally:
            for client in held:
                client.close()
    assert b"Connection: close" in answer


def test_stop_frees_the_port_and_ends_idle_connections(program: Program) -> None:
    with serving(program) as server:
        connection = connect(server)
        connection.request("GET", "/livez")
        connection.getresponse().read()
        port = server.port
        assert connection.sock is not None
        server.stop()
        assert read_all(connection.sock) == b""
        connection.close()
        server.stop()
    second = WebServer(Config(health_check_port=port), program)
    second.start()
    second.stop()


def test_requests_are_logged_at_debug_and_probes_never(server: WebServer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        connection = connect(server)
        for path in ("/livez", "/readyz", "/health"):
            connection.request("GET", path)
            connection.getresponse().read()
        connection.request("GET", "/nowhere")
        connection.getresponse().read()
        connection.request("GET", "/livez")  # its answer comes after the line about /nowhere
        connection.getresponse().read()
        connection.close()
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("http.request")]
    assert [line.split(" took=")[0] for line in lines] == [
        "http.request client=127.0.0.1 method=GET path=/health status=200",
        "http.request client=127.0.0.1 method=GET path=/nowhere status=404",
    ]


PIECES = st.sampled_from(
    [
        b"GET ",
        b"POST ",
        b"/health",
        b"/admin/retry-failed",
        b" HTTP/1.1",
        b"\r\n",
        b"\n",
        b"\r",
        b"Host: localhost",
        b"Content-Length: ",
        b"5",
        b"Transfer-Encoding: chunked",
        b"0\r\n\r\n",
        b"\x00",
        b":",
        b" ",
    ]
)


def test_no_bytes_kill_the_server(program: Program) -> None:
    with serving(program, patience=IMPATIENT) as server:

        @settings(max_examples=150, deadline=None)
        @given(st.one_of(st.binary(max_size=300), st.lists(PIECES, max_size=20).map(b"".join)))
        def attack(data: bytes) -> None:
            answer = say(server, data, half_close=True)
            assert answer == b"" or answer.startswith(b"HTTP/1.1 ")
            assert b"500 Internal" not in answer

        attack()
        assert ask(server, "GET", "/livez")[0] == HTTPStatus.OK
