"""Deliveries and providers for the tests of transport."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

from mailer.config.schema import ProviderConfig
from mailer.events import Hub
from mailer.mail.address import Address
from mailer.mail.content import Content, MemoryContent
from mailer.mail.envelope import Envelope, Options, Recipient
from mailer.mail.outcome import Delivery
from mailer.mail.render import make_render
from mailer.transport.provider import Provider
from mailer.transport.providers import Surroundings
from mailer.window import Windows
from tests.support.upstream import Upstream

BODY = b"From: a@client.test\r\nSubject: hello\r\n\r\nhello\r\n"
PATIENT_SECONDS = 30.0


class Clock:
    """Unix time that moves when the test says so."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def new_windows() -> Windows:
    return Windows(lambda _name: ())


def provider_for(
    upstream: Upstream | int,
    *,
    clock: Callable[[], float] = time.time,
    hub: Hub | None = None,
    windows: Windows | None = None,
    surroundings: Surroundings | None = None,
    timeout: int = 10,
    settings: Mapping[str, object] | None = None,
) -> Provider:
    """A provider at an upstream (or a bare port of loopback)."""
    host, port = ("127.0.0.1", upstream) if isinstance(upstream, int) else (upstream.host, upstream.port)
    config = ProviderConfig(**{"name": "first", "timeout": timeout, "host": host, "port": port, **(settings or {})})  # type: ignore[arg-type]  # any of its fields
    return Provider(config, "mailer.test", windows or new_windows(), hub or Hub(), surroundings or Surroundings(clock=clock))


def delivery_to(
    *recipients: str,
    content: bytes | Content = BODY,
    sender: str = "a@client.test",
    options: Options | None = None,
    seconds: float = PATIENT_SECONDS,
    message_id: str = "0123456789abcdefg",
) -> Delivery:
    """A delivery of one batch; ``seconds`` from now is its deadline."""
    people = tuple(Recipient(i, Address.parse(r, smtputf8=True)) for i, r in enumerate(recipients or ("b@x.test",)))
    body: Content = MemoryContent(content) if isinstance(content, bytes) else content
    origin = Address.parse(sender, smtputf8=True) if sender else Address("", "")
    envelope = Envelope(message_id, origin, people, body.size, 0.0, options or Options())
    deadline = math.inf if math.isinf(seconds) else time.monotonic() + seconds
    return Delivery(envelope, people, make_render(envelope, body), deadline)
