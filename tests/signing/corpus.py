"""Awkward messages: what people and programs send that has broken signatures somewhere. All canonical, as content is."""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator

FROM = b"From: Ann <ann@example.com>\r\n"
TO = b"To: bob@example.net\r\n"
SUBJECT = b"Subject: hello\r\n"
MIME = b"MIME-Version: 1.0\r\n"
ORDINARY = FROM + TO + SUBJECT + b"Date: Wed, 25 Nov 2026 20:00:00 +0000\r\nMessage-ID: <1@example.com>\r\n"
UMLAUTS = "Grüße aus Köln, ¡ñandú! 你好\r\n".encode()
FOREIGN_SIGNATURE = (
    b"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.org; s=other;\r\n"
    b"\th=from:to; bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; b=AAAA\r\n"
)
SEED = 4
ATTACHMENT_BYTES = 5_000_000


def messages() -> Iterator[tuple[str, bytes]]:
    """Every message with its name."""
    yield from _headers()
    yield from _origins()
    yield from _bodies()
    yield from _structures()
    for number in range(12):
        yield f"generated-{number}", _generated(random.Random(SEED + number))


def _of_header(*fields: bytes) -> bytes:
    return ORDINARY + b"".join(fields) + b"\r\nbody\r\n"


def _headers() -> Iterator[tuple[str, bytes]]:
    yield "ordinary", _of_header()
    yield "folded-subject", FROM + TO + b"Subject: a\r\n b\r\n\tc\r\n  \t d\r\n\r\nbody\r\n"
    yield "folded-at-once", FROM + TO + b"Subject:\r\n behind the fold\r\n\r\nbody\r\n"
    yield "folded-to", FROM + b"To: a@x.test,\r\n\tb@x.test,\r\n      c@x.test\r\n" + SUBJECT + b"\r\nbody\r\n"
    yield "trailing-blanks", FROM + TO + b"Subject: blanks  \t \r\nX-A: b \r\n\r\nbody\r\n"
    yield "many-blanks-within", FROM + TO + b"Subject: a  \t  b \t\t c\r\n\r\nbody\r\n"
    yield "no-space", b"From:ann@example.com\r\nTo:bob@example.net\r\nSubject:hello\r\n\r\nbody\r\n"
    yield "tab-for-space", b"From:\tann@example.com\r\nTo:\tbob@example.net\r\nSubject:\thello\r\n\r\nbody\r\n"
    yield "empty-subject", FROM + TO + b"Subject:\r\n\r\nbody\r\n"
    yield "blank-subject", FROM + TO + b"Subject: \t \r\n\r\nbody\r\n"
    yield "letter-case", b"fROM: ann@example.com\r\nTO: b@x.test\r\nsubject: hello\r\nmime-VERSION: 1.0\r\n\r\nbody\r\n"
    yield "repeated-to", FROM + b"To: a@x.test\r\nTo: b@x.test\r\nTo: c@x.test\r\n" + SUBJECT + b"\r\nbody\r\n"
    yield "repeated-subject", FROM + TO + b"Subject: one\r\nX-Between: 1\r\nSubject: two\r\n\r\nbody\r\n"
    yield "repeated-message-id", _of_header(b"Message-ID: <2@example.com>\r\n")
    yield "repeated-often", FROM + b"".join(b"To: a%d@x.test\r\n" % n for n in range(70)) + SUBJECT + b"\r\nbody\r\n"
    yield "received", b"Received: from a by b;\r\n\tWed, 25 Nov 2026 20:00:00 +0000\r\n" * 5 + ORDINARY + b"\r\nbody\r\n"
    yield "signed-by-another", FOREIGN_SIGNATURE + _of_header()
    yield "signed-by-two-others", FOREIGN_SIGNATURE * 2 + _of_header()
    yield "signature-below", _of_header(FOREIGN_SIGNATURE)
    yield "long-line-in-header", FROM + TO + b"Subject: " + b"word " * 250 + b"end\r\n\r\nbody\r\n"
    yield "long-word-in-header", _of_header(b"X-Long: " + b"x" * 900 + b"\r\n")
    yield "many-recipients", FROM + b"To: " + b",\r\n ".join(b"a%d@x.test" % n for n in range(900)) + b"\r\n\r\nbody\r\n"
    yield "utf-8-subject", FROM + TO + b"Subject: " + UMLAUTS + b"\r\nbody\r\n"
    yield "latin-1-subject", FROM + TO + b"Subject: Gr\xfc\xdfe\r\n\r\nbody\r\n"
    yield "encoded-words", FROM + TO + b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n =?utf-8?b?w7Y=?=\r\n\r\nbody\r\n"
    yield "tags", _of_header(b"X-Tags: b=abc; d=example.org; h=from : to;\r\n", b"Content-Type: text/plain; b=1\r\n")
    yield "colons", FROM + TO + b"Subject: a:b: c :d\r\nX-Y::\r\n\r\nbody\r\n"


