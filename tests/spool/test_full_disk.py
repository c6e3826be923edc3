"""A disk that is really full: a small tmpfs, mounted by root, or within a user namespace of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mailer.mail.content import MemoryContent
from mailer.mail.envelope import State
from mailer.spool.sqlite import SqliteSpool
from mailer.spool.store import Record, SpoolError, SpoolFull
from tests.spool.messages import T0, WAIT_SECONDS, envelope, finish, ids, submit

DISK_BYTES = 16 * 1024 * 1024
BODY = b"x" * 65536
IN_NAMESPACE = "MAILER_TEST_NAMESPACE"

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="runs within test_full_disk_in_a_namespace when not root")


@pytest.mark.skipif(os.geteuid() == 0, reason="root mounts the disk itself: every test below runs")
def test_full_disk_in_a_namespace(tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    assert unshare is not None, "util-linux is needed to test a full disk without being root"
    mount = [unshare, "-Urm", "mount", "-t", "tmpfs", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, timeout=60, check=False).returncode != 0:
        pytest.skip("this machine does not let users mount in a namespace of their own (Ubuntu 24.04, containers)")
    # A folder of its own: the one that pytest shares between runs belongs to somebody else as seen from in there.
    basetemp = f"--basetemp={tmp_path / 'inner'}"
    command = [unshare, "-Urm", sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", basetemp, __file__]
    result = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    mount = tmp_path / "disk"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(mount)], check=True)
    try:
        yield mount
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)


@dataclass
class Filler:
    """Takes every free block of a disk, and gives them back."""

    disk: Path
    files: list[Path] = field(default_factory=list)

    def fill(self) -> None:
        path = self.disk / f"filler{len(self.files)}"
        self.files.append(path)
        with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    def free(self) -> None:
        for path in self.files:
            path.unlink()
        self.files = []


def eventually(is_so: Callable[[], bool]) -> None:
    """Wait for something that the spool's thread does on its own, at most each second."""
    pause = threading.Event()
    for _ in range(int(WAIT_SECONDS * 50)):
        if is_so():
            return
        pause.wait(0.02)
    pytest.fail("it did not happen")


def accepts(spool: SqliteSpool) -> bool:
    try:
        submit(spool, at=T0 + 9000)
    except SpoolFull:
        return False
    return True


@as_root
def test_spool_that_filled_its_own_disk_loses_nothing_and_empties_itself(disk: Path) -> None:
    spool = SqliteSpool.open(disk)
    accepted = []
    with pytest.raises(SpoolFull, match=r"no space|is full"):  # noqa: PT012 - the loop ends by what is expected
        while True:
            message = envelope(size=len(BODY))
            spool.submit(message, MemoryContent(BODY), "p")
            accepted.append(message.id)
    assert len(accepted) > 100
    assert not spool.accepting
    spool.close()
    spool = SqliteSpool.open(disk)
    assert sorted(ids(spool.fetch_due(T0, 1000, (), ()))) == sorted(accepted)
    for message_id in accepted:
        assert b"".join(spool.content(message_id).chunks()) == BODY
        finish(spool, message_id)
    eventually(lambda: accepts(spool))
    assert spool.accepting
    assert spool.totals().successful == len(accepted)
    spool.close()


@as_root
def test_records_are_written_in_the_space_of_the_reserve(disk: Path) -> None:
    spool = SqliteSpool.open(disk)
    reserve = disk / "spool" / "reserve"
    assert reserve.stat().st_blocks * 512 >= DISK_BYTES // 16
    names = [submit(spool) for _ in range(300)]
    filler = Filler(disk)
    filler.fill()
    for name in names:  # more than fits into what the log has room for
        finish(spool, name)
    filler.fill()
    with pytest.raises(SpoolFull):  # noqa: PT012 - the first fits where the last have made room
        for _ in range(100):
            spool.submit(envelope(size=len(BODY)), MemoryContent(BODY), "p")
    assert not spool.accepting
    filler.free()
    eventually(lambda: accepts(spool))
    assert reserve.stat().st_blocks * 512 >= DISK_BYTES // 16
    assert spool.totals().successful == 300
    spool.close()


