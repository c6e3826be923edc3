"""What a test tells an ``Upstream`` to do, and what it is told of what arrived: values."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

EXTENSIONS = ("PIPELINING", "SIZE 52428800", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES")


@dataclass(frozen=True)
class Disconnect:
    """Hang up, after sending ``reply`` if there is one. ``reset``: with a TCP reset. ``accepted``: the message is
    taken all the same (only its reply is lost)."""

    reply: str = ""
    reset: bool = False
    accepted: bool = False


@dataclass(frozen=True)
class Stall:
    """Say nothing until ``Upstream.release()`` or ``close()``; then go on with ``reply``."""

    reply: str = ""


Said = str | bytes | Disconnect | Stall
Answer = Said | Mapping[str, Said] | Callable[[str], Said | None] | None
"""What is said at a step: a reply (``"250 ok"``, several lines joined by ``\\n``), raw bytes, an action, a mapping by
address, a callable that is given the command's argument; None is the usual reply."""


@dataclass(frozen=True)
class Transaction:
    """One message whose end of data has arrived. ``data`` is without dot-stuffing, ``raw`` as it was on the wire.

    ``accepted``: it was answered 2xx. ``login``: the user name, or None.
    """

    sender: str
    recipients: tuple[str, ...]
    data: bytes
    raw: bytes
    connection: int
    tls: bool
    login: str | None
    parameters: str
    accepted: bool


@dataclass
class Login:
    """What AUTH expects. ``token`` is the bearer token of XOAUTH2; ``mechanisms`` are announced."""

    username: str
    password: str = ""
    token: str = ""
    mechanisms: str = "PLAIN LOGIN"


@dataclass
class Behaviour:
    """How an ``Upstream`` is set up for its life. ``extensions``: announced, besides STARTTLS and AUTH, which follow
    from ``tls`` and ``login``. ``lenient``: a line with only a dot ends the data whatever its line endings are."""

    extensions: tuple[str, ...] = EXTENSIONS
    tls: ssl.SSLContext | None = None
    implicit_tls: bool = False
    login: Login | None = None
    lenient: bool = False
    host: str = "127.0.0.1"
    port: int = 0
    announce: tuple[str, ...] = field(default=())
