"""The last steps before a message goes out: re-encoded as the peer needs it, From as the peer wants it, then signed.

Threads: a ``Render`` may be called from any thread; two at once do the same work twice and keep one result.
Fails with ``Unrenderable`` when the content cannot be read or a form not be written, with the signer's own MailerError.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from mailer.mail.address import Address
from mailer.mail.content import Content, Render
from mailer.mail.envelope import Envelope
from mailer.mail.outcome import MailerError
from mailer.mail.recode import Form, recode
from mailer.mail.rewrite import rewrite_from

log = logging.getLogger(__name__)

Sign = Callable[[Content], Content]
"""Gives the content with its signatures in front. Raises MailerError when it must not go out without, OSError when it
cannot be read."""


class Unrenderable(MailerError):
    """The form cannot be made at this moment; the text says why."""


def make_render(envelope: Envelope, content: Content, sign: Sign | None = None) -> Render:
    """The ``Render`` of one message. What is asked for twice is made once.

    A peer with 8BITMIME costs no re-encoding, unless the message has long lines.
    """
    options = envelope.options
    is_plain = sign is None and not options.has_long_lines
    recoded: dict[Form, Content] = {}
    made: dict[tuple[Form, Address | None], Content] = {}

    def make(form: Form, header_from: Address | None) -> Content:
        known = recoded.get(form)
        if known is None:
            known = recoded[form] = _recoded(envelope.id, content, form)
        if header_from is not None:
            known = rewrite_from(known, header_from)
        return known if sign is None else sign(known)

    def render(extensions: frozenset[str], header_from: Address | None = None) -> Content:
        # RFC 6531 3.1 (8): who offers SMTPUTF8 takes 8BITMIME, named or not.
        takes_8bit = "8BITMIME" in extensions or "SMTPUTF8" in extensions
        if is_plain and takes_8bit and header_from is None:
            return content  # as nearly always
        form = Form(not takes_8bit, options.has_long_lines, options.smtputf8)
        known = made.get((form, header_from))
        if known is None:
            try:
                known = made[form, header_from] = make(form, header_from)
            except OSError as error:
                raise Unrenderable(f"message {envelope.id} cannot be made ready for the peer: {error}") from error
        return known

    return render


def _recoded(message_id: str, content: Content, form: Form) -> Content:
    recoded = recode(content, form)
    if recoded.left:
        log.warning("recode.left_as_is message=%s reasons=%r", message_id, "; ".join(recoded.left))
    return recoded.content
