"""One request to an OAuth 2.0 token endpoint (RFC 6749 4.4, 5, 6), over verified TLS.

No threads, no locks. Raises ``TokenError``, whose text names the endpoint's host and its error code, never a secret.
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeGuard

from mailer.config.schema import is_loopback
from mailer.mail.outcome import MailerError, Reply
from mailer.transport.tls import TrustStore, client_context

TIMEOUT_SECONDS = 15.0  # for the connection and for each read; endpoints answer within a second
TOTAL_SECONDS = 45.0  # for the response in all
MAX_RESPONSE_BYTES = 65536  # a token is 4 KiB at most
MAX_TOKEN_CHARS = 8192  # with its login it must fit an AUTH line of 12,288 (RFC 4954 4)
MAX_LIFE_SECONDS = 366 * 86400


class TokenError(MailerError):
    """The endpoint gave no token; the text says what it said."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What is asked for: the endpoint's address and the form."""

    url: str
    form: Mapping[str, str]

    def __repr__(self) -> str:
        return f"Grant({self.url!r}, {self.form.get('grant_type')!r})"  # the form holds secrets


@dataclass(frozen=True, slots=True, repr=False)
class Bought:
    """What was got. ``expires_in`` in seconds, 0 when not said; ``refresh_token`` is the next one, or empty."""

    access_token: str
    expires_in: float
    refresh_token: str


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the secrets to wherever it points."""

    def redirect_request(self, *_args: object, **_kwargs: object) -> None:
        return None


def buy(grant: Grant, trust_store: TrustStore) -> Bought:
    """Ask for a token. Raises TokenError, or MailerError when no trust store is found."""
    url = urllib.parse.urlsplit(grant.url)
    host = url.hostname or ""
    if not (url.scheme == "https" or (url.scheme == "http" and is_loopback(host))):
        raise TokenError(f"tokenUrl must begin with https:// (http:// only on loopback), not {url.scheme!r}")
    handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
    if url.scheme == "https":
        handlers.append(urllib.request.HTTPSHandler(context=client_context(trust_store())))
    if is_loopback(host):
        handlers.append(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(  # noqa: S310 - the scheme is checked above
        grant.url,
        data=urllib.parse.urlencode(grant.form).encode(),
        headers={"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"},
        method="POST",
    )
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=TIMEOUT_SECONDS) as response:
            return _bought(_bounded(response))
    except urllib.error.HTTPError as error:
        with error:
            raise TokenError(f"{host} answered {error.code}{_reason(error)}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise TokenError(f"{host}: {_clean(str(getattr(error, 'reason', None) or error) or type(error).__name__)}") from None


def _bounded(response: http.client.HTTPResponse | urllib.error.HTTPError) -> bytes:
    ends = time.monotonic() + TOTAL_SECONDS
    body = b""
    while piece := response.read1(MAX_RESPONSE_BYTES):
        body += piece
        if len(body) > MAX_RESPONSE_BYTES:
            raise ValueError(f"response is longer than {MAX_RESPONSE_BYTES} bytes")
        if time.monotonic() > ends:
            raise TimeoutError("response takes too long")
    return body


def _bought(body: bytes) -> Bought:
    """RFC 6749 5.1. Raises ValueError."""
    fields = json.loads(body)
    if not isinstance(fields, dict) or not is_token(token := fields.get("access_token")):
        raise ValueError("response has no usable access_token")
    next_token = fields.get("refresh_token")
    return Bought(token, _seconds(fields.get("expires_in")), next_token if is_token(next_token) else "")


def is_token(value: object) -> TypeGuard[str]:
    """Whether ``value`` can be a token: printable ASCII (RFC 6749 A.12) of bearable length."""
    return isinstance(value, str) and 0 < len(value) <= MAX_TOKEN_CHARS and value.isascii() and value.isprintable()


def _seconds(value: object) -> float:
    try:
        seconds = float(value) if isinstance(value, (int, float, str)) else 0.0
    except ValueError:
        return 0.0
    return seconds if 0 < seconds <= MAX_LIFE_SECONDS else 0.0


def _reason(error: urllib.error.HTTPError) -> str:
    """RFC 6749 5.2: the error code and what it describes."""
    try:
        fields = json.loads(_bounded(error))
    except (OSError, http.client.HTTPException, ValueError):
        return ""
    if not isinstance(fields, dict):
        return ""
    said = [str(fields[key])[:200] for key in ("error", "error_description") if isinstance(fields.get(key), str)]
    return ": " + _clean(": ".join(said)) if said else ""


def _clean(text: str) -> str:
    return Reply.received(451, text).text.replace("\n", " ")
