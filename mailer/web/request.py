"""HTTP requests and responses as values, and the strict, bounded reader of requests (RFC 9110, RFC 9112).

No threads, no locks. What is not a request of ours in form or size is an ``HttpFault``, after which the connection ends:
nobody can tell where the next request would begin. The reader's own time-outs come through as OSError.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Protocol
from urllib.parse import urlsplit

from mailer.mail.outcome import MailerError

MAX_REQUEST_LINE_BYTES = 8_000  # RFC 9112 3: at least 8000 octets
MAX_HEAD_BYTES = 16_384
MAX_FIELDS = 100
MAX_BODY_BYTES = 64 * 1024
"""Largest body read. No page of ours wants one yet; a client may send one all the same."""
_MAX_CHUNK_LINE_BYTES = 256

_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}) ([!-~]+) HTTP/([0-9])\.([0-9])\r?\n")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t -~\x80-\xff]*)\r?\n")
_CONTENT_LENGTH = re.compile(r"[0-9]{1,18}", re.ASCII)
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[\t -~]*)?\r?\n")


class HttpFault(MailerError):
    """The request cannot be served; ``status`` is the answer."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


class Reader(Protocol):
    """Where the bytes of requests come from."""

    def readline(self, limit: int, /) -> bytes: ...
    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Request:
    """A request. ``fields`` are by lower-case name, repeated ones joined by ``, ``; ``host`` is the authority asked for.

    ``host`` is None where HTTP/1.0 named none. ``path`` is as sent, not decoded, without the query.
    """

    method: str
    path: str
    query: str
    fields: Mapping[str, str]
    host: str | None
    body: bytes
    keep_alive: bool

    def field(self, name: str) -> str:
        """A header field's value; empty when it is not there."""
        return self.fields.get(name, "")


@dataclass(frozen=True, slots=True)
class Response:
    """An answer; ``fields`` are header fields beyond those that every answer has."""

    status: HTTPStatus
    content_type: str
    body: bytes
    fields: tuple[tuple[str, str], ...] = ()


