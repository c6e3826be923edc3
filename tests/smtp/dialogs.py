r"""Dialogs: SMTP conversations as data files in ``tests/dialogs``, and how they are played against the listener.

    # a comment
    ! max_recipients=2            a setting of Config, or limits.bad_commands=3
    C: EHLO client.example        the client's line; CRLF is added; \r \n \0 \t \\ and \xNN are escapes
    C> half a line                without CRLF
    S: 250 2.1.0 *                the reply, line by line; a final * stands for the rest of the line
    S: (closed)                   the listener has closed the connection
    M: from=a@example.com to=b@example.org,c@example.org
    M: from=a@example.com to=b@example.org dsn=["HDRS","",{}]   and what was asked about reports, as mail/dsn.py writes it
    B: body\r\n                   what was stored, without the Received field on top; several B: lines are joined

Client lines that follow each other travel in one packet. A dialog that ends otherwise than with (closed) must leave
nothing unread. The messages named with M: and B: must be all that were stored.
"""

from __future__ import annotations

import json
import re
import socket
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mailer.config.schema import Secret
from mailer.mail.envelope import Envelope
from mailer.smtp.session import Session
from mailer.smtp.terms import Peer
from mailer.smtp.wire import Wire
from tests.smtp.script import Setting, added

FOLDER = Path(__file__).parents[1] / "dialogs"
WAIT_SECONDS = 20.0
_ESCAPES = {"r": b"\r", "n": b"\n", "0": b"\0", "t": b"\t", "\\": b"\\"}


@dataclass
class Step:
    """What the client sends at once, and the reply lines that must follow."""

    sent: bytes = b""
    replies: list[str] = field(default_factory=list)


@dataclass
class Dialog:
    settings: list[tuple[str, object]] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    contents: list[bytes] = field(default_factory=list)


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.txt"))


def read(name: str) -> Dialog:
    dialog = Dialog(steps=[Step()])
    for number, line in enumerate((FOLDER / f"{name}.txt").read_text("utf-8").splitlines(), 1):
        kind, text = line[:2], line[3:]
        if kind == "! ":
            key, _, value = line[2:].partition("=")
            dialog.settings.append((key.strip(), json.loads(value)))
        elif kind in ("C:", "C>"):
            if dialog.steps[-1].replies:
                dialog.steps.append(Step())
            dialog.steps[-1].sent += unescape(text) + (b"\r\n" if kind == "C:" else b"")
        elif kind == "S:":
            dialog.steps[-1].replies.append(text)
        elif kind == "M:":
            dialog.messages.append(text)
            dialog.contents.append(b"")
        elif kind == "B:":
            dialog.contents[-1] += unescape(text)
        elif line.strip() and not line.startswith("#"):
            raise ValueError(f"{name}.txt:{number}: {line!r} is none of C: C> S: M: B: ! #")
    return dialog


def unescape(text: str) -> bytes:
    def replaced(match: re.Match[str]) -> str:
        code = match[1]
        return (_ESCAPES[code] if code in _ESCAPES else bytes([int(code[1:], 16)])).decode("latin-1")

    # By way of Latin-1, in which every byte is one character.
    return re.sub(r"\\(x[0-9a-fA-F]{2}|[rn0t\\])", replaced, text.encode().decode("latin-1")).encode("latin-1")


def play(dialog: Dialog) -> None:
    """Play it over a socket pair. Raises AssertionError with the step at which it went otherwise."""
    setting = configured(dialog)
    ours, theirs = socket.socketpair()
    ours.settimeout(WAIT_SECONDS)
    wire = Wire(theirs, setting.terms.pace)

    def serve() -> None:
        Session(wire, Peer.at(setting.client), setting.terms, setting.services()).run()
        wire.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with ours, ours.makefile("rb") as replies:
            for step in dialog.steps:
                if step.sent:
                    ours.sendall(step.sent)
                for expected in step.replies:
                    said = _next_line(replies)
                    assert _matches(said, expected), f"after {step.sent!r}: expected {expected!r}, got {said!r}"
            ours.shutdown(socket.SHUT_WR)
            rest = _next_line(replies)
            assert rest == "(closed)", f"at the end: unexpected {rest!r}"
    finally:
        thread.join(WAIT_SECONDS)
    assert [_described(envelope) for envelope, _ in setting.intake.messages] == dialog.messages
    assert [added(content) for content in setting.intake.contents] == dialog.contents


def configured(dialog: Dialog) -> Setting:
    setting = Setting()
    for key, value in dialog.settings:
        if key == "client":
            setting.client = str(value)
            continue
        if key == "default_password":
            setting.config = replace(setting.config, default_password=Secret(str(value)))
            continue
        section, dot, name = key.partition(".")
        changes: dict[str, Any] = {section: replace(getattr(setting.config, section), **{name: value}) if dot else value}
        setting.config = replace(setting.config, **changes)
    return setting


def _described(envelope: Envelope) -> str:
    recipients = ",".join(str(recipient.address) for recipient in envelope.recipients)
    dsn = f" dsn={envelope.options.dsn}" if envelope.options.dsn else ""
    return f"from={envelope.sender} to={recipients}{dsn}"


def _next_line(replies: Any) -> str:
    try:
        line: bytes = replies.readline()
    except ConnectionResetError:
        line = b""
    assert not line or line.endswith(b"\r\n"), line
    return line[:-2].decode() if line else "(closed)"


def _matches(said: str, expected: str) -> bool:
    return said.startswith(expected[:-1]) if expected.endswith("*") else said == expected
