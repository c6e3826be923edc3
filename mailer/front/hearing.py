"""The listening process: SMTP sessions, and nothing that a message's fate depends on.

It holds the ports, TLS, logins and rate limits. A message that was received whole is sent to the main process, and its
session waits here until that has made it durable; only then is there a 250. Large content goes to its file in the spool
directly, durable before it is announced.

Threads: the main one reads the channel and lets sessions go, ``control`` does what the main process asks, ``usage``
hands over the counts of rate limits; and the listener's. When the channel ends, so does the process.
"""

from __future__ import annotations

import contextlib
import logging
import pickle
import queue
import socket
import threading
from collections.abc import Sequence
from typing import Any, Protocol

from mailer.config.schema import Config
from mailer.events import Event, Hub, SubmissionRefused
from mailer.front.channel import Channel, ChannelLost, Questions
from mailer.front.words import Fault, Word, envelope_to_value, error_of
from mailer.mail.content import Content
from mailer.mail.envelope import Envelope
from mailer.mail.outcome import MailerError, errno_behind
from mailer.policy.limits import RateLimiter
from mailer.service import Service
from mailer.smtp.server import CertificateError, SmtpServer
from mailer.spool.content import SpoolContentWriter, SpooledFile
from mailer.spool.handover import Gate
from mailer.spool.places import Places
from mailer.spool.store import SpoolError
from mailer.window import Bucket, Windows

log = logging.getLogger(__name__)

USAGE_SECONDS = 1.0
"""How often the counts of rate limits are handed over: a crash forgets at most so much of them."""

class Surroundings(Protocol):
    """What this process has around its sessions; the command line knows."""

    def begin(self) -> None:
        """Settle log, limits and signals, before there are threads."""
        ...

    def configure(self, config: Config) -> None:
        """Go by other settings."""
        ...

    def reopen_log(self) -> None:
        """A rotation has moved the log's file away."""
        ...

    def end(self) -> None: ...


class RemoteIntake:
    """Where sessions hand over messages (``smtp.message.Intake``). One lock guards who waits for what."""

    def __init__(self, channel: Channel, places: Places) -> None:
        self._channel = channel
        self._places = places
        self._lock = threading.Lock()  # guards both below
        self._waiting: dict[str, Gate] = {}
        self._is_lost = False

    def __repr__(self) -> str:
        return f"RemoteIntake(waiting={len(self._waiting)})"

    def new_content(self, message_id: str) -> SpoolContentWriter:
        return SpoolContentWriter(self._places, message_id)

    def accept(self, envelope: Envelope, content: Content) -> None:
        """Returns when the message is durable. Raises SpoolFull, SpoolError."""
        gate = Gate()
        with self._lock:
            if self._is_lost:
                raise SpoolError("the process that keeps mail has ended")
            self._waiting[envelope.id] = gate
        try:
            self._channel.send(_arrived(envelope, content))
        except ChannelLost as lost:
            self.settled([(envelope.id, (False, str(lost)))])
        gate.wait()

    def settled(self, outcomes: Sequence[tuple[str, Fault | None]]) -> None:
        """Let the sessions of these messages go."""
        with self._lock:
            found = [(self._waiting.pop(message_id, None), fault) for message_id, fault in outcomes]
        for gate, fault in found:
            if gate is not None:
                gate.settle(None if fault is None else error_of(fault))

    def lost(self) -> None:
        """The main process is gone. Whether it stored what waits is not known, so neither yes nor no would be true: those
        sessions say nothing, and their connections end with this process, which is about to."""
        with self._lock:
            self._is_lost = True


def _arrived(envelope: Envelope, content: Content) -> tuple[Any, ...]:
    if isinstance(content, SpooledFile):
        return (Word.ARRIVED, envelope_to_value(envelope), None, content.size, content.crc)
    return (Word.ARRIVED, envelope_to_value(envelope), b"".join(content.chunks()))


class Hearing:
    """The listening process as one thing."""

    def __init__(
        self, channel: Channel, config: Config, listeners: Sequence[socket.socket], surroundings: Surroundings
    ) -> None:
        self._channel = channel
        self._config = config
        self._listeners = listeners
        self._surroundings = surroundings
        self._questions = Questions(channel)
        self._intake = RemoteIntake(channel, Places(config.data_dir.absolute()))
        self._hub = Hub()
        self._hub.subscribe(self._note)
        self._windows = Windows(self._stored_usage)
        self._limiter = RateLimiter(config.rate_limits, self._windows, self._hub)
        self._usage = Service("usage", self)
        self._asked: queue.SimpleQueue[tuple[Any, ...] | None] = queue.SimpleQueue()
        self._server: SmtpServer | None = None  # of the control thread

    def __repr__(self) -> str:
        return f"Hearing({self._server!r}, {self._intake!r})"

    def run(self) -> None:
        """Serve until the channel ends."""
        control = threading.Thread(target=self._control, name="control", daemon=True)
        control.start()
        self._usage.start()
        while (value := self._channel.receive()) is not None:
            word = value[0]
            if word == Word.SETTLED:
                self._intake.settled(value[1])
            elif word == Word.ANSWER:
                self._questions.answered(value[1], value[2])
            else:
                self._asked.put(value)
        self._questions.lost()
        self._intake.lost()
        self._usage.stop()
        self._asked.put(None)
        control.join(1.0)

    def step(self, now: float) -> float:  # noqa: ARG002 - the Stepper's signature
        """Hand over the counts of rate limits that have changed."""
        self._send_usage()
        return USAGE_SECONDS

    def _send_usage(self) -> None:
        changes = self._windows.take_changes()
        if changes:
            with contextlib.suppress(ChannelLost):
                self._channel.send((Word.USAGE, [(b.name, b.span, b.start, b.count) for b in changes]))

    def _stored_usage(self, name: str) -> list[Bucket]:
        return [Bucket(*fields) for fields in self._questions.ask(Word.STORED_USAGE, name)]

    def _note(self, event: Event) -> None:
        if isinstance(event, SubmissionRefused):
            with contextlib.suppress(ChannelLost):
                self._channel.send((Word.REFUSED, event.reason))

    # what the main process asks, in the control thread

    def _control(self) -> None:
        while (asked := self._asked.get()) is not None:
            word, number, *about = asked
            try:
                answer = self._do(word, *about)
            except MailerError as error:
                kind = "certificate" if isinstance(error, CertificateError) else "listen"
                answer = (kind, str(error), errno_behind(error) or 0)
            with contextlib.suppress(ChannelLost):
                self._channel.send((Word.ANSWER, number, answer))

    def _do(self, word: int, *about: Any) -> Any:
        if word == Word.LISTEN:
            self._server = SmtpServer(self._config, self._intake, self._limiter, self._hub)
            self._server.start(self._listeners)
            return (self._server.port, self._server.implicit_port)
        if word == Word.CONFIGURE:
            return self._configure(pickle.loads(about[0]))  # noqa: S301 - written by our own other half
        if word == Word.REOPEN:
            return self._surroundings.reopen_log()
        if word == Word.REPORT:
            return self._limiter.count_report(about[0])
        if self._server is None:
            return True
        if word == Word.STOP_ACCEPTING:
            return self._server.stop_accepting()
        all_ended = self._server.close_sessions(about[0])
        self._usage.stop()
        self._usage.join(USAGE_SECONDS)  # else it may have taken older counts, and say them after these
        self._send_usage()
        return all_ended

    def _configure(self, config: Config) -> None:
        if self._server is not None:
            self._server.configure(config)
        self._limiter.configure(config.rate_limits)
        self._surroundings.configure(config)
