"""A nameserver on loopback, UDP and TCP on one port: real DNS messages for tests, and every trouble that DNS can make.

    with Nameserver({"example.test": {"MX": "10 mx.example.test"}, "mx.example.test": {"A": "127.0.0.1"}}) as nameserver:
        nameserver.add("example.test", "TXT", '"v=spf1 -all"')
        nameserver.refuse("slow.test")              # SERVFAIL; "*" is every name
        Dns([nameserver.address]).mx("example.test")
        assert nameserver.count("example.test", "MX") == 1

Names need no dot at their end; record data is written as in a zone file. A name that has no records, and none below it, does
not exist. One thread serves; one condition guards the records (zones.py), the troubles and what was asked. ``close`` ends it.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.zone

from tests.support.zones import TTL, Records, Zones

WAIT_SECONDS = 20.0
"""How long a wait for a question may take before the test fails: generous, because the machine is shared."""

EVERY_NAME = "*"

Forge = Callable[[dns.message.Message], Sequence[bytes]]


class Question(NamedTuple):
    name: str
    kind: str
    transport: str  # "udp" or "tcp"


class _Trouble(NamedTuple):
    """``what``: an RCODE's name, ``swallow``, ``truncate``, ``hold`` or ``forge``."""

    what: str
    forge: Forge | None = None
    is_deaf: bool = False


