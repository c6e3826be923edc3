"""One connection of an ``Upstream``: the server's side of an SMTP conversation, as scripted. No locks of its own."""

from __future__ import annotations

import base64
import hashlib
import hmac
import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.support.upstream_script import Disconnect, Login, Said, Stall, Transaction

if TYPE_CHECKING:
    from tests.support.upstream import Upstream

STALL_SECONDS = 60.0
"""A stall that no test releases ends by itself."""


class HangUp(Exception):
    """The session is over."""


class Session:
    """One connection. ``_buffer`` holds what was read and not yet used."""

    def __init__(self, upstream: Upstream, number: int, connection: socket.socket) -> None:
        self._upstream = upstream
        self._number = number
        self._socket = connection
        self._buffer = b""
        self._tls = False
        self._login: str | None = None
        self._sender: str | None = None
        self._parameters = ""
        self._recipients: list[str] = []

    def close(self) -> None:
        self._socket.close()

    def run(self) -> None:
        behaviour = self._upstream.behaviour
        if behaviour.implicit_tls:
            self._start_tls()
        self._say("connect", "", "220 upstream.test ESMTP")
        while True:
            line = self._line()
            self._upstream.note_command(self._number, line)
            verb, _, argument = line.partition(" ")
            handler = getattr(self, f"_do_{verb.lower()}", None)
            if handler is None:
                self._write("500 5.5.1 unknown command")
            else:
                handler(argument)

    def _do_ehlo(self, argument: str) -> None:
        behaviour = self._upstream.behaviour
        lines = ["upstream.test", *behaviour.extensions, *behaviour.announce]
        if behaviour.tls is not None and not self._tls:
            lines.append("STARTTLS")
        if behaviour.login is not None:
            lines.append(f"AUTH {behaviour.login.mechanisms}")
        self._forget()
        self._say("ehlo", argument, _multiline("250", lines))

    def _do_helo(self, argument: str) -> None:
        self._forget()
        self._say("helo", argument, "250 upstream.test")

    def _do_starttls(self, argument: str) -> None:
        if self._upstream.behaviour.tls is None or self._tls:
            self._say("starttls", argument, "503 5.5.1 not now")
        elif self._say("starttls", argument, "220 2.0.0 go ahead").startswith("220"):
            self._buffer = b""
            self._start_tls()

    def _start_tls(self) -> None:
        context = self._upstream.behaviour.tls
        assert context is not None
        self._socket = context.wrap_socket(self._socket, server_side=True)
        self._upstream.replace_socket(self._number, self._socket)
        self._tls = True

    def _do_auth(self, argument: str) -> None:
        mechanism, _, initial = argument.partition(" ")
        scripted = self._upstream.answer("auth", argument, "")
        if scripted != "":
            self._perform(scripted)
            return
        login = self._upstream.behaviour.login
        if login is None or mechanism.upper() not in login.mechanisms.split():
            self._write("504 5.5.4 unrecognized authentication type")
            return
        if _CHECKS[mechanism.upper()](self, login, initial):
            self._login = login.username
            self._write("235 2.7.0 welcome")
        else:
            self._write("535 5.7.8 bad login")

    def ask(self, challenge: bytes) -> str:
        self._write("334 " + base64.b64encode(challenge).decode())
        return self._line()

    def _do_mail(self, argument: str) -> None:
        path, _, parameters = argument[len("FROM:") :].rpartition(">")
        sender = path.lstrip("<")
        if self._say("mail", sender, "250 2.1.0 sender ok").startswith("2"):
            self._sender, self._parameters, self._recipients = sender, parameters.strip(), []

    def _do_rcpt(self, argument: str) -> None:
        recipient = argument[len("TO:") :].rpartition(">")[0].lstrip("<")
        usual = "503 5.5.1 MAIL first" if self._sender is None else "250 2.1.5 recipient ok"
        if self._say("rcpt", recipient, usual).startswith("2"):
            self._recipients.append(recipient)

    def _do_data(self, argument: str) -> None:
        usual = "354 go ahead" if self._recipients else "554 5.5.1 no valid recipients"
        if not self._say("data", argument, usual).startswith("354"):
            return
        raw = self._data()
        data = _unstuffed(raw)
        answer = self._upstream.answer("dot", "", f"250 2.0.0 taken {len(self._upstream.transactions) + 1}")
        accepted = answer.accepted if isinstance(answer, Disconnect) else _text(answer).startswith("2")
        transaction = Transaction(
            sender=self._sender or "",
            recipients=tuple(self._recipients),
            data=data,
            raw=raw,
            connection=self._number,
            tls=self._tls,
            login=self._login,
            parameters=self._parameters,
            accepted=accepted,
        )
        self._forget()
        self._upstream.note_transaction(transaction)
        self._perform(answer)

    def _do_rset(self, argument: str) -> None:
        self._forget()
        self._say("rset", argument, "250 2.0.0 reset")

    def _do_noop(self, argument: str) -> None:
        self._say("noop", argument, "250 2.0.0 ok")

    def _do_quit(self, argument: str) -> None:
        self._say("quit", argument, "221 2.0.0 bye")
        raise HangUp

    def _forget(self) -> None:
        self._sender, self._recipients = None, []

    # bytes

    def _say(self, step: str, argument: str, usual: str) -> str:
        answer = self._upstream.answer(step, argument, usual)
        self._perform(answer)
        return _text(answer) or usual

    def _perform(self, answer: Said) -> None:
        if isinstance(answer, Stall):
            self._upstream.released.wait(STALL_SECONDS)
            if answer.reply:
                self._write(answer.reply)
        elif isinstance(answer, Disconnect):
            if answer.reply:
                self._write(answer.reply)
            if answer.reset:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raise HangUp
        else:
            self._write(answer)

    def _write(self, reply: str | bytes) -> None:
        if isinstance(reply, bytes):
            self._socket.sendall(reply)
        else:
            self._socket.sendall(reply.replace("\n", "\r\n").encode() + b"\r\n")

    def _line(self) -> str:
        while (end := self._buffer.find(b"\r\n")) < 0:
            self._fill()
        line, self._buffer = self._buffer[:end], self._buffer[end + 2 :]
        return line.decode("utf-8", "surrogateescape")

    def _data(self) -> bytes:
        """The content as on the wire, up to and without the end of data."""
        endings = (b"\r\n.\r\n", b"\n.\n", b"\n.\r\n", b"\r\n.\n") if self._upstream.behaviour.lenient else (b"\r\n.\r\n",)
        data = bytearray(b"\r\n" + self._buffer)  # a dot may be the very first line
        self._buffer = b""
        seen = 0
        while True:
            found = [(at, ending) for ending in endings if (at := data.find(ending, max(0, seen - 5))) >= 0]
            if found:
                at, ending = min(found, key=lambda f: (f[0], -len(f[1])))
                self._buffer = bytes(data[at + len(ending) :])
                eol = ending[: ending.index(b".")]
                return bytes(data[2 : at + len(eol)]) if at else b""
            seen = len(data)
            self._fill()
            data += self._buffer
            self._buffer = b""

    def _fill(self) -> None:
        piece = self._socket.recv(65536)
        if not piece:
            raise HangUp
        self._buffer += piece


