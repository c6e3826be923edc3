"""TLSA records of certificates that the tests made, worked out with the openssl command and hashlib alone."""

from __future__ import annotations

import hashlib
import ssl
import subprocess

import pytest

from mailer.dns.lookup import Tlsa
from tests.support.certificates import Certificate


def tlsa_of(certificate: Certificate, usage: int = 3, selector: int = 1, matching: int = 1) -> Tlsa:
    """The record that names ``certificate``. Skips the test where no record can be compared."""
    pytest.importorskip("cryptography")  # not to be had on every interpreter
    # The first of the file alone: ssl's function takes all that follows for more of the same base64.
    pem = certificate.cert_file.read_text().partition(ssl.PEM_FOOTER)[0]
    der = ssl.PEM_cert_to_DER_cert(pem + ssl.PEM_FOOTER)
    if selector == 1:
        command = f"openssl x509 -in {certificate.cert_file} -noout -pubkey | openssl pkey -pubin -outform DER"
        der = subprocess.run(["sh", "-c", command], capture_output=True, check=True, timeout=60).stdout
    data = {0: lambda: der, 1: lambda: hashlib.sha256(der).digest(), 2: lambda: hashlib.sha512(der).digest()}[matching]()
    return Tlsa(usage, selector, matching, data)


def text_of(record: Tlsa) -> str:
    """As it stands in a zone."""
    return f"{record.usage} {record.selector} {record.matching} {record.data.hex()}"
