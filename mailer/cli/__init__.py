"""The command line: owns its grammar, the exit codes and which file carries out which command.

No threads, no locks. A command is a module of this folder with ``run(arguments) -> int``; it is imported only when it
is called, so that ``--version`` and a mistyped option answer at once. A command line that cannot be understood ends
with ``EX_USAGE`` and says on standard error what was wrong.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from mailer import __version__

EX_USAGE = os.EX_USAGE
"""64, where argparse would say 2: the exit codes are those of sysexits.h throughout."""

COMMANDS = {
    "check": "read the configuration, show the effective values (secrets masked) and all warnings",
    "dkim": "make the keys that sign mail, compare them with DNS, replace them",
    "doctor": "look at all that stands between this machine and mail that arrives, and say what to do",
}
"""The commands beside serving, by the module of this folder that carries each out."""

_EXIT_CODES = """\
exit codes (those of sysexits.h):
  0   all is well: the command did its work, or serving ended after a drain
  64  the command line is wrong
  69  doctor: at least one check failed (warnings alone end with 0); dkim check: a record in DNS is missing or wrong
  70  the program itself is at fault; the log says where
  73  the pidfile or the log file cannot be written; dkim generate: there is a key already
  74  the disk failed: the spool or a folder of dataDir cannot be read or written
  75  try again later: the port is taken, or another mailer works on the same dataDir or pidfile
  77  not permitted: a port below 1024, a folder of another user
  78  the configuration is wrong: every fault is listed on standard error
A second SIGTERM or SIGINT, more than a second after the first, ends the program by that signal (143 or 130 in a shell).

signals: SIGTERM, SIGINT finish what is in flight (30 s at most) and end; SIGHUP reads the configuration again and
reopens the log file.
"""


class _Parser(argparse.ArgumentParser):
    """An argument parser that ends with 64 instead of 2."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(EX_USAGE, f"{self.prog}: {message}\n")


def interpreter() -> str:
    """The interpreter by name and version; ``free-threaded`` where threads run in parallel, and what keeps them from it."""
    name = f"{platform.python_implementation()} {platform.python_version()}"
    if "t" not in sys.abiflags:
        return name
    has_lock: bool = getattr(sys, "_is_gil_enabled", lambda: False)()
    return f"{name} free-threaded{', its lock enabled' if has_lock else ''}"


def version_line() -> str:
    """What ``--version`` prints: the version, the interpreter, and whether it is a frozen executable or a checkout."""
    form = "executable" if getattr(sys, "frozen", False) else "source"
    return f"mailer {__version__} ({form}, {interpreter()})"


def _add_common_options(parser: argparse.ArgumentParser, default: object) -> None:
    """The options that stand before and behind a command's name, each with one dash or two: the Go program takes both."""
    parser.add_argument("-h", "-help", "--help", action="help", help="show this help and end")
    parser.add_argument("-version", "--version", action="version", version=version_line(), help="show the version and end")
    parser.add_argument(
        "-config",
        "--config",
        dest="config",
        metavar="FILE",
        type=Path,
        default=default,
        help="the configuration (default: config.json)",
    )


def _add_doctor_options(parser: argparse.ArgumentParser) -> None:
    """What ``doctor`` takes; ``cli/doctor.py`` makes values of the words."""
    parser.add_argument("domain", nargs="?", default="", help="whose mail it is (default: dkim.domain)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--dnsbl", action="store_true", help="ask public blocklists for our address as well")
    parser.add_argument(
        "--address", action="append", default=[], metavar="IP", help="our address as others see it (may be given again)"
    )
    parser.add_argument(
        "--target", action="append", default=[], metavar="HOST[:PORT]", help="a mail server to try (may be given again)"
    )


def _add_dkim_actions(parser: argparse.ArgumentParser) -> None:
    """What ``dkim`` takes; ``cli/dkim.py`` makes values of the words."""
    actions = parser.add_subparsers(dest="action", metavar="action", parser_class=_Parser, title="actions", required=True)
    generate = _add_dkim_action(actions, "generate", "make a key and print its DNS record", is_domain_required=True)
    generate.add_argument("--selector", default="mail", help="its selector (default: mail)")
    generate.add_argument("--ed25519", action="store_true", help="an Ed25519 key, to be used beside an RSA one")
    generate.add_argument(
        "--bits", type=int, choices=(1024, 2048, 3072, 4096), default=2048, help="of an RSA key (default: 2048)"
    )
    _add_dkim_action(actions, "check", "compare the published record with each configured key")
    _add_dkim_action(actions, "rotate", "make the next key, wait until its record is seen in DNS, then switch to it")


def _add_dkim_action(
    actions: argparse._SubParsersAction[_Parser], name: str, purpose: str, is_domain_required: bool = False
) -> argparse.ArgumentParser:
    action = actions.add_parser(name, help=purpose, description=purpose, allow_abbrev=False, add_help=False)
    _add_common_options(action, argparse.SUPPRESS)
    whose = "the domain that signs" if is_domain_required else "only the keys of this domain"
    action.add_argument("--domain", default="", required=is_domain_required, help=whose)
    return action


def build_parser() -> argparse.ArgumentParser:
    """The grammar of the command line."""
    parser = _Parser(
        prog="mailer",
        description="A local SMTP relay: without a command it serves until it is told to stop.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    _add_common_options(parser, Path("config.json"))
    parser.add_argument("-daemon", "--daemon", action="store_true", help="serve in the background; returns once it serves")
    parser.add_argument("-pidfile", "--pidfile", metavar="FILE", type=Path, help="keep the pid to send signals to in FILE")
    # How --daemon speaks with the process it starts; nothing for people.
    parser.add_argument("--ready-fd", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    commands = parser.add_subparsers(dest="command", metavar="command", parser_class=_Parser, title="commands")
    for name, purpose in COMMANDS.items():
        command = commands.add_parser(name, help=purpose, description=purpose, allow_abbrev=False, add_help=False)
        # SUPPRESS: a command without the option must not undo one that stood before its name.
        _add_common_options(command, argparse.SUPPRESS)
        if name == "doctor":
            _add_doctor_options(command)
        elif name == "dkim":
            _add_dkim_actions(command)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out a command line (default: this process's own); returns the exit code."""
    sys.excepthook = _end_as_faulty
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if arguments.command and (arguments.daemon or arguments.pidfile):
        parser.error("--daemon and --pidfile are for serving: give them without a command")
    name = arguments.command or ("daemon" if arguments.daemon else "serve")
    command = importlib.import_module(f"mailer.cli.{name}")
    try:
        code: int = command.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # `mailer check | head`: the reader has what it wanted. Standard output must not be flushed once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    return code


def _end_as_faulty(kind: type[BaseException], fault: BaseException, trace: TracebackType | None) -> None:
    """What nobody has caught is a fault of ours: show it, and end whatever threads are left with 70."""
    sys.__excepthook__(kind, fault, trace)
    if issubclass(kind, KeyboardInterrupt):
        return
    sys.stderr.flush()
    os._exit(os.EX_SOFTWARE)
