"""What doctor says about disk, rights, ports, spool, certificates and clock: on real files, locks and sockets."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import pytest

from mailer.config.schema import Config, DirectDeliveryConfig, DkimConfig, ProviderConfig, Secret
from mailer.doctor.case import Case, Sightings
from mailer.doctor.disk import disk, kind_of
from mailer.doctor.finding import Status
from mailer.doctor.machine import clock, open_files, ports, trust_store
from mailer.doctor.rights import permissions
from mailer.doctor.spool import holder_of, spool
from mailer.mail.outcome import MailerError
from mailer.spool.places import Places
from mailer.spool.sqlite import SqliteSpool
from tests.cli.program import ROOT
from tests.doctor.cases import make_case


@pytest.fixture
def case(tmp_path: Path) -> Case:
    data = tmp_path / "data"
    data.mkdir()
    path = tmp_path / "config.json"
    path.write_text('{"defaultPassword": "swordfish"}')
    path.chmod(0o640)
    config = Config(data_dir=data, smtp_port=0, health_check_port=0, default_password=Secret("swordfish"))
    return make_case(config, config_path=path)


@pytest.fixture
def running(case: Case) -> Iterator[SqliteSpool]:
    opened = SqliteSpool.open(case.config.data_dir)
    yield opened
    opened.close()


def everything_in(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


# disk


def test_a_folder_that_can_be_written_is_ok_and_nothing_stays_in_it(case: Case) -> None:
    assert disk(case).status is not Status.FAILED  # in a container it is a warning
    assert list(case.config.data_dir.iterdir()) == []


def test_a_folder_that_is_not_there_is_a_warning_and_is_not_made(tmp_path: Path) -> None:
    found = disk(make_case(Config(data_dir=tmp_path / "later")))
    assert (found.status, (tmp_path / "later").exists()) == (Status.WARNING, False)


def test_a_file_in_place_of_the_folder_fails(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    assert disk(make_case(Config(data_dir=tmp_path / "data"))).status is Status.FAILED


def test_a_disk_that_refuses_writes_fails() -> None:
    """/proc is a file system in which nobody, not even root, can make a file."""
    found = disk(make_case(Config(data_dir=Path("/proc/self"))))
    assert (found.status, "no file can be made" in found.text) == (Status.FAILED, True)


MOUNTS = """\
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 21 0:30 / /mnt/mail\\040box rw shared:2 - nfs4 server:/mail rw
31 21 0:31 / /mnt rw - tmpfs tmpfs rw
32 31 0:32 / /mnt/over rw - ext4 /dev/sdb1 rw
33 31 0:33 / /mnt/over rw - fuse.sshfs host: rw
nonsense
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/var/mail", "ext4"),
        ("/mnt", "tmpfs"),
        ("/mnt/data", "tmpfs"),
        ("/mnt/mail box/data", "nfs4"),
        ("/mnt/mail boxes", "tmpfs"),
        ("/mnt/over", "fuse.sshfs"),
    ],
)
def test_the_file_system_is_that_of_the_nearest_mount(tmp_path: Path, folder: str, kind: str) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    assert kind_of(Path(folder), mounts) == kind


@pytest.mark.skipif(not os.path.ismount("/dev/shm"), reason="no tmpfs at /dev/shm")
def test_a_folder_in_memory_is_a_warning() -> None:
    found = disk(make_case(Config(data_dir=Path("/dev/shm"))))
    assert (found.status, "memory" in found.text) == (Status.WARNING, True)


# permissions


def test_what_is_private_is_ok(case: Case) -> None:
    assert permissions(case).status is Status.OK


def test_a_configuration_with_secrets_that_everybody_may_read_is_a_warning(case: Case) -> None:
    case.config_path.chmod(0o644)
    found = permissions(case)
    assert (found.status, f"chmod o= {case.config_path}" in found.do) == (Status.WARNING, True)