def _check_plain(session: Session, login: Login, initial: str) -> bool:
    answer = base64.b64decode(initial or session.ask(b""))
    return answer == f"\0{login.username}\0{login.password}".encode()


def _check_login(session: Session, login: Login, initial: str) -> bool:
    username = base64.b64decode(initial or session.ask(b"Username:"))
    password = base64.b64decode(session.ask(b"Password:"))
    return (username, password) == (login.username.encode(), login.password.encode())


def _check_cram_md5(session: Session, login: Login, initial: str) -> bool:
    challenge = b"<1.2@upstream.test>"
    answer = base64.b64decode(session.ask(challenge))
    digest = hmac.new(login.password.encode(), challenge, hashlib.md5).hexdigest()
    return answer == f"{login.username} {digest}".encode()


def _check_xoauth2(session: Session, login: Login, initial: str) -> bool:
    answer = base64.b64decode(initial or session.ask(b""))
    if answer == f"user={login.username}\1auth=Bearer {login.token}\1\1".encode():
        return True
    session.ask(b'{"status":"401","schemes":"bearer"}')
    return False


_CHECKS: dict[str, Callable[[Session, Login, str], bool]] = {
    "PLAIN": _check_plain,
    "LOGIN": _check_login,
    "CRAM-MD5": _check_cram_md5,
    "XOAUTH2": _check_xoauth2,
}


def _text(answer: Said) -> str:
    if isinstance(answer, bytes):
        return answer.decode("latin-1")
    return answer if isinstance(answer, str) else answer.reply


def _multiline(code: str, lines: list[str]) -> str:
    return "\n".join([*(f"{code}-{line}" for line in lines[:-1]), f"{code} {lines[-1]}"])


def _unstuffed(raw: bytes) -> bytes:
    """RFC 5321 4.5.2: a dot at the start of a line goes."""
    return (b"\r\n" + raw).replace(b"\r\n.", b"\r\n")[2:]
