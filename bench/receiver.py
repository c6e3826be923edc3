"""An upstream in this process that counts recipients and notes when, and speaks TLS and AUTH where told to: smtp-sink does not.

It offers PIPELINING, takes everything and keeps nothing. Its clock is that of the client beside it (``time.monotonic``), so
that a delay from one to the other is a plain difference. It does next to nothing for a message, and OpenSSL
works outside the interpreter's lock, so it is no bottleneck that would make all relays look alike.

Threads: one accepts, one more serves each connection; one condition guards the count. A connection that breaks is forgotten.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from types import TracebackType

from bench.traffic import BenchError
from tests.support.certificates import Certificate

RECEIVE_BYTES = 256 * 1024
_END = b"\r\n.\r\n"
_LINES = {
    b"EHLO": b"250-receiver.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-AUTH PLAIN\r\n250 ENHANCEDSTATUSCODES\r\n",
    b"AUTH": b"235 2.7.0 welcome\r\n",
    b"DATA": b"354 go on\r\n",
    b"QUIT": b"221 2.0.0 bye\r\n",
}


class Receiver:
    """``certificate``: TLS from the first byte, with this one."""

    def __init__(self, certificate: Certificate | None = None) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1000)
        self.port: int = self._listener.getsockname()[1]
        self._tls: ssl.SSLContext | None = None
        if certificate is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(certificate.cert_file, certificate.key_file)
        self._changed = threading.Condition()  # guards both below
        self._count = 0
        self._counted_at = 0.0

    def __enter__(self) -> Receiver:
        threading.Thread(target=self._accept, name="receiver", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the accepting thread, which closing alone does not
        self._listener.close()

    @property
    def count(self) -> int:
        """Recipients of all messages that have come whole."""
        with self._changed:
            return self._count

    def wait_for(self, count: int, timeout_seconds: float) -> float:
        """When (``time.monotonic``) the last byte came of the message that made it so many. Raises BenchError."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._count >= count, timeout_seconds):
                raise BenchError(f"{self._count} of {count} recipients were served within {timeout_seconds:g} s")
            return self._counted_at

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._serve, args=(connection,), name="receiver-connection", daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        with plain, contextlib.suppress(OSError):
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with plain if self._tls is None else self._tls.wrap_socket(plain, server_side=True) as connection:
                connection.sendall(b"220 receiver.test ESMTP\r\n")
                conversation = Conversation()
                while piece := connection.recv(RECEIVE_BYTES):
                    at = time.monotonic()
                    answer, recipients = conversation.feed(piece)
                    if recipients:
                        self._note(recipients, at)
                    connection.sendall(answer)

    def _note(self, recipients: int, at: float) -> None:
        with self._changed:
            self._count += recipients
            self._counted_at = at
            self._changed.notify_all()


class Conversation:
    """The server's side of one connection, without the socket."""

    def __init__(self) -> None:
        self._seen = b""
        self._recipients = 0
        self._is_content = False

    def feed(self, piece: bytes) -> tuple[bytes, int]:
        """What to answer, in one piece, and how many recipients the messages have that are complete now."""
        self._seen += piece
        answers: list[bytes] = []
        served = 0
        while True:
            if self._is_content:
                if not self._is_content_whole():
                    return b"".join(answers), served
                answers.append(b"250 2.0.0 taken\r\n")
                served += self._recipients
                self._recipients, self._is_content = 0, False
            line, end, rest = self._seen.partition(b"\r\n")
            if not end:
                return b"".join(answers), served
            self._seen = rest
            answers.append(self._answer(line[:4].upper()))

    def _is_content_whole(self) -> bool:
        """What was seen of the content is dropped, but for what its end may begin with."""
        end = self._seen.find(_END)
        self._seen = self._seen[1 - len(_END) :] if end < 0 else self._seen[end + len(_END) :]
        return end >= 0

    def _answer(self, verb: bytes) -> bytes:
        if verb == b"RCPT":
            self._recipients += 1
        if verb in {b"MAIL", b"RSET"}:
            self._recipients = 0
        if verb == b"DATA":
            self._is_content = True
            self._seen = b"\r\n" + self._seen  # a dot may be the first line
        return _LINES.get(verb, b"250 2.0.0 ok\r\n")
