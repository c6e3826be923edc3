"""The floors of the house (mailer/__init__.py): imports go down only, and each library has its importer.

Everything is read with ``ast``: nothing is imported, so an import inside a function or under TYPE_CHECKING counts too.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "mailer"

FLOORS: dict[str, int] = {
    "mail": 0,
    "config": 1,
    "events": 2,
    "service": 2,
    "window": 2,
    "waits": 2,
    "dns": 2,
    "policy": 3,
    "spool": 3,
    "routing": 3,
    "signing": 3,
    "transport": 3,
    "smtp": 4,
    "dispatch": 4,
    "observe": 5,
    "front": 6,
    "web": 6,
    "doctor": 6,
    "app": 7,
    "process": 7,
    "cli": 7,
}
"""The rooms (the part of a module's name behind ``mailer.``) by floor. Rooms of one floor do not import each other."""

HIGHEST_SEEN_BY = {"observe": 2}
"""Rooms that may not look at all that lies below them: what is observed comes as events."""

NEIGHBOURS = {("cli", "app"), ("cli", "process")}
"""The only imports within a floor: the command line starts the application."""

LIBRARY_IMPORTERS: dict[str, set[str]] = {
    "prometheus_client": {"mailer.observe.metrics", "mailer.observe.exposition"},
    "dkim": {"mailer.signing.signature"},
    "dns": {"mailer.dns.lookup"},
    "cryptography": {"mailer.signing.keys", "mailer.transport.tlsa"},
}
"""Who may import what does not come with Python; anything else is a library that nobody has agreed to."""

CATCHERS = {"mailer.service", "mailer.smtp.session"}
"""Where ``except Exception`` stands: at the top of a thread and at the top of a session."""


@dataclass(frozen=True)
class Module:
    name: str
    path: Path
    tree: ast.Module

    @property
    def room(self) -> str:
        return self.name.split(".")[1] if "." in self.name else ""


Check = Callable[[Module], list[str]]


def read_module(path: Path, root: Path = ROOT) -> Module:
    parts = path.relative_to(root).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return Module(name, path, ast.parse(path.read_text("utf-8"), str(path)))


def modules() -> list[Module]:
    return [read_module(path) for path in sorted(PACKAGE.rglob("*.py"))]


def imports_of(module: Module) -> Iterator[tuple[int, str]]:
    """Line and full name of everything that the module imports; ``from mailer import x`` counts as ``mailer.x``."""
    package = module.name if module.path.name == "__init__.py" else module.name.rpartition(".")[0]
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                stem = package.split(".")
                base = ".".join([*stem[: len(stem) - node.level + 1], *([base] if base else [])])
            if base == "mailer":
                yield from ((node.lineno, f"mailer.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, base


def imported_rooms(module: Module) -> Iterator[tuple[int, str]]:
    for line, name in imports_of(module):
        parts = name.split(".")
        if parts[0] == "mailer" and len(parts) > 1 and not parts[1].startswith("__"):
            yield line, parts[1]


def floor_faults(module: Module) -> list[str]:
    faults = []
    for line, room in imported_rooms(module):
        place = f"{module.name}:{line} imports mailer.{room}"
        if module.room == "":
            faults.append(f"{place}: the package itself holds no more than its version and the map")
        elif room == module.room or (module.room, room) in NEIGHBOURS:
            continue
        elif room not in FLOORS:
            faults.append(f"{place}, which has no floor: add it to FLOORS and to the map in mailer/__init__.py")
        elif FLOORS[room] >= FLOORS[module.room]:
            faults.append(f"{place}: floor {FLOORS[room]} from floor {FLOORS[module.room]}")
        elif FLOORS[room] > HIGHEST_SEEN_BY.get(module.room, FLOORS[room]):
            faults.append(f"{place}: {module.room} sees floors 0 to {HIGHEST_SEEN_BY[module.room]} only")
    return faults


def library_faults(module: Module) -> list[str]:
    faults = []
    for line, name in imports_of(module):
        library = name.split(".")[0]
        if library in sys.stdlib_module_names or library == "mailer":
            continue
        if module.name not in LIBRARY_IMPORTERS.get(library, ()):
            faults.append(f"{module.name}:{line} imports {library}, which it may not")
    return faults


def catch_faults(module: Module) -> list[str]:
    if module.name in CATCHERS:
        return []
    faults = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ExceptHandler) and not _tidies_up(node):
            caught = [node.type] if not isinstance(node.type, ast.Tuple) else node.type.elts
            for kind in caught:
                if kind is None or (isinstance(kind, ast.Name) and kind.id in {"Exception", "BaseException"}):
                    faults.append(f"{module.name}:{node.lineno} catches everything")
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
            faults += [
                f"{module.name}:{node.lineno} suppresses everything"
                for argument in node.args
                if isinstance(argument, ast.Name) and argument.id in {"Exception", "BaseException"}
            ]
    return faults


def _tidies_up(handler: ast.ExceptHandler) -> bool:
    """``except BaseException`` that ends in ``raise`` catches nothing: it is a ``finally`` for the case that it fails."""
    last = handler.body[-1]
    is_base = isinstance(handler.type, ast.Name) and handler.type.id == "BaseException"
    return is_base and isinstance(last, ast.Raise) and last.exc is None


def print_faults(module: Module) -> list[str]:
    if module.room == "cli":
        return []
    return [
        f"{module.name}:{node.lineno} prints; log it"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]


@pytest.mark.parametrize("check", [floor_faults, library_faults, catch_faults, print_faults])
def test_every_module_keeps_the_rules_of_the_house(check: Check) -> None:
    assert [fault for module in modules() for fault in check(module)] == []


def test_every_room_has_a_floor() -> None:
    assert {module.room for module in modules()} - {""} <= set(FLOORS)


def test_every_module_says_what_it_owns() -> None:
    assert [module.name for module in modules() if not ast.get_docstring(module.tree)] == []


def test_every_catcher_still_stands_where_the_list_says() -> None:
    """A name that has moved would leave a hole in the rule."""
    assert {module.name for module in modules()} >= CATCHERS


@pytest.mark.parametrize(
    ("path", "source", "check"),
    [
        ("mailer/mail/address.py", "from mailer.config.schema import Config", floor_faults),
        ("mailer/spool/sqlite.py", "import mailer.policy.limits", floor_faults),
        ("mailer/spool/sqlite.py", "def f():\n    from mailer import transport", floor_faults),
        ("mailer/transport/pool.py", "from ..smtp import wire", floor_faults),
        ("mailer/observe/log.py", "from mailer.spool.store import Totals", floor_faults),
        ("mailer/app.py", "from mailer.cli import main", floor_faults),
        ("mailer/web/server.py", "from mailer import cloud", floor_faults),
        ("mailer/__init__.py", "from mailer.app import App", floor_faults),
        ("mailer/web/server.py", "import prometheus_client.core", library_faults),
        ("mailer/web/server.py", "import requests", library_faults),
        ("mailer/web/server.py", "try:\n    pass\nexcept Exception:\n    pass", catch_faults),
        ("mailer/web/server.py", "try:\n    pass\nexcept:\n    pass", catch_faults),
        ("mailer/web/server.py", "try:\n    pass\nexcept (OSError, BaseException):\n    pass", catch_faults),
        ("mailer/web/server.py", "try:\n    pass\nexcept BaseException:\n    raise ValueError", catch_faults),
        ("mailer/web/server.py", "with contextlib.suppress(Exception):\n    pass", catch_faults),
        ("mailer/web/server.py", "print('hello')", print_faults),
    ],
)
def test_a_module_that_breaks_a_rule_is_found(tmp_path: Path, path: str, source: str, check: Check) -> None:
    broken = tmp_path / path
    broken.parent.mkdir(parents=True)
    broken.write_text(source)
    assert len(check(read_module(broken, tmp_path))) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("mailer/web/server.py", "from mailer.events import Hub\nfrom mailer.observe.metrics import Metrics\nimport json"),
        ("mailer/cli/serve.py", "from mailer import __version__, process\nfrom mailer.app import App\nprint(1)"),
        ("mailer/observe/metrics.py", "import prometheus_client"),
        ("mailer/spool/sqlite.py", "from mailer.spool.store import Store"),
        ("mailer/spool/sqlite.py", "try:\n    pass\nexcept BaseException:\n    close()\n    raise"),
    ],
)
def test_a_module_that_keeps_the_rules_is_not_blamed(tmp_path: Path, path: str, source: str) -> None:
    sound = tmp_path / path
    sound.parent.mkdir(parents=True)
    sound.write_text(source)
    module = read_module(sound, tmp_path)
    assert floor_faults(module) + library_faults(module) + catch_faults(module) + print_faults(module) == []
