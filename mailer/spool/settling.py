"""Whether a file has been left alone: a file that cannot be read may be one that somebody is still writing (spec 4).

Threads: any; one lock guards the table of files asked about. Never fails.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import NamedTuple

SETTLED_SECONDS = 10.0  # spec 4: unreadable counts only once unchanged for so long
MOST_SETTLING = 10_000


class Signature(NamedTuple):
    """What changes when a file does. All zero: there is none."""

    mtime_ns: int
    size: int
    inode: int


class Settling:
    """Whether a file has been left alone for ``SETTLED_SECONDS``: somebody may still be writing it.

    One lock guards the table, which forgets those asked about the longest ago beyond 10,000.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _seen
        self._seen: OrderedDict[str, tuple[Signature, float]] = OrderedDict()

    def __repr__(self) -> str:
        return f"Settling(files={len(self._seen)})"

    def settled(self, name: str, signature: Signature, now: float) -> bool:
        """Whether ``name`` has had this signature at every call for so long up to ``now``."""
        with self._lock:
            known, since = self._seen.pop(name, (signature, now))
            if known != signature or since > now:  # changed, or the clock was set back
                since = now
            is_settled = now - since >= SETTLED_SECONDS
            if not is_settled:
                self._seen[name] = (signature, since)
                if len(self._seen) > MOST_SETTLING:
                    self._seen.popitem(last=False)
        return is_settled
