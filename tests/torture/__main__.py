"""``python -m tests.torture``: the torture run. Exit status 0: nothing lost, nothing mixed up, duplicates within bounds."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.torture.inject import InjectionError
from tests.torture.program import ProgramError
from tests.torture.report import Row, table
from tests.torture.stage import ROOT, Plan, StoryError
from tests.torture.trials import clock, faults, instances, kill, mixture, names, points, providers, signals

TRIALS: dict[str, Callable[[Plan], Iterator[Row]]] = {
    "kill": kill.run,
    "points": points.run,
    "faults": faults.run,
    "starts": faults.run_starts,
    "providers": providers.run,
    "names": names.run,
    "clock": clock.run,
    "signals": signals.run,
    "instances": instances.run,
    "mixture": mixture.run,
}
QUICK_MINUTES, MINUTES, RUNS = 1.0, 10.0, 200
EXIT_OK, EXIT_FAILED, EXIT_FAULT = 0, 1, 2


def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="mailer-torture-", dir=options.folder))
    plan = Plan(
        executable=options.executable.absolute(),
        interpreter=options.python or sys.executable,
        from_source=options.python is not None,
        is_quick=options.quick,
        runs=options.runs,
        minutes=QUICK_MINUTES if options.quick else options.minutes,
        folder=folder,
        seed=options.seed,
        settings=dict(options.set),
    )
    if not plan.from_source and not plan.executable.exists():
        print(f"torture: {plan.executable} is not there; make build makes it", file=sys.stderr)
        return EXIT_FAULT
    rows: list[Row] = []
    for name in options.only or TRIALS:
        rows += _run(name, plan)
    print(table(rows))
    is_ok = all(row.is_ok for row in rows)
    if is_ok and not options.keep:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        print(f"kept: {folder}", file=sys.stderr)
    return EXIT_OK if is_ok else EXIT_FAILED


def _run(name: str, plan: Plan) -> list[Row]:
    """The rows of one trial; one that ends before its time is a row that failed."""
    rows: list[Row] = []
    began = time.monotonic()
    try:
        for row in TRIALS[name](plan):
            rows.append(row)
            print(f"{row.trial}: {row.cells()[-1]}", file=sys.stderr)
    except (ProgramError, StoryError) as error:
        rows.append(Row(name, 0, None, (str(error),)))
    except (OSError, InjectionError) as error:
        rows.append(Row(name, 0, None, (f"{error!r} {traceback.format_exc(limit=-3)}",)))
    print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    return rows


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--only", action="append", choices=TRIALS, metavar="TRIAL", help=f"of {', '.join(TRIALS)}; repeatable")
    parser.add_argument("--quick", action="store_true", help="little of everything: a few minutes in all")
    parser.add_argument("--runs", type=int, default=RUNS, help=f"crashes at random moments ({RUNS})")
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"mixed load ({MINUTES:g})")
    parser.add_argument("--executable", type=Path, default=ROOT / "dist" / "mailer", help="the program (dist/mailer)")
    parser.add_argument("--python", help="run the source with this interpreter instead")
    parser.add_argument("--seed", type=int, default=1, help="of the random moments and sizes (1)")
    parser.add_argument("--set", action="append", type=_setting, default=[], metavar="KEY=JSON", help="a setting of the program")
    parser.add_argument("--folder", type=Path, help="where the program's data go (the folder for temporary files)")
    parser.add_argument("--keep", action="store_true", help="keep data and logs though all went well")
    return parser


def _setting(text: str) -> tuple[str, Any]:
    key, _, value = text.partition("=")
    return key, json.loads(value)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