def _origins() -> Iterator[tuple[str, bytes]]:
    rest = TO + SUBJECT + b"\r\nbody\r\n"
    for name, value in {
        "quoted-at": b'"ann@example.org" <ann@example.com>',
        "quoted-angle": b'"a <b@example.org> c" <ann@example.com>',
        "quoted-comma": b'"Other, Ann" <ann@example.com>',
        "escaped-quote": rb'"Ann \"A\" \\" <ann@example.com>',
        "comment": b"ann@example.com (Ann (of (all)) places, <x@example.org>)",
        "comment-within": b"ann(a)@(b)example.com",
        "two-mailboxes": b"ann@example.com, bob@example.org",
        "group": b"Team: ann@example.com, bob@example.com;",
        "folded": b"Ann\r\n <ann@example.com>",
        "upper-case": b"ANN@EXAMPLE.COM",
        "subdomain": b"ann@news.shop.example.com",
        "encoded": b"=?utf-8?q?J=C3=BCrgen?= <ann@example.com>",
        "utf-8-name": "Jürgen Müller <ann@example.com>".encode(),
        "utf-8-address": "用户 <用户@example.com>".encode(),
        "utf-8-domain": "ann@bücher.example.com".encode(),
    }.items():
        yield f"from-{name}", b"From: " + value + b"\r\n" + rest
    yield "sender-and-from", b"Sender: x@example.org\r\nReply-To: r@example.org\r\n" + ORDINARY + b"\r\nbody\r\n"
    yield "resent-from", b"Resent-From: r@example.org\r\n" + ORDINARY + b"\r\nbody\r\n"


def _bodies() -> Iterator[tuple[str, bytes]]:
    for name, body in {
        "none": b"",
        "one-empty-line": b"\r\n",
        "empty-lines": b"\r\n" * 50,
        "blanks-alone": b" \t \r\n\t\r\n",
        "trailing-empty-lines": b"text\r\n\r\n\r\n\r\n",
        "trailing-blank-lines": b"text\r\n \r\n\t\r\n  \r\n",
        "leading-empty-lines": b"\r\n\r\n\r\ntext\r\n",
        "trailing-blanks": b"a \r\nb\t\r\nc \t \t\r\n",
        "runs-of-blanks": b"a  b\t\tc \t d\r\n    indented\r\n\tby tab\r\n",
        "dots": b".\r\n..\r\n...\r\n.a\r\n. \r\n",
        "dot-alone-last": b"text\r\n.\r\n",
        "signature-dashes": b"text\r\n-- \r\nAnn\r\n",
        "from-lines": b"From here on\r\n>From there\r\n\r\nFrom me\r\n",
        "looks-like-header": b"Subject: not a header\r\nTo: nobody\r\n",
        "8-bit": UMLAUTS * 20,
        "binary-bytes": bytes(byte for byte in range(256) if byte not in b"\r\n\0") + b"\r\n",
        "control": b"a\x0bb\x0cc\x7f \x0c\r\n\x0b\r\n",
        "long-lines": b"x" * 3000 + b" " + b"y" * 3000 + b"\r\n",
        "long-8-bit-lines": "ü".encode() * 2000 + b"\r\n",
        "long-blank-line": b"a" + b" " * 5000 + b"b\r\n" + b"\t" * 5000 + b"\r\nc\r\n",
        "no-line-end": b"the last line",
    }.items():
        yield f"body-{name}", ORDINARY + b"\r\n" + body


