"""``python -m bench [figure …]``: measure mailer beside its peers and print one table of what was found and what is wanted.

Exit status 0: all that is wanted was reached; 1: something was missed; 2: something could not be measured.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench.call import Call, Program, say
from bench.figures import costs, domains, growth, large, latency, memory, options, rate, recipients, signed, start, tls
from bench.table import MISSED, NOT_MEASURED, Gap, Row, render
from bench.traffic import BenchError
from mailer.mail.outcome import MailerError

EXIT_OK, EXIT_MISSED, EXIT_NOT_MEASURED = 0, 1, 2

FIGURES: dict[str, Callable[[Call], list[Row]]] = {
    "rate": rate.measure,
    "tls": tls.measure,
    "signed": signed.measure,
    "large": large.measure,
    "cpu": costs.measure_cpu,
    "fsync": costs.measure_fsync,
    "latency": latency.measure,
    "options": options.measure,
    "recipients": recipients.measure,
    "domains": domains.measure,
    "idle": latency.measure_idle,
    "start": start.measure,  # these three share one full spool; growth, which changes it, is the last
    "memory": memory.measure,
    "growth": growth.measure,
}


def main(arguments: list[str]) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("there must be at least one round")
    unknown = [name for name in options.figures if name not in FIGURES]
    if unknown:
        parser.error(f"no such figure: {', '.join(unknown)}; there are {', '.join(FIGURES)}")
    program = Program(options.executable, options.python)
    folder = Path(tempfile.mkdtemp(prefix="mailer-bench-", dir=options.folder))
    try:
        call = Call(program, folder, options.rounds, options.quick, program.is_free_threaded(), options.keep)
        print(_conditions(call), flush=True)
        rows: list[Row | Gap] = []
        for name in options.figures or FIGURES:
            rows += _measured(name, call)
    except BenchError as error:
        say(f"bench: {error}")
        return EXIT_NOT_MEASURED
    finally:
        if options.keep:
            say(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"\n{render(rows)}")
    verdicts = {row.verdict for row in rows}
    return EXIT_NOT_MEASURED if NOT_MEASURED in verdicts else EXIT_MISSED if MISSED in verdicts else EXIT_OK


def _measured(name: str, call: Call) -> list[Row] | list[Gap]:
    try:
        return FIGURES[name](call)
    except (MailerError, OSError) as error:  # one figure that cannot be measured is no reason to lose the others
        say(f"bench: {name}: {error}")
        return [Gap(name, str(error).partition("\n")[0])]


def _conditions(call: Call) -> str:
    """What the figures hold for."""
    quick = "; A TRY-OUT WITH SMALL NUMBERS, WHICH PROVES NOTHING" if call.is_quick else ""
    machine = f"{os.cpu_count()} processors, Linux {platform.release()}"
    return f"{call.program.version()}; {call.rounds} rounds; {machine}{quick}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("figures", nargs="*", metavar="figure", help=f"of {', '.join(FIGURES)}; default: all")
    parser.add_argument("--rounds", type=int, default=5, help="how often the relays take turns (5)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--executable", type=Path, help="measure this executable (dist/mailer) instead of the source")
    what.add_argument("--python", type=Path, help="run the source with this interpreter, for example a free-threaded one")
    parser.add_argument("--quick", action="store_true", help="small numbers: whether it runs, not how fast it is")
    parser.add_argument("--folder", type=Path, help="where the data lie, but Postfix's queue (the folder for temporary files)")
    parser.add_argument("--keep", action="store_true", help="keep the data and logs")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
