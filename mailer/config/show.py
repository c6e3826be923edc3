"""Owns how a configuration is shown: as JSON, under the keys of the configuration file, with secrets masked.

No state, no threads; never fails.
"""

from __future__ import annotations

from typing import Any

from mailer.config.schema import Config
from mailer.config.secret import Secret
from mailer.config.setting import settings_of


def masked(config: Config) -> dict[str, object]:
    """The configuration in effect, ready for ``json.dumps``; every secret that is set is ``***``."""
    return _shown_section(config)


def _shown_section(section: Any) -> dict[str, object]:
    return {setting.key: _shown(getattr(section, setting.attribute)) for setting in settings_of(type(section))}


def _shown(value: object) -> object:
    if isinstance(value, Secret):
        return str(value)
    if isinstance(value, tuple):
        return [_shown(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        return _shown_section(value)
    return value if value is None or isinstance(value, bool | int | str) else str(value)
