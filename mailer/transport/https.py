"""One HTTPS request to a host that a domain named: a policy fetched (RFC 8461), a report handed in (RFC 8460).

Whoever runs a domain chooses the host and what it says, so everything is bounded: time in all, bytes in all, no redirect, a
certificate that is checked, and no address in a private range, lest a stranger have us talk to machines behind a firewall.

No threads, no locks. Fails with ``HttpsError``; the text says what the host did.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from mailer.dns.places import IpAddress, is_public, parse_ip
from mailer.mail.outcome import MailerError, Reply
from mailer.transport.dial import SocketAddress, connect
from mailer.transport.faults import reply_for
from mailer.transport.tls import TrustStore, client_context

PORT = 443
TOTAL_SECONDS = 30.0
"""For one request in all. RFC 8461 3.3 suggests a minute, but a delivery waits for it; policies come within a second."""
MAX_BODY_BYTES = 65536  # RFC 8461 3.3 suggests 64 kilobytes
MAX_RESPONSE_BYTES = MAX_BODY_BYTES + 32768  # with its header lines
READ_BYTES = 16384
MAX_ADDRESSES = 4  # tried of one host

FindAddresses = Callable[[str], Sequence[str]]
"""The addresses of a host, as text. Empty where there are none, or none was found in time."""


class HttpsError(MailerError):
    """No response that can be used. ``is_certificate``: the host could not show that it is the host."""

    def __init__(self, text: str, is_certificate: bool = False) -> None:
        super().__init__(text)
        self.is_certificate = is_certificate


class Response(NamedTuple):
    """``kind``: the media type without its parameters, in lower case. ``date``: when the host says that it is."""

    status: int
    kind: str
    body: bytes
    date: str = ""


class Https:
    """Makes requests. ``port`` is another than 443 in tests alone, and ``total_seconds`` less."""

    def __init__(
        self, addresses: FindAddresses, trust_store: TrustStore, port: int = PORT, total_seconds: float = TOTAL_SECONDS
    ) -> None:
        self._addresses = addresses
        self._trust_store = trust_store
        self._port = port
        self._total_seconds = total_seconds

    def __repr__(self) -> str:
        return f"Https(port={self._port})"

    def get(self, host: str, path: str, allow_private: bool) -> Response:
        """Raises HttpsError."""
        return self._request(host, f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode(), allow_private)

    def post(self, host: str, path: str, kind: str, body: bytes, allow_private: bool) -> Response:
        """Raises HttpsError."""
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
            f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return self._request(host, head.encode() + body, allow_private)

    def _request(self, host: str, request: bytes, allow_private: bool) -> Response:
        ends = time.monotonic() + self._total_seconds
        try:
            context = client_context(self._trust_store())
            with self._connect(host, allow_private, ends) as plain:
                plain.settimeout(_left(ends))
                with context.wrap_socket(plain, server_hostname=host) as connection:
                    connection.settimeout(_left(ends))
                    connection.sendall(request)
                    return _parsed(_read_all(connection, ends))
        except HttpsError:
            raise
        except (OSError, MailerError) as error:
            is_certificate = isinstance(error, ssl.SSLCertVerificationError)
            text = reply_for(error).text if isinstance(error, OSError) else str(error)
            raise HttpsError(f"{host}: {text}", is_certificate) from error
        except (http.client.HTTPException, ValueError, OverflowError) as error:  # the last: of a length that no read can have
            said = Reply.received(451, str(error) or type(error).__name__).text
            raise HttpsError(f"{host}: {said}") from error

    def _connect(self, host: str, allow_private: bool, ends: float) -> socket.socket:
        found = self._addresses(host)
        parsed = [address for address in map(parse_ip, found) if address is not None]
        usable = [address for address in parsed if allow_private or is_public(address)][:MAX_ADDRESSES]
        if not usable:
            raise HttpsError(f"{host}: " + ("resolves to private addresses only" if found else "has no address"))
        return connect([_place(address, self._port) for address in usable], _left(ends))


def _place(address: IpAddress, port: int) -> SocketAddress:
    if address.version == 4:
        return socket.AF_INET, (str(address), port)
    return socket.AF_INET6, (str(address), port, 0, 0)


def _left(ends: float) -> float:
    left = ends - time.monotonic()
    if left <= 0:
        raise TimeoutError("no complete answer within the time-out")
    return left


def _read_all(connection: ssl.SSLSocket, ends: float) -> bytes:
    """What the host says until it closes. The time-out holds in all, so a host that drips its answer gains nothing."""
    said = bytearray()
    while True:
        connection.settimeout(_left(ends))
        piece = connection.recv(READ_BYTES)
        if not piece:
            return bytes(said)
        said += piece
        if len(said) > MAX_RESPONSE_BYTES:
            raise ValueError(f"response is longer than {MAX_RESPONSE_BYTES} bytes")


class _Read:
    """What was read, in the form that ``http.client`` reads a response from."""

    def __init__(self, said: bytes) -> None:
        self._said = said

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._said)


def _parsed(said: bytes) -> Response:
    """Raises HTTPException or ValueError."""
    response = http.client.HTTPResponse(_Read(said))  # type: ignore[arg-type]  # it asks for ``makefile`` alone
    response.begin()
    body = response.read()
    if len(body) > MAX_BODY_BYTES:
        raise ValueError(f"content is longer than {MAX_BODY_BYTES} bytes")
    if response.length:
        raise ValueError("response ends too early")
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return Response(response.status, kind, body, response.headers.get("Date", ""))
