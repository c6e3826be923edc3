"""What the certificates to trust are used for: TLS contexts, and a look at a certificate that nobody asked to be verified.

Any thread may ask. One lock guards what was read, which is read when first needed; two threads may read at once, and either
result serves. ``forget`` replaces the place where it is kept, so that what was begun before does not come to stand there.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from mailer.mail.outcome import MailerError, Reply
from mailer.transport import tlsa
from mailer.transport.faults import Fault
from mailer.transport.tls import TrustStore, client_context


@dataclass
class _Read:
    """``roots``: None while they were not read, empty where they cannot be."""

    contexts: dict[bool, ssl.SSLContext] = field(default_factory=dict)
    roots: list[tlsa.Roots] | None = None


class Trust:
    """The trust store as it was when first asked for."""

    def __init__(self, store: TrustStore) -> None:
        self._store = store
        self._lock = threading.Lock()  # guards _kept and what is in it
        self._kept = _Read()

    def __repr__(self) -> str:
        return f"Trust(contexts={sorted(self._kept.contexts)})"

    def forget(self) -> None:
        """Read the trust store anew when it is next needed."""
        with self._lock:
            self._kept = _Read()

    def context(self, verifies: bool) -> ssl.SSLContext:
        """A context that verifies, or one that takes any certificate. Raises Fault."""
        with self._lock:
            kept = self._kept
            context = kept.contexts.get(verifies)
        if context is None:
            try:
                context = client_context(self._store() if verifies else None)
            except MailerError as error:
                raise Fault(Reply(454, "4.7.5", str(error))) from error
            with self._lock:
                kept.contexts[verifies] = context
        return context

    def vouches(self, chain: Sequence[bytes], host: str) -> bool:
        """Whether a chain that was taken unseen would have passed. For the log alone: False where that cannot be told."""
        with self._lock:
            kept = self._kept
            roots = kept.roots
        if roots is None:
            roots = self._read_roots()
            with self._lock:
                kept.roots = roots
        return any(tlsa.vouches(root, chain, host) for root in roots)

    def _read_roots(self) -> list[tlsa.Roots]:
        try:
            return [tlsa.read_roots(self._store().read_bytes())] if tlsa.is_available() else []
        except (MailerError, OSError, ValueError):  # a folder of certificates, or none: nobody's mail depends on it
            return []
