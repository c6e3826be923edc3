"""The part of a delivery report for programs: fields of the message and of each recipient (RFC 3464 2, RFC 6533 4).

Functions over values; no threads, nothing that fails. What servers and clients have said loses what does not print, so that
none of it begins a line, and no line is long.
"""

from __future__ import annotations

import ipaddress
import textwrap
from collections.abc import Iterable

from mailer.mail import xtext
from mailer.mail.dsn import Dsn
from mailer.mail.fate import Action, Fate, Report
from mailer.mail.headers import format_date, own_name
from mailer.mail.outcome import Reply

MAX_DETAILED = 1000
"""Recipients with all their fields (``maxRecipients`` by default). Of more, only who and what: a report stays bounded."""
_MAX_TEXT_CHARS = 500  # of a server's text, so that no line is near 998 bytes (RFC 5322 2.1.1)
_WIDTH = 76  # columns


def status(report: Report, is_global: bool) -> str:
    """The fields, blocks joined by empty lines; ``is_global``: with characters beyond ASCII as they are (RFC 6533 4)."""
    dsn = Dsn.of_text(report.envelope.options.dsn)
    wishes = dict(dsn.wishes)
    blocks = [_of_message(report, dsn)]
    for place, fate in enumerate(report.fates):
        wish = wishes.get(str(fate.recipient.address))
        fields = [] if wish is None or not wish.original else _original_recipient(wish.original, is_global)
        blocks.append(fields + _of_recipient(report, fate, is_detailed=place < MAX_DETAILED))
    return "\r\n".join("".join(f"{line}\r\n" for line in block) for block in blocks)


def _of_message(report: Report, dsn: Dsn) -> list[str]:
    envelope = report.envelope
    lines = [f"Reporting-MTA: dns; {own_name(report.hostname)}"]
    envelope_id = _clean(xtext.decode(dsn.envelope_id)).strip()
    if envelope_id:
        lines.insert(0, f"Original-Envelope-Id: {envelope_id}")
    peer = _literal(envelope.options.client)
    if peer:
        lines.append(f"Received-From-MTA: dns; {peer}")
    lines.append(f"Arrival-Date: {format_date(envelope.accepted_at)}")
    return lines


def _of_recipient(report: Report, fate: Fate, is_detailed: bool) -> list[str]:
    recipient, reply = fate.recipient, fate.recipient.reply
    address = _clean(str(recipient.address))
    lines = [
        f"Final-Recipient: {'rfc822' if address.isascii() else 'utf-8'}; {address}",
        f"Action: {fate.action.value}",
        f"Status: {status_of(fate.action, reply)}",
    ]
    if not is_detailed:
        return lines
    if fate.remote:
        lines.append(f"Remote-MTA: dns; {_clean(fate.remote)}")
    if reply is not None:
        said = _ascii(_clean(str(reply))[:_MAX_TEXT_CHARS])
        # RFC 3464 2.3.6. What no server has said is our own.
        lines += _folded(f"Diagnostic-Code: {'smtp' if recipient.attempts else 'x-mailer'}; {said}")
    if recipient.attempts:
        lines.append(f"Last-Attempt-Date: {format_date(recipient.updated_at)}")
    if fate.action is Action.DELAYED:
        lines.append(f"Will-Retry-Until: {format_date(report.until)}")
    return lines


def status_of(action: Action, reply: Reply | None) -> str:
    """The enhanced status code (RFC 3463). What was given up after temporary errors keeps their 4: the address may be good."""
    enhanced = reply.enhanced if reply is not None else ""
    if action in (Action.DELIVERED, Action.RELAYED):
        return enhanced if enhanced.startswith("2.") else "2.0.0"
    if action is Action.DELAYED:
        return f"4{enhanced[1:]}" if enhanced else "4.0.0"
    if reply is None:
        return "4.4.7"  # delivery time expired
    return enhanced or ("5.0.0" if reply.is_permanent else "4.0.0")


def _original_recipient(original: str, is_global: bool) -> list[str]:
    """In the global form as people write it; else code points stand for what is beyond ASCII (RFC 6533 3)."""
    plain = xtext.plain_original(original)
    kind, _, address = (plain if is_global else xtext.ascii_original(plain)).partition(";")
    return [f"Original-Recipient: {kind}; {_clean(address)}"]


def _literal(client: str) -> str:
    """An IP address as a host's name (RFC 5321 4.1.3)."""
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return ""
    return f"[IPv6:{address}]" if address.version == 6 else f"[{address}]"


def _clean(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode()


def _folded(line: str) -> Iterable[str]:
    return textwrap.wrap(line, _WIDTH, subsequent_indent=" ", break_long_words=False, break_on_hyphens=False)
