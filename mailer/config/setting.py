"""Owns how one setting is declared: its JSON key, kind, default and help text, in the field's metadata.

Immutable values; no threads, no locks; never fails.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mailer.config.kinds import Kind

_METADATA_KEY = "setting"
_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of the configuration.

    Exactly one of ``kind`` (one value), ``section`` (an object) and both with ``is_list`` (a list of either) is how the
    value is read. ``default_words`` describes a default that depends on something else.
    """

    key: str
    help: str
    kind: Kind | None = None
    section: type[Any] | None = None
    is_list: bool = False
    is_required: bool = False
    default_words: str = ""
    attribute: str = ""
    default: object = None

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


def section(key: str, section: type[Any], help: str) -> Any:
    """A field that is an object of settings."""
    return dataclasses.field(default_factory=section, metadata={_METADATA_KEY: Setting(key, help, section=section)})


def optional_section(key: str, section: type[Any], help: str) -> Any:
    """A field that is an object of settings, or None where it is not given."""
    return dataclasses.field(default=None, metadata={_METADATA_KEY: Setting(key, help, section=section)})


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
