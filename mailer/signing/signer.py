"""Which keys sign a message, and what happens when they cannot.

``Signers`` holds one ring of keys, read from disk once and anew at each reload; ``sign`` takes the ring of that moment, so
any thread may call it, and nothing here needs a lock. ``dkim.domain`` signs every message with each of its keys; any other
domain signs those whose From domain is at or under it. How it fails: a key that is missing or cannot be used stops the
start (``ConfigError``, 78) and a reload changes nothing; a message that cannot be signed is a ``SigningError``, which keeps
the message for later, or with ``dkim.onError`` "send" a warning in the log.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mailer.config.problems import ConfigError
from mailer.config.schema import DkimConfig
from mailer.mail.content import Content, header_block, with_head
from mailer.mail.fields import split_header
from mailer.mail.outcome import MailerError
from mailer.mail.render import Sign
from mailer.signing.canonical import BodyHash
from mailer.signing.hands import Hands
from mailer.signing.keys import GOOD_RSA_BITS, RSA, KeyUnusable, PrivateKey
from mailer.signing.origin import from_domains, is_at_or_under
from mailer.signing.places import Place, places_of
from mailer.signing.signature import SigningError, Tags, signature_field

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Signer:
    """One key as it signs."""

    place: Place
    key: PrivateKey
    tags: Tags

    def __str__(self) -> str:
        which = "every message" if self.place.signs_all else f"messages from {self.tags.domain}"
        kind = f"rsa {self.key.bits}" if self.key.kind == RSA else self.key.kind
        return f"{which}: domain {self.tags.domain}, selector {self.tags.selector}, {kind}, key {self.place.key_file}"

    def handed_to(self, hands: Hands) -> Signer:
        """The same, but ``hands`` sign. An Ed25519 signature is made in less time than it is handed over."""
        return replace(self, key=self.key.signed_by(hands.take)) if self.key.kind == RSA else self

    def signs(self, domains: Sequence[str]) -> bool:
        return self.place.signs_all or any(is_at_or_under(domain, self.tags.domain) for domain in domains)


@dataclass(frozen=True)
class Ring:
    """All keys of a configuration; ``warnings`` are what a person should know of them."""

    signers: tuple[Signer, ...] = ()
    warnings: tuple[str, ...] = ()
    sends_unsigned: bool = False

    def sign(self, content: Content, now: float) -> Content:
        """The content with its signatures in front. Raises OSError when it cannot be read, else what went wrong."""
        block = header_block(content)
        header = split_header(block)
        domains = from_domains(header)
        signers = [signer for signer in self.signers if signer.signs(domains)]
        if not signers:
            return content
        body_hash = _body_hash(content, len(block) + len(b"\r\n"))
        fields = [signature_field(signer.key, signer.tags, header, body_hash, now) for signer in signers]
        return with_head(b"".join(fields), 0, content)


class Signers:
    """See the module. ``clock`` gives Unix time; ``hands`` are threads that make signatures."""

    def __init__(self, config: DkimConfig, clock: Callable[[], float] = time.time, hands: Hands | None = None) -> None:
        self._clock = clock
        self._hands = hands or Hands()
        self._ring = Ring()
        self.configure(config)

    def __repr__(self) -> str:
        return f"Signers({[(s.tags.domain, s.tags.selector) for s in self._ring.signers]})"

    def configure(self, config: DkimConfig) -> None:
        """Read the keys anew. Raises ConfigError, and then the old ones stay."""
        self.take(read_ring(config))

    def take(self, ring: Ring) -> None:
        """Sign with the keys of ``read_ring`` from now on."""
        self._ring = replace(ring, signers=tuple(signer.handed_to(self._hands) for signer in ring.signers))
        _tell(ring)

    def close(self) -> None:
        """End the threads that sign; after the last message."""
        self._hands.close()

    @property
    def to_use(self) -> Sign | None:
        """``sign``; None while there is no key, so that nobody asks for each message."""
        return self.sign if self._ring.signers else None

    def sign(self, content: Content) -> Content:
        """The content as it goes out. Raises SigningError, or OSError when it cannot be read."""
        ring = self._ring
        if not ring.signers:
            return content
        try:
            return ring.sign(content, self._clock())
        except MailerError as fault:
            if ring.sends_unsigned:
                log.warning("dkim.unsigned error=%r effect=%r", str(fault), "sent without a signature, as dkim.onError says")
                return content
            raise SigningError(f"cannot be signed with DKIM: {fault}; it is kept and tried again (dkim.onError)") from fault


def read_ring(config: DkimConfig) -> Ring:
    """All keys that are configured, tried out. Raises ConfigError naming each that is missing or cannot be used."""
    if not config.enabled:
        return Ring()
    signers, problems, warnings = [], [], []
    try:
        places = places_of(config)
    except KeyUnusable as fault:
        raise ConfigError([str(fault)]) from fault
    for place in places:
        try:
            key = place.read()
            signers.append(_signer(place, key))
        except KeyUnusable as fault:
            problems.append(str(fault))
        except SigningError as fault:
            problems.append(f"{place.setting}: {fault}")
        else:
            warnings += _warnings(place, key)
    if problems:
        raise ConfigError(problems)
    return Ring(tuple(signers), tuple(warnings), config.on_error == "send")


def _signer(place: Place, key: PrivateKey) -> Signer:
    """The key, tried out: it can sign, and all that signing imports is imported before there is mail."""
    config = place.config
    names = [name.lower().encode() for name in dict.fromkeys(config.headers_to_sign)]
    if b"from" not in names:  # RFC 6376 5.4: must be signed
        names.insert(0, b"from")
    tags = Tags(place.domain, place.selector, tuple(dict.fromkeys(names)), config.signature_expiry)
    signature_field(key, tags, (), BodyHash().digest(), 0.0)
    return Signer(place, key, tags)


def _warnings(place: Place, key: PrivateKey) -> list[str]:
    warnings = [place.exposed()]
    if key.kind == RSA and key.bits < GOOD_RSA_BITS:
        text = f"{key.bits} bits are weak, and some receivers ignore such a signature (RFC 8301)"
        warnings.append(f"{place.setting}: key {place.key_file}: {text}: make a new one with `mailer dkim rotate`")
    if place.is_rotated:
        warnings.append(
            f"{place.setting}: signs with the selector {place.selector}, which {place.selector_file} names after a rotation, "
            f"not with {place.config.selector}"
        )
    return [warning for warning in warnings if warning]


def _body_hash(content: Content, start: int) -> bytes:
    body, left = BodyHash(), start
    for chunk in content.chunks():
        if left < len(chunk):
            body.update(chunk[left:] if left else chunk)
        left = max(0, left - len(chunk))
    return body.digest()


def _tell(ring: Ring) -> None:
    for signer in ring.signers:
        tags, key = signer.tags, signer.key
        log.info(
            "dkim.key domain=%s selector=%s kind=%s bits=%d file=%r",
            tags.domain, tags.selector, key.kind, key.bits, str(signer.place.key_file),
        )  # fmt: skip
    for warning in ring.warnings:
        log.warning("dkim.warning text=%r", warning)
