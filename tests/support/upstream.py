"""A scriptable SMTP server on loopback: the upstream of tests, over real sockets, with every fault a provider can show.

    with Upstream() as upstream:
        upstream.on("rcpt", {"b@x.test": "550 5.1.1 no such user"})
        ...
        [message] = upstream.wait_for(1)

One thread accepts, one more serves each connection; one condition guards all records. ``close`` ends every thread.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import deque
from collections.abc import Callable, Mapping

from tests.support.upstream_script import EXTENSIONS, Answer, Behaviour, Disconnect, Login, Said, Stall, Transaction
from tests.support.upstream_session import HangUp, Session

__all__ = ["EXTENSIONS", "Answer", "Behaviour", "Disconnect", "Login", "Stall", "Transaction", "Upstream"]

WAIT_SECONDS = 20.0
"""How long a wait for a condition may take before the test fails: generous, because the machine is shared."""

STEPS = ("connect", "ehlo", "helo", "starttls", "auth", "mail", "rcpt", "data", "dot", "rset", "noop", "quit")


class Upstream:
    """The server. ``host`` and ``port`` say where; ``commands`` is every command line seen, as (connection, line)."""

    def __init__(self, behaviour: Behaviour | None = None) -> None:
        self.behaviour = behaviour or Behaviour()
        family = socket.AF_INET6 if ":" in self.behaviour.host else socket.AF_INET
        self._listener = socket.create_server((self.behaviour.host, self.behaviour.port), family=family, backlog=256)
        self.host = self.behaviour.host
        self.port: int = self._listener.getsockname()[1]
        self.released = threading.Event()
        self._changed = threading.Condition()  # guards all below
        self._answers: dict[str, deque[Answer]] = {step: deque() for step in STEPS}
        self._sockets: dict[int, socket.socket] = {}
        self._threads: list[threading.Thread] = []
        self._closed = False
        self.transactions: list[Transaction] = []
        self.commands: list[tuple[int, str]] = []
        self.connections = 0
        self._acceptor = threading.Thread(target=self._accept, name="upstream-accept", daemon=True)
        self._acceptor.start()

    def __enter__(self) -> Upstream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Upstream({self.host}:{self.port}, connections={self.connections}, transactions={len(self.transactions)})"

    # what a test says

    def on(self, step: str, *answers: Answer) -> None:
        """Answer ``step`` with these, in turn; the last one stays. ``on(step)`` makes it usual again."""
        with self._changed:
            self._answers[step] = deque(answers)

    def release(self) -> None:
        """Let every ``Stall`` go on, now and later."""
        self.released.set()

    def hang_up(self) -> None:
        """Close every connection, as a server does with idle ones; new ones are still taken."""
        with self._changed:
            sockets = list(self._sockets.values())
        for connection in sockets:
            _shut(connection)

    def close(self) -> None:
        with self._changed:
            self._closed = True
        self.released.set()
        _shut(self._listener)
        self._listener.close()
        self._acceptor.join(WAIT_SECONDS)
        self.hang_up()
        for thread in self._threads:
            thread.join(WAIT_SECONDS)

    # what a test asks

    @property
    def messages(self) -> list[Transaction]:
        """The messages that were accepted, in order."""
        with self._changed:
            return [t for t in self.transactions if t.accepted]

    @property
    def open_connections(self) -> int:
        with self._changed:
            return len(self._sockets)

    def verbs(self, connection: int | None = None) -> list[str]:
        """The verbs of all commands, in upper case; of one connection (counted from 1) or of all."""
        with self._changed:
            return [line.split(" ")[0].split(":")[0].upper() for n, line in self.commands if connection in (None, n)]

    def wait_for(self, count: int, timeout: float = WAIT_SECONDS) -> list[Transaction]:
        """The accepted messages once there are ``count``; fails after ``timeout`` seconds."""
        self.wait_until(lambda: sum(t.accepted for t in self.transactions) >= count, timeout)
        return self.messages

    def wait_until(self, condition: Callable[[], bool], timeout: float = WAIT_SECONDS) -> None:
        """Wait until ``condition`` holds; it is looked at whenever anything happens here."""
        with self._changed:
            if not self._changed.wait_for(condition, timeout):
                raise AssertionError(f"condition did not come true within {timeout:g} s: {self!r} {self.commands[-10:]}")

    # the connections' side

    def answer(self, step: str, argument: str, usual: str | bytes) -> Said:
        """What the script says at ``step``."""
        with self._changed:
            answers = self._answers[step]
            answer: Answer = answers.popleft() if len(answers) > 1 else answers[0] if answers else None
        if isinstance(answer, Mapping):
            answer = answer.get(argument)
        if callable(answer):
            answer = answer(argument)
        return usual if answer is None else answer

    def note_command(self, number: int, line: str) -> None:
        with self._changed:
            self.commands.append((number, line))
            self._changed.notify_all()

    def note_transaction(self, transaction: Transaction) -> None:
        with self._changed:
            self.transactions.append(transaction)
            self._changed.notify_all()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._changed:
                if self._closed:
                    connection.close()
                    return
                self.connections += 1
                number = self.connections
                self._sockets[number] = connection
                thread = threading.Thread(target=self._serve, args=(number, connection), name=f"upstream-{number}", daemon=True)
                self._threads = [t for t in self._threads if t.is_alive()]
                self._threads.append(thread)
                self._changed.notify_all()
            thread.start()

    def _serve(self, number: int, connection: socket.socket) -> None:
        session = Session(self, number, connection)
        try:
            session.run()
        except (OSError, HangUp):
            pass
        finally:
            session.close()
            with self._changed:
                del self._sockets[number]
                self._changed.notify_all()

    def replace_socket(self, number: int, connection: socket.socket) -> None:
        with self._changed:
            self._sockets[number] = connection


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
