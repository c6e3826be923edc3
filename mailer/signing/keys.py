"""Private keys for DKIM: read, made, and used to sign, by OpenSSL and outside the interpreter lock.

The only importer of cryptography here, and only when a key is at hand: it has no wheels for free-threaded 3.13, where the
program runs without it. A key never changes; any thread may sign with it. Fails with ``KeyUnusable``, which says why.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from mailer.mail.outcome import MailerError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

MIN_RSA_BITS = 1024  # RFC 8301 3.2: a signer must not use less, and a verifier must not accept it
GOOD_RSA_BITS = 2048  # RFC 8301 3.2: should

RSA = "rsa"
ED25519 = "ed25519"


class KeyUnusable(MailerError):
    """There is no such key, or none that can sign."""


class Signature(NamedTuple):
    """A signature in the shape that dkimpy expects one to have."""

    signature: bytes


@dataclass(frozen=True)
class PrivateKey:
    """A key. ``kind`` is the ``k=`` of its DNS record, ``public`` the ``p=``: what RFC 6376 3.6.1 and RFC 8463 4 say of it."""

    kind: str
    bits: int
    public: bytes
    pem: bytes = field(repr=False)
    _sign: Callable[[bytes], bytes] = field(repr=False)

    @property
    def algorithm(self) -> bytes:
        return b"%b-sha256" % self.kind.encode()

    def sign(self, digest: bytes) -> Signature:
        """Sign a SHA-256 digest."""
        return Signature(self._sign(digest))

    def signed_by(self, take: Callable[[Callable[[bytes], bytes]], Callable[[bytes], bytes]]) -> PrivateKey:
        """The same key, whose signatures somebody else makes: ``take`` gives what to call in place of what it is given."""
        return replace(self, _sign=take(self._sign))


def read_key(pem: bytes) -> PrivateKey:
    """The private key in a PEM file's bytes. Raises KeyUnusable."""
    _need_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        loaded = load_pem_private_key(pem, password=None)
    except TypeError:
        raise KeyUnusable("is encrypted: only a key without a password can be used") from None
    except (ValueError, UnsupportedAlgorithm):
        raise KeyUnusable("is not a private key in PEM form") from None
    if isinstance(loaded, rsa.RSAPrivateKey):
        if loaded.key_size < MIN_RSA_BITS:
            raise KeyUnusable(f"has {loaded.key_size} bits, fewer than the {MIN_RSA_BITS} that receivers accept (RFC 8301)")
        return _of_rsa(loaded)
    if isinstance(loaded, ed25519.Ed25519PrivateKey):
        return _of_ed25519(loaded)
    raise KeyUnusable("is neither an RSA nor an Ed25519 key")


def make_key(kind: str, bits: int = GOOD_RSA_BITS) -> PrivateKey:
    """A new key of ``RSA`` or ``ED25519``; ``bits`` are for the first. Raises KeyUnusable."""
    _need_cryptography()
    from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

    if kind == ED25519:
        return _of_ed25519(ed25519.Ed25519PrivateKey.generate())
    return _of_rsa(rsa.generate_private_key(public_exponent=65537, key_size=bits))


def _need_cryptography() -> None:
    try:
        import cryptography  # noqa: F401 - whether it is there
    except ImportError as fault:
        raise KeyUnusable(
            f"needs the Python package cryptography, which this interpreter lacks ({fault}): install requirements-dkim.txt, "
            "or run the executable or a Python that it has a wheel for (free-threaded 3.13 has none)"
        ) from fault


def _of_rsa(key: rsa.RSAPrivateKey) -> PrivateKey:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding, utils

    form, hashed = padding.PKCS1v15(), utils.Prehashed(hashes.SHA256())  # RFC 6376 3.3.2
    return PrivateKey(RSA, key.key_size, _der(key), _pem(key), lambda digest: key.sign(digest, form, hashed))


def _of_ed25519(key: ed25519.Ed25519PrivateKey) -> PrivateKey:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)  # RFC 8463 4.2: the bare 32 bytes
    return PrivateKey(ED25519, 256, base64.b64encode(raw), _pem(key), key.sign)


def _der(key: rsa.RSAPrivateKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return base64.b64encode(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def _pem(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
