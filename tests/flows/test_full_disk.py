"""A full disk: new mail is put off with 452, what was accepted is kept, and with space everything goes on by itself (spec 4)."""

from __future__ import annotations

import contextlib
import os
import re
import smtplib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows.parking import counts
from tests.support.relay import Relay, eventually, message, submit
from tests.support.upstream import Disconnect, Stall, Upstream

DISK_BYTES = 16 * 1024 * 1024
TEXT = "\r\n".join(["x" * 70] * 400)
"""About 28 KiB: a few hundred messages fill the disk."""
MOST_MESSAGES = 2000

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small tmpfs")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    mount = tmp_path / "disk"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(mount)], check=True)
    try:
        yield mount
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)


def fill(disk: Path) -> Path:
    """Take every free block; the file to remove for them."""
    path = disk / "filler"
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return path


def submit_until_refused(relay: Relay) -> tuple[set[str], smtplib.SMTPResponseException]:
    """Submit large messages until one is refused: the ids of the others, and the refusal."""
    accepted: set[str] = set()
    with relay.connect() as client:
        for n in range(MOST_MESSAGES):
            try:
                accepted.add(submit(client, f"number {n}\r\n{TEXT}"))
            except smtplib.SMTPResponseException as refusal:
                return accepted, refusal
    raise AssertionError("the disk never became full")


def accepts(relay: Relay) -> bool:
    try:
        relay.send("space again", to="last@example.org")
    except smtplib.SMTPResponseException:
        return False
    return True


def ids_of(upstream: Upstream) -> list[str]:
    return [m.data.split(b" id ", 1)[1].split(None, 1)[0].rstrip(b";").decode() for m in upstream.messages]


def test_full_disk_puts_mail_off_and_keeps_what_was_accepted(disk: Path) -> None:
    with Upstream() as upstream, Relay(disk, [upstream]) as relay:
        upstream.on("dot", Stall("250 2.0.0 taken"))
        kept = {relay.send() for _ in range(5)}
        filler = fill(disk)
        accepted, refusal = submit_until_refused(relay)
        assert (refusal.smtp_code, str(refusal.smtp_error)[:8]) == (452, "b'4.3.1 ")
        status, health = relay.http("/health")
        assert (status, health["status"]) == (503, "error")
        assert "space" in str(health["details"]["reasons"])
        assert relay.http("/readyz")[0] == 503
        assert relay.http("/livez")[0] == 200
        relay.wait_for_line("ERROR spool.unwritable path=.* fault=space ")
        upstream.release()
        upstream.on("dot")
        upstream.wait_for(len(kept | accepted))  # delivery goes on though the disk is full
        filler.unlink()
        eventually(lambda: accepts(relay), "the acceptance of mail")
        upstream.wait_for(len(kept | accepted) + 1)
        eventually(lambda: counts(relay)[1:] == (0, 0), "an empty spool")
        eventually(lambda: relay.http("/health")[0] == 200, "good health")
        assert relay.terminate() == 0
        assert len(upstream.messages) == len(set(ids_of(upstream)))
        assert kept | accepted < set(ids_of(upstream))


def test_spool_that_filled_the_disk_drains_by_itself_once_the_upstream_is_back(disk: Path) -> None:
    with Upstream() as upstream, Relay(disk, [upstream]) as relay:
        upstream.on("connect", Disconnect())
        upstream.hang_up()
        accepted, refusal = submit_until_refused(relay)
        assert len(accepted) > 100
        assert refusal.smtp_code == 452
        assert relay.health()["status"] == "error"
        upstream.on("connect")
        relay.http("/admin/retry-failed", "POST")  # rather than wait for the breaker
        upstream.wait_for(len(accepted), 60)
        eventually(lambda: counts(relay) == (len(accepted), 0, 0), "an empty spool")
        eventually(lambda: accepts(relay), "the acceptance of mail")
        upstream.wait_for(len(accepted) + 1)
        assert accepted < set(ids_of(upstream))
        relay.wait_for_line("spool.accepting")
        assert relay.output.count("spool.unwritable") <= 2, "told once, not at every try"


def test_crash_on_a_full_disk_loses_nothing(disk: Path) -> None:
    with Upstream() as upstream, Relay(disk, [upstream]) as relay:
        upstream.on("connect", Disconnect())
        upstream.hang_up()
        accepted, _ = submit_until_refused(relay)
        filler = fill(disk)
        relay.kill()
        with contextlib.suppress(OSError):
            (disk / "config.json").unlink()  # what a test writes there must not be what fails
        relay.config_path = disk.parent / "config.json"
        upstream.on("connect")
        relay.start()
        upstream.wait_for(len(accepted), 60)
        filler.unlink()
        eventually(lambda: counts(relay) == (len(accepted), 0, 0), "an empty spool")
        eventually(lambda: accepts(relay), "the acceptance of mail")
        assert accepted <= set(ids_of(upstream))


def send_asking_for_all_of_it_back(relay: Relay) -> str:
    with relay.connect() as client:
        client.ehlo()
        client.mail("hopeful@example.com", ["RET=FULL"])
        client.rcpt("to@example.org")
        _, reply = client.data(message(f"{TEXT}\r\n" * 4))
    return reply.decode().split()[-1]


def test_reports_that_find_the_disk_full_come_once_there_is_space(disk: Path) -> None:
    with Upstream() as upstream, Relay(disk, [upstream], bounce={"enabled": True}) as relay:
        upstream.on("dot", Stall("550 5.6.0 no"))
        hopeful = {send_asking_for_all_of_it_back(relay) for _ in range(5)}
        upstream.wait_until(lambda: len(upstream.transactions) == len(hopeful))
        filler = fill(disk)
        submit_until_refused(relay)
        upstream.on("dot")
        upstream.release()
        relay.wait_for_line("report.not_stored .* kind=failed")
        relay.kill()  # what is still to be told survives that too
        with contextlib.suppress(OSError):
            (disk / "config.json").unlink()
        relay.config_path = disk.parent / "config.json"
        relay.start()
        filler.unlink()
        for message_id in hopeful:
            relay.wait_for_line(f"message.finished id={message_id} delivered=0 failed=1")
        eventually(lambda: len(reports_among(upstream)) >= len(hopeful), "the reports")
        assert sorted(reports_among(upstream)) == sorted(hopeful)


def reports_among(upstream: Upstream) -> list[str]:
    """The ids of the messages that reports came about."""
    ids = [re.search(rb"\r\nid: (\S+)\r\n", m.data) for m in upstream.messages if not m.sender]
    return [found[1].decode() for found in ids if found is not None]
