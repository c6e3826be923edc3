"""A listener on a real port, and a client that reads replies line by line, for tests over sockets."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from dataclasses import replace

from mailer.config.schema import Config, TlsConfig
from mailer.events import Event, Hub
from mailer.policy.limits import RateLimiter
from mailer.smtp.server import SmtpServer
from mailer.window import Windows
from tests.smtp.memory_intake import MemoryIntake
from tests.support.certificates import Certificate

WAIT_SECONDS = 20.0
"""Generous: the machine is shared."""

BASE = Config(smtp_port=0, hostname="mx.example")


class Served:
    """A server with what it was given."""

    def __init__(self, config: Config) -> None:
        self.intake = MemoryIntake()
        self.events: list[Event] = []
        hub = Hub()
        hub.subscribe(self.events.append)
        self.server = SmtpServer(config, self.intake, RateLimiter(config.rate_limits, Windows(lambda _name: ()), hub), hub)

    def client(self, host: str = "127.0.0.1", port: int = 0) -> Client:
        return Client(socket.create_connection((host, port or self.server.port), timeout=WAIT_SECONDS))

    def client_from(self, address: str, implicit_tls: bool = False) -> Client:
        """A connection that the listener takes to come from ``address``."""
        ours, theirs = socket.socketpair()
        ours.settimeout(WAIT_SECONDS)
        self.server._receive(theirs, address, implicit_tls)
        return Client(ours)


@contextlib.contextmanager
def serve(config: Config = BASE) -> Iterator[Served]:
    """A started server, stopped at the end."""
    served = Served(config)
    served.server.start()
    try:
        yield served
    finally:
        served.server.stop_accepting()
        assert served.server.close_sessions(WAIT_SECONDS)


def with_tls(certificate: Certificate, implicit_port: int = 0, config: Config = BASE) -> Config:
    files = TlsConfig(cert_file=str(certificate.cert_file), key_file=str(certificate.key_file), implicit_port=implicit_port)
    return replace(config, tls=files)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Client:
    """Speaks lines. ``reply`` is the last line of the next reply, without its line end; empty at the end of input."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = b""

    def say(self, *lines: bytes) -> None:
        self.sock.sendall(b"".join(line + b"\r\n" for line in lines))

    def reply(self) -> str:
        while True:
            while b"\r\n" not in self._buffer:
                try:
                    piece = self.sock.recv(65536)
                except ConnectionResetError:
                    piece = b""
                if not piece:
                    assert not self._buffer
                    return ""
                self._buffer += piece
            line, _, self._buffer = self._buffer.partition(b"\r\n")
            if line[3:4] != b"-":
                return line.decode()

    def ask(self, *lines: bytes) -> str:
        """Say lines, and return the reply to the last of them."""
        self.say(*lines)
        return [self.reply() for _ in lines][-1]

    def start_tls(self, context: ssl.SSLContext, name: str = "localhost") -> None:
        self.sock = context.wrap_socket(self.sock, server_hostname=name)
        self._buffer = b""

    def close(self) -> None:
        self.sock.close()
