"""A client made of byte strings: a socket that a ``Wire`` reads pieces from, and conversations over it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from mailer.config.schema import Config, LimitsConfig, RateLimitsConfig, Secret, SecurityConfig
from mailer.events import Event, Hub
from mailer.policy.auth import FailedLogins
from mailer.policy.limits import RateLimiter
from mailer.smtp.pace import Pace
from mailer.smtp.session import Services, Session
from mailer.smtp.terms import Peer, Terms
from mailer.smtp.wire import Wire
from mailer.window import Windows
from tests.smtp.memory_intake import MemoryIntake

NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 +0000
HOSTNAME = "mx.example"
PATIENT = Pace(idle_seconds=300, min_data_rate=0)


EHLO = b"EHLO client.example\r\n"
MAIL = b"MAIL FROM:<a@example.com>\r\n"
RCPT = b"RCPT TO:<b@example.org>\r\n"
START = EHLO + MAIL + RCPT + b"DATA\r\n"
HEAD = b"Date: d\r\nMessage-ID: <i>\r\nSubject: s\r\n\r\n"
STRANGER = "192.0.2.7"


class FakeClock:
    """Monotonic seconds, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class ScriptSocket:
    """Gives out ``pieces`` one by one, then the end of input. A number in place of a piece is that many seconds of
    silence. ``sent`` is what the session said."""

    def __init__(self, pieces: Sequence[bytes | float], clock: FakeClock | None = None) -> None:
        self._pieces = list(pieces)
        self._clock = clock or FakeClock()
        self._timeout = 0.0
        self.sent = b""
        self.is_closed = False

    def recv_into(self, buffer: memoryview, /) -> int:
        assert len(buffer) > 0, "asked for nothing"
        if self._timeout == 0:
            raise BlockingIOError
        if not self._pieces:
            return 0
        piece = self._pieces.pop(0)
        if isinstance(piece, (int, float)):
            waited = min(piece, self._timeout)
            self._clock.now += waited
            if piece > waited:
                self._pieces.insert(0, piece - waited)
            if piece >= self._timeout:
                raise TimeoutError
            return self.recv_into(buffer)
        if not piece:
            return self.recv_into(buffer)
        count = min(len(buffer), len(piece))
        buffer[:count] = piece[:count]
        if count < len(piece):
            self._pieces.insert(0, piece[count:])
        return count

    def sendall(self, data: bytes, /) -> None:
        self.sent += data

    def settimeout(self, value: float, /) -> None:
        self._timeout = value

    def close(self) -> None:
        self.is_closed = True


@dataclass
class Setting:
    """What a session is given in tests; ``events`` is what it published, ``pauses`` how long it delayed guesses."""

    config: Config = field(default_factory=lambda: Config(smtp_port=0, hostname=HOSTNAME, limits=LimitsConfig(min_data_rate=0)))
    client: str = "127.0.0.1"
    intake: MemoryIntake = field(default_factory=MemoryIntake)
    events: list[Event] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    clock: FakeClock = field(default_factory=FakeClock)
    failed_logins: FailedLogins = field(default_factory=FailedLogins)
    windows: Windows = field(default_factory=lambda: Windows(lambda _name: ()))

    @property
    def terms(self) -> Terms:
        return Terms.of(self.config)

    def services(self) -> Services:
        hub = Hub()
        hub.subscribe(self.events.append)
        limiter = RateLimiter(self.config.rate_limits, self.windows, hub)
        return Services(self.intake, limiter, hub, self.failed_logins, lambda: NOW, self.pauses.append)

    def with_limits(self, **limits: int) -> Setting:
        self.config = replace(self.config, limits=replace(self.config.limits, **limits))
        return self

    def with_rate_limits(self, *, max_per_hour: int = 0, global_max_per_hour: int = 0) -> Setting:
        self.config = replace(
            self.config,
            rate_limits=RateLimitsConfig(enabled=True, max_per_hour=max_per_hour, global_max_per_hour=global_max_per_hour),
        )
        return self


def converse(*pieces: bytes | float, setting: Setting | None = None) -> list[str]:
    """Run a session over ``pieces``; returns its reply lines, the greeting included."""
    setting = setting or Setting()
    sock = ScriptSocket(pieces, setting.clock)
    wire = Wire(sock, setting.terms.pace, setting.clock)
    Session(wire, Peer.at(setting.client), setting.terms, setting.services()).run()
    assert sock.sent.endswith(b"\r\n")
    return sock.sent.decode().split("\r\n")[:-1]


def with_login(client: str = "127.0.0.1", password: str = "s3cret") -> Setting:
    """A listener with the login ``app``, required."""
    setting = Setting(client=client)
    setting.config = replace(
        setting.config,
        default_username="app",
        default_password=Secret(password),
        security=SecurityConfig(require_auth=True),
    )
    return setting


def codes(replies: Sequence[str]) -> list[str]:
    """The last lines of the replies, without text: ``250 2.1.0``, or ``354`` where there is no enhanced code."""
    found = []
    for line in replies:
        if line[3:4] != "-":
            word = line[4:].partition(" ")[0]
            found.append(f"{line[:3]} {word}" if word.count(".") == 2 and word[:1].isdigit() else line[:3])
    return found


def added(content: bytes) -> bytes:
    """A stored message without the Received field that was put on top of it."""
    received, _, rest = content.partition(b" +0000\r\n")
    assert received.startswith(b"Received: from client.example ([")
    return rest
