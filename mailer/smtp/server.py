"""The SMTP listener as a whole: its ports, its sessions and their limits.

Threads: one accepting per port, and ``SessionThreads`` for the sessions. One lock guards the table of live sessions,
which is what the limits of connections count; ``configure`` swaps values that new sessions read. A port that cannot be
bound is a ``ListenError``, a certificate that cannot be read a ``CertificateError``; nothing else escapes.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mailer.config.schema import Config
from mailer.events import Hub, SubmissionRefused
from mailer.mail.outcome import MailerError
from mailer.policy.access import Access, is_loopback, plain_address
from mailer.policy.auth import FailedLogins
from mailer.policy.limits import RateLimiter
from mailer.smtp.listener import Listener, ListenError, addresses_of, bind, close_quietly
from mailer.smtp.replies import ACCESS_DENIED, SHUTTING_DOWN, TOO_MANY_CONNECTIONS
from mailer.smtp.session import Intake, Services, Session
from mailer.smtp.terms import Peer, Terms
from mailer.smtp.threads import SessionThreads
from mailer.smtp.wire import Wire

__all__ = ["CertificateError", "ListenError", "SmtpServer"]

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"


class CertificateError(MailerError):
    """The certificate or its key cannot be used; the text names the file and why."""


@dataclass(frozen=True, slots=True)
class _Rules:
    """What a new connection is judged by."""

    access: Access
    terms: Terms
    max_connections: int
    max_per_address: int

    @classmethod
    def of(cls, config: Config) -> _Rules:
        return cls(
            access=Access(config.security.allow_local_only, config.security.allowed_networks),
            terms=Terms.of(config, certificate_context(config)),
            max_connections=config.max_connections,
            max_per_address=config.limits.connections_per_address,
        )


class SmtpServer:
    """Hears SMTP. ``start`` binds and accepts; ``stop_accepting``, then ``close_sessions``, end it.

    ``clock`` is Unix time. Raises CertificateError when made, ListenError when started.
    """

    def __init__(
        self, config: Config, intake: Intake, limiter: RateLimiter, hub: Hub, clock: Callable[[], float] = time.time
    ) -> None:
        self._config = config
        self._rules = _Rules.of(config)
        self._stopping = threading.Event()
        self._services = Services(intake, limiter, hub, FailedLogins(), clock, self._stopping.wait)
        self._threads = SessionThreads("smtp-session")
        self._listeners: list[Listener] = []
        self._implicit_listeners: list[Listener] = []
        self._lock = threading.Lock()  # guards the two below
        self._changed = threading.Condition(self._lock)  # notified when a session has ended, once we are stopping
        self._wires: set[Wire] = set()
        self._per_address: dict[str, int] = {}  # of addresses beyond loopback

    def __repr__(self) -> str:
        return f"SmtpServer(port={self.port}, implicit_port={self.implicit_port}, sessions={self.sessions})"

    @property
    def port(self) -> int:
        """The port listened on, 0 before ``start``."""
        listeners = self._listeners  # replaced whole when the ports are closed
        return listeners[0].port if listeners else 0

    @property
    def implicit_port(self) -> int:
        """The port for TLS from the first byte, 0 when there is none."""
        listeners = self._implicit_listeners
        return listeners[0].port if listeners else 0

    @property
    def sessions(self) -> int:
        """How many sessions are alive."""
        with self._lock:
            return len(self._wires)

    def start(self, inherited: Sequence[socket.socket] = ()) -> None:
        """Bind the ports and begin to accept. Raises ListenError; then no port is left open.

        ``inherited`` are listening sockets that a service manager has bound for us; they stand in for ``smtpPort``, or,
        where the port says so, for ``tls.implicitPort``.
        """
        host, config = _host_of(self._config), self._config
        implicit_port = config.tls.implicit_port
        try:
            for sock in inherited:
                self._listen(sock, implicit_tls=sock.getsockname()[1] == implicit_port != 0)
            if not self._listeners:
                self._bind(host, config.smtp_port, implicit_tls=False)
            if implicit_port and not self._implicit_listeners:
                self._bind(host, implicit_port, implicit_tls=True)
        except ListenError:
            self.stop_accepting()
            raise
        for listener in (*self._listeners, *self._implicit_listeners):
            listener.start()
        log.info("smtp.listening host=%s port=%d implicit_port=%d", host, self.port, self.implicit_port)

    def configure(self, config: Config) -> None:
        """Go by ``config`` for new sessions. Raises CertificateError; then everything stays as it was.

        Host and ports are bound once: changing them needs a restart.
        """
        self._rules = _Rules.of(config)

    def stop_accepting(self) -> None:
        """Close the ports; sessions go on."""
        for listener in (*self._listeners, *self._implicit_listeners):
            listener.stop()
        self._listeners, self._implicit_listeners = [], []

    def close_sessions(self, timeout_seconds: float) -> bool:
        """End all sessions: idle ones at once with 421 4.3.2, those amid a message when its reply is sent.

        True when all have ended within ``timeout_seconds``; those that have not are cut off.
        """
        self._stopping.set()
        self._threads.close()
        with self._lock:
            wires = tuple(self._wires)
        for wire in wires:
            wire.interrupt()
        with self._changed:
            all_ended = self._changed.wait_for(lambda: not self._wires, timeout_seconds)
            left = tuple(self._wires)
        for wire in left:
            wire.abort()
        return all_ended

    # --- connections

    def _bind(self, host: str, port: int, implicit_tls: bool) -> None:
        first, *others = addresses_of(host)
        sock = bind(first, port)
        self._listen(sock, implicit_tls)
        for address in others:
            try:
                self._listen(bind(address, sock.getsockname()[1]), implicit_tls)
            except ListenError as error:
                log.debug("smtp.not_listening why=%r", str(error))

    def _listen(self, sock: socket.socket, implicit_tls: bool) -> None:
        listeners = self._implicit_listeners if implicit_tls else self._listeners
        listeners.append(Listener(partial(self._receive, implicit_tls=implicit_tls), self._services.clock, sock))

    def _receive(self, sock: socket.socket, address: str, implicit_tls: bool) -> None:
        """A new connection, in the accepting thread: admit it and give it a thread, or turn it away unread."""
        address = plain_address(address)
        rules = self._rules
        if not rules.access.admits(address):
            close_quietly(sock, ACCESS_DENIED.to_wire())
            self._note_refusal("access", address)
            return
        wire = Wire(sock, rules.terms.pace)
        peer = Peer.at(address)
        if not self._admit(wire, peer, rules):
            reply = SHUTTING_DOWN if self._stopping.is_set() else TOO_MANY_CONNECTIONS
            close_quietly(sock, b"" if implicit_tls else reply.to_wire())
            self._note_refusal("connections", address)
            return
        try:
            self._threads.run(partial(self._serve, wire, peer, rules.terms, implicit_tls))
        except RuntimeError:
            self._leave(wire, peer)
            raise

    def _serve(self, wire: Wire, peer: Peer, terms: Terms, implicit_tls: bool) -> None:
        try:
            Session(wire, peer, terms, self._services).run(implicit_tls)
        finally:
            self._leave(wire, peer)

    def _admit(self, wire: Wire, peer: Peer, rules: _Rules) -> bool:
        with self._lock:
            if len(self._wires) >= rules.max_connections or self._stopping.is_set():
                return False
            if not peer.is_loopback:
                count = self._per_address.get(peer.address, 0)
                if rules.max_per_address and count >= rules.max_per_address:
                    return False
                self._per_address[peer.address] = count + 1
            self._wires.add(wire)
            return True

    def _leave(self, wire: Wire, peer: Peer) -> None:
        wire.close()
        with self._lock:
            self._wires.discard(wire)
            if not peer.is_loopback:
                count = self._per_address.get(peer.address, 0) - 1
                if count > 0:
                    self._per_address[peer.address] = count
                else:
                    self._per_address.pop(peer.address, None)
            if self._stopping.is_set():  # before that nobody waits
                self._changed.notify_all()

    def _note_refusal(self, reason: str, address: str) -> None:
        log.info("smtp.refused client=%s verb=- reason=%s", address, reason)
        self._services.hub.publish(SubmissionRefused(reason))


def certificate_context(config: Config) -> ssl.SSLContext | None:
    """The TLS side of a server with the configured certificate; None without one. Raises CertificateError."""
    if not config.tls.cert_file:
        if config.tls.implicit_port:
            raise CertificateError("tls.implicitPort needs tls.certFile")
        return None
    cert = Path(config.tls.cert_file)
    key = Path(config.tls.key_file) if config.tls.key_file else cert
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8314 4.1, RFC 8996
    context.options |= ssl.OP_NO_RENEGOTIATION  # costs a server more than a client
    # A stop ends the wait for input by shutting the socket for reading, and 421 must still be sayable then. A cut
    # cannot pass for an end in SMTP, where lines and messages have ends of their own.
    context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
    for path in {cert, key}:
        _check_readable(path)
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        raise CertificateError(f"tls.certFile {cert} and tls.keyFile {key} do not make a pair of PEM files: {error}") from None
    return context


def _check_readable(path: Path) -> None:
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise CertificateError(f"tls: cannot read {path}: {error.strerror}") from None


def _no_password() -> str:
    """OpenSSL would ask on the terminal otherwise, and a service has none."""
    raise ValueError("the key is protected by a password; remove it with openssl pkey")


def _host_of(config: Config) -> str:
    """Where to listen: on loopback alone where only loopback peers are let in (spec 2, security.allowLocalOnly)."""
    host = config.smtp_host
    if config.security.allow_local_only and not config.security.allowed_networks:
        addresses = addresses_of(host)
        if not all(is_loopback(address) for address in addresses):
            log.warning("smtp.loopback_only smtpHost=%r listens_on=%s why=security.allowLocalOnly", host, LOOPBACK)
            return LOOPBACK
    return host
