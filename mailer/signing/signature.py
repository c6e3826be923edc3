"""One DKIM-Signature header field (RFC 6376 3.5): dkimpy builds it, OpenSSL signs it.

The seam. dkimpy signs with its own RSA, in Python, 13.5 ms a message with the interpreter lock held, and hashes bodies that
are whole in memory. Both are its ``DKIM.sign``; ``gen_header`` below it takes any tags, so the body's hash is ours, and for
an Ed25519 key it takes any object with ``sign(digest).signature``: that is what every key here is to it. Tests hold the result
equal to dkimpy's own; requirements.in pins its version.

No state, no threads. dkimpy is imported when something is signed. Fails with ``SigningError``.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from mailer.mail.fields import Field
from mailer.mail.outcome import MailerError
from mailer.signing.keys import PrivateKey

MAX_TIMES_SIGNED = 50
"""Of one name: h= names a field once for each time that it occurs, and no honest message repeats one so often."""


class SigningError(MailerError):
    """The message cannot be signed at this moment."""


@dataclass(frozen=True)
class Tags:
    """What a signature says beside the hashes: ``names`` of header fields in lower case; ``expiry_seconds`` 0 for none."""

    domain: str
    selector: str
    names: tuple[bytes, ...]
    expiry_seconds: int


def signature_field(key: PrivateKey, tags: Tags, header: Sequence[Field], body_hash: bytes, now: float) -> bytes:
    """The header field with its CRLF. ``header`` is that of the message; ``now`` is Unix time."""
    try:
        import dkim  # type: ignore[import-untyped]
        from dkim.canonicalization import CanonicalizationPolicy  # type: ignore[import-untyped]
    except ImportError as fault:
        raise SigningError(f"needs the Python package dkimpy, which cannot be imported ({fault}): install it") from fault
    signed_names = _signed_names(tags.names, header)
    at = int(now)
    fields = [
        (b"v", b"1"),
        (b"a", key.algorithm),
        (b"c", b"relaxed/relaxed"),
        (b"d", tags.domain.encode("ascii")),
        (b"s", tags.selector.encode("ascii")),
        (b"t", b"%d" % at),
        *([(b"x", b"%d" % (at + tags.expiry_seconds))] if tags.expiry_seconds else []),
        (b"h", b" : ".join(signed_names)),
        (b"bh", base64.b64encode(body_hash)),
        (b"b", b"0" * 60),  # gen_header puts the signature here; as long a stand-in as fills a line, so that folds stay
    ]
    builder = dkim.DKIM(signature_algorithm=b"ed25519-sha256")  # see the seam above; a= is as it stands in ``fields``
    builder.hasher = hashlib.sha256
    wanted = frozenset(signed_names)
    builder.headers = [_pair(field) for field in header if field.name in wanted]
    relaxed = CanonicalizationPolicy.from_c_value(b"relaxed/relaxed")
    try:
        value: bytes = builder.gen_header(fields, signed_names, relaxed, b"DKIM-Signature", key)
    except (dkim.DKIMException, ValueError) as fault:
        raise SigningError(f"no signature of {tags.domain} could be made: {fault}") from fault
    return b"DKIM-Signature: " + value


def _signed_names(names: Sequence[bytes], header: Sequence[Field]) -> list[bytes]:
    """What h= lists. Each name as often as it occurs, so that none of them can be changed; From once more than that, so that
    none can be added (RFC 6376 5.4, 8.15)."""
    times = Counter(field.name for field in header)
    times[b"from"] += 1
    return [name for name in names for _ in range(min(times[name], MAX_TIMES_SIGNED))]


def _pair(field: Field) -> tuple[bytes, bytes]:
    name, _, value = field.raw.partition(b":")
    return name, value + b"\r\n"
