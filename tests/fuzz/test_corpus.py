"""What is kept of fuzzing, fed to each target again: seeds, and every input that has broken something once."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from tests.fuzz import CORPUS, TARGETS

INPUTS = [(target, path) for target in TARGETS for path in sorted((CORPUS / target).iterdir())]


@pytest.mark.parametrize(("target", "path"), INPUTS, ids=[f"{target}/{path.name}" for target, path in INPUTS])
def test_kept_input_breaks_no_invariant(target: str, path: Path) -> None:
    importlib.import_module(f"tests.fuzz.{target}").check(path.read_bytes())


def test_every_target_has_seeds() -> None:
    assert {target for target, _ in INPUTS} == set(TARGETS)
