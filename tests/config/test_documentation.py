"""docs/configuration.md and its translation say what the schema says."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from mailer.config.jsonc import parse
from mailer.config.load import load_text
from mailer.config.reading import leaves

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_documentation", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_pages_are_what_the_schema_says(generate: ModuleType) -> None:
    for path, text in generate.pages().items():
        assert path.read_bytes() == text.encode(), f"run: python docs/generate.py ({path.name} is not up to date)"


def test_every_key_stands_in_exactly_one_table(generate: ModuleType) -> None:
    shown = [row.path for chapter in generate.CHAPTERS for row in generate.rows_of(chapter)]
    assert sorted(shown) == sorted(row.path for row in generate.rows())
    assert set(shown) >= {path for path, _ in leaves()}


def test_everything_is_translated_and_nothing_else(generate: ModuleType) -> None:
    words = json.loads((ROOT / "docs" / "configuration.zh-CN.json").read_text(encoding="utf-8"))
    rows = list(generate.rows())
    plain = [row.setting for row in rows if row.setting.section is None]
    assert set(words["help"]) == {row.path for row in rows}
    assert set(words["default"]) == {row.path for row in rows if row.setting.default_words}
    assert set(words["type"]) == {setting.kind.expected for setting in plain}
    assert set(words["unit"]) == {setting.kind.unit for setting in plain} - {""}
    assert set(words["page"]) == set(generate.PAGE)
    assert all(any(ord(character) > 0x4DFF for character in text) for text in words["help"].values())


def test_every_example_loads(generate: ModuleType) -> None:
    environ = {"LOGIN_PASSWORD": "a", "BACKUP_PASSWORD": "b", "CLIENT_SECRET": "c"}
    for chapter, example in generate.EXAMPLES.items():
        if chapter == "oauth2":
            example = f'{{"forwardSMTP": true, "forwardProviders": [{example}]}}'  # noqa: PLW2901 - a provider, not a whole file
        elif chapter == "tls":
            assert parse(example)
            continue  # the files are not there
        load_text(example.replace("file:/run/secrets/gmail", "secret"), environ)
