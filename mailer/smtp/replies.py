"""Every reply of the listener, in one place: code, enhanced code (RFC 2034, RFC 3463) and text.

Replies never repeat what the client sent. ``Refused`` carries one out of a parser; ``Disconnect`` ends a session.
"""

from __future__ import annotations

from mailer.mail.outcome import Reply


def _bytes_of(code: int, enhanced: str, text: str) -> bytes:
    """A reply that is only ever said, so only its bytes are needed."""
    return Reply(code, enhanced, text).to_wire()


OK = _bytes_of(250, "2.0.0", "Ok")
SENDER_OK = _bytes_of(250, "2.1.0", "Ok")
RECIPIENT_OK = _bytes_of(250, "2.1.5", "Ok")
VRFY = _bytes_of(252, "2.5.0", "Cannot verify, but will accept a message and try to deliver it")
HELP = _bytes_of(214, "2.0.0", "Commands: EHLO HELO MAIL RCPT DATA RSET NOOP VRFY HELP QUIT STARTTLS AUTH BDAT")
START_DATA = _bytes_of(354, "", "End data with <CR><LF>.<CR><LF>")
START_TLS = _bytes_of(220, "2.0.0", "Ready to start TLS")
LOGGED_IN = _bytes_of(235, "2.7.0", "Authentication successful")

BYE = Reply(221, "2.0.0", "Bye")
TOO_MANY_CONNECTIONS = Reply(421, "4.7.0", "Too many connections; try again later")
TOO_MANY_ERRORS = Reply(421, "4.7.0", "Too many bad commands; closing connection")
OUT_OF_STEP = Reply(421, "4.7.0", "Input that did not wait for its turn is not executed; closing connection")
NOT_SMTP = Reply(421, "4.7.0", "This is SMTP; closing connection")
SHUTTING_DOWN = Reply(421, "4.3.2", "Service is shutting down")
IDLE = Reply(421, "4.4.2", "Idle for too long; closing connection")
TOO_SLOW = Reply(421, "4.4.2", "Data arrives too slowly; closing connection")
ENDLESS = Reply(421, "4.3.4", "Message is far beyond the size limit; closing connection")
FAULT = Reply(421, "4.3.0", "Internal fault, see the log of mailer; closing connection")
ACCESS_DENIED = Reply(554, "5.7.1", "Access denied by security.allowLocalOnly or security.allowedNetworks")

UNKNOWN_COMMAND = Reply(500, "5.5.1", "Unknown command")
LINE_TOO_LONG = Reply(500, "5.5.2", "Line too long")
BARE_NEWLINE = Reply(500, "5.5.2", "Line must end in CRLF and hold no other CR, LF or NUL")
SYNTAX = Reply(501, "5.5.2", "Syntax error")
NO_PARAMETERS = Reply(501, "5.5.4", "Command takes no parameters")
NEEDS_NAME = Reply(501, "", "Say EHLO or HELO with one name")  # RFC 2034 3: no enhanced code to EHLO and HELO
MAIL_SYNTAX = Reply(501, "5.5.4", "Syntax: MAIL FROM:<address> [parameters]")
RCPT_SYNTAX = Reply(501, "5.5.4", "Syntax: RCPT TO:<address> [parameters]")
BDAT_SYNTAX = Reply(501, "5.5.4", "Syntax: BDAT size [LAST]")
BAD_PARAMETER = Reply(501, "5.5.4", "Parameter is malformed or given twice")
NOT_OFFERED = Reply(502, "5.5.1", "Command is not offered")
HELO_FIRST = Reply(503, "5.5.1", "Say EHLO or HELO first")
MAIL_FIRST = Reply(503, "5.5.1", "Say MAIL first")
NESTED_MAIL = Reply(503, "5.5.1", "MAIL was said already")
AMID_CHUNKS = Reply(503, "5.5.1", "Not between the chunks of a message")
UNKNOWN_PARAMETER = Reply(555, "5.5.4", "Parameter is not supported")
BINARY_BODY = Reply(555, "5.6.1", "BODY=BINARYMIME is not supported")
NO_RECIPIENTS = Reply(554, "5.5.1", "No valid recipients")

BAD_ADDRESS = Reply(553, "5.1.3", "Not an RFC 5321 address")
TOO_MANY_RECIPIENTS = Reply(452, "4.5.3", "Too many recipients; send the rest in another message")
OVER_RATE = Reply(451, "4.7.1", "Rate limit reached; try again later")
TOO_LARGE = Reply(552, "5.3.4", "Message is larger than the limit that EHLO announces")
HEADER_TOO_LARGE = Reply(552, "5.3.4", "Header is too large")
CONTENT_LINE_TOO_LONG = Reply(550, "5.6.0", "Message has a line over maxLineLength")
CONTENT_BARE_NEWLINE = Reply(550, "5.6.0", "Message has a CR or LF that is not part of CRLF")
CONTENT_NUL = Reply(550, "5.6.0", "Message has a NUL byte")
MAIL_LOOP = Reply(554, "5.4.6", "Too many Received fields: the message is in a loop")
SPOOL_FULL = Reply(452, "4.3.1", "No space to store the message; try again later")
SPOOL_FAULT = Reply(451, "4.3.0", "Message cannot be stored now; try again later")

NO_TLS = Reply(502, "5.5.1", "TLS is not available")
TLS_ALREADY = Reply(503, "5.5.1", "TLS is active already")
LOGIN_FIRST = Reply(530, "5.7.0", "Authentication required")
ALREADY_LOGGED_IN = Reply(503, "5.5.1", "Authenticated already")
NOT_NOW = Reply(503, "5.5.1", "Not while a message is under way")
EHLO_FIRST = Reply(503, "5.5.1", "Say EHLO first")
NEEDS_TLS = Reply(538, "5.7.11", "Encryption required for authentication")
NO_SUCH_MECHANISM = Reply(504, "5.5.4", "Mechanism is not offered")
NOT_BASE64 = Reply(501, "5.5.2", "Not base64")
CANCELLED = Reply(501, "5.5.2", "Authentication cancelled")
LOGIN_REFUSED = Reply(535, "5.7.8", "Authentication credentials invalid")


_REASONS = {
    "4.3.0": "disk",
    "4.3.1": "disk",
    "4.5.3": "recipients",
    "4.7.1": "rate",
    "5.1.3": "address",
    "5.3.4": "size",
    "4.3.4": "size",
    "5.4.6": "content",
    "5.6.0": "content",
    "5.7.0": "auth",
    "5.7.1": "access",
    "5.7.8": "auth",
    "5.7.11": "auth",
}


def reason_of(reply: Reply) -> str:
    """The reason of ``events.SubmissionRefused`` that a refusal counts under."""
    if reply is TOO_MANY_CONNECTIONS:
        return "connections"
    return _REASONS.get(reply.enhanced, "protocol")


class Refused(Exception):
    """A command is answered with ``reply``, which is no success; ``why`` goes into the log, never to the client."""

    def __init__(self, reply: Reply, why: str = "") -> None:
        super().__init__(str(reply))
        self.reply = reply
        self.why = why


class MessageRefused(Refused):
    """A whole message was read, to its real end, and is refused."""


class ChunkRefused(MessageRefused):
    """The same of a chunk behind which there may be more of its message: those are read, and refused like it."""


class Disconnect(Exception):
    """The session is over: ``reply`` is said if there is one (the connection may be gone)."""

    def __init__(self, reply: Reply | None, why: str) -> None:
        super().__init__(why)
        self.reply = reply
        self.why = why
