"""Owns the loading of the configuration: file, environment and secret references become one checked ``Config``.

No state, no threads; reads the configuration file and the files that it names. Fails with ``ConfigError`` and nothing
else, which lists every problem at once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mailer.config.checks import check
from mailer.config.effective import take_effect
from mailer.config.environment import overlay
from mailer.config.jsonc import JsonError, JsonObject, parse
from mailer.config.problems import EX_CONFIG, ConfigError, Notes, shown_path, shown_type
from mailer.config.reading import Given, Reader
from mailer.config.references import ReferenceFault, References, read_text
from mailer.config.schema import Config

__all__ = ["EX_CONFIG", "ConfigError", "Loaded", "load", "load_text"]

MAX_FILE_BYTES = 4 << 20  # thousands of providers fit; more means that the path is wrong


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that can be used, and what a person should know about it."""

    config: Config
    warnings: list[str]


def load(path: Path, environ: Mapping[str, str]) -> Loaded:
    """The configuration of the file ``path`` with ``environ`` laid over it. Raises ConfigError."""
    if not os.path.lexists(path):
        raise ConfigError(
            [f"there is no configuration file {shown_path(path)}: copy config.example.json there and edit it, or use -config"]
        )
    try:
        text = read_text(path, MAX_FILE_BYTES)
    except ReferenceFault as fault:
        raise ConfigError([f"configuration {fault}"]) from None
    return load_text(text, environ, str(path))


def load_text(text: str, environ: Mapping[str, str], name: str = "configuration") -> Loaded:
    """The same for the text of a configuration file; ``name`` is what problems with the whole of it call it."""
    try:
        tree = parse(text)
    except JsonError as error:
        raise ConfigError([f"{name}: {error}"]) from None
    if not isinstance(tree, JsonObject):
        raise ConfigError([f"{name}: expected an object in {{ }}, got {shown_type(tree)}"])
    notes = Notes()
    given = Reader(notes, None).collect(Config, tree, "") | overlay(environ, notes)
    config = Reader(notes, References(environ, _folder(given))).make(Config, given, "")
    # Further faults are looked for even after the first, on the values that could be read.
    config = take_effect(config, _asked_for_login(given), notes)
    check(config, _providers_place(given), notes)
    if notes.problems:
        raise ConfigError(notes.problems)
    return Loaded(config, notes.warnings)


def _folder(given: dict[str, Given]) -> Path:
    """Where relative paths start: ``dataDir``, which secrets need before it is read with the rest."""
    folder = given["dataDir"].value if "dataDir" in given else ""
    return Path(folder) if isinstance(folder, str) else Path()


def _providers_place(given: dict[str, Given]) -> str:
    """What errors call the list of providers; empty where the older keys make the one there is."""
    listed = given.get("forwardProviders")
    return listed.place if listed is not None and listed.value else ""


def _asked_for_login(given: dict[str, Given]) -> bool:
    return "security.requireAuth" not in given or given["security.requireAuth"].value is True
