"""Keeps secrets out of findings: a server may repeat what it was told. No state, no threads; never fails."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from typing import Any

from mailer.config.schema import Config
from mailer.config.secret import MASK, Secret
from mailer.config.setting import settings_of
from mailer.doctor.finding import Finding

LEAST_CHARS = 4  # to mask a shorter password would garble every text, and so tell what it is


def secrets_of(config: Config) -> tuple[str, ...]:
    """Every secret of the configuration, and the forms in which a login sends it; the longest first."""
    forms: set[str] = set()
    for secret in _walk(config):
        text = secret.reveal()
        if len(text) >= LEAST_CHARS:
            forms |= {text, _base64(text)}  # AUTH LOGIN
    for provider in config.forward_providers:
        if len(provider.password.reveal()) >= LEAST_CHARS:
            forms.add(_base64(f"\0{provider.username}\0{provider.password.reveal()}"))  # AUTH PLAIN (RFC 4616 2)
    return tuple(sorted(forms, key=len, reverse=True))


def without(secrets: Iterable[str], finding: Finding) -> Finding:
    """``finding`` with every one of ``secrets`` masked."""
    text, do = finding.text, finding.do
    for secret in secrets:
        text, do = text.replace(secret, MASK), do.replace(secret, MASK)
    return Finding(finding.status, text, do)


def _walk(section: Any) -> Iterator[Secret]:
    for setting in settings_of(type(section)):
        value = getattr(section, setting.attribute)
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, Secret):
                yield item
            elif hasattr(item, "__dataclass_fields__"):
                yield from _walk(item)


def _base64(text: str) -> str:
    return base64.b64encode(text.encode("utf-8", "surrogatepass")).decode("ascii")
