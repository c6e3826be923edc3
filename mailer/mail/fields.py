"""Header fields as bytes, made fit for a peer: folded under 998 bytes, characters beyond ASCII as encoded words.

No threads, no state, no failures: what cannot be folded or encoded comes back as it was.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass

from mailer.mail.transfer import MAX_LINE_BYTES

_BYTES_PER_WORD = 42  # 56 characters of base64: 75 at most with "=?unknown-8bit?B?" and "?=" (RFC 2047 2)
_WITH_PARAMETERS = frozenset((b"content-type", b"content-disposition"))
_OF_ADDRESSES = frozenset(
    prefix + name for prefix in (b"", b"resent-") for name in (b"from", b"sender", b"reply-to", b"to", b"cc", b"bcc")
)
_OF_TOKENS = frozenset(  # fields in which no encoded word may stand
    (b"message-id", b"resent-message-id", b"in-reply-to", b"references", b"date", b"resent-date", b"received", b"return-path")
) | frozenset((b"content-id", b"content-transfer-encoding", b"mime-version", b"dkim-signature", b"content-location"))
_BLANKS = re.compile(rb"([ \t]+)")
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
# Both patterns take linear time on any input: a backslash pair is a token of its own, so that an unclosed quote is looked
# for once and not from each quote behind it.
_QUOTED = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_COMMENT = rb"\([^()\\]*+(?:\\.[^()\\]*+)*+\)"
_ADDRESS_TOKEN = re.compile(rb"[ \t]+|" + _QUOTED + b"|" + _COMMENT + rb"|<[^<>]*+>|\\.|[^ \t\"()<>\\@,:;]+|.", re.DOTALL)
_VALUE_TOKEN = re.compile(_QUOTED + b"|" + _COMMENT + rb"|\\.|[^\"()\\;]+|.", re.DOTALL)
_ATTRIBUTE_OCTETS = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$&+-.^_`{|}~")


@dataclass(frozen=True, slots=True)
class Field:
    """One field. ``name`` is lower case; ``raw`` is all of it, folds included, without the last CRLF."""

    name: bytes
    raw: bytes

    @classmethod
    def make(cls, name: bytes, value: bytes) -> Field:
        return cls(name.lower(), name + b": " + value)

    @property
    def value(self) -> bytes:
        """What stands behind the colon, folds undone."""
        return self.raw.partition(b":")[2].replace(b"\r\n", b"")


def split_header(header: bytes) -> list[Field]:
    """The fields of a header block, with or without its last CRLF."""
    fields: list[list[bytes]] = []
    for line in header.removesuffix(b"\r\n").split(b"\r\n"):
        if line.startswith((b" ", b"\t")) and fields:
            fields[-1].append(line)
        elif line:
            fields.append([line])
    return [Field(lines[0].partition(b":")[0].rstrip().lower(), b"\r\n".join(lines)) for lines in fields]


def join_header(fields: Iterable[Field], ends_in_crlf: bool = True) -> bytes:
    joined = b"".join(field.raw + b"\r\n" for field in fields)
    return joined if ends_in_crlf else joined.removesuffix(b"\r\n")


def fold(field: Field) -> Field:
    """The field with white space turned into folds where a line is over 998 bytes (RFC 5322 2.2.3).

    A line without white space to fold at stays as it is: nothing could be put there that does not change its meaning.
    """
    if len(field.raw) <= MAX_LINE_BYTES:
        return field
    return Field(field.name, b"\r\n".join(piece for line in field.raw.split(b"\r\n") for piece in _folded(line)))


def _folded(line: bytes) -> list[bytes]:
    pieces = []
    start = 0
    while len(line) - start > MAX_LINE_BYTES:
        end = start + MAX_LINE_BYTES + 1
        cut = max(line.rfind(b" ", start + 1, end), line.rfind(b"\t", start + 1, end))
        if cut < 0 or not line[start:cut].strip() or not line[cut : cut + MAX_LINE_BYTES].strip():
            break  # no white space, or so much of it that a line would be blank and end the header for some readers
        pieces.append(line[start:cut])
        start = cut
    pieces.append(line[start:])
    return pieces


def encode_words(field: Field) -> Field:
    """The field in ASCII: encoded words (RFC 2047) in text, phrases and comments, RFC 2231 in parameters.

    Where neither may stand (an address, a Message-ID, a date) it comes back as it was.
    """
    if field.raw.isascii():
        return field
    head, colon, value = field.raw.replace(b"\r\n", b"").partition(b":")
    if field.name in _WITH_PARAMETERS:
        encoded = _in_parameters(value)
    elif field.name in _OF_ADDRESSES:
        encoded = b"".join(_encode_runs(_mark_phrases(value)))
    elif field.name in _OF_TOKENS:
        return field
    else:
        words = _BLANKS.split(value)
        encoded = b"".join(_encode_runs([_Token(word, word, not word.isascii()) for word in words if word]))
    return Field(field.name, head + colon + encoded)


@dataclass(frozen=True, slots=True)
class _Token:
    """A piece of a field's value as it stands, the text it means, and whether that is to be encoded."""

    raw: bytes
    text: bytes
    is_to_encode: bool


