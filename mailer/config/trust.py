"""Owns which certificate store verifies the servers that mailer connects to.

No state, no threads. An executable carries no store of its own, so the system's is found by name. Fails with
``ConfigError`` where there is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from mailer.config.problems import ConfigError, shown_path

SYSTEM_STORES = (
    Path("/etc/ssl/certs/ca-certificates.crt"),  # Debian, Ubuntu, Arch; Alpine with ca-certificates
    Path("/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"),  # Red Hat, Fedora, CentOS
    Path("/etc/pki/tls/certs/ca-bundle.crt"),  # their older releases
    Path("/etc/ssl/ca-bundle.pem"),  # SUSE
    Path("/etc/ssl/cert.pem"),  # Alpine, the BSDs
)


def find_trust_store(environ: Mapping[str, str], stores: Iterable[Path] = SYSTEM_STORES) -> Path:
    """The file with the certificates that are trusted: ``SSL_CERT_FILE``, else the first of the systems' that is there."""
    named = environ.get("SSL_CERT_FILE", "")
    if named:
        if not Path(named).is_file():
            raise ConfigError([f"SSL_CERT_FILE: there is no file {shown_path(named)}"])
        return Path(named)
    for store in stores:
        if store.is_file():
            return store
    raise ConfigError(
        [
            "no certificate store found, so no provider's certificate can be verified: install the system's package "
            "ca-certificates, or set SSL_CERT_FILE to a file with the certificates to trust"
        ]
    )