def test_a_configuration_whose_secrets_are_elsewhere_may_be_read(case: Case) -> None:
    case.config_path.write_text('{"defaultPassword": "env:PASSWORD"}')
    case.config_path.chmod(0o644)
    assert permissions(case).status is Status.OK


def test_keys_are_looked_at(case: Case, tmp_path: Path) -> None:
    key = tmp_path / "mail.private"
    config = Config(data_dir=case.config.data_dir, dkim=DkimConfig(enabled=True, domain="a.test", private_key_path=str(key)))
    signing = make_case(config, config_path=case.config_path)
    assert permissions(signing).status is Status.FAILED
    key.touch()
    key.chmod(0o644)
    assert permissions(signing).status is Status.WARNING
    key.chmod(0o600)
    assert permissions(signing).status is Status.OK


def test_a_data_folder_that_everybody_may_change_is_a_warning(case: Case) -> None:
    case.config.data_dir.chmod(0o777)
    assert permissions(case).status is Status.WARNING


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_spool_of_another_user_is_a_warning(case: Case) -> None:
    inner = case.config.data_dir / "spool"
    inner.mkdir(0o700)
    os.chown(inner, 65534, 65534)
    assert "sudo -u" in permissions(case).do


# ports


def on_port(case: Case, port: int) -> Case:
    return make_case(Config(data_dir=case.config.data_dir, smtp_port=port, enable_health_check=False))


def test_a_port_of_another_program_fails(case: Case) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        found = ports(on_port(case, other.getsockname()[1]))
    assert (found.status, "another program" in found.text) == (Status.FAILED, True)


@pytest.mark.usefixtures("running")
def test_a_port_in_use_is_as_it_should_be_while_mailer_runs(case: Case) -> None:
    with socket.create_server(("127.0.0.1", 0)) as ours:
        assert ports(on_port(case, ours.getsockname()[1])).status is Status.OK


def test_an_address_of_another_machine_fails(case: Case) -> None:
    config = Config(data_dir=case.config.data_dir, smtp_host="192.0.2.77", smtp_port=2525, enable_health_check=False)
    assert ports(make_case(config)).status is Status.FAILED


def test_a_port_that_was_looked_at_can_still_be_listened_on(case: Case) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert ports(on_port(case, port)).status is Status.OK
    with socket.create_server(("127.0.0.1", port)) as server:
        assert server.getsockname()[1] == port


# open files


def test_more_connections_than_files_is_a_warning(case: Case) -> None:
    assert open_files(make_case(case.config, open_files_wanted=1 << 40)).status is Status.WARNING
    assert open_files(make_case(case.config, open_files_wanted=1)).status is Status.OK


@pytest.mark.usefixtures("running")
def test_the_limit_is_that_of_the_running_process(case: Case) -> None:
    assert open_files(make_case(case.config, open_files_wanted=1)).text.startswith(f"process {os.getpid()} ")


# spool


def test_no_spool_is_ok_and_none_is_made(case: Case) -> None:
    assert spool(case).status is Status.OK
    assert list(case.config.data_dir.iterdir()) == []


@pytest.mark.usefixtures("running")
def test_a_running_mailer_is_named_by_its_pid(case: Case) -> None:
    assert f"process {os.getpid()}" in spool(case).text


def test_a_spool_at_rest_is_read_and_left_as_it_is(case: Case) -> None:
    SqliteSpool.open(case.config.data_dir).close()
    before = everything_in(case.config.data_dir)
    found = spool(case)
    assert (found.status, "0 messages wait" in found.text) == (Status.OK, True)
    assert everything_in(case.config.data_dir) == before
    assert holder_of(Places(case.config.data_dir).lock) == ""
    SqliteSpool.open(case.config.data_dir).close()  # the lock was let go


def test_a_log_that_a_crash_left_is_not_touched(case: Case) -> None:
    SqliteSpool.open(case.config.data_dir).close()
    log = case.config.data_dir / "spool" / "mailer.db-wal"
    log.write_bytes(b"x" * 100)
    before = everything_in(case.config.data_dir)
    assert "100 bytes of log" in spool(case).text
    assert everything_in(case.config.data_dir) == before


