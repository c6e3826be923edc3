"""What the tests of the configuration share: a loader of text, and a certificate made for the run."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path

import pytest

from mailer.config.load import ConfigError, Loaded, load_text

Problems = Callable[..., list[str]]


def loaded(text: str, **environ: str) -> Loaded:
    return load_text(text, environ)


def problems(text: str, **environ: str) -> list[str]:
    """Every problem with the configuration ``text``; fails if there is none."""
    with pytest.raises(ConfigError) as raised:
        load_text(text, environ)
    return raised.value.problems


def make_certificate(folder: Path, name: str = "localhost", password: bytes | None = None) -> tuple[Path, Path]:
    """A self-signed certificate and its key, as PEM files in ``folder``."""
    x509 = pytest.importorskip("cryptography.x509", reason="cryptography is not installed")
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415 - skipped above where missing
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - the same

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    folder.mkdir(parents=True, exist_ok=True)
    cert_file, key_file = folder / f"{name}.pem", folder / f"{name}.key"
    cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    )
    return cert_file, key_file
