"""Keys: what can sign and what is refused, with the reason."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
)

from mailer.signing.keys import ED25519, RSA, KeyUnusable, make_key, read_key

DIGEST = hashlib.sha256(b"a message").digest()


def test_an_rsa_key_signs_and_its_public_half_is_what_dns_publishes() -> None:
    key = read_key(make_key(RSA).pem)
    assert (key.kind, key.bits, key.algorithm) == ("rsa", 2048, b"rsa-sha256")
    public = load_der_public_key(base64.b64decode(key.public))
    assert isinstance(public, rsa.RSAPublicKey)
    public.verify(key.sign(DIGEST).signature, DIGEST, padding.PKCS1v15(), utils.Prehashed(hashes.SHA256()))


def test_an_ed25519_key_signs_and_its_public_half_is_the_bare_32_bytes() -> None:
    key = read_key(make_key(ED25519).pem)
    assert (key.kind, key.algorithm) == ("ed25519", b"ed25519-sha256")
    raw = base64.b64decode(key.public)
    assert len(raw) == 32
    ed25519.Ed25519PublicKey.from_public_bytes(raw).verify(key.sign(DIGEST).signature, DIGEST)


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_keys_of_openssl_in_either_form_are_read(form: PrivateFormat) -> None:
    made = rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, form, NoEncryption())
    assert read_key(made).bits == 2048
    assert read_key(made.replace(b"\n", b"\r\n")).bits == 2048


def test_a_key_of_the_openssl_command_is_read(tmp_path: Path) -> None:
    for kind in (["RSA", "-pkeyopt", "rsa_keygen_bits:2048"], ["ED25519"]):
        path = tmp_path / kind[0]
        subprocess.run(["openssl", "genpkey", "-algorithm", *kind, "-out", str(path)], check=True, capture_output=True)
        assert read_key(path.read_bytes()).kind == kind[0].lower()


@pytest.mark.parametrize(
    ("pem", "why"),
    [
        (b"", "is not a private key in PEM form"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "is not a private key in PEM form"),
        (
            rsa.generate_private_key(65537, 2048).public_key().public_bytes(Encoding.PEM, PublicFormat.PKCS1),
            "is not a private key in PEM form",
        ),
        (
            rsa.generate_private_key(65537, 2048).private_bytes(
                Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
            ),
            "is encrypted",
        ),
        (
            ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            "is neither an RSA nor an Ed25519 key",
        ),
    ],
    ids=["empty", "damaged", "public", "encrypted", "elliptic"],
)
def test_what_cannot_sign_is_refused(pem: bytes, why: str) -> None:
    with pytest.raises(KeyUnusable, match=why):
        read_key(pem)


def test_an_rsa_key_of_fewer_bits_than_receivers_accept_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weak"
    command = ["openssl", "genrsa", "-traditional", "-out", str(path), "768"]
    subprocess.run(command, check=True, capture_output=True)
    with pytest.raises(KeyUnusable, match="has 768 bits, fewer than the 1024"):
        read_key(path.read_bytes())


def test_without_cryptography_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    pem = make_key(ED25519).pem
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(KeyUnusable, match=r"lacks .*: install requirements-dkim.txt.*free-threaded 3.13"):
        read_key(pem)


def test_a_key_does_not_show_itself() -> None:
    key = make_key(ED25519)
    assert "PRIVATE" not in repr(key)