def _encode_runs(tokens: list[_Token]) -> Iterable[bytes]:
    """Neighbours that are encoded go into one run with the blanks between them: readers drop blanks between encoded words."""
    run: list[bytes] = []
    blank = b""  # what stands before the next token
    is_after_encoded_word = False  # one that was there already
    for token in tokens:
        if token.is_to_encode:
            if run:
                run.append(blank)
            else:
                yield blank
                run = [blank] if is_after_encoded_word else []
            run.append(token.text)
            blank = b""
        elif not token.raw.strip(b" \t"):
            blank += token.raw
        else:
            is_after_encoded_word = token.raw.startswith(b"=?") and token.raw.endswith(b"?=")
            if run and is_after_encoded_word:
                run.append(blank)
            yield _encoded_words(b"".join(run)) + blank + token.raw
            run, blank = [], b""
    yield _encoded_words(b"".join(run)) + blank


def _mark_phrases(value: bytes) -> list[_Token]:
    """The tokens of a list of addresses. Words before ``<`` may be encoded, parts of an address may not (RFC 2047 5 (3))."""
    tokens: list[_Token] = []
    raws = [match[0] for match in _ADDRESS_TOKEN.finditer(value)]
    for place, raw in enumerate(raws):
        is_beside_at = b"@" in (raws[place - 1] if place else b"", raws[place + 1] if place + 1 < len(raws) else b"")
        if raw.isascii() or is_beside_at or raw.startswith(b"<"):
            tokens.append(_Token(raw, raw, False))
        elif raw.startswith(b"("):
            tokens.append(_Token(raw, raw, False) if len(raw) < 2 else _encoded_comment(raw))
        else:
            text = _ESCAPED.sub(rb"\1", raw[1:-1]) if raw.startswith(b'"') and len(raw) > 1 else raw
            tokens.append(_Token(raw, text, True))
    return tokens


def _encoded_comment(raw: bytes) -> _Token:
    encoded = b"(" + _encoded_words(_ESCAPED.sub(rb"\1", raw[1:-1])) + b")"
    return _Token(encoded, encoded, False)


def _encoded_words(text: bytes) -> bytes:
    """The text as encoded words, one a line; whole characters in each (RFC 2047 5)."""
    if not text:
        return b""
    charset = _charset_of(text)
    words = []
    start = 0
    while start < len(text):
        end = start + _BYTES_PER_WORD
        while charset == b"utf-8" and end < len(text) and text[end] & 0xC0 == 0x80:
            end -= 1
        words.append(b"=?" + charset + b"?B?" + base64.b64encode(text[start:end]) + b"?=")
        start = end
    return b"\r\n ".join(words)


def _charset_of(text: bytes) -> bytes:
    try:
        text.decode()
    except UnicodeDecodeError:
        return b"unknown-8bit"  # RFC 1428 3: for gateways that do not know
    return b"utf-8"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a field (RFC 2045 5.1): name in lower case, value without quotes, and all of it as it stands."""

    name: bytes
    value: bytes
    raw: bytes


def split_parameters(value: bytes) -> tuple[bytes, list[Parameter]]:
    """What stands before the first ``;`` of a field's value, without comments, and the parameters behind it.

    An unquoted value is taken up to the next ``;``: boundaries and file names with "=" or "/" go unquoted all the same.
    """
    segments: list[list[bytes]] = [[]]
    for match in _VALUE_TOKEN.finditer(value):
        if match[0] == b";":
            segments.append([])
        else:
            segments[-1].append(match[0])
    parameters = []
    for tokens in segments[1:]:
        name, _, text = _without_comments(tokens).partition(b"=")
        text = text.strip()
        if len(text) > 1 and text.startswith(b'"') and text.endswith(b'"'):
            text = _ESCAPED.sub(rb"\1", text[1:-1])
        parameters.append(Parameter(name.strip().lower(), text, b"".join(tokens)))
    return _without_comments(segments[0]), parameters


def _without_comments(tokens: list[bytes]) -> bytes:
    return b"".join(token for token in tokens if not token.startswith(b"(")).strip()


def _in_parameters(value: bytes) -> bytes:
    first = value.partition(b";")[0]
    encoded = [first] if first.isascii() else [_without_comments([first])]
    for parameter in split_parameters(value)[1]:
        if parameter.raw.isascii() or parameter.name.endswith(b"*"):
            encoded.append(parameter.raw)
        else:
            octets = (bytes([octet]) if octet in _ATTRIBUTE_OCTETS else b"%%%02X" % octet for octet in parameter.value)
            # RFC 2231 4
            encoded.append(b"\r\n " + parameter.name + b"*=" + _charset_of(parameter.value) + b"''" + b"".join(octets))
    return b";".join(encoded)
