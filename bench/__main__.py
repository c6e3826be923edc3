"""``python -m bench``: the relay's rate beside Postfix, its memory under a backlog, its start. Exit status 1: not as wanted."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from bench import memory, relay
from bench.subjects import Program
from bench.traffic import Load
from mailer.mail.outcome import MailerError

EXIT_OK, EXIT_NOT_AS_WANTED, EXIT_FAULT = 0, 1, 2


def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="mailer-bench-", dir=options.folder))
    program = Program(options.executable)
    load = Load(options.messages or 5000, options.sessions, options.size, reuse=True)
    try:
        if options.what == "memory":
            is_as_wanted = memory.measure(program, folder, load if options.messages else memory.default_load(load))
        elif options.what == "start":
            is_as_wanted = memory.measure_start(program, folder)
        else:
            is_as_wanted = relay.measure(relay.Plan(program, folder, load, options.rounds, not options.no_postfix))
    except MailerError as error:
        print(f"bench: {error}", file=sys.stderr)
        return EXIT_FAULT
    finally:
        if options.keep:
            print(f"kept: {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return EXIT_OK if is_as_wanted else EXIT_NOT_AS_WANTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("what", nargs="?", default="relay", choices=("relay", "memory", "start"), help="default: relay")
    parser.add_argument("--rounds", type=int, default=5, help="alternations of mailer and Postfix (5)")
    parser.add_argument("--messages", type=int, help="messages a run (5000; memory: 100000)")
    parser.add_argument("--sessions", type=int, default=20, help="sessions of smtp-source at once (20)")
    parser.add_argument("--size", type=int, default=4096, help="bytes a message, without its header (4096)")
    parser.add_argument("--executable", type=Path, help="measure this executable (dist/mailer) instead of the source")
    parser.add_argument("--no-postfix", action="store_true", help="mailer alone")
    parser.add_argument("--folder", type=Path, help="where mailer's data go (the folder for temporary files)")
    parser.add_argument("--keep", action="store_true", help="keep mailer's data and log")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
