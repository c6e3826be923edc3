"""Input that nobody thought of, for what strangers can reach: the SMTP session, the configuration, dropped files, HTTP.

Each module named in ``TARGETS`` has ``check(data)``, which fails when one of its invariants does not hold. ``make fuzz``
drives them with atheris, guided by coverage; ``test_corpus.py`` feeds them what is kept in ``corpus/`` with every run of
the tests, without atheris. An input that has broken something once belongs there.
"""

from __future__ import annotations

from pathlib import Path

TARGETS = ("session", "config", "failed", "http")
CORPUS = Path(__file__).parent / "corpus"
