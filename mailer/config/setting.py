"""Owns how one setting is declared: its JSON key, kind, default and help text, in the field's metadata.

Immutable values; no threads, no locks; never fails.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mailer.config.kinds import Kind, Text

_METADATA_KEY = "setting"
_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of the configuration.

    Either ``kind`` (one value) or ``section`` (an object) says how the value is read; ``is_list``: a list of such.
    ``default_words`` describes a default that depends on something else.
    """

    key: str
    help: str
    kind: Kind = Text()  # noqa: RUF009 - a frozen value
    section: type[Any] | None = None
    is_list: bool = False
    is_required: bool = False
    is_optional: bool = False
    defaults_to_position: bool = False
    default_words: str = ""
    attribute: str = ""
    default: object = None

    @property
    def plain_section(self) -> type[Any] | None:
        """The section whose settings have paths of their own: an object that is always there."""
        return None if self.is_list or self.is_optional else self.section

    @property
    def environment_name(self) -> str:
        """The key in UPPER_SNAKE: ``forwardSMTP`` is ``FORWARD_SMTP``."""
        return _WORD_START.sub("_", self.key).upper()


def setting(key: str, default: object, kind: Kind, help: str, default_words: str = "") -> Any:
    """A dataclass field that is one value; a list of values where ``default`` is a tuple."""
    return dataclasses.field(
        default=default,
        metadata={_METADATA_KEY: Setting(key, help, kind, is_list=isinstance(default, tuple), default_words=default_words)},
    )


def required(key: str, kind: Kind, help: str) -> Any:
    """A field that a configuration must name."""
    return dataclasses.field(metadata={_METADATA_KEY: Setting(key, help, kind, is_required=True)})


def position(key: str, kind: Kind, help: str, default_words: str) -> Any:
    """A field of a list's entry whose default is the entry's position in the list, from 0."""
    declared = Setting(key, help, kind, default_words=default_words, defaults_to_position=True)
    return dataclasses.field(default=0, metadata={_METADATA_KEY: declared})


def section(key: str, section: type[Any], help: str) -> Any:
    """A field that is an object of settings."""
    return dataclasses.field(default_factory=section, metadata={_METADATA_KEY: Setting(key, help, section=section)})


def optional_section(key: str, section: type[Any], help: str) -> Any:
    """A field that is an object of settings, or None where it is not given."""
    return dataclasses.field(default=None, metadata={_METADATA_KEY: Setting(key, help, section=section, is_optional=True)})


def section_list(key: str, section: type[Any], help: str) -> Any:
    """A field that is a list of objects of settings."""
    return dataclasses.field(default=(), metadata={_METADATA_KEY: Setting(key, help, section=section, is_list=True)})


def settings_of(section: type[Any]) -> Iterator[Setting]:
    """The settings of a dataclass in the order of their declaration."""
    for field in dataclasses.fields(section):
        declared: Setting = field.metadata[_METADATA_KEY]
        default = None if field.default is dataclasses.MISSING else field.default
        if field.default_factory is not dataclasses.MISSING and declared.section is None:
            default = field.default_factory()
        yield dataclasses.replace(declared, attribute=field.name, default=default)
