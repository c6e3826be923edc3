"""Owns which environment variables set which keys, and what their text means.

Every key answers to ``MAILER_`` and its path in UPPER_SNAKE; the keys that the Go program documents also without the
prefix. No state, no threads. Faults go to ``Notes``: a prefixed variable's as problems, any other's as warnings, since
an orchestrator sets ``SMTP_PORT=tcp://…`` for reasons of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mailer.config.jsonc import JsonError, parse
from mailer.config.kinds import Misfit, SecretText
from mailer.config.problems import Notes, shown, shown_type
from mailer.config.reading import Given, Reader, leaves, nearest
from mailer.config.references import ReferenceFault, read_text
from mailer.config.setting import Setting

PREFIX = "MAILER_"
_FILE_SUFFIX = "_FILE"
_MAX_FILE_BYTES = 1 << 20  # a list of providers; a hundred of them take 50 KiB

GO_KEYS = frozenset(
    {
        "smtpHost", "smtpPort", "defaultUsername", "defaultPassword",
        "forwardSMTP", "forwardHost", "forwardPort", "forwardUsername", "forwardPassword", "forwardSSL", "forwardProviders",
        "directDelivery.enabled", "directDelivery.ehloDomain", "directDelivery.insecureSkipVerify", "directDelivery.retryCount",
        "dkim.enabled", "dkim.domain", "dkim.selector", "dkim.privateKeyPath", "dkim.headersToSign", "dkim.signatureExpiry",
        "workerCount", "queueSize", "processingTimeout", "batchSize", "batchDelay", "continueOnError",
        "enableHealthCheck", "healthCheckPort",
        "rateLimits.enabled", "rateLimits.maxPerHour", "rateLimits.maxPerDay",
        "rateLimits.globalMaxPerHour", "rateLimits.globalMaxPerDay",
        "security.allowLocalOnly", "security.logAllEmails", "security.requireAuth",
    }
)  # fmt: skip
"""The keys that the Go program documents: these answer without the prefix too. ``hostname`` is not among them, because
every shell and container sets ``HOSTNAME``."""


def variable_name(path: str) -> str:
    """The variable of a key without its prefix: ``rateLimits.maxPerHour`` is ``RATE_LIMITS_MAX_PER_HOUR``."""
    return "_".join(Setting(part, "").environment_name for part in path.split("."))


def may_be_file(path: str, setting: Setting) -> bool:
    """Whether ``…_FILE`` names a file that holds the value: secrets, and the list of providers that holds secrets."""
    return isinstance(setting.kind, SecretText) or path == "forwardProviders"


def overlay(environ: Mapping[str, str], notes: Notes) -> dict[str, Given]:
    """What the environment gives, by JSON path. Empty means unset; the prefixed variable wins."""
    given: dict[str, Given] = {}
    for path, setting in leaves():
        bare = variable_name(path)
        found = _given(environ, PREFIX + bare, path, setting, notes)
        if found is None and path in GO_KEYS:
            found = _given_unprefixed(environ, bare, path, setting, notes)
        if found is not None:
            given[path] = found
    _warn_of_unknown(environ, notes)
    return given


def _given_unprefixed(environ: Mapping[str, str], name: str, path: str, setting: Setting, notes: Notes) -> Given | None:
    if isinstance(setting.kind, SecretText):  # a password that is ignored would leave the door open
        return _given(environ, name, path, setting, notes)
    trial = Notes()
    found = _given(environ, name, path, setting, trial)
    if found is not None:
        Reader(trial, None).read(setting, *found)
    if trial.problems:
        notes.warning("", f"{trial.problems[0]} (ignored; {PREFIX}{name} would set {path})")
        return None
    return found


def _given(environ: Mapping[str, str], name: str, path: str, setting: Setting, notes: Notes) -> Given | None:
    """The JSON value that the variable ``name``, or ``name_FILE``, means; None after a problem."""
    text = environ.get(name, "").strip()
    file = environ.get(name + _FILE_SUFFIX, "").strip() if may_be_file(path, setting) else ""
    if text and file:
        notes.problem(name, f"{name}{_FILE_SUFFIX} is set too: unset one of them")
        return None
    if isinstance(setting.kind, SecretText):
        if file:  # a reference, which is resolved with those of the configuration file
            return Given(name + _FILE_SUFFIX, f"file:{Path(file).absolute()}")
        return Given(name, environ[name]) if text else None  # as it is: a password may begin with a space
    if file:
        name += _FILE_SUFFIX
        try:
            text = read_text(Path(file), _MAX_FILE_BYTES).strip()
        except ReferenceFault as fault:
            notes.problem(name, str(fault))
            return None
    return _parsed(name, text, setting, notes) if text else None


def _parsed(name: str, text: str, setting: Setting, notes: Notes) -> Given | None:
    """The JSON value of ``text``: a list as JSON or separated by commas, anything else as its kind says."""
    try:
        if setting.section is not None or (setting.is_list and text.startswith("[")):
            return Given(name, parse(text))
        if setting.is_list:
            return Given(name, [item.strip() for item in text.split(",") if item.strip()])
        return Given(name, setting.kind.from_text(text))
    except JsonError as error:
        notes.problem(name, f"expected list in JSON, but at {error}")
    except Misfit as misfit:
        notes.problem(name, f"expected {misfit}, got {shown_type(text) if setting.section else shown(text)}")
    return None


def _warn_of_unknown(environ: Mapping[str, str], notes: Notes) -> None:
    known = []
    for path, setting in leaves():
        known.append(PREFIX + variable_name(path))
        if may_be_file(path, setting):
            known.append(known[-1] + _FILE_SUFFIX)
    for name in sorted(set(environ) - set(known)):
        if name.startswith(PREFIX) and environ[name]:
            near = nearest(name, known)
            safe = name if name.isprintable() else shown(name)
            notes.warning(safe, f"sets nothing; did you mean {near}?" if near else "sets nothing")
