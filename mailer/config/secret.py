"""Owns ``Secret``: a password or token that shows itself only to whoever asks with ``reveal()``.

Immutable; no threads, no locks; never fails.
"""

from __future__ import annotations

import hmac

MASK = "***"


class Secret:
    """Text that no log, error or page may show. False when empty; ``str()``, ``repr()`` and formatting give ``***``."""

    __slots__ = ("_text",)

    def __init__(self, text: str = "") -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        """Compared in constant time, so that how long a refusal takes tells nothing about the secret."""
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(
            self._text.encode("utf-8", "surrogatepass"), other._text.encode("utf-8", "surrogatepass")
        )

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __repr__(self) -> str:
        return f"Secret({MASK!r})" if self._text else "Secret('')"

    def __str__(self) -> str:
        return MASK if self._text else ""
