"""The command line: its grammar, its exit codes, and what it says to those who came with an old interpreter."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mailer import __version__
from mailer.cli import COMMANDS, build_parser, main

ROOT = Path(__file__).parent.parent.parent
SCRIPT = ROOT / "mailer.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=60, check=False, cwd=ROOT
    )


@pytest.mark.parametrize(
    "line",
    [
        "-config a.json check",
        "--config a.json check",
        "check -config a.json",
        "check --config a.json",
        "-config=a.json check",
        "check --config=a.json",
        "-config b.json check -config a.json",
    ],
)
def test_config_is_understood_with_one_dash_or_two_before_and_behind_a_command(line: str) -> None:
    arguments = build_parser().parse_args(line.split())
    assert (arguments.config, arguments.command) == (Path("a.json"), "check")


@pytest.mark.parametrize("line", ["", "check"])
def test_config_is_config_json_unless_given(line: str) -> None:
    assert build_parser().parse_args(line.split()).config == Path("config.json")


def test_mailer_alone_serves() -> None:
    assert build_parser().parse_args([]).command is None


@pytest.mark.parametrize(
    "line", ["--confg a.json", "chekc", "--conf a.json", "check --daemon", "--daemon check", "--pidfile p check"]
)
def test_a_line_that_is_not_understood_ends_with_64_and_says_why(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        main(line.split())
    assert ending.value.code == os.EX_USAGE
    assert "mailer: " in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--version", "-version"])
def test_version_names_the_interpreter_and_the_form(option: str) -> None:
    answer = run(option)
    assert answer.returncode == 0
    threading = " free-threaded" if "t" in sys.abiflags else ""
    assert answer.stdout == f"mailer {__version__} (source, CPython {sys.version.split()[0]}{threading})\n"


def test_version_and_help_need_nothing_of_the_application() -> None:
    code = (
        "import sys; from mailer.cli import main\n"
        "for line in (['--version'], ['--help']):\n"
        "    try: main(line)\n"
        "    except SystemExit: pass\n"
        "print([name for name in sys.modules if name.startswith('mailer.')])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, timeout=60)
    assert answer.stdout.splitlines()[-1] == "['mailer.cli']"


def test_help_lists_every_command_and_exit_code() -> None:
    text = run("--help").stdout
    for word in (*COMMANDS, " 0 ", " 64 ", " 70 ", " 73 ", " 74 ", " 75 ", " 77 ", " 78 "):
        assert word in text


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_its_file(command: str) -> None:
    assert (ROOT / "mailer" / "cli" / f"{command}.py").is_file()


def test_an_old_interpreter_can_read_the_entry() -> None:
    tree = ast.parse(SCRIPT.read_text(), feature_version=(3, 4))
    later_than_2 = (ast.JoinedStr, ast.AnnAssign, ast.NamedExpr, ast.AsyncFunctionDef)
    assert not [node for node in ast.walk(tree) if isinstance(node, later_than_2)]
    SCRIPT.read_bytes().decode("ascii")  # Python 2 wants a declaration for anything else


def test_an_old_interpreter_is_told_what_it_lacks() -> None:
    code = f"import sys, runpy; sys.version_info = (3, 6, 15); runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert answer.returncode == os.EX_UNAVAILABLE
    assert "needs Python 3.11 or newer" in answer.stderr
    assert "is Python 3.6" in answer.stderr


@pytest.mark.parametrize("flags", [[], ["-u"]], ids=["buffered", "unbuffered"])
def test_a_reader_who_has_gone_is_no_error(tmp_path: Path, flags: list[str]) -> None:
    """``mailer check | head -1`` ends without a traceback."""
    (tmp_path / "config.json").write_text("{}")
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as gone:
        command = [sys.executable, *flags, str(SCRIPT), "check"]
        answer = subprocess.run(command, stdout=gone, stderr=subprocess.PIPE, text=True, check=False, timeout=60, cwd=tmp_path)
    assert (answer.returncode, "Traceback" in answer.stderr) == (0, False)


def test_a_fault_of_the_program_itself_is_shown_and_ends_with_70() -> None:
    code = (
        "import sys, types, threading; from mailer.cli import main\n"
        "def run(arguments): threading.Thread(target=threading.Event().wait).start(); raise ValueError('a fault')\n"
        "sys.modules['mailer.cli.check'] = types.SimpleNamespace(run=run); main(['check'])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)
    assert answer.returncode == os.EX_SOFTWARE
    assert "ValueError: a fault" in answer.stderr
