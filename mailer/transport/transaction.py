"""One message over an open conversation: MAIL, RCPT and DATA (RFC 5321 3.3), pipelined where offered (RFC 2920).

No threads, no locks: a transaction lives within one call. It never raises for what the peer says or does: every
recipient gets a verdict, faults included.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mailer.mail.address import Address
from mailer.mail.content import Content, MemoryContent
from mailer.mail.dsn import Dsn
from mailer.mail.envelope import Recipient
from mailer.mail.outcome import Delivery, MailerError, Reply, Stage, Verdict
from mailer.transport.client import Conversation, received
from mailer.transport.commands import mail_parameters, path_of, plain_rcpt, rcpt_commands
from mailer.transport.delay import named_delay
from mailer.transport.faults import FOREIGN, ContentUnreadable, Fault, is_lost, nonsense, reply_for
from mailer.transport.needs import has_utf8_header, is_8bit, readable
from mailer.transport.wire import stuffed, stuffed_whole

GROUP_RECIPIENTS = 100
"""RCPT commands in one write. RFC 2920 3.1: a client must not deadlock against a server that stops reading until its
replies are read; 100 commands and their replies fit the smallest socket buffers in use."""

_NO_RECIPIENTS = Reply(451, "4.3.0", "no recipients")
_NOT_NOW = Reply(451, "4.3.2", "not sent: outcomes cannot be recorded at the moment")
_NEEDS_SMTPUTF8 = Reply(550, "5.6.7", "address needs SMTPUTF8, which the server does not offer")
_NEEDS_REQUIRETLS = Reply(550, "5.7.30", "REQUIRETLS support required, and the server does not offer it")  # RFC 8689 4.2.1
_NEEDS_VERIFIED_TLS = Reply(550, "5.7.30", "REQUIRETLS support required, and the server's certificate is not verified")


class Outcome(NamedTuple):
    """What a conversation came to. ``reply`` decided it, at ``stage``. ``is_fault``: the connection broke or is being
    closed by the server. ``is_stale``: that happened before the server said anything to this transaction."""

    verdicts: dict[int, Verdict]
    stage: Stage
    reply: Reply
    is_fault: bool = False
    is_stale: bool = False


def verdict_of(stage: Stage, reply: Reply, in_doubt: bool = False, took_dsn: bool = False) -> Verdict:
    """A verdict with the delay that its reply names."""
    return Verdict(stage, reply, in_doubt, named_delay(reply) if 400 <= reply.code <= 499 else None, took_dsn)


def failed(recipients: Sequence[Recipient], stage: Stage, error: BaseException) -> Outcome:
    """The outcome of a conversation that never came to MAIL."""
    verdict = verdict_of(stage, reply_for(error))
    return Outcome({r.index: verdict for r in recipients}, stage, verdict.reply, is_fault=True)


class Transaction:
    """One delivery over one conversation. ``sender`` is the one to use here, which may differ from the envelope's."""

    def __init__(self, conversation: Conversation, delivery: Delivery, sender: Address) -> None:
        self._conversation = conversation
        self._delivery = delivery
        self._sender = sender
        self._recipients = delivery.recipients  # those that the peer can take
        self._rcpt_commands: list[bytes] = []  # of ``_recipients``, in their order
        self._accepted: list[Recipient] = []
        self._verdicts: dict[int, Verdict] = {}
        self._reply = _NO_RECIPIENTS  # the last one that decided anything
        self._was_heard = False
        self._dot_sent = False

    def __repr__(self) -> str:
        return f"Transaction({self._delivery.envelope.id}, verdicts={len(self._verdicts)}, dot_sent={self._dot_sent})"

    def run(self) -> Outcome:
        """Carry it out. Leaves the conversation closed unless it can be used again."""
        conversation = self._conversation
        conversation.deadline = self._delivery.deadline
        conversation.sent += 1
        is_fault = False
        try:
            self._converse()
        except ContentUnreadable as error:
            conversation.close()  # in the middle of the content: hanging up is the only way not to end the message
            self._give_all(Stage.LOCAL, Reply(451, "4.3.0", str(error)))
        except MailerError as error:
            self._give_all(Stage.LOCAL, Reply(451, "4.6.0", str(error)))
        except FOREIGN as error:
            is_fault = is_lost(error)
            self._give_all(conversation.stage, reply_for(error), in_doubt=self._dot_sent and not _is_answer(error))
            conversation.close()
        return Outcome(self._verdicts, conversation.stage, self._reply, is_fault, is_stale=is_fault and not self._was_heard)

    def _converse(self) -> None:
        conversation = self._conversation
        conversation.stage = Stage.MAIL
        content = self._delivery.render(conversation.extensions)
        mail = self._commands(content)
        if mail is None:
            return
        if not self._delivery.watch.begin():
            self._give_all(Stage.LOCAL, _NOT_NOW)
            return
        envelope = self._envelope_at_once if "PIPELINING" in conversation.extensions else self._envelope_by_steps
        if envelope(mail):
            self._send(content)

    # what the peer can take

    def _commands(self, content: Content) -> bytes | None:
        """The MAIL command, with ``_rcpt_commands`` made. None when there is nothing to go on with: what the peer has said
        it cannot take is not sent."""
        extensions, options = self._conversation.extensions, self._delivery.envelope.options
        if options.require_tls and not self._keeps_tls():
            return None
        size, limit = content.size, self._conversation.max_size
        if limit and size > limit:  # RFC 1870 6.1
            text = f"message of {size} bytes exceeds the server's limit of {limit}"
            self._give_all(Stage.MAIL, Reply(552, "5.3.4", text))
            return None
        texts = [recipient.address.text for recipient in self._recipients]
        has_utf8 = options.smtputf8 or not "".join((self._sender.text, *texts)).isascii()
        if has_utf8 and "SMTPUTF8" not in extensions:
            if not self._fits_ascii(content):
                return None
            has_utf8 = False
        offers_dsn = "DSN" in extensions
        dsn = Dsn.of_text(options.dsn) if offers_dsn and options.dsn else None
        if dsn is None:
            self._rcpt_commands = [plain_rcpt(recipient.address, has_utf8, offers_dsn) for recipient in self._recipients]
        else:
            self._rcpt_commands = rcpt_commands(self._recipients, has_utf8, dsn)
        return b"MAIL FROM:%b%b%b%b%b%b\r\n" % (
            path_of(self._sender, has_utf8),
            b" SIZE=%d" % size if "SIZE" in extensions else b"",
            b" BODY=8BITMIME" if "8BITMIME" in extensions and is_8bit(options, content) else b"",
            b" SMTPUTF8" if has_utf8 else b"",
            b" REQUIRETLS" if options.require_tls else b"",
            b"" if dsn is None else mail_parameters(dsn),
        )

    def _keeps_tls(self) -> bool:
        """Whether the peer may have what came with REQUIRETLS: known by its certificate, and bound to ask the same of the
        next (RFC 8689 4.2.1)."""
        conversation = self._conversation
        is_bound = "REQUIRETLS" in conversation.extensions
        if not (conversation.is_verified and is_bound):
            self._give_all(Stage.MAIL, _NEEDS_VERIFIED_TLS if is_bound else _NEEDS_REQUIRETLS)
            return False
        return True

    def _fits_ascii(self, content: Content) -> bool:
        """For a peer without SMTPUTF8 (RFC 6531 3.2): what needs it gets a verdict that lets the next way try."""
        if not self._sender.local_part.isascii() or (self._delivery.envelope.options.smtputf8 and has_utf8_header(content)):
            self._give_all(Stage.MAIL, _NEEDS_SMTPUTF8)
            return False
        for recipient in self._delivery.recipients:
            if not recipient.address.local_part.isascii():
                self._verdicts[recipient.index] = Verdict(Stage.MAIL, _NEEDS_SMTPUTF8)
                self._reply = _NEEDS_SMTPUTF8
        if self._verdicts:
            self._recipients = [r for r in self._recipients if r.index not in self._verdicts]
        return bool(self._recipients)

    # the envelope

    def _envelope_at_once(self, mail: bytes) -> bool:
        """MAIL, all RCPT and DATA, in one write while they are few. True when the content may be sent."""
        conversation, recipients = self._conversation, self._recipients
        begin = b"RSET\r\n" + mail if conversation.needs_reset else mail
        had_transaction, taken, count = conversation.needs_reset, False, len(recipients)
        for start in range(0, count, GROUP_RECIPIENTS):
            group = recipients[start : start + GROUP_RECIPIENTS]
            is_last = start + GROUP_RECIPIENTS >= count
            lines = self._rcpt_commands[start : start + GROUP_RECIPIENTS]
            conversation.send(b"".join((b"" if start else begin, *lines, b"DATA\r\n" if is_last else b"")))
            if start == 0:
                if had_transaction:
                    self._read_reset()
                taken = self._read_mail()
            for recipient in group:
                conversation.stage = Stage.RCPT if taken else Stage.MAIL
                self._read_recipient(recipient, taken)
            if not taken and not is_last:
                return False
        conversation.stage = Stage.DATA if self._accepted else conversation.stage
        return self._read_data()

    def _envelope_by_steps(self, mail: bytes) -> bool:
        """The same for a peer without PIPELINING: each command waits for the reply to the one before."""
        conversation = self._conversation
        if conversation.needs_reset:
            conversation.send(b"RSET\r\n")
            self._read_reset()
        conversation.send(mail)
        if not self._read_mail():
            return False
        conversation.stage = Stage.RCPT
        for recipient, command in zip(self._recipients, self._rcpt_commands, strict=True):
            conversation.send(command)
            self._read_recipient(recipient, True)
        if not self._accepted:
            return False
        conversation.stage = Stage.DATA
        conversation.send(b"DATA\r\n")
        return self._read_data()

    def _read_reset(self) -> None:
        code, text = self._conversation.getreply()
        if code != 250:  # RFC 5321 4.1.1.5: nothing else is possible, so the connection is no longer what it was
            raise Fault(received(code, text), is_lost=True)
        self._conversation.needs_reset = False

    def _read_mail(self) -> bool:
        code, text = self._conversation.getreply()
        refusal = None if 200 <= code <= 299 else _refusal(code, text)
        self._was_heard = True
        self._conversation.needs_reset = True
        if refusal is not None:
            self._give_all(Stage.MAIL, refusal)
        return refusal is None

    def _read_recipient(self, recipient: Recipient, taken: bool) -> None:
        """The reply to one RCPT; behind a refused MAIL it says nothing."""
        code, text = self._conversation.getreply()
        refusal = None if 200 <= code <= 299 else _refusal(code, text)
        if not taken:
            return
        if refusal is None:
            self._accepted.append(recipient)
        else:
            self._verdicts[recipient.index] = verdict_of(Stage.RCPT, refusal)
            self._reply = refusal

    def _read_data(self) -> bool:
        """The reply to DATA; True when content is awaited and someone is to get it."""
        conversation = self._conversation
        code, text = conversation.getreply()
        if code == 354:
            if self._accepted:
                return True
            # RFC 2920 3.1: a server that goes on without a recipient is sent a single dot. To nobody, nothing is
            # delivered; what it answers says nothing.
            conversation.send(b".\r\n")
            conversation.getreply()
            return False
        if code < 400:
            raise nonsense(f"reply to DATA is {code}")
        if code == 421:
            raise Fault(received(code, text))
        if self._accepted:  # else: a refusal of DATA after every RCPT was refused says nothing (spec 4)
            self._give_all(Stage.DATA, received(code, text))
        return False

    # the content

    def _send(self, content: Content) -> None:
        conversation = self._conversation
        if conversation.has_unread:
            raise nonsense("server answers before the content was sent")
        self._send_stuffed(content)
        self._dot_sent = True
        code, text = conversation.getreply()
        reply = conversation.reply_of(code, text)
        if code < 200 or 300 <= code <= 399:
            raise nonsense(f"unexpected reply {code} to the content")
        if code == 421:
            raise Fault(reply)
        conversation.needs_reset = False  # RFC 5321 4.1.1.4: the reply ends the transaction, whatever it says
        self._give_all(Stage.DATA, reply)

    def _send_stuffed(self, content: Content) -> None:
        try:
            if isinstance(content, MemoryContent):
                self._conversation.send(stuffed_whole(content.data))
                return
            for piece in stuffed(readable(content)):
                self._conversation.send(piece)
        except FOREIGN:
            # The last piece holds the dot and counts only when all of it went out, so the message was not ended.
            refusal = self._conversation.late_reply()
            if refusal is not None:
                raise Fault(refusal) from None
            raise

    def _give_all(self, stage: Stage, reply: Reply, in_doubt: bool = False) -> None:
        """The same verdict to everyone who has none yet."""
        took_dsn = "DSN" in self._conversation.extensions and reply.code < 400  # a yes, which is for the content alone
        verdict = verdict_of(stage, reply, in_doubt, took_dsn)
        self._reply = reply
        for recipient in self._delivery.recipients:
            self._verdicts.setdefault(recipient.index, verdict)


def _refusal(code: int, text: bytes) -> Reply:
    """What a reply that is no yes says. Raises Fault for 421, and for what is no answer to the command."""
    if code == 421 or code < 400:
        raise Fault(received(code, text)) if code == 421 else nonsense(f"unexpected reply {code}")
    return received(code, text)


def _is_answer(error: BaseException) -> bool:
    """Whether the server did answer, with 421: then nothing is in doubt."""
    return isinstance(error, Fault) and error.reply.code == 421
