"""Owns the way from a JSON tree to the values of the schema, with every fault noted by its path.

Two steps, so that the environment can go between them: ``collect`` finds what is given, ``make`` reads it. Used by one
thread; no locks. Never raises for what a configuration says: problems go to ``Notes``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any, NamedTuple

from mailer.config.jsonc import JsonObject
from mailer.config.kinds import Integer, Misfit, SecretText
from mailer.config.problems import Notes, shown, shown_type
from mailer.config.references import ReferenceFault, References
from mailer.config.schema import Config
from mailer.config.secret import Secret
from mailer.config.setting import Setting, settings_of

_CLOSE_ENOUGH = 0.6  # difflib's measure: "smtpProt" is near "smtpPort", "colour" is near nothing
_MAX_COMPARED_CHARS = 64
_STAND_IN = "missing.invalid"  # RFC 2606 2: nobody's name


class Given(NamedTuple):
    """A value that was given, and the place that errors name: a JSON path or an environment variable."""

    place: str
    value: object


def leaves(section: type[Any] = Config, path: str = "") -> Iterator[tuple[str, Setting]]:
    """Every setting with one value or a list, by JSON path; lists are not entered."""
    for setting in settings_of(section):
        at = join(path, setting.key)
        if setting.plain_section is not None:
            yield from leaves(setting.plain_section, at)
        else:
            yield at, setting


def join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def nearest(name: str, names: list[str]) -> str | None:
    """The one of ``names`` that ``name`` was probably meant to be."""
    by_lower = {known.lower(): known for known in names}
    found = difflib.get_close_matches(name[:_MAX_COMPARED_CHARS].lower(), by_lower, n=1, cutoff=_CLOSE_ENOUGH)
    return by_lower[found[0]] if found else None


class Reader:
    """Reads JSON values into the schema. ``references`` None leaves secrets unresolved, for a trial."""

    def __init__(self, notes: Notes, references: References | None) -> None:
        self._notes = notes
        self._references = references

    def __repr__(self) -> str:
        return f"Reader({self._notes!r})"

    def collect(self, section: type[Any], tree: object, path: str) -> dict[str, Given]:
        """What ``tree`` gives, by path. Null counts as not given, as in Go."""
        given: dict[str, Given] = {}
        if not isinstance(tree, JsonObject):
            self._notes.problem(path, f"expected object, got {shown_type(tree)}")
            return given
        settings = {setting.key: setting for setting in settings_of(section)}
        for key, value in self._known(tree, list(settings), path):
            setting, at = settings[key], join(path, key)
            if value is None:
                continue
            if setting.plain_section is not None:
                given |= self.collect(setting.plain_section, value, at)
            else:
                given[at] = Given(at, value)
        return given

    def _known(self, tree: JsonObject, keys: list[str], path: str) -> Iterator[tuple[str, object]]:
        """The entries of ``tree`` under the keys that they mean."""
        by_lower = {key.lower(): key for key in keys}
        seen: dict[str, str] = {}
        for key in tree.repeated:
            self._notes.problem(join(path, _safe(key)), "the key is there more than once")
        for written, value in tree.items():
            at = join(path, _safe(written))
            if written.lower() not in by_lower:
                self._note_unknown(written, keys, path)
                continue
            key = by_lower[written.lower()]
            if key in seen:
                self._notes.problem(at, f"the same key as {_safe(seen[key])}: remove one")
            else:
                seen[key] = written
                if written != key:
                    self._notes.warning(at, f"taken for {key}: the letter case differs")
                yield key, value

    def _note_unknown(self, written: str, keys: list[str], path: str) -> None:
        at = join(path, _safe(written))
        if written.startswith(("_", "//")):
            self._notes.warning(at, "ignored, as a key that begins with _ or //")
            return
        if self._notes.is_full:
            return  # looking for the nearest key takes time, and a hostile file has a million of them
        found = nearest(written, keys)
        near = join(path, found) if found else _elsewhere(written)
        self._notes.problem(at, f"unknown key; did you mean {near}?" if near else "unknown key")

    def make(self, section: type[Any], given: dict[str, Given], path: str, position: int = 0) -> Any:
        """The section's value. What it cannot be made without stands in after a problem, so that the rest is checked."""
        values: dict[str, object] = {}
        for setting in settings_of(section):
            at = join(path, setting.key)
            if setting.plain_section is not None:
                values[setting.attribute] = self.make(setting.plain_section, given, at)
                continue
            value = self.read(setting, *given[at]) if at in given else None
            if value is not None:
                values[setting.attribute] = value
            elif setting.is_required:
                values[setting.attribute] = setting.kind.minimum if isinstance(setting.kind, Integer) else _STAND_IN
                if at not in given or given[at].value == "":
                    self._notes.problem(at, "missing: it is required")
            elif setting.defaults_to_position:
                values[setting.attribute] = position
        return section(**values)

    def read(self, setting: Setting, place: str, value: object) -> object:
        """The value of one setting; None where the default is meant, or after a problem."""
        if not setting.is_list:
            return self._read_one(setting, place, value)
        if not isinstance(value, list):
            self._notes.problem(place, f"expected list, got {shown_type(value)}")
            return None
        made = []
        for position, item in enumerate(value):
            at = f"{place}[{position}]"
            if item in (None, ""):
                self._notes.problem(at, f"must not be {'null' if item is None else 'empty'}")
            else:
                made.append(self._read_one(setting, at, item, position))
        return tuple(item for item in made if item is not None) or None

    def _read_one(self, setting: Setting, place: str, value: object, position: int = 0) -> object:
        if setting.section is not None:
            # An object that is not one has no further faults worth telling.
            if not isinstance(value, JsonObject):
                self._notes.problem(place, f"expected object, got {shown_type(value)}")
                return None
            made: object = self.make(setting.section, self.collect(setting.section, value, place), place, position)
            return made
        try:
            accepted = setting.kind.accept(value)
        except Misfit as misfit:
            found = shown_type(value) if isinstance(setting.kind, SecretText) else shown(value)
            self._notes.problem(place, f"expected {misfit}, got {found}")
            return None
        if isinstance(accepted, Secret) and accepted and self._references is not None:
            return self._resolved(self._references, accepted, place)
        return None if accepted == "" else accepted

    def _resolved(self, references: References, secret: Secret, place: str) -> Secret:
        try:
            return references.resolve(secret)
        except ReferenceFault as fault:
            self._notes.problem(place, str(fault))
            return secret


def _safe(key: str) -> str:
    """A key as an error may show it: keys come from outside."""
    return key if key.isprintable() and 0 < len(key) <= _MAX_COMPARED_CHARS else shown(key)


def _elsewhere(key: str) -> str | None:
    """The setting of that name in another section."""
    for path, setting in leaves():
        if setting.key.lower() == key.lower():
            return path
    return None
