"""DANE for SMTP (RFC 7672): whether a server's certificates fit the TLSA records of its host.

The only importer of cryptography in transport, and lazily: it takes memory, and a free-threaded interpreter may be without it
(then ``is_available`` says so, and no TLSA record is looked up). Here also: whether a certificate that nobody asked about would
have been verified. No threads, no locks; what does not fit is a value.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import hashlib
import importlib.util
import re
import ssl
import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.x509 import verification

    Roots = verification.Store

DANE_TA, DANE_EE = 2, 3  # certificate usages (RFC 7218 2.1); RFC 7672 3.1.3 leaves no others to SMTP
FULL_CERTIFICATE, PUBLIC_KEY = 0, 1  # selectors
_DIGESTS = {1: hashlib.sha256, 2: hashlib.sha512}  # matching types; 0: the data itself
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\s", re.DOTALL)
_DER = 2  # what ``_ssl`` calls ENCODING_DER
MAX_RECORDS = 50  # of one host; the longest in use are a handful
MAX_CERTIFICATES = 20  # of one chain; OpenSSL's own bound is of this size


class Record(Protocol):
    """A TLSA record (RFC 6698 2.1)."""

    @property
    def usage(self) -> int: ...
    @property
    def selector(self) -> int: ...
    @property
    def matching(self) -> int: ...
    @property
    def data(self) -> bytes: ...


class Fit(NamedTuple):
    """Whether a chain fits, by which usage, and if not, why."""

    usage: int
    why: str = ""

    @property
    def is_good(self) -> bool:
        return not self.why


@functools.lru_cache(1)
def is_available() -> bool:
    """Whether certificates can be compared at all: cryptography is installed."""
    return importlib.util.find_spec("cryptography") is not None


def usable(records: Iterable[Record]) -> list[Record]:
    """The records that a client can use (RFC 7672 3.1): known usage, selector and matching type, data of the right length."""
    good = []
    for record in list(records)[:MAX_RECORDS]:
        digest = _DIGESTS.get(record.matching)
        is_sound = bool(record.data) if record.matching == 0 else digest is not None and len(record.data) == digest().digest_size
        if record.usage in (DANE_TA, DANE_EE) and record.selector in (FULL_CERTIFICATE, PUBLIC_KEY) and is_sound:
            good.append(record)
    return good


def to_text(record: Record) -> str:
    """The record as a zone file and a report show it (RFC 8460 4.4)."""
    return f"{record.usage} {record.selector} {record.matching} {record.data.hex()}"


def fit(records: Sequence[Record], chain: Sequence[bytes], names: Sequence[str]) -> Fit:
    """Whether ``chain`` (DER, the server's own certificate first) fits one of ``records``, which are usable. ``names``: those of
    which a certificate below a trust anchor must carry one (RFC 7672 3.2.2).
    """
    from cryptography import x509  # noqa: PLC0415 - see the module's head

    try:
        certificates = [x509.load_der_x509_certificate(der) for der in chain[:MAX_CERTIFICATES]]
    except _faults():
        return Fit(DANE_EE, "the server's certificate cannot be read")
    if not certificates:
        return Fit(DANE_EE, "the server shows no certificate")
    for record in records:
        # Names, dates and issuer of a certificate that is named itself do not matter (RFC 7672 3.1.1).
        if record.usage == DANE_EE and _matches(record, certificates[0]):
            return Fit(DANE_EE)
    why = "no TLSA record fits the server's certificate"
    for anchor in _anchors(records, certificates):
        why = _why_not_below(anchor, certificates, names)
        if not why:
            return Fit(DANE_TA)
    return Fit(DANE_TA if any(r.usage == DANE_TA for r in records) else DANE_EE, why)


@functools.lru_cache(1)
def _faults() -> tuple[type[Exception], ...]:
    """What cryptography raises for certificates that break the rules, at whatever moment it comes upon it."""
    from cryptography import x509  # noqa: PLC0415
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.x509 import verification  # noqa: PLC0415

    own = (x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, verification.VerificationError)
    return (ValueError, TypeError, UnsupportedAlgorithm, *own)


def _matches(record: Record, certificate: x509.Certificate) -> bool:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: PLC0415

    if record.selector == FULL_CERTIFICATE:
        selected = certificate.public_bytes(Encoding.DER)
    else:
        try:
            selected = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        except _faults():  # a kind of key that the library does not know
            return False
    digest = _DIGESTS.get(record.matching)
    return (digest(selected).digest() if digest else selected) == record.data


def _anchors(records: Sequence[Record], certificates: Sequence[x509.Certificate]) -> list[x509.Certificate]:
    """The trust anchors that the records name: in the chain, or whole in a record (RFC 7672 3.1.2)."""
    from cryptography import x509  # noqa: PLC0415

    found = []
    for record in records:
        if record.usage != DANE_TA:
            continue
        found += [certificate for certificate in certificates[1:] if _matches(record, certificate)]
        if record.selector == FULL_CERTIFICATE and record.matching == 0:
            with contextlib.suppress(*_faults()):
                found.append(x509.load_der_x509_certificate(record.data))
    return found


def _why_not_below(anchor: x509.Certificate, certificates: Sequence[x509.Certificate], names: Sequence[str]) -> str:
    """Why the server's certificate does not stand below ``anchor``, valid now and for one of ``names``; empty when it does."""
    from cryptography import x509  # noqa: PLC0415
    from cryptography.x509 import verification  # noqa: PLC0415

    why = "no name to check the certificate against"
    builder = verification.PolicyBuilder().store(verification.Store([anchor])).time(datetime.datetime.now(datetime.UTC))
    ca_policy, ee_policy = _policies()
    builder = builder.extension_policies(ca_policy=ca_policy, ee_policy=ee_policy)
    for name in names:
        try:
            builder.build_server_verifier(x509.DNSName(name)).verify(certificates[0], list(certificates[1:]))
        except _faults() as error:
            why = f"certificate does not stand below the trust anchor: {error}"
        else:
            return ""
    return why


def _policies() -> tuple[verification.ExtensionPolicy, verification.ExtensionPolicy]:
    """What is asked of authorities and of servers: less than of those on the Web, since private authorities leave out much."""
    from cryptography import x509  # noqa: PLC0415
    from cryptography.x509 import verification  # noqa: PLC0415
    from cryptography.x509.oid import ExtendedKeyUsageOID  # noqa: PLC0415

    def is_authority(_policy: object, _certificate: object, extension: x509.BasicConstraints) -> None:
        if not extension.ca:
            raise ValueError("issuer is no authority")

    def may_sign(_policy: object, _certificate: object, extension: x509.KeyUsage | None) -> None:
        if extension is not None and not extension.key_cert_sign:
            raise ValueError("issuer may not sign certificates")

    def may_serve(_policy: object, _certificate: object, extension: x509.ExtendedKeyUsage | None) -> None:
        if extension is not None and ExtendedKeyUsageOID.SERVER_AUTH not in extension:
            raise ValueError("certificate is not for servers")

    either, anything = verification.Criticality.AGNOSTIC, verification.ExtensionPolicy.permit_all()
    authority = anything.require_present(x509.BasicConstraints, either, is_authority)
    server = anything.require_present(x509.SubjectAlternativeName, either, None)
    return (
        authority.may_be_present(x509.KeyUsage, either, may_sign),
        server.may_be_present(x509.ExtendedKeyUsage, either, may_serve),
    )


def read_roots(pem: bytes) -> Roots:
    """The authorities in a bundle. Raises ValueError where there is none; one that cannot be read is left out."""
    from cryptography import x509  # noqa: PLC0415
    from cryptography.x509 import verification  # noqa: PLC0415

    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is odd about old authorities: nobody here can change it
        for block in _PEM.findall(pem):
            with contextlib.suppress(*_faults()):
                found.append(x509.load_pem_x509_certificate(block))
    return verification.Store(found)


def vouches(roots: Roots, chain: Sequence[bytes], host: str) -> bool:
    """Whether one of ``roots`` stands above ``chain``, which is valid now and for ``host``."""
    from cryptography import x509  # noqa: PLC0415
    from cryptography.x509 import verification  # noqa: PLC0415

    builder = verification.PolicyBuilder().store(roots).time(datetime.datetime.now(datetime.UTC))
    try:
        own, *others = [x509.load_der_x509_certificate(der) for der in chain[:MAX_CERTIFICATES]]
        builder.build_server_verifier(x509.DNSName(host)).verify(own, others)
    except _faults():
        return False
    return True


def presented_chain(connection: ssl.SSLSocket) -> list[bytes]:
    """What the server sent: DER, its own certificate first.

    ``SSLSocket`` shows the chain from Python 3.13 on. Before, the object behind it does, under the same name since 3.10 but
    without a promise; where it should be gone, the server's own certificate remains, which is all that DANE-EE needs.
    """
    shown = getattr(connection, "get_unverified_chain", None)
    if shown is not None:
        return list(shown())
    behind = getattr(getattr(connection, "_sslobj", None), "get_unverified_chain", None)
    if behind is not None:
        return [certificate.public_bytes(_DER) for certificate in behind()]
    own = connection.getpeercert(binary_form=True)
    return [own] if own else []