def json_response(status: HTTPStatus, content: object, fields: tuple[tuple[str, str], ...] = ()) -> Response:
    body = json.dumps(content, indent=2, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
    return Response(status, "application/json; charset=utf-8", body, fields)


def error_response(status: HTTPStatus, text: str, now: float, fields: tuple[tuple[str, str], ...] = ()) -> Response:
    """An error in the one form that all errors have (spec 5)."""
    return json_response(status, {"status": "error", "error": text, "timestamp": timestamp(now)}, fields)


def timestamp(now: float) -> str:
    """Unix time as RFC 3339, in UTC with milliseconds."""
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def read_request(reader: Reader, send_continue: Callable[[], None]) -> Request | None:
    """The next request with its body, or None at the end of the connection. Raises HttpFault, OSError.

    ``send_continue`` is called when the client waits for "100 Continue" before it sends the body.
    """
    line = reader.readline(MAX_REQUEST_LINE_BYTES + 1)
    if line in (b"\r\n", b"\n"):  # RFC 9112 2.2: an empty line before a request is skipped
        line = reader.readline(MAX_REQUEST_LINE_BYTES + 1)
    if not line:
        return None
    method, target, minor = _request_line(line)
    fields = _read_fields(reader)
    path, query, authority = _target(target)
    hosts = fields.get("host", [])
    if len(hosts) > 1 or (not hosts and minor >= 1):  # RFC 9112 3.2
        raise HttpFault(HTTPStatus.BAD_REQUEST, "a request has exactly one Host field")
    host = authority if authority is not None else next(iter(hosts), None)
    length = _body_length(fields, minor)
    if length != 0 and "100-continue" in _joined(fields, "expect").lower() and minor >= 1:
        send_continue()
    body = _read_chunks(reader) if length is None else _read_exactly(reader, length)
    keep_alive = minor >= 1 and "close" not in re.split(r"[ \t]*,[ \t]*", _joined(fields, "connection").lower())
    joined = {name: ", ".join(values) for name, values in fields.items()}
    return Request(method, path, query, joined, host, body, keep_alive)


def _request_line(line: bytes) -> tuple[str, str, int]:
    if len(line) > MAX_REQUEST_LINE_BYTES:
        raise HttpFault(HTTPStatus.REQUEST_URI_TOO_LONG, f"the request line is over {MAX_REQUEST_LINE_BYTES} bytes long")
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise HttpFault(HTTPStatus.BAD_REQUEST, "the first line is not an HTTP request line")
    if match[3] != b"1":
        raise HttpFault(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "only HTTP/1.1 and HTTP/1.0 are spoken here")
    return match[1].decode(), match[2].decode(), int(match[4])


def _target(target: str) -> tuple[str, str, str | None]:
    """Path, query and, of an absolute target, the authority, which goes before Host (RFC 9112 3.2.2)."""
    if target.startswith("/"):
        path, _, query = target.partition("?")
        return path, query, None
    if target == "*":
        return target, "", None
    try:
        parts = urlsplit(target)
    except ValueError:
        parts = None
    if parts is None or parts.scheme not in ("http", "https") or not parts.netloc:
        raise HttpFault(HTTPStatus.BAD_REQUEST, "the request's target is neither a path nor an http address")
    return parts.path or "/", parts.query, parts.netloc


def _read_fields(reader: Reader) -> dict[str, list[str]]:
    """Header fields, or trailer fields, up to the empty line. No line folding (RFC 9112 5.2 lets us refuse it)."""
    fields: dict[str, list[str]] = {}
    left = MAX_HEAD_BYTES
    for _ in range(MAX_FIELDS + 1):
        line = reader.readline(left + 1)
        if line in (b"\r\n", b"\n"):
            return fields
        left -= len(line)
        if left < 0:
            break
        match = _FIELD.fullmatch(line)
        if match is None:
            raise HttpFault(HTTPStatus.BAD_REQUEST, "a header line is not a name, a colon and a value")
        fields.setdefault(match[1].decode().lower(), []).append(match[2].decode("latin-1").rstrip(" \t"))
    raise HttpFault(
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"over {MAX_HEAD_BYTES} bytes or {MAX_FIELDS} lines of header fields"
    )


def _joined(fields: Mapping[str, list[str]], name: str) -> str:
    return ", ".join(fields.get(name, ()))


def _body_length(fields: Mapping[str, list[str]], minor: int) -> int | None:
    """The body's length in bytes; None when it comes in chunks (RFC 9112 6.3)."""
    coding = fields.get("transfer-encoding")
    lengths = fields.get("content-length")
    if coding is not None:
        if lengths is not None or minor == 0:  # RFC 9112 6.1: a sign of request smuggling
            raise HttpFault(HTTPStatus.BAD_REQUEST, "Transfer-Encoding goes with neither Content-Length nor HTTP/1.0")
        if [value.lower() for value in coding] != ["chunked"]:
            raise HttpFault(HTTPStatus.NOT_IMPLEMENTED, "the only transfer coding understood is chunked")
        return None
    if lengths is None:
        return 0
    if len(lengths) > 1 or _CONTENT_LENGTH.fullmatch(lengths[0]) is None:
        raise HttpFault(HTTPStatus.BAD_REQUEST, "Content-Length is not one number")
    length = int(lengths[0])
    if length > MAX_BODY_BYTES:
        raise _body_too_large()
    return length


def _read_chunks(reader: Reader) -> bytes:
    """A body in chunks (RFC 9112 7.1); trailer fields are read and dropped."""
    body = bytearray()
    while True:
        match = _CHUNK_SIZE.fullmatch(reader.readline(_MAX_CHUNK_LINE_BYTES))
        if match is None:
            raise HttpFault(HTTPStatus.BAD_REQUEST, "a chunk does not begin with its size")
        size = int(match[1], 16)
        if size == 0:
            _read_fields(reader)
            return bytes(body)
        if len(body) + size > MAX_BODY_BYTES:
            raise _body_too_large()
        body += _read_exactly(reader, size)
        if reader.readline(2) not in (b"\r\n", b"\n"):
            raise HttpFault(HTTPStatus.BAD_REQUEST, "a chunk is longer than its size")


def _read_exactly(reader: Reader, size: int) -> bytes:
    body = reader.read(size) if size else b""
    if len(body) < size:
        raise HttpFault(HTTPStatus.BAD_REQUEST, f"the body ended after {len(body)} of {size} bytes")
    return body


def _body_too_large() -> HttpFault:
    return HttpFault(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is over {MAX_BODY_BYTES} bytes long")
