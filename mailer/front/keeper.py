"""The main process's side of the listening one: stands where the SMTP listener would, and takes in what it received.

Threads: one reads the channel. What it reads it hands to the intake and goes on; the spool's thread tells what became of
messages, a whole group at once. No lock but those of its parts.

How it fails: when the listening process ends before it was told to, ``on_lost`` is called once; everything that it
announced is kept all the same.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from mailer.config.schema import Config
from mailer.events import Hub, SubmissionRefused
from mailer.front.channel import Channel, ChannelLost, Questions
from mailer.front.words import Word, envelope_of_value, fault_of
from mailer.mail.content import Content, MemoryContent
from mailer.mail.envelope import Envelope
from mailer.smtp.server import CertificateError, ListenError
from mailer.spool.content import SpooledFile
from mailer.spool.places import Places
from mailer.spool.store import SpoolError, Told
from mailer.window import Bucket

log = logging.getLogger(__name__)

ANSWER_SECONDS = 30.0
"""How long the listening process may take over an order: binding a port may ask a name server."""
END_SECONDS = 5.0
_LOOK_SECONDS = 0.02


class LaterIntake(Protocol):
    """Takes a message in without waiting for the disk; the dispatcher implements it."""

    def announce(self, envelope: Envelope, content: Content, told: Told) -> None: ...


class UsageStore(Protocol):
    """Keeps counts of sliding windows; the spool implements it."""

    def save_usage(self, buckets: Iterable[Bucket]) -> None: ...

    def load_usage(self, name: str) -> list[Bucket]: ...


class Front:
    """The listening process ``pid`` at the other end of ``channel``, with the methods of ``smtp.server.SmtpServer``."""

    def __init__(self, channel: Channel, pid: int) -> None:
        self.on_lost: Callable[[], None] | None = None
        self.port = 0
        self.implicit_port = 0
        self._channel = channel
        self._pid = pid
        self._questions = Questions(channel)
        self._is_ending = False

    def __repr__(self) -> str:
        return f"Front(pid={self._pid}, port={self.port})"

    def attach(self, data_dir: Path, intake: LaterIntake, usage: UsageStore, hub: Hub) -> None:
        """Say where what it sends goes. To be called once, before ``start``."""
        self._places = Places(data_dir.absolute())
        self._intake = intake
        self._usage = usage
        self._hub = hub
        threading.Thread(target=self._read, name="front", daemon=True).start()

    # what the application asks, as of the listener itself

    def start(self, inherited: Sequence[socket.socket] = ()) -> None:  # noqa: ARG002 - the other process has them
        """Let it bind its ports and accept. Raises ListenError, CertificateError."""
        self.port, self.implicit_port = self._order(Word.LISTEN)

    def configure(self, config: Config) -> None:
        """Go by ``config`` for new sessions. Raises CertificateError; then everything stays as it was."""
        self._order(Word.CONFIGURE, pickle.dumps(config))

    def reopen_log(self) -> None:
        self._order(Word.REOPEN)

    def count_report(self, now: float) -> None:
        """A report of our own was stored: the rate limits are counted there."""
        with contextlib.suppress(ChannelLost):  # with that process its counts end too
            self._channel.send((Word.REPORT, 0, now))

    def stop_accepting(self) -> None:
        with contextlib.suppress(ListenError):
            self._order(Word.STOP_ACCEPTING)

    def close_sessions(self, timeout_seconds: float) -> bool:
        """End all sessions; whether they ended within the time. Then the process itself is let go."""
        try:
            return bool(self._order(Word.CLOSE_SESSIONS, timeout_seconds, patience_seconds=timeout_seconds + ANSWER_SECONDS))
        except ListenError:
            return False

    def end(self) -> None:
        """Let the process go, and see that it goes."""
        self._is_ending = True
        self._channel.end()
        deadline = time.monotonic() + END_SECONDS
        pause = threading.Event()
        while not self._is_gone():
            if time.monotonic() > deadline:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._pid, signal.SIGKILL)
                return
            pause.wait(_LOOK_SECONDS)

    def _is_gone(self) -> bool:
        try:
            return os.waitpid(self._pid, os.WNOHANG)[0] != 0
        except ChildProcessError:
            return True

    def _order(self, word: int, *about: Any, patience_seconds: float = ANSWER_SECONDS) -> Any:
        try:
            answer = self._questions.ask(word, *about, timeout_seconds=patience_seconds)
        except ChannelLost as lost:
            raise ListenError(f"the listening process cannot be told: {lost}") from None
        if isinstance(answer, tuple) and isinstance(answer[0], str):
            kind, text, number = answer
            cause = OSError(number, os.strerror(number)) if number else None  # tells which exit code it is worth
            raise (CertificateError(text) if kind == "certificate" else ListenError(text)) from cause
        return answer

    # what it says, in the thread of our own

    def _read(self) -> None:
        while (value := self._channel.receive()) is not None:
            try:
                self._take(value)
            except ChannelLost:
                break
        self._questions.lost()
        if not self._is_ending:
            log.critical("front.lost pid=%d: the listening process has ended by itself", self._pid)
            if self.on_lost is not None:
                self.on_lost()

    def _take(self, value: tuple[Any, ...]) -> None:
        word = value[0]
        if word == Word.ARRIVED:
            self._arrived(value)
        elif word == Word.ANSWER:
            self._questions.answered(value[1], value[2])
        elif word == Word.USAGE:
            with contextlib.suppress(SpoolError):  # the spool is closing: a second of counts, as a crash would forget
                self._usage.save_usage([Bucket(*fields) for fields in value[1]])
        elif word == Word.STORED_USAGE:
            buckets = [(b.name, b.span, b.start, b.count) for b in self._usage.load_usage(value[2])]
            self._channel.send((Word.ANSWER, value[1], buckets))
        elif word == Word.REFUSED:
            self._hub.publish(SubmissionRefused(value[1]))

    def _arrived(self, value: tuple[Any, ...]) -> None:
        envelope = envelope_of_value(value[1])
        data = value[2]
        file = self._places.content_of(envelope.id)
        content = SpooledFile(file, value[3], value[4]) if data is None else MemoryContent(data)
        try:
            self._intake.announce(envelope, content, self._settled)
        except SpoolError as error:
            self._settled([(envelope.id, error)])

    def _settled(self, outcomes: Sequence[tuple[str, SpoolError | None]]) -> None:
        """Tell what became of messages: in the spool's thread, or in ours."""
        said = [(message_id, None if error is None else fault_of(error)) for message_id, error in outcomes]
        with contextlib.suppress(ChannelLost):  # nobody is left to be told; the reading thread has seen it too
            self._channel.send((Word.SETTLED, said))
