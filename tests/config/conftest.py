"""What the tests of the configuration share: a loader of text, and a certificate made for the run."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mailer.config.load import ConfigError, Loaded, load_text
from tests.support.certificates import OPENSSL_SECONDS

Problems = Callable[..., list[str]]


def loaded(text: str, **environ: str) -> Loaded:
    return load_text(text, environ)


def problems(text: str, **environ: str) -> list[str]:
    """Every problem with the configuration ``text``; fails if there is none."""
    with pytest.raises(ConfigError) as raised:
        load_text(text, environ)
    return raised.value.problems


def make_certificate(folder: Path, name: str = "localhost", password: str = "") -> tuple[Path, Path]:
    """A self-signed certificate and its key, as PEM files in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    cert_file, key_file = folder / f"{name}.pem", folder / f"{name}.key"
    protection = ["-passout", f"pass:{password}"] if password else ["-nodes"]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-keyout", str(key_file), *protection]
    command = ["openssl", "req", "-x509", *kind, "-subj", f"/CN={name}", "-days", "1", "-out", str(cert_file)]
    subprocess.run(command, check=True, capture_output=True, timeout=OPENSSL_SECONDS)
    return cert_file, key_file
