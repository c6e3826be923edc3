"""Keep it safe: the promises (``store``), SQLite with one writer (``sqlite``), parked files (``failed``), copies."""
