"""Owns the checks of a configuration in effect that need more than one setting, or a look at a file.

No state, no threads; reads the certificate files, and looks for the certificate store that ``SSL_CERT_FILE`` may name. Every
fault goes to ``Notes`` under the key that must change.
"""

from __future__ import annotations

import importlib.util
import os
import ssl

from mailer.config.effective import is_reachable_from_outside
from mailer.config.problems import ConfigError, Notes, shown_path
from mailer.config.provider import is_loopback
from mailer.config.schema import Config, DkimConfig, OAuth2Config, ProviderConfig, TlsConfig
from mailer.config.trust import find_trust_store
from mailer.mail.outcome import DIRECT_PREFIX

MAX_SIGNING_DOMAIN_CHARS = 67
"""A signature's lines are folded at 72 characters, and ``d=`` may not be folded within (RFC 6376 3.5)."""
_CHANGED_ON_THE_WAY = frozenset({"return-path", "received", "bcc", "resent-bcc", "comments", "keywords"})  # RFC 6376 5.4.1


def check(config: Config, providers_place: str, notes: Notes) -> None:
    """Note everything about ``config`` that cannot work or that a person should know.

    ``providers_place``: where the list of providers was given; empty for the one provider of the older keys.
    """
    _check_dkim(config.dkim, notes)
    _check_login(config, notes)
    _check_ports(config, notes)
    check_certificate(config.tls, notes)
    for position, provider in enumerate(config.forward_providers):
        _check_provider(provider, f"{providers_place}[{position}]." if providers_place else "forward", notes)
    _check_direct(config, notes)
    _check_reach(config, notes)
    if config.retry.max_delay < config.retry.base_delay:
        notes.warning("retry.maxDelay", "is below retry.baseDelay, so every wait is as long as maxDelay")


def _check_dkim(dkim: DkimConfig, notes: Notes) -> None:
    """What can be said of signing without its keys, which are read when they are needed (signing/)."""
    if not dkim.enabled:
        return
    if not dkim.all_keys:
        notes.problem("dkim.domain", "is needed: the domain that signs, and whose DNS holds the public key")
    seen: set[tuple[str, str]] = set()
    for place, key in dkim.all_keys:
        if len(key.domain) > MAX_SIGNING_DOMAIN_CHARS:
            notes.problem(f"{place}.domain", f"is longer than {MAX_SIGNING_DOMAIN_CHARS} characters, so it cannot sign")
        if (key.domain, key.selector) in seen:
            notes.problem(f"{place}.selector", f"{key.domain} has a key with the selector {key.selector} before it")
        seen.add((key.domain, key.selector))
        for name in key.headers_to_sign:
            if name.lower() == "dkim-signature":  # RFC 6376 5.4: a signature added later would break this one
                notes.problem(f"{place}.headersToSign", f"{name} cannot be signed")
            elif name.lower() in _CHANGED_ON_THE_WAY:
                notes.warning(f"{place}.headersToSign", f"{name} changes on the way, which breaks the signature: take it out")


def _check_direct(config: Config, notes: Notes) -> None:
    direct = config.direct_delivery
    if not direct.enabled:
        if config.tls_reports.enabled:
            notes.warning("tlsReports.enabled", "has no effect without directDelivery.enabled")
        return
    if direct.insecure_skip_verify:
        asks = "DANE, MTA-STS and tls: \"verified\" check none, and mail that needs verified TLS is not delivered"
        notes.warning("directDelivery.insecureSkipVerify", f"any certificate is accepted: {asks}")
    try:
        find_trust_store(os.environ)
    except ConfigError as error:
        gets = "domains that ask for a verified certificate (MTA-STS) get no mail"
        notes.warning("directDelivery.enabled", f"{gets}: {error.problems[0]}")
    if importlib.util.find_spec("cryptography") is None:
        notes.warning("directDelivery.enabled", "DANE is off: it needs cryptography (pip install -r requirements-dkim.txt)")


def _check_login(config: Config, notes: Notes) -> None:
    if config.default_username and not config.default_password:
        notes.warning("defaultPassword", "is empty, so defaultUsername is no login")
    if config.default_password and not config.default_username:
        notes.warning("defaultUsername", "is empty, so defaultPassword is no login")


def _check_ports(config: Config, notes: Notes) -> None:
    """Two listeners of one program cannot share a port; 0 picks a free one each time."""
    taken = {config.smtp_port: "smtpPort"} if config.smtp_port else {}
    wanted = [("tls.implicitPort", config.tls.implicit_port)]
    if config.enable_health_check:
        wanted.append(("healthCheckPort", config.health_check_port))
    for place, port in wanted:
        if port in taken:
            notes.problem(place, f"port {port} is taken by {taken[port]}")
        elif port:
            taken[port] = place


