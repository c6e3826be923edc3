"""The human part of a delivery report: its words in English and Chinese, and how they are put together.

Constants and functions; no threads, nothing that fails. A server's text is shown as it is but for characters that do not
print, and no line is long.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mailer.mail.fate import Kind

MAX_NAMED = 100
"""Recipients that the human part names, with what was said of each; the part for programs has all of them."""
_WIDTH = 72  # columns
_INDENT = "    "


class Facts(NamedTuple):
    """What the words speak of. ``said``: for each recipient its address and what became of it; dates are as in a header."""

    kind: Kind
    hostname: str
    message_id: str
    sent: str
    until: str
    has_body: bool
    said: Sequence[tuple[str, str]]


class _Words(NamedTuple):
    """One language. ``relayed`` stands in place of what the server said (RFC 3461 5.2.2)."""

    subject: Mapping[Kind, str]
    opening: Mapping[Kind, str]
    closing: Mapping[Kind, str]
    relayed: str
    silent: str
    more: str
    enclosed_header: str
    enclosed_message: str


RELAYED = "\0relayed"
SILENT = ""
"""What ``Facts.said`` may say in place of a server's words."""

_ENGLISH = _Words(
    subject={
        Kind.FAILURE: "Mail could not be delivered",
        Kind.DELAY: "Mail is delayed",
        Kind.SUCCESS: "Mail was delivered",
    },
    opening={
        Kind.FAILURE: "This is the mail program of {hostname}.\nYour message of {sent} could not be delivered to:",
        Kind.DELAY: "This is the mail program of {hostname}.\nYour message of {sent} could not be delivered yet to:",
        Kind.SUCCESS: "This is the mail program of {hostname}.\nYour message of {sent} was delivered to:",
    },
    closing={
        Kind.FAILURE: (
            "Nobody named here is tried again. If the message has other recipients,\n"
            "this report does not speak of them."
        ),
        Kind.DELAY: (
            "There is nothing that you have to do: it is tried again and again, until\n"
            "{until} at the latest. If that fails, you are told."
        ),
        Kind.SUCCESS: "You asked to be told of this when you sent the message.",
    },
    relayed="handed on to a server that sends no report of the delivery",
    silent="no server has answered",
    more="and {count} more, all of them named in the next part of this report",
    enclosed_header="Enclosed are the same for programs, and the header of your message.",
    enclosed_message="Enclosed are the same for programs, and your message.",
)

_CHINESE = _Words(
    subject={Kind.FAILURE: "邮件无法投递", Kind.DELAY: "邮件投递延迟", Kind.SUCCESS: "邮件已投递"},
    opening={
        Kind.FAILURE: "这里是 {hostname} 的邮件程序。\n您于 {sent} 发出的邮件无法投递给以下收件人：",
        Kind.DELAY: "这里是 {hostname} 的邮件程序。\n您于 {sent} 发出的邮件尚未投递给以下收件人：",
        Kind.SUCCESS: "这里是 {hostname} 的邮件程序。\n您于 {sent} 发出的邮件已投递给以下收件人：",
    },
    closing={
        Kind.FAILURE: "不会再向以上收件人投递。邮件若还有其他收件人，不在本报告之列。",
        Kind.DELAY: "您无需做任何操作：程序会继续尝试，最迟到\n{until} 为止；如果最终放弃，会另行通知您。",
        Kind.SUCCESS: "您在发送邮件时要求了这份通知。",
    },
    relayed="已转交给下一台服务器，该服务器不提供投递报告",
    silent="没有服务器作出应答",
    more="以及另外 {count} 个收件人，全部列在本报告的下一部分",
    enclosed_header="随附供程序读取的同样内容，以及您邮件的邮件头。",
    enclosed_message="随附供程序读取的同样内容，以及您的邮件。",
)

_LANGUAGES = {"en": (_ENGLISH,), "zh": (_CHINESE,), "both": (_ENGLISH, _CHINESE)}


def subject(kind: Kind, language: str) -> str:
    """The Subject. ``language`` is ``"en"``, ``"zh"`` or ``"both"``, here and below."""
    return " / ".join(words.subject[kind] for words in _LANGUAGES[language])


def text(facts: Facts, language: str) -> str:
    """The human part, lines joined by CRLF."""
    rule = "-" * _WIDTH
    parts = [_in_words(facts, words) for words in _LANGUAGES[language]]
    return f"\n{rule}\n\n".join(parts).replace("\n", "\r\n")


def _in_words(facts: Facts, words: _Words) -> str:
    named = [f"<{_printable(address)}>\n{_indented(_said(what, words))}" for address, what in facts.said[:MAX_NAMED]]
    if len(facts.said) > MAX_NAMED:
        named.append(words.more.format(count=len(facts.said) - MAX_NAMED))
    opening = words.opening[facts.kind].format(hostname=facts.hostname, sent=facts.sent)
    closing = words.closing[facts.kind].format(until=facts.until)
    enclosed = words.enclosed_message if facts.has_body else words.enclosed_header
    return "\n\n".join([opening, *named, closing, enclosed, f"id: {facts.message_id}"]) + "\n"


def _said(what: str, words: _Words) -> str:
    return {RELAYED: words.relayed, SILENT: words.silent}.get(what) or _printable(what)


def _indented(line: str) -> str:
    return "\n".join(textwrap.wrap(line, _WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT))


def _printable(line: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in line)
