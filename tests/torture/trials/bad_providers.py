"""What a bad provider can do, as values: how it is set up, what the program is told of it, and what it says at which step."""

from __future__ import annotations

import random
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.certificates import Certificate, issue, make_ca
from tests.support.upstream import Answer, Behaviour, Disconnect, Login, Stall

STEPS = ("connect", "ehlo", "mail", "rcpt", "data", "dot")
CODES = {"connect": "220", "data": "354"}  # what says yes at a step, where it is not 250
LONG_BYTES = 10 * 1000 * 1000
LOGIN = Login("user", "secret")
IN_CLEAR = {"tls": "none"}
WITH_LOGIN = {"username": "user", "password": "secret", "tls": "none"}
WITH_TLS = {"tls": "required"}


@dataclass(frozen=True, slots=True)
class Bad:
    """A provider that is bad in one way. ``step`` is where ``answer`` is said; ``told``: its configuration. ``is_good``: the
    control, which must get the mail."""

    name: str
    step: str
    answer: Answer
    behaviour: Behaviour = field(default_factory=Behaviour)
    told: Mapping[str, Any] = field(default_factory=lambda: IN_CLEAR)
    is_good: bool = False


def stalling(tls: ssl.SSLContext) -> list[Bad]:
    return [
        *(Bad(f"stalls at {step}", step, Stall()) for step in (*STEPS, "quit")),
        Bad("stalls at auth", "auth", Stall(), Behaviour(login=LOGIN), WITH_LOGIN),
        Bad("stalls at starttls", "starttls", Stall(), Behaviour(tls=tls), WITH_TLS),
        Bad("stalls in the handshake", "connect", Stall(), told={"ssl": True}),
    ]


def babbling() -> list[Bad]:
    noise = random.Random(1).randbytes(3000)
    kinds: dict[str, Callable[[str], bytes]] = {
        "noise": lambda code: noise + b"\r\n",
        "noise without an end": lambda code: noise.replace(b"\n", b"."),
        "no code": lambda code: b"hello there\r\n",
        "another code in the second line": lambda code: f"{code}-one\r\n550 two\r\n".encode(),
        "a code of the future": lambda code: b"999 what\r\n",
        "two replies": lambda code: f"{code} one\r\n{code} two\r\n".encode(),
        "an unfinished reply": lambda code: f"{code}-more to come\r\n".encode(),
    }
    return [
        Bad(f"says {name} at {step}", step, make(CODES.get(step, "250"))) for step in STEPS for name, make in kinds.items()
    ]


def hanging_up() -> list[Bad]:
    return [
        Bad("takes it and hangs up after the dot", "dot", Disconnect(accepted=True)),
        Bad("takes it and resets after the dot", "dot", Disconnect(accepted=True, reset=True)),
        *(Bad(f"hangs up at {step}", step, Disconnect()) for step in STEPS),
        *(Bad(f"resets at {step}", step, Disconnect(reset=True)) for step in STEPS),
    ]


def long_winded() -> list[Bad]:
    bad = []
    for step in STEPS:
        code = CODES.get(step, "250")
        line = f"{code}-{'x' * 60}\r\n".encode()
        bad.append(Bad(f"a line of 10 MB at {step}", step, f"{code} ".encode() + b"x" * LONG_BYTES + b"\r\n"))
        bad.append(Bad(f"lines of 10 MB at {step}", step, line * (LONG_BYTES // len(line)) + f"{code} end\r\n".encode()))
    return bad


def speaking_tls_wrongly(tls: ssl.SSLContext) -> list[Bad]:
    offered = Behaviour(tls=tls)
    return [
        Bad("clear text on a port for TLS", "connect", "220 hello", told={"ssl": True}),
        Bad("noise instead of a handshake", "starttls", b"220 go ahead\r\n" + bytes(range(256)), offered, WITH_TLS),
        Bad("hangs up instead of a handshake", "starttls", Disconnect("220 go ahead"), offered, WITH_TLS),
        Bad("offers STARTTLS and refuses it", "starttls", "454 4.7.0 not now", offered, WITH_TLS),
        Bad("does not offer STARTTLS", "ehlo", None, told=WITH_TLS),
    ]


def with_certificates(folder: Path) -> tuple[Path, list[Bad]]:
    """The certificates to trust, and providers that show others, and one that shows the right one."""
    own, foreign = make_ca(folder / "own"), make_ca(folder / "foreign", "another CA")
    shown = {
        "an expired certificate": issue(own, "127.0.0.1", expired=True),
        "a foreign certificate": issue(foreign, "127.0.0.1"),
        "a certificate of another name": issue(own, "mail.example.org"),
    }
    right = Bad("the right certificate", "ehlo", None, Behaviour(tls=context(issue(own, "127.0.0.1"))), WITH_TLS, is_good=True)
    wrong = [Bad(name, "ehlo", None, Behaviour(tls=context(made)), WITH_TLS) for name, made in shown.items()]
    return own.cert_file, [*wrong, right]


def context(shown: Certificate) -> ssl.SSLContext:
    """The server's side of TLS with that certificate."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(shown.cert_file, shown.key_file)
    return made
