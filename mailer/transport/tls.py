"""TLS towards a server: when it is asked for, and with which trust. No threads, no locks.

Opportunistic TLS is for connections without a login; a login asks for TLS unless the host is loopback or the
configuration says ``"tls": "none"`` in so many words (spec 2).
"""

from __future__ import annotations

import enum
import ssl
from collections.abc import Callable
from pathlib import Path

from mailer.config.schema import ProviderConfig, is_loopback

TrustStore = Callable[[], Path]
"""Names the certificates to trust; raises MailerError when there are none."""


class Policy(enum.Enum):
    """What TLS a connection must have. A provider's certificate is verified, whatever the policy; that of a recipient's server
    where it is VERIFIED, or where its domain asks for it."""

    NONE = "none"
    OPPORTUNISTIC = "opportunistic"
    REQUIRED = "required"
    VERIFIED = "verified"
    IMPLICIT = "implicit"


def policy_of(config: ProviderConfig) -> Policy:
    """The policy in effect for a provider."""
    if config.ssl:
        return Policy.IMPLICIT
    policy = Policy(config.tls)
    if policy is Policy.OPPORTUNISTIC and config.username and not is_loopback(config.host):
        return Policy.REQUIRED
    return policy


def client_context(trust_store: Path | None) -> ssl.SSLContext:
    """A context that verifies against ``trust_store`` (a bundle, or a folder of hashed certificates), or with None
    verifies nothing: what ``insecureSkipVerify`` asks for. TLS 1.2 is the least, as RFC 8996 says."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if trust_store is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif trust_store.is_dir():
        context.load_verify_locations(capath=trust_store)
    else:
        context.load_verify_locations(cafile=trust_store)
    return context