def test_a_damaged_spool_fails(case: Case) -> None:
    SqliteSpool.open(case.config.data_dir).close()
    database = case.config.data_dir / "spool" / "mailer.db"
    content = bytearray(database.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    database.write_bytes(content)
    assert spool(case).status is Status.FAILED


def test_a_file_that_is_no_spool_fails(case: Case) -> None:
    places = Places(case.config.data_dir)
    places.spool.mkdir()
    places.database.write_bytes(b"something else")
    assert spool(case).status is Status.FAILED


# certificates


def no_store() -> Path:
    raise MailerError("no certificate store found")


def test_no_certificates_fail_only_where_a_server_is_verified() -> None:
    assert trust_store(make_case(Config(), trust_store=no_store)).status is Status.OK
    provider = ProviderConfig(host="smtp.example.test", port=587)
    for config in (Config(forward_providers=(provider,)), Config(direct_delivery=DirectDeliveryConfig(enabled=True))):
        assert trust_store(make_case(config, trust_store=no_store)).status is Status.FAILED


def test_a_store_without_a_certificate_fails(tmp_path: Path) -> None:
    empty = tmp_path / "store.pem"
    empty.write_text("nothing\n")
    config = Config(direct_delivery=DirectDeliveryConfig(enabled=True))
    assert trust_store(make_case(config, trust_store=lambda: empty)).status is Status.FAILED


# clock

NOW = 1_800_000_000.0


def clock_case(case: Case, ahead_seconds: float | None) -> Case:
    sightings = Sightings()
    if ahead_seconds is not None:
        sightings.note("mx.test", f"mx.test ESMTP ready at {formatdate(NOW + ahead_seconds)}", NOW)
    return make_case(case.config, sightings=sightings, clock=lambda: NOW)


@pytest.mark.parametrize(
    ("ahead_seconds", "status"),
    [(None, Status.SKIPPED), (2.0, Status.OK), (-59.0, Status.OK), (90.0, Status.WARNING), (-7200.0, Status.FAILED)],
)
def test_the_clock_is_compared_with_what_servers_say(case: Case, ahead_seconds: float | None, status: Status) -> None:
    assert clock(clock_case(case, ahead_seconds)).status is status


def test_files_from_the_future_show_a_clock_that_was_set_back(case: Case) -> None:
    failed = Places(case.config.data_dir).failed
    failed.mkdir(parents=True)
    (failed / "x.json").touch()
    os.utime(failed / "x.json", (NOW + 3600, NOW + 3600))
    found = clock(clock_case(case, None))
    assert (found.status, "3600 s ahead" in found.text) == (Status.FAILED, True)


@pytest.mark.parametrize("text", ["", "no date", "Mon, 31 Feb 2026 10:00:00 +0000", "1 Jan 9999 99:99 +9999", "\xff" * 5000])
def test_a_greeting_without_a_date_says_nothing(text: str) -> None:
    sightings = Sightings()
    sightings.note("mx.test", text, time.time())
    assert sightings.seen == ()


UNPRIVILEGED = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
NOBODY = 65534


@pytest.mark.skipif(os.geteuid() != 0 or int(UNPRIVILEGED.read_text()) <= 1, reason="only root can become who may not")
def test_a_port_that_this_user_may_not_use_fails_with_the_ways_to_get_it() -> None:
    asking = "from tests.doctor.test_machine import look_at_low_port as look; look()"
    answer = subprocess.run([sys.executable, "-c", asking], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout.startswith("failed ")
    assert "CAP_NET_BIND_SERVICE" in answer.stdout


def look_at_low_port() -> None:
    """In a process of its own, which does not come back from being nobody."""
    case = make_case(Config(data_dir=Path("/nonexistent"), smtp_port=1, enable_health_check=False))
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    found = ports(case)
    print(found.status.value, found.do)