@as_root
def test_records_that_find_no_space_at_all_are_kept_in_order(disk: Path) -> None:
    spool = SqliteSpool.open(disk)
    names = [submit(spool) for _ in range(200)]
    (disk / "spool" / "reserve").unlink()
    filler = Filler(disk)
    filler.fill()
    order: list[int] = []
    number = 0
    while spool.writable and number < 5000:
        change = Record(names[number % 200], State.RETRYING, T0 + number, progress="x" * 1000, rounds=number, at=T0)
        written = threading.Event()

        def done(number: int = number, written: threading.Event = written) -> None:
            order.append(number)
            written.set()

        spool.record(change, done)
        number += 1
        while not written.wait(0.01) and spool.writable:
            pass
    assert not spool.writable
    assert not spool.accepting
    with pytest.raises(SpoolFull):
        submit(spool)
    assert len(order) < number
    filler.free()
    eventually(lambda: len(order) == number)
    assert order == list(range(number))
    assert spool.writable
    eventually(lambda: accepts(spool))
    last = spool.find(names[(number - 1) % 200])
    assert last is not None
    assert last.rounds == number - 1
    spool.close()


@as_root
def test_large_content_that_finds_no_space_fails_alone(disk: Path) -> None:
    spool = SqliteSpool.open(disk)
    writer = spool.new_content("large")
    with pytest.raises(SpoolFull):  # noqa: PT012 - at some piece
        for _ in range(1000):
            writer.write(BODY)
    assert list((disk / "spool" / "content").iterdir()) == []
    submit(spool)
    assert spool.writable
    spool.close()


@as_root
def test_full_disk_does_not_prevent_a_start(disk: Path) -> None:
    spool = SqliteSpool.open(disk)
    message_id = submit(spool)
    spool.close()
    filler = Filler(disk)
    filler.fill()
    spool = SqliteSpool.open(disk)
    assert ids(spool.fetch_due(T0, 5, (), ())) == [message_id]
    finish(spool, message_id)
    spool.close()
    filler.free()


FAILING_DEVICE = """
import resource, signal, sys, threading
from pathlib import Path
from mailer.spool.sqlite import SqliteSpool
from mailer.spool.store import SpoolError
from tests.spool.messages import *
spool = SqliteSpool.open(Path(sys.argv[1]))
names = [submit(spool) for _ in range(50)]
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, resource.RLIM_INFINITY))
try:
    submit(spool, "refused")
except SpoolError as error:
    print("refused", type(error).__name__)
order, last = [], threading.Event()
for name in names:
    spool.record(Record(name, State.RETRYING, T0 + 60, at=T0), lambda name=name: order.append(name))
spool.record(Record(names[0], State.FAILED, None, at=T0), last.set)
print("written", last.wait(1.5), "writable", spool.writable, len(order))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print("written", last.wait(WAIT_SECONDS), "writable", spool.writable, order == names)
print("there", spool.find("refused") is not None)
submit(spool, "accepted")
print(spool.totals().queued, spool.totals().failed)
spool.close()
"""


def test_device_that_fails_for_a_while_loses_no_record_and_keeps_no_refused_message(tmp_path: Path) -> None:
    """EFBIG on every write stands for a device with errors; in a process of its own, since the limit is the process's."""
    result = subprocess.run(
        [sys.executable, "-c", FAILING_DEVICE, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.stdout.splitlines() == [
        "refused SpoolError",
        "written False writable False 0",
        "written True writable True True",
        "there False",
        "50 1",
    ], result.stdout + result.stderr
    reopened = SqliteSpool.open(tmp_path)
    assert len(reopened.fetch_due(T0 + 60, 100, (), ())) == 50
    with pytest.raises(SpoolError):
        submit(reopened, "accepted")
    reopened.close()
