"""The process: limits, the environment of a new one, and the unpack folders of the one-file executable."""

from __future__ import annotations

import fcntl
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from mailer import process
from mailer.process import MARKER, REFRESH_SECONDS, UNPACKING_SECONDS, UnpackFolder

ROOT = Path(__file__).parent.parent


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """This process as the executable would see itself, unpacked into the returned folder."""
    folder = make_folder(tmp_path, "_MEIours")
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(sys, "_MEIPASS", str(folder), raising=False)
    return folder


@pytest.fixture
def ours(frozen: Path) -> UnpackFolder:
    folder = UnpackFolder.of_this_process()
    assert folder is not None
    return folder


def make_folder(parent: Path, name: str, marker: bool = True) -> Path:
    folder = parent / name
    (folder / "python3.13").mkdir(parents=True)
    (folder / "python3.13" / "library.so").write_bytes(b"\x7fELF")
    if marker:
        (folder / MARKER).write_text("")
    return folder


def later(folder: Path) -> float:
    """A time at which the folder is no longer one that may be being unpacked."""
    return folder.stat().st_ctime + UNPACKING_SECONDS + 1


def test_a_checkout_has_no_unpack_folder() -> None:
    assert UnpackFolder.of_this_process() is None


def test_the_folder_of_a_dead_process_is_swept(ours: UnpackFolder) -> None:
    stale = make_folder(ours.path.parent, "_MEIstale")
    assert ours.sweep_stale(later(stale)) == [stale]
    assert not stale.exists()
    assert ours.path.exists()


def test_the_folder_of_a_living_process_stays(ours: UnpackFolder) -> None:
    other = make_folder(ours.path.parent, "_MEIother")
    UnpackFolder(other).lock()  # dropped at once, but the descriptor stays open as in a process that lives
    assert ours.sweep_stale(later(other)) == []
    assert (other / MARKER).exists()


def test_a_folder_that_is_perhaps_being_unpacked_stays(ours: UnpackFolder) -> None:
    young = make_folder(ours.path.parent, "_MEIyoung")
    assert ours.sweep_stale(young.stat().st_ctime + 1) == []


def test_the_folder_of_another_program_stays(ours: UnpackFolder) -> None:
    foreign = make_folder(ours.path.parent, "_MEIforeign", marker=False)
    assert ours.sweep_stale(later(foreign)) == []


def test_a_link_is_never_followed(ours: UnpackFolder, tmp_path: Path) -> None:
    target = make_folder(tmp_path / "elsewhere", "target")
    (ours.path.parent / "_MEIlink").symlink_to(target)
    assert ours.sweep_stale(later(target)) == []
    assert (target / MARKER).exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a folder to another user needs root")
def test_the_folder_of_another_user_stays(ours: UnpackFolder) -> None:
    theirs = make_folder(ours.path.parent, "_MEItheirs")
    os.chown(theirs, 65534, 65534)
    assert ours.sweep_stale(later(theirs)) == []


def test_a_temp_cleaner_that_honours_locks_finds_one(ours: UnpackFolder) -> None:
    """systemd-tmpfiles takes an exclusive lock on a folder before it looks into it, and passes over one it cannot get."""
    ours.lock()
    descriptor = os.open(ours.path, os.O_RDONLY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)


def test_the_times_of_everything_in_the_folder_are_renewed(ours: UnpackFolder) -> None:
    now = 2_000_000_000.0
    ours.refresh(now)
    assert {path.stat().st_mtime for path in (ours.path, *ours.path.rglob("*"))} == {now}
    ours.refresh(now + REFRESH_SECONDS - 1)
    assert ours.path.stat().st_mtime == now
    ours.refresh(now + REFRESH_SECONDS)
    assert ours.path.stat().st_mtime == now + REFRESH_SECONDS


def test_a_folder_that_has_vanished_does_no_harm(ours: UnpackFolder, caplog: pytest.LogCaptureFixture) -> None:
    UnpackFolder(ours.path / "absent").refresh(0.0)
    UnpackFolder(ours.path / "absent").lock()
    assert "unpack.unlocked" in caplog.text


def test_a_new_process_is_started_as_from_a_shell(frozen: Path) -> None:
    environ = {"HOME": "/root", "LD_LIBRARY_PATH": f"{frozen}:/opt/lib", "LD_LIBRARY_PATH_ORIG": "/opt/lib"}
    fresh = process.fresh_environment(environ)
    assert fresh == {"HOME": "/root", "LD_LIBRARY_PATH": "/opt/lib", "PYINSTALLER_RESET_ENVIRONMENT": "1"}
    assert process.program_command() == [sys.executable]


