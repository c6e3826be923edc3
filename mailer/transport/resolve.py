"""A host's addresses, found within a time-out though ``getaddrinfo`` has none.

A name is asked for in a thread of its own; whoever wants the same name meanwhile waits for the same answer, so a dead
DNS costs one thread a name. One lock guards the questions under way; nothing is kept once answered: the system caches.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Callable, Sequence

from mailer.transport.dial import SocketAddress

MAX_ADDRESSES = 8  # tried of one host
Lookup = Callable[[str, int], Sequence[SocketAddress]]


def system_lookup(host: str, port: int) -> list[SocketAddress]:
    """Ask the system's resolver. Raises OSError (``gaierror``)."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    except UnicodeError as error:
        raise socket.gaierror(socket.EAI_NONAME, f"not a host name: {error}") from error
    return [(family, address) for family, _, _, _, address in found if isinstance(address[0], str)]


class _Question:
    """A look-up under way: ``answered`` is set once ``addresses`` or ``error`` is."""

    def __init__(self) -> None:
        self.answered = threading.Event()
        self.addresses: Sequence[SocketAddress] = ()
        self.error: OSError | None = None


class Resolver:
    """Addresses by host and port. Any thread may ask."""

    def __init__(self, lookup: Lookup = system_lookup) -> None:
        self._lookup = lookup
        self._lock = threading.Lock()  # guards _questions
        self._questions: dict[tuple[str, int], _Question] = {}

    def __repr__(self) -> str:
        return f"Resolver(asking={len(self._questions)})"

    def resolve(self, host: str, port: int, timeout_seconds: float) -> Sequence[SocketAddress]:
        """The addresses of ``host``, at most ``MAX_ADDRESSES``. Raises OSError: ``gaierror``, or TimeoutError."""
        literal = _literal(host, port)
        if literal is not None:
            return [literal]
        key = (host, port)
        with self._lock:
            question = self._questions.get(key)
            if question is None:
                question = self._questions[key] = _Question()
                threading.Thread(target=self._ask, args=(key, question), name=f"resolve-{host}", daemon=True).start()
        if not question.answered.wait(max(0.0, timeout_seconds)):
            raise socket.gaierror(socket.EAI_AGAIN, "no answer from DNS within the time-out")
        if question.error is not None:
            # A new exception: the same object must not be raised by two threads at once.
            raise socket.gaierror(question.error.errno or socket.EAI_FAIL, question.error.strerror or "not found")
        if not question.addresses:
            raise socket.gaierror(socket.EAI_NODATA, "host has no address")
        return question.addresses[:MAX_ADDRESSES]

    def _ask(self, key: tuple[str, int], question: _Question) -> None:
        try:
            question.addresses = self._lookup(*key)
        except OSError as error:
            question.error = error
        finally:
            with self._lock:
                del self._questions[key]
            question.answered.set()


def _literal(host: str, port: int) -> SocketAddress | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if address.version == 4:
        return socket.AF_INET, (host, port)
    return socket.AF_INET6, (host, port, 0, 0)
