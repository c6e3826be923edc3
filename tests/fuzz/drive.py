"""One target under atheris, in this process, until libFuzzer's options say enough; see ``__main__.py``.

The program's modules are instrumented as they are imported, so nothing of them may be imported before.
"""

from __future__ import annotations

import importlib
import logging
import sys
from typing import Any


def main() -> None:
    name = sys.argv.pop(1)
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["mailer"]):
        target = importlib.import_module(f"tests.fuzz.{name}")
    logging.disable()  # what breaks an invariant does not show in a log line
    atheris.Setup(sys.argv, target.check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
