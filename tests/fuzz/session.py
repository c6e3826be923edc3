"""The SMTP session: an option byte, a byte that says how the rest is cut into packets, then what the client sends.

Invariants: every reply is well-formed; no fault of ours; nothing is accepted but what CRLF.CRLF or a last BDAT has ended,
and no bare CR or LF and no NUL is in it; what is kept of wishes about reports reads as it was written; the same bytes cut
differently have the same replies and the same messages. The last is not asked of a client that was told it had sent behind
a refusal without waiting: there the cut is what it is about.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, replace

from mailer.mail.dsn import Dsn
from mailer.smtp.replies import OUT_OF_STEP
from tests.smtp.script import Setting, converse, with_login

_REPLY = re.compile(r"[2-5][0-9]{2}[ -][ -~]*")
_NO_ENHANCED_CODE = {"220", "250", "334", "354", "501"}  # 501: the answer to a wrong EHLO (RFC 2034 4)
_ENHANCED = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3} ")
_RECEIVED = re.compile(rb"\AReceived: from .*? id [0-9a-z]+.*? \+0000\r\n", re.DOTALL)
_LAST_CHUNK = re.compile(rb"BDAT [0-9]+ +LAST", re.IGNORECASE)
_OUT_OF_STEP = f"{OUT_OF_STEP.code} {OUT_OF_STEP.enhanced} {OUT_OF_STEP.text}"


@dataclass(frozen=True)
class Seen:
    """What came of a session: replies without their text, and messages without what we put on top of them."""

    codes: list[str]
    messages: list[tuple[str, list[str], str, bytes]]
    is_out_of_step: bool


def check(data: bytes) -> None:
    if len(data) < 2:
        return
    options, cuts, stream = data[0], data[1], data[2:]
    whole = _run(options, [stream])
    cut = _run(options, _pieces(stream, random.Random(cuts)))
    ends = stream.count(b"\r\n.\r\n") + len(_LAST_CHUNK.findall(stream))
    assert len(whole.messages) <= ends, "a message was accepted that nothing has ended"
    if not (whole.is_out_of_step or cut.is_out_of_step):
        assert whole == cut, f"replies or messages depend on packets: {whole} {cut}"


def _pieces(stream: bytes, moments: random.Random) -> list[bytes]:
    longest = moments.choice((1, 2, 7, 50, 1000))
    pieces, at = [], 0
    while at < len(stream):
        size = moments.randint(1, longest)
        pieces.append(stream[at : at + size])
        at += size
    return pieces


def _setting(options: int) -> Setting:
    setting = with_login() if options & 1 else Setting()
    config = setting.config
    if options & 2:
        config = replace(config, bare_newlines="reject")
    if options & 4:
        config = replace(config, max_message_size=300, max_recipients=2, max_line_length=100)
    setting.config = config
    if options & 8:
        setting = setting.with_rate_limits(max_per_hour=1)
    if options & 16:
        setting.client = "192.0.2.7"
    if options & 32:
        setting = setting.with_limits(bad_commands=1)
    return setting


def _run(options: int, pieces: list[bytes]) -> Seen:
    setting = _setting(options)
    replies = converse(*pieces, setting=setting)
    for line in replies:
        assert _REPLY.fullmatch(line), line
        assert not line.startswith("421 4.3.0"), "an internal fault"
        assert line[:3] in _NO_ENHANCED_CODE or _ENHANCED.match(line[4:]), line
    messages = []
    for envelope, content in setting.intake.messages:
        lines = content.replace(b"\r\n", b"")
        assert not any(byte in lines for byte in (b"\r", b"\n", b"\0")), content
        assert content.endswith(b"\r\n"), content
        assert Dsn.of_text(envelope.options.dsn).to_text() == envelope.options.dsn
        own, found = _RECEIVED.subn(b"", content)
        assert found == 1, content
        recipients = [str(recipient.address) for recipient in envelope.recipients]
        messages.append((str(envelope.sender), recipients, envelope.options.dsn, _without_id(own, envelope.id)))
    codes = [line[:3] if line.startswith("334") else line[:9] for line in replies]  # a challenge is drawn
    return Seen(codes, messages, _OUT_OF_STEP in replies)


def _without_id(content: bytes, message_id: str) -> bytes:
    return content.replace(message_id.encode(), b"ID")