def test_a_checkout_passes_its_environment_on() -> None:
    assert process.fresh_environment({"LD_LIBRARY_PATH": "/opt/lib"}) == {"LD_LIBRARY_PATH": "/opt/lib"}


def test_signals_go_to_the_process_itself_in_a_checkout() -> None:
    assert process.main_pid() == os.getpid()


def limit_after(soft: int, hard: int, wanted: int) -> tuple[int, str]:
    """The soft limit in a process that started with these limits and asked for ``wanted``, and what it logged."""
    code = (
        "import logging, resource; logging.basicConfig(); from mailer import process\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
        f"process.raise_open_files_limit({wanted}); print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return int(answer.stdout), answer.stderr


def test_the_limit_on_open_files_is_raised_to_the_hard_one() -> None:
    assert limit_after(256, 2048, wanted=1300) == (2048, "")


def test_a_hard_limit_that_is_too_low_is_told() -> None:
    limit, said = limit_after(256, 512, wanted=1300)
    assert limit == 512
    assert "process.open_files limit=512 wanted=1300" in said


def test_a_vast_hard_limit_is_not_used_up() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard <= process.MAX_OPEN_FILES:
        pytest.skip("the hard limit here is below the bound")
    assert limit_after(256, hard, wanted=1300)[0] == process.MAX_OPEN_FILES


LOADED = """
import sys
import mailer.cli.serve
from mailer import process
from mailer.config.schema import Config, DirectDeliveryConfig
early = {*sys.modules}
sys.frozen, sys._MEIPASS = True, sys.argv[1]
process.preload(Config(direct_delivery=DirectDeliveryConfig(enabled=sys.argv[2] == "direct")))
print(*sorted(name for name in sys.modules if name.split(".")[0] in ("mailer", "dns", "dkim", "cryptography")))
print(*sorted({*sys.modules} - early))
"""
COMMANDS = re.compile(
    r"mailer\.(doctor(\..*)?|cli\.(check|daemon|dkim|doctor)|dns\.places|signing\.(record|rotation)|config\.show)"
)
"""What commands need, each a process of its own."""


def loaded(folder: Path, *arguments: str) -> tuple[set[str], set[str]]:
    """What of the program and its large libraries is imported before it serves, and what ``preload`` added."""
    (folder / MARKER).touch()
    command = [sys.executable, "-c", LOADED, str(folder), *arguments]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, cwd=ROOT)
    all_of_it, added = answer.stdout.splitlines()
    return set(all_of_it.split()), set(added.split())


def test_everything_of_the_program_is_loaded_before_it_serves(tmp_path: Path) -> None:
    parts = [path.relative_to(ROOT).with_suffix("").parts for path in (ROOT / "mailer").rglob("*.py")]
    names = {".".join(part for part in path if part != "__init__") for path in parts}
    found, _ = loaded(tmp_path, "direct")
    assert {name for name in names - found if not COMMANDS.fullmatch(name)} == set()
    assert "dns.rdtypes.ANY.TLSA" in found


def test_what_nobody_asks_for_takes_no_memory(tmp_path: Path) -> None:
    found, added = loaded(tmp_path, "providers")
    assert {name for name in found if not name.startswith("mailer")} == set()
    assert {name for name in found if re.match(r"mailer\.(dns|doctor|transport\.(direct|destination|tlsa|sts))", name)} == set()
    assert "stringprep" in added


REPLACED = """
import sys
from dataclasses import replace
from mailer import process
from mailer.config.problems import ConfigError
from mailer.config.schema import Config, DirectDeliveryConfig, DkimConfig
sys.frozen, sys._MEIPASS = True, sys.argv[1]
process.preload(Config())
for config in (Config(direct_delivery=DirectDeliveryConfig(enabled=True)), Config(dkim=DkimConfig(enabled=True))):
    try:
        process.preload(config)
    except ConfigError as fault:
        print(fault)
"""


def test_a_reload_asks_for_a_restart_where_it_needs_what_can_no_longer_be_imported(tmp_path: Path) -> None:
    command = [sys.executable, "-c", REPLACED, str(tmp_path)]  # a folder without our marker: not the one unpacked
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, cwd=ROOT).stdout
    assert re.findall(r"^(\S+): needs a restart", said, re.MULTILINE) == ["directDelivery.enabled", "dkim.enabled"]
