"""All providers of the running configuration: built, kept across a reload, watched.

``_lock`` guards the tuple of providers and what the watch has seen; it is not held while a peer is talked to or a
callback runs. ``step`` belongs to one service thread; login checks run in a thread of their own and are never fatal.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator

from mailer.config.schema import Config, ProviderConfig, is_loopback
from mailer.events import Hub, ProviderStatus
from mailer.mail.outcome import Reply
from mailer.transport.admission import Admission
from mailer.transport.peer import Surroundings
from mailer.transport.provider import Provider
from mailer.window import Windows

__all__ = ["Admission", "Provider", "ProviderSet", "Surroundings"]

log = logging.getLogger(__name__)

STEP_SECONDS = 5.0  # between looks at idle connections and tokens: idle ones live 30 s, tokens are renewed 300 s ahead
PASSED_OVER_SECONDS = 900.0  # spec: a warning when the first provider has been passed over for 15 minutes


class ProviderSet:
    """The providers, in configured order. ``configure`` applies a configuration; the first one is given at the start."""

    def __init__(self, config: Config, windows: Windows, hub: Hub, surroundings: Surroundings) -> None:
        self._windows = windows
        self._hub = hub
        self._surroundings = surroundings
        self.on_breaker_closed: Callable[[str], None] | None = None
        self._lock = threading.Lock()  # guards all below
        self._hostname = ""
        self._providers: tuple[Provider, ...] = ()
        self.by_name: dict[str, Provider] = {}  # replaced whole, so a reader needs no lock
        self._passed_over_since: float | None = None
        self._has_warned = False
        self._configured_at = surroundings.clock()
        self._closed = threading.Event()
        self.configure(config)

    def __repr__(self) -> str:
        return f"ProviderSet({', '.join(p.name for p in self._providers)})"

    def __iter__(self) -> Iterator[Provider]:
        return iter(self._providers)

    def __len__(self) -> int:
        return len(self._providers)

    def get(self, name: str) -> Provider | None:
        return self.by_name.get(name)

    def configure(self, config: Config) -> None:
        """Take on a configuration. A provider whose settings did not change keeps its breaker, quota and connections.

        Raises AddressError, changing nothing, for an ``envelopeFrom`` or ``headerFrom`` that is no address.
        """
        with self._lock:
            old = self._providers
            kept = {p.config: p for p in old} if config.hostname == self._hostname else {}
            new = tuple(kept.get(c) or self._build(c, config.hostname) for c in config.forward_providers)
            self._providers, self._hostname = new, config.hostname
            self.by_name = {p.name: p for p in new}
            self._passed_over_since, self._has_warned, self._configured_at = None, False, self._surroundings.clock()
        for provider in new:
            provider.forget_trust()
            if provider not in old:
                _warn_of_clear_text(provider.config)
        for provider in old:
            if provider not in new:
                provider.close()
                if provider.is_broken:  # what waits for its breaker is to be looked at anew
                    self._tell_closed(provider.name)

    def statuses(self, now: float) -> list[ProviderStatus]:
        return [provider.status(now) for provider in self._providers]

    def close_all_breakers(self) -> None:
        for provider in self._providers:
            provider.close_breaker()

    def check_logins(self) -> threading.Thread:
        """Check every provider's login in the background; the thread is for whoever wants to wait for its end."""
        thread = threading.Thread(target=self._check_logins, args=(self._providers,), name="login-check", daemon=True)
        thread.start()
        return thread

    def step(self, now: float) -> float:
        """Look after connections and tokens, and after the first provider. Returns seconds until the next look."""
        for provider in self._providers:
            provider.tend(now)
        self._watch_first(now)
        return STEP_SECONDS

    def close(self) -> None:
        """Close what is idle; deliveries under way finish."""
        self._closed.set()
        for provider in self._providers:
            provider.close()

    def _build(self, config: ProviderConfig, hostname: str) -> Provider:
        provider = Provider(config, hostname, self._windows, self._hub, self._surroundings)
        provider.on_breaker_closed = self._tell_closed
        return provider

    def _tell_closed(self, name: str) -> None:
        if self.on_breaker_closed is not None:
            self.on_breaker_closed(name)

    def _check_logins(self, providers: tuple[Provider, ...]) -> None:
        for provider in providers:
            if self._closed.is_set():
                return
            reply = provider.check_login()
            if reply.is_success:
                log.info("provider.login_ok name=%s reply=%r", provider.name, str(reply))
                # No breaker outlives the process: what an earlier run left waiting for this one's is due as well.
                self._tell_closed(provider.name)
            else:
                to_do = advice(provider.config, reply)
                log.warning("provider.login_failed name=%s reply=%r do=%r", provider.name, str(reply), to_do)

    def _watch_first(self, now: float) -> None:
        """Warn once when mail has gone out through others for ``PASSED_OVER_SECONDS`` and none through the first.

        The first are those of the lowest priority that serve all domains: mail for them never had a better way.
        """
        with self._lock:
            everyone = [p for p in self._providers if not p.config.domains]
            lowest = min((p.config.priority for p in everyone), default=0)
            first = [p for p in everyone if p.config.priority == lowest]
            others = [p.last_delivered_at or 0.0 for p in everyone if p.config.priority != lowest]
            first_at = max((p.last_delivered_at or 0.0 for p in first), default=0.0)
            others_at = max(others, default=0.0)
            if others_at <= max(first_at, self._configured_at):
                self._passed_over_since, self._has_warned = None, False
                return
            if self._passed_over_since is None:
                self._passed_over_since = others_at
            overdue = others_at - self._passed_over_since
            if overdue < PASSED_OVER_SECONDS or self._has_warned:
                return
            self._has_warned = True
        log.warning(
            "provider.passed_over name=%s seconds=%.0f do=%r",
            ",".join(p.name for p in first),
            now - self._passed_over_since,
            "mail goes out through other providers only: see its delivery.attempt lines for the reason",
        )


def _warn_of_clear_text(config: ProviderConfig) -> None:
    if config.username and config.tls == "none" and not config.ssl and not is_loopback(config.host):
        to_do = 'its password crosses the network readable; set "tls": "required"'
        log.warning("provider.login_in_clear_text name=%s do=%r", config.name, to_do)


def advice(config: ProviderConfig, reply: Reply) -> str:
    """What to do about a login check that failed."""
    host = config.host.lower()
    if reply.enhanced == "4.7.5":
        return "check the certificate and the host name; for a private authority set SSL_CERT_FILE"
    if reply.code in (534, 535) or reply.enhanced.startswith(("5.7", "4.7")):
        if "gmail" in host or "google" in host:
            return "Gmail takes an app password (with two-step verification) or oauth2, not the account's password"
        if "office365" in host or "outlook" in host:
            return "Microsoft 365 wants oauth2 (auth xoauth2) and SMTP AUTH enabled for the mailbox"
        return "check username, password and auth"
    if reply.enhanced in ("4.4.1", "4.4.2", "4.4.3"):
        return "check host and port, and that a firewall lets this machine out; many networks block port 25"
    return "see what the server says; mail goes to the next provider meanwhile"