def _structures() -> Iterator[tuple[str, bytes]]:
    yield "header-alone", ORDINARY
    yield "html", ORDINARY + MIME + b"Content-Type: text/html; charset=utf-8\r\n\r\n<p>  a\t b </p>\r\n"
    declared = b"Content-Transfer-Encoding: 8bit\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
    yield "8-bit-declared", ORDINARY + MIME + declared + UMLAUTS
    quoted = b"Content-Transfer-Encoding: quoted-printable\r\n\r\nGr=C3=BC=\r\n=C3=9Fe =20\r\n"
    yield "quoted-printable", ORDINARY + MIME + quoted
    yield "mixed", ORDINARY + MIME + _multipart(b"Content-Type: text/plain; charset=utf-8\r\n\r\n" + UMLAUTS, _attachment(3000))
    yield "attachment-5-MB", ORDINARY + MIME + _multipart(b"\r\nsee below", _attachment(ATTACHMENT_BYTES))
    raw = random.Random(SEED).randbytes(ATTACHMENT_BYTES // 2).replace(b"\r", b"").replace(b"\n", b"").replace(b"\0", b"")
    lines = b"".join(raw[at : at + 700] + b"\r\n" for at in range(0, len(raw), 700))
    yield "attachment-8-bit", ORDINARY + MIME + _multipart(b"Content-Transfer-Encoding: 8bit\r\n\r\n" + lines)
    yield "text-5-MB", ORDINARY + b"\r\n" + b"The quick brown fox  jumps over\tthe lazy dog. \r\n" * (ATTACHMENT_BYTES // 48)
    signed = b'Content-Type: multipart/signed; boundary="b"; micalg=x\r\n\r\n--b\r\n\r\ntext \r\n--b\r\n\r\nseal\r\n--b--\r\n'
    yield "multipart-signed", ORDINARY + MIME + signed


def _attachment(size: int) -> bytes:
    data = random.Random(SEED).randbytes(size * 3 // 4)
    text = base64.encodebytes(data).replace(b"\n", b"\r\n")
    return b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n" + text


def _multipart(*parts: bytes) -> bytes:
    body = b"".join(b"--frontier\r\n" + part + b"\r\n" for part in parts)
    return b'Content-Type: multipart/mixed; boundary="frontier"\r\n\r\npreamble\r\n' + body + b"--frontier--\r\n\r\n\r\n"


def _generated(draw: random.Random) -> bytes:
    blanks = [b" ", b"\t", b"  ", b"\r\n ", b" \t"]
    words = [b"a", b"b.", b"word", b"=", b";", b":", b"-- ", "ü".encode(), b"x" * 60]
    fields = [FROM, TO]
    for name in draw.choices([b"Subject", b"X-A", b"Cc", b"Date", b"Content-Type", b"MIME-Version"], k=6):
        value = b"".join(draw.choice(blanks) + draw.choice(words) for _ in range(draw.randrange(1, 9)))
        fields.append(name + b":" + value + b"\r\n")
    draw.shuffle(fields)
    lines = [b"", b"", b" ", b"\t", b".", *words]
    body = b"".join(b"".join(draw.choices([*blanks[:3], *lines], k=draw.randrange(5))) + b"\r\n" for _ in range(40))
    return b"".join(fields) + b"\r\n" + body