def check_certificate(tls: TlsConfig, notes: Notes) -> None:
    """Whether the listener's certificate and key can be used."""
    if not tls.cert_file:
        if tls.key_file:
            notes.problem("tls.keyFile", "is given without tls.certFile")
        if tls.implicit_port:
            notes.problem("tls.implicitPort", "needs a certificate: set tls.certFile and tls.keyFile, or this to 0")
        return
    if not tls.key_file:
        notes.problem("tls.certFile", "is given without tls.keyFile")
        return
    for place, path in (("tls.certFile", tls.cert_file), ("tls.keyFile", tls.key_file)):
        try:
            with open(path, "rb") as file:  # noqa: PTH123 - the settings are strings
                file.read(1)
        except OSError as error:
            notes.problem(place, f"file {shown_path(path)} cannot be read: {error.strerror}")
            return
    try:
        # The password stops OpenSSL from asking the terminal for that of an encrypted key.
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(tls.cert_file, tls.key_file, password="")
    except (ssl.SSLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error)
        pair = f"{shown_path(tls.cert_file)} with the key {shown_path(tls.key_file)}"
        notes.problem("tls.certFile", f"{pair} cannot be used: {reason}")


def _check_provider(provider: ProviderConfig, place: str, notes: Notes) -> None:
    if provider.name.startswith(DIRECT_PREFIX):
        text = f"{provider.name} reads as a way of direct delivery: give the provider a name that does not begin so"
        notes.problem(_key(place, "name"), text)
    if provider.ssl and provider.tls == "none":
        notes.problem(_key(place, "tls"), '"none" contradicts ssl: true')
    if provider.password and not provider.username:
        notes.warning(_key(place, "username"), "is empty, so there is no login")
    if provider.username and not provider.password and provider.oauth2 is None:
        notes.warning(_key(place, "password"), "is empty, so the login will probably be refused")
    if provider.has_login and provider.tls == "none" and not is_loopback(provider.host):
        notes.warning(_key(place, "tls"), '"none" sends the login in clear text over the network: set "required"')
    if provider.insecure_skip_verify:
        notes.warning(_key(place, "insecureSkipVerify"), "any certificate is accepted: others on the path can read all")
    if provider.oauth2 is not None:
        _check_oauth2(provider.oauth2, _key(place, "oauth2"), notes)
        if not provider.username:
            notes.problem(_key(place, "username"), "is needed with oauth2: the account that the token is for")
    elif provider.auth == "xoauth2":
        notes.problem(_key(place, "oauth2"), 'is needed with auth "xoauth2"')


def _key(place: str, key: str) -> str:
    """A provider's key: ``forwardProviders[0].username``, or ``forwardUsername`` of the older keys."""
    return place + (key if place.endswith(".") else key[0].upper() + key[1:])


def _check_oauth2(oauth2: OAuth2Config, place: str, notes: Notes) -> None:
    if oauth2.token_file:
        return
    if not oauth2.token_url:
        notes.problem(f"{place}.tokenUrl", "is needed, or tokenFile")
        return
    scheme, _, rest = oauth2.token_url.partition("://")
    host = rest.partition("/")[0].rpartition(":")[0] or rest.partition("/")[0]
    if scheme.lower() != "https" and not (scheme.lower() == "http" and is_loopback(host)):
        notes.problem(f"{place}.tokenUrl", "must begin with https://, since secrets are sent there")
    if not oauth2.client_id:
        notes.problem(f"{place}.clientId", "is needed with tokenUrl")
    if not oauth2.refresh_token and not oauth2.client_secret:
        notes.problem(f"{place}.refreshToken", "is needed with tokenUrl, or clientSecret for client credentials")


def _check_reach(config: Config, notes: Notes) -> None:
    if config.enable_health_check and not is_loopback(config.health_check_host):
        if is_reachable_from_outside(config):
            notes.warning("healthCheckHost", f"whoever reaches {config.health_check_host} can read health and start retries")
        elif not config.security.allowed_networks:
            notes.warning("healthCheckHost", "answers this machine only, because security.allowLocalOnly is true")
    for position, network in enumerate(config.security.allowed_networks):
        if network.prefixlen == 0:
            notes.warning(f"security.allowedNetworks[{position}]", f"{network} is everyone")