class Nameserver:
    """``address`` is ``127.0.0.1:port``, as ``dns.nameservers`` takes it. ``vouches``: set AD in every answer, as a validating
    resolver does (unbound.py has a real one). ``knows_edns``: False for a server from before EDNS."""

    def __init__(self, records: Records | None = None, *, vouches: bool = False, knows_edns: bool = True) -> None:
        self.vouches = vouches
        self.knows_edns = knows_edns
        self._tcp, self._udp = pair_of_sockets()
        self.host, self.port = self._udp.getsockname()
        self.address = f"{self.host}:{self.port}"
        self._changed = threading.Condition()  # guards all below
        self._zones = Zones()
        self._troubles: dict[tuple[str, str], _Trouble] = {}  # by name and type; "" is every type
        self._asked: list[Question] = []
        self._held: list[tuple[dns.message.QueryMessage, tuple[str, int]]] = []
        self._kept_open: list[socket.socket] = []
        for name, kinds in (records or {}).items():
            for kind, data in kinds.items():
                self.add(name, kind, *([data] if isinstance(data, str) else data))
        self._stop, self._stopped = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name="nameserver", daemon=True)
        self._thread.start()

    def __enter__(self) -> Nameserver:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Nameserver({self.address}, {self._zones!r}, asked={len(self._asked)})"

    # what a test says

    def add(self, name: str, kind: str, *data: str, ttl: int = TTL) -> None:
        """Records of one name and type, beside those that are there."""
        with self._changed:
            self._zones.add(name, kind, *data, ttl=ttl)

    def remove(self, name: str, kind: str = "") -> None:
        """Forget the records of a name, or those of one type."""
        with self._changed:
            self._zones.remove(name, kind)

    def load(self, zone: dns.zone.Zone) -> None:
        """All records of a zone, its signatures too; what was known of names in it is forgotten."""
        with self._changed:
            self._zones.load(zone)

    def refuse(self, name: str, rcode: str = "SERVFAIL", *, kind: str = "") -> None:
        """Answer with this RCODE; ``kind``: only to questions of one type, as below."""
        self._trouble(name, kind, _Trouble(rcode))

    def swallow(self, name: str, *, kind: str = "") -> None:
        """Never answer."""
        self._trouble(name, kind, _Trouble("swallow"))

    def truncate(self, name: str, *, kind: str = "", is_deaf: bool = False) -> None:
        """Answer over UDP that the answer is too long for it; ``is_deaf``: and do not answer over TCP."""
        self._trouble(name, kind, _Trouble("truncate", is_deaf=is_deaf))

    def hold(self, name: str, *, kind: str = "") -> None:
        """Keep answers over UDP back until ``release``."""
        self._trouble(name, kind, _Trouble("hold"))

    def forge(self, name: str, forge: Forge, *, kind: str = "") -> None:
        """Send these bytes: each item a datagram, over TCP a message each."""
        self._trouble(name, kind, _Trouble("forge", forge))

    def heal(self, name: str) -> None:
        """No more trouble with ``name``."""
        with self._changed:
            self._troubles = {key: trouble for key, trouble in self._troubles.items() if key[0] != name.lower()}

    def release(self) -> None:
        """Give the answers that were held back, and hold none from now on."""
        with self._changed:
            held, self._held = self._held, []
            self._troubles = {key: trouble for key, trouble in self._troubles.items() if trouble.what != "hold"}
        for query, peer in held:
            self._udp.sendto(self._fitted(query, self._response(query)), peer)

    def close(self) -> None:
        self._stop.close()
        self._thread.join(WAIT_SECONDS)
        for connection in (self._udp, self._tcp, self._stopped, *self._kept_open):
            connection.close()

    # what a test asks

    @property
    def asked(self) -> list[Question]:
        """Every question, in order."""
        with self._changed:
            return list(self._asked)

    def count(self, name: str = "", kind: str = "", transport: str = "") -> int:
        """How many questions there were; for a name, a type, over a transport, or all."""
        wanted = (name.lower(), kind, transport)
        return sum(all(w in ("", q) for w, q in zip(wanted, question, strict=True)) for question in self.asked)

    def wait_for(self, count: int, name: str = "", kind: str = "") -> None:
        """Wait until there were so many questions."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.count(name, kind) >= count, WAIT_SECONDS):
                raise AssertionError(f"not asked {count} times for {name} {kind}: {self._asked[-10:]}")

    # the server's side

    def _trouble(self, name: str, kind: str, trouble: _Trouble) -> None:
        with self._changed:
            self._troubles[name.lower(), kind] = trouble

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            for waited in (self._udp, self._tcp, self._stopped):
                selector.register(waited, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is self._stopped:
                        return
                    with contextlib.suppress(OSError):  # whoever asked has gone
                        self._serve_datagram() if key.fileobj is self._udp else self._serve_connection()

    def _serve_datagram(self) -> None:
        wire, peer = self._udp.recvfrom(65_535)
        query, trouble = self._hear(wire, "udp")
        if trouble.what == "hold":
            with self._changed:
                self._held.append((query, peer))
        elif trouble.forge is not None:
            for forged in trouble.forge(query):
                self._udp.sendto(forged, peer)
        elif trouble.what == "truncate":
            self._udp.sendto(_truncated(query), peer)
        elif trouble.what != "swallow":
            self._udp.sendto(self._fitted(query, self._troubled(query, trouble)), peer)

    def _serve_connection(self) -> None:
        connection, _ = self._tcp.accept()
        connection.settimeout(WAIT_SECONDS)
        with connection.makefile("rb") as stream:
            wire = stream.read(int.from_bytes(stream.read(2), "big"))
        query, trouble = self._hear(wire, "tcp")
        if trouble.what == "swallow" or trouble.is_deaf:
            self._kept_open.append(connection)
            return
        wires = trouble.forge(query) if trouble.forge is not None else [self._troubled(query, trouble).to_wire(max_size=65_535)]
        with connection:
            for wire in wires:
                connection.sendall(len(wire).to_bytes(2, "big") + wire)

    def _hear(self, wire: bytes, transport: str) -> tuple[dns.message.QueryMessage, _Trouble]:
        query = dns.message.from_wire(wire)
        assert isinstance(query, dns.message.QueryMessage)
        name, kind = query.question[0].name.to_text(omit_final_dot=True).lower(), query.question[0].rdtype.name
        with self._changed:
            self._asked.append(Question(name, kind, transport))
            keys = [(name, kind), (name, ""), (EVERY_NAME, kind), (EVERY_NAME, "")]
            trouble = next((self._troubles[key] for key in keys if key in self._troubles), _Trouble(""))
            self._changed.notify_all()  # before the answer: who waits for a question may change what it gets
        if not self.knows_edns and query.edns >= 0:
            trouble = _Trouble("FORMERR")
        return query, trouble

    def _troubled(self, query: dns.message.QueryMessage, trouble: _Trouble) -> dns.message.Message:
        if trouble.what not in ("", "truncate", "hold"):
            response = dns.message.make_response(query, recursion_available=True)
            response.set_rcode(dns.rcode.from_text(trouble.what))
            if trouble.what == "FORMERR":
                response.use_edns(False)
            return response
        return self._response(query)

    def _response(self, query: dns.message.QueryMessage) -> dns.message.Message:
        with self._changed:
            response = self._zones.response(query)
        if self.vouches:
            response.flags |= dns.flags.AD
        return response

    def _fitted(self, query: dns.message.QueryMessage, response: dns.message.Message) -> bytes:
        limit = query.payload if query.edns >= 0 else 512
        try:
            return response.to_wire(max_size=max(512, limit))
        except dns.exception.TooBig:
            return _truncated(query)


def _truncated(query: dns.message.QueryMessage) -> bytes:
    response = dns.message.make_response(query, recursion_available=True)
    response.flags |= dns.flags.TC
    return response.to_wire()


def pair_of_sockets() -> tuple[socket.socket, socket.socket]:
    """TCP and UDP on one port that is free for both."""
    while True:
        tcp = socket.create_server(("127.0.0.1", 0))
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            udp.bind(tcp.getsockname())
        except OSError:
            tcp.close()
            udp.close()
            continue
        return tcp, udp
