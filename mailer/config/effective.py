"""Owns what takes effect: how settings that bear on each other are brought together, and which of them cannot be.

No state, no threads. What a person should know becomes a warning, what would be unsafe or cannot work a problem; all
go to ``Notes``, and the configuration is returned all the same, so that further faults are found in the same call.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mailer.config.problems import Notes, shown
from mailer.config.schema import Config, DkimConfig, DkimKeyConfig, ProviderConfig, is_loopback
from mailer.mail.address import Address, AddressError

LOOPBACK = "127.0.0.1"


def take_effect(config: Config, asked_for_login: bool, notes: Notes) -> Config:
    """The configuration in effect. ``asked_for_login``: what ``security.requireAuth`` said before it took effect."""
    config = _listening(config, notes)
    if asked_for_login and not config.security.require_auth:
        notes.warning(
            "security.requireAuth",
            "counts as false, and any login is accepted: set defaultUsername and defaultPassword, or requireAuth to false",
        )
    return _completed(_forwarding(config, notes))


def _forwarding(config: Config, notes: Notes) -> Config:
    """Whether mail is forwarded, and through which providers."""
    providers = _with_unique_names(config.forward_providers, notes)
    if not config.forward_smtp:
        if providers or config.forward_host:
            notes.warning("forwardSMTP", "is false, so no provider is used")
        return replace(config, forward_providers=())
    if config.forward_host:
        if providers:
            notes.warning("forwardHost", "ignored, because forwardProviders is given")
        else:
            notes.warning("forwardHost", "deprecated: list the provider in forwardProviders instead")
            providers = (_legacy_provider(config),)
    if not providers:
        notes.warning("forwardSMTP", "counts as false: there is neither a provider in forwardProviders nor a forwardHost")
    return replace(config, forward_providers=providers, forward_smtp=bool(providers))


def _listening(config: Config, notes: Notes) -> Config:
    """Where the listener binds, and whether that makes an open relay."""
    security = config.security
    if not config.listens_on_loopback_only and security.allow_local_only and not security.allowed_networks:
        notes.warning(
            "smtpHost",
            f"listens on {LOOPBACK} instead of {config.smtp_host}, because security.allowLocalOnly is true: "
            "name the networks that may connect in security.allowedNetworks, or set allowLocalOnly to false",
        )
        config = replace(config, smtp_host=LOOPBACK)
    if config.listens_on_loopback_only:
        return config
    if security.require_auth and not config.has_credentials:
        notes.problem(
            "security.requireAuth",
            f"a login is required on {config.smtp_host}, but there is none: set defaultUsername and defaultPassword",
        )
    elif not security.require_auth and not security.allowed_networks:
        notes.problem(
            "smtpHost",
            f"listening on {config.smtp_host} with neither a required login nor allowed networks would be an open relay: "
            "set security.requireAuth to true with a login, or security.allowedNetworks",
        )
    return config


def _legacy_provider(config: Config) -> ProviderConfig:
    return ProviderConfig(
        host=config.forward_host,
        port=config.forward_port,
        username=config.forward_username,
        password=config.forward_password,
        ssl=config.forward_ssl,
    )


def _with_unique_names(providers: tuple[ProviderConfig, ...], notes: Notes) -> tuple[ProviderConfig, ...]:
    """Providers by names that nobody shares: a name that was made up is numbered, one that was given is a problem."""
    named = list(providers)
    taken: set[str] = set()
    for position, provider in enumerate(providers):
        if provider.name != provider.made_up_name:
            if provider.name in taken:
                notes.problem(f"forwardProviders[{position}].name", f"the name {shown(provider.name)} is taken by one before it")
            taken.add(provider.name)
    for position, provider in enumerate(providers):
        if provider.name == provider.made_up_name:
            name, number = provider.name, 2
            while name in taken:  # two accounts at one host
                name, number = f"{provider.name}#{number}", number + 1
            taken.add(name)
            named[position] = replace(provider, name=name)
    return tuple(named)


def _completed(config: Config) -> Config:
    """Every default that depends on another setting, and every relative path made one under ``dataDir``."""
    base = config.data_dir
    direct = config.direct_delivery
    return replace(
        config,
        tls=replace(config.tls, cert_file=_under(base, config.tls.cert_file), key_file=_under(base, config.tls.key_file)),
        direct_delivery=replace(direct, ehlo_domain=direct.ehlo_domain or config.hostname),
        dkim=_completed_dkim(config.dkim, _domain_of(config.default_username), base),
        logging=replace(config.logging, file=_under(base, config.logging.file)),
        forward_providers=tuple(_with_token_file(provider, base) for provider in config.forward_providers),
    )


def _with_token_file(provider: ProviderConfig, base: Path) -> ProviderConfig:
    if provider.oauth2 is None:
        return provider
    return replace(provider, oauth2=replace(provider.oauth2, token_file=_under(base, provider.oauth2.token_file)))


def _completed_dkim(dkim: DkimConfig, domain: str, base: Path) -> DkimConfig:
    domain = dkim.domain or domain
    keys = tuple(replace(key, private_key_path=_key_path(key, key.domain, base)) for key in dkim.keys)
    return replace(dkim, domain=domain, private_key_path=_key_path(dkim, domain, base), keys=keys)


def _key_path(key: DkimConfig | DkimKeyConfig, domain: str, base: Path) -> str:
    if not domain:
        return _under(base, key.private_key_path)
    return _under(base, key.private_key_path or f"keys/{domain}/{key.selector}.private")


def _domain_of(username: str) -> str:
    try:
        return Address.parse(username).domain_key
    except AddressError:
        return ""


def _under(base: Path, path: str) -> str:
    return str(base / path) if path else ""


def is_reachable_from_outside(config: Config) -> bool:
    """Whether HTTP is served beyond loopback to whoever gets there."""
    security = config.security
    open_to_all = not security.allow_local_only and not security.allowed_networks
    return config.enable_health_check and not is_loopback(config.health_check_host) and open_to_all
