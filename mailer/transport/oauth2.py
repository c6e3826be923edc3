"""Access tokens for XOAUTH2: bought from the provider's token endpoint (RFC 6749) or read from a file.

Where the token comes from:
- ``tokenFile`` without ``tokenUrl``: the file holds the access token, as text or as JSON with ``access_token``. Another
  program renews it; it is read again when it changes.
- ``tokenUrl`` with ``refreshToken``: the refresh_token grant. A refresh token that the endpoint rotates replaces the
  configured one in memory, and on disk if ``tokenFile`` is given (JSON, 0600): it then survives a restart for as long as
  the configured one stays the same. A newly configured refresh token always wins.
- ``tokenUrl`` without ``refreshToken``: the client_credentials grant (Microsoft 365: scope
  ``https://outlook.office365.com/.default``).

Any thread may ask. One condition guards the token and whether a renewal is under way: one thread at a time talks to the
endpoint, whoever needs a token waits for its result; nothing is read or sent under the lock. Fails with ``Fault``;
tokens and secrets are never part of its text, nor of any log line.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mailer.config.schema import OAuth2Config
from mailer.mail.outcome import MailerError, Reply
from mailer.transport.faults import Fault
from mailer.transport.peer import Surroundings
from mailer.transport.token_endpoint import Grant, buy
from mailer.transport.token_file import mark_of, read_token, recall, remember

log = logging.getLogger(__name__)

MARGIN_SECONDS = 60.0
"""A token this close to its end is not used any more: a login on a slow link may take as long."""
AHEAD_SECONDS = 300.0
"""``renew_ahead`` renews this long before the end, so that no delivery has to wait for it."""
RETRY_AHEAD_SECONDS = 60.0
"""After a failed renewal ahead of time the next is tried no sooner."""
DEFAULT_LIFE_SECONDS = 300.0
"""Of a token whose endpoint does not say: RFC 6749 5.1 only recommends ``expires_in``."""
WAIT_SECONDS = 60.0
"""Longest wait for a renewal that nobody gave a deadline."""


@dataclass(frozen=True, slots=True)
class _Held:
    """A token and the Unix time of its end; ``mark`` tells a file's version from another."""

    token: str
    expires_at: float
    mark: object = None


class TokenSource:
    """The access tokens of one provider."""

    def __init__(self, config: OAuth2Config, surroundings: Surroundings) -> None:
        self._config = config
        self._clock = surroundings.clock
        self._trust_store = surroundings.trust_store
        self._changed = threading.Condition()  # guards all below
        self._held: _Held | None = None
        self._renewing = False
        self._failure: str | None = None
        self._refresh_token: str | None = None  # None: not looked up in the file yet
        self._no_renewal_before = 0.0

    def __repr__(self) -> str:
        held = self._held
        return f"TokenSource(expires_at={held.expires_at if held else None}, renewing={self._renewing})"

    def token(self, deadline: float) -> str:
        """A token valid now; ``deadline`` in monotonic seconds. Raises Fault."""
        if not self._config.token_url:
            return self._from_file().token
        return self._renewed(deadline, lambda held: held.expires_at - MARGIN_SECONDS > self._clock())

    def replacement(self, rejected: str, deadline: float) -> str:
        """Another token than ``rejected``. Raises Fault."""
        if not self._config.token_url:
            token = self._from_file(anew=True).token
            if token == rejected:
                raise _fault(f"the token in {self._config.token_file} is refused; whatever fills that file must renew it")
            return token
        return self._renewed(deadline, lambda held: held.token != rejected)

    def renew_ahead(self, now: float) -> None:
        """Renew a token that is soon over. Failing is logged, never raised: the old one may still serve."""
        held = self._held
        if not self._config.token_url or held is None or held.expires_at - AHEAD_SECONDS > now or now < self._no_renewal_before:
            return
        self._no_renewal_before = now + RETRY_AHEAD_SECONDS
        try:
            self._renewed(time.monotonic() + WAIT_SECONDS, lambda current: current is not held)
        except Fault as fault:
            log.warning("provider.token_renewal_failed url=%s reply=%r", self._config.token_url, str(fault.reply))

    def _renewed(self, deadline: float, is_good: Callable[[_Held], bool]) -> str:
        """A held token that ``is_good``, after at most one renewal. The endpoint is asked in a thread of its own, so
        that the wait ends at ``deadline`` whatever it does."""
        with self._changed:
            if self._held is not None and is_good(self._held):
                return self._held.token
            if not self._renewing:
                self._renewing = True
                threading.Thread(target=self._renew, name="token-renewal", daemon=True).start()
            wait = min(deadline - time.monotonic(), WAIT_SECONDS)
            if not self._changed.wait_for(lambda: not self._renewing, max(0.0, wait)):
                raise _fault("no answer from the token endpoint within the time-out")
            if self._failure is not None:
                raise _fault(self._failure)
            if self._held is None or not is_good(self._held):
                raise _fault("the token endpoint gave no token that can be used")
            return self._held.token

    def _renew(self) -> None:
        """Ask the endpoint once, and tell the waiting."""
        held, failure, refresh_token = None, None, self._refresh_token
        try:
            if refresh_token is None:
                refresh_token = self._stored_refresh_token()
            bought = buy(self._grant(refresh_token), self._trust_store)
            held = _Held(bought.access_token, self._clock() + (bought.expires_in or DEFAULT_LIFE_SECONDS))
            if bought.refresh_token and bought.refresh_token != refresh_token:
                refresh_token = bought.refresh_token
                self._keep(refresh_token)
        except MailerError as error:
            failure = str(error)
        finally:
            with self._changed:
                self._held = held or self._held
                self._failure = None if held else failure or "renewal ended without a result"
                self._refresh_token = refresh_token
                self._renewing = False
                self._changed.notify_all()

    def _grant(self, refresh_token: str) -> Grant:
        config = self._config
        form = {"client_id": config.client_id, "client_secret": config.client_secret.reveal(), "scope": config.scope}
        if refresh_token:
            form |= {"grant_type": "refresh_token", "refresh_token": refresh_token}
        else:
            form["grant_type"] = "client_credentials"
        return Grant(config.token_url, {key: value for key, value in form.items() if value})

    def _stored_refresh_token(self) -> str:
        configured = self._config.refresh_token.reveal()
        if configured and self._config.token_file:
            return recall(Path(self._config.token_file), configured) or configured
        return configured

    def _keep(self, refresh_token: str) -> None:
        """Store a rotated refresh token; it serves from memory even if that fails."""
        if not self._config.token_file:
            log.info("provider.refresh_token_rotated url=%s kept=memory", self._config.token_url)
            return
        try:
            remember(Path(self._config.token_file), self._config.refresh_token.reveal(), refresh_token)
        except OSError as error:
            reason = error.strerror or str(error)
            log.warning("provider.refresh_token_not_stored file=%s error=%r", self._config.token_file, reason)

    def _from_file(self, anew: bool = False) -> _Held:
        """The token in ``tokenFile``, read when the file has changed."""
        held = self._held
        path = Path(self._config.token_file)
        try:
            mark = mark_of(path)
            if held is None or anew or held.mark != mark:
                held = _Held(read_token(path), 0.0, mark)
                with self._changed:
                    self._held = held
        except (MailerError, OSError) as error:
            raise _fault(f"tokenFile {path}: {error.strerror if isinstance(error, OSError) else error}") from error
        return held


def _fault(text: str) -> Fault:
    """No token: a login that cannot be tried, said as a temporary refusal of ours (RFC 4954 6)."""
    return Fault(Reply(454, "4.7.0", f"no access token: {text}"))
