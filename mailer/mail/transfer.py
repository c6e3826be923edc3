"""Content-transfer-encodings of MIME (RFC 2045 6), as streams: pieces of bytes in, pieces of bytes out.

No threads, no state. Input is canonical (CRLF line ends). None of them fails: what an encoder cannot read it repairs.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator

MAX_LINE_BYTES = 998  # RFC 5321 4.5.3.1.6: 1,000 with the CRLF
_MAX_ENCODED_LINE_BYTES = 76  # RFC 2045 6.7 (5) and 6.8
_BYTES_PER_BASE64_LINE = 57  # 76 characters
_BASE64_BLOCK_BYTES = 1000 * _BYTES_PER_BASE64_LINE  # whole lines, about as much as a chunk of content

_SLICE_BYTES = 64 * 1024  # of a line without end, so that its encoding takes bounded memory

_ESCAPES = tuple(b"=%02X" % octet for octet in range(256))
_LITERALS = frozenset(range(33, 127)) - {ord("=")} | {ord(" "), ord("\t")}  # RFC 2045 6.7 (2) and (3)
_ENCODED = tuple(bytes([octet]) if octet in _LITERALS else _ESCAPES[octet] for octet in range(256))
_KEPT = tuple(bytes([octet]) if octet in _LITERALS | {ord("=")} else _ESCAPES[octet] for octet in range(256))
_NOT_BASE64 = bytes(set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="))
_QUESTION_MARKS = bytes(octet if octet < 128 else ord("?") for octet in range(256))


def lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The lines without their CRLF, as ``data.split(b"\\r\\n")`` gives them: the last one is what follows the last CRLF.

    Holds one line in memory.
    """
    held: list[bytes] = []  # the pieces of a line whose end has not come
    half_end = b""  # a CR that may be half of a CRLF
    for arrived in pieces:
        piece = half_end + arrived
        half_end = b"\r" if piece.endswith(b"\r") else b""
        first, *others = piece.removesuffix(b"\r").split(b"\r\n")
        held.append(first)
        if others:
            yield b"".join(held)
            held = [others.pop()]
            yield from others
    yield b"".join(held) + half_end


def encode_quoted_printable(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Quoted-printable of any bytes; line ends stay line ends."""
    yield from _by_line(pieces, _ENCODED)


def repair_quoted_printable(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Quoted-printable again of what says it is and is not: long lines are broken, stray octets escaped."""
    yield from _by_line(pieces, _KEPT)


def _by_line(pieces: Iterable[bytes], table: tuple[bytes, ...]) -> Iterator[bytes]:
    end_of_last = b""
    for line in lines(pieces):
        end_of_line = len(line)
        start = 0
        while end_of_line - start > _SLICE_BYTES:
            cut = _clear_of_escape(line, start + _SLICE_BYTES) if table is _KEPT else start + _SLICE_BYTES
            yield end_of_last + _wrapped(b"".join(map(table.__getitem__, line[start:cut])))
            end_of_last = b"=\r\n"
            start = cut
        encoded = b"".join(map(table.__getitem__, line[start:]))
        if line.endswith((b" ", b"\t")):  # RFC 2045 6.7 (3): a blank at the end of a line would be lost on the way
            encoded = encoded[:-1] + _ESCAPES[line[-1]]
        yield end_of_last + _wrapped(encoded)
        end_of_last = b"\r\n"


def _clear_of_escape(text: bytes, cut: int) -> int:
    """The last place at or before ``cut`` that is not within an escape such as ``=3D``."""
    if text[cut - 1 : cut] == b"=":
        return cut - 1
    if text[cut - 2 : cut - 1] == b"=":
        return cut - 2
    return cut


def _wrapped(encoded: bytes) -> bytes:
    """One line of quoted-printable as lines of at most 76 characters, with soft line breaks (RFC 2045 6.7 (5))."""
    if len(encoded) <= _MAX_ENCODED_LINE_BYTES and not encoded.startswith((b".", b"From ")):
        return encoded
    out: list[bytes] = []
    start, size = 0, len(encoded)
    while True:
        room = _MAX_ENCODED_LINE_BYTES
        head = b""
        # RFC 2049 3: a dot or "From " that begins a line does not survive every mailbox and gateway.
        if encoded.startswith((b".", b"From "), start):
            head = _ESCAPES[encoded[start]]
            start += 1
            room -= len(head)
        if size - start <= room:
            out.append(head + encoded[start:])
            return b"".join(out)
        cut = _clear_of_escape(encoded, start + room - 1)  # one for the "=" of the soft break
        out.append(head + encoded[start:cut] + b"=\r\n")
        start = cut


def encode_base64(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Base64 in lines of 76 characters, each with its CRLF."""
    rest = b""
    for piece in pieces:
        rest += piece
        whole = len(rest) // _BASE64_BLOCK_BYTES * _BASE64_BLOCK_BYTES
        if whole:
            yield base64.encodebytes(rest[:whole]).replace(b"\n", b"\r\n")
            rest = rest[whole:]
    yield base64.encodebytes(rest).replace(b"\n", b"\r\n")


def rewrap_base64(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Base64 again in lines of 76 characters; what is not of its alphabet means nothing (RFC 2045 6.8) and is dropped."""
    rest = b""
    width = _MAX_ENCODED_LINE_BYTES
    for piece in pieces:
        rest += piece.translate(None, _NOT_BASE64)
        whole = len(rest) // width * width
        yield b"".join(rest[at : at + width] + b"\r\n" for at in range(0, whole, width))
        rest = rest[whole:]
    if rest:
        yield rest + b"\r\n"


def tidy(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Text that no reader shows (around the parts of a multipart), made fit to travel: lines broken, octets over 127 "?"."""
    end_of_last = b""
    for line in lines(pieces):
        fit = line.translate(_QUESTION_MARKS)
        broken = (fit[at : at + MAX_LINE_BYTES] for at in range(0, max(1, len(fit)), MAX_LINE_BYTES))
        yield end_of_last + b"\r\n".join(broken)
        end_of_last = b"\r\n"
