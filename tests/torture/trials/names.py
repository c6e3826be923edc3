"""DNS that hangs: a provider's name is asked for, and the resolver never answers. The next provider must get the mail.

The program runs in a mount namespace of its own with an /etc/resolv.conf that names a silent socket on loopback: that needs
root. Without root the trial is not run, and says so.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator

from tests.torture.report import Row
from tests.torture.stage import Plan, Stage, StoryError
from tests.torture.watch import sample

SILENT_ADDRESS = "127.0.99.53"
NAME = "mail.silent.test"
MESSAGES, QUICK_MESSAGES = 2000, 100
TIMEOUT_SECONDS = 2  # of the provider behind the name; the system's resolver itself tries for longer
MAX_THREADS = 60
"""Sessions, workers (4 x 5) and services make about 40; a thread a message would be hundreds."""


def run(plan: Plan) -> Iterator[Row]:
    title = "DNS that hangs"
    if os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        yield Row(title, 0, None, notes=("needs root, for a mount namespace with an /etc/resolv.conf of its own",))
        return
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent, Stage(plan) as stage:
        silent.bind((SILENT_ADDRESS, 53))
        resolver = stage.folder / "resolv.conf"
        resolver.write_text(f"nameserver {SILENT_ADDRESS}\n")
        first = {"name": "silent", "host": NAME, "port": 25, "timeout": TIMEOUT_SECONDS}
        stage.program.settings["forwardProviders"] = [first, stage.provider]
        stage.program.start(["unshare", "-m", "sh", "-c", f'mount --bind {resolver} /etc/resolv.conf && exec "$@"', "sh"])
        with stage.load():
            stage.expect_promises(QUICK_MESSAGES if plan.is_quick else MESSAGES)
        used = sample(stage.program.processes())
        silent.settimeout(1)
        try:
            asked = silent.recv(512)
        except TimeoutError:
            asked = b""
        if NAME.partition(".")[0].encode() not in asked:
            raise StoryError(f"nobody asked for {NAME}: the trial shows nothing")
        wrong = (f"{used.threads:.0f} threads",) if used is not None and used.threads > MAX_THREADS else ()
        yield Row(title, 1, stage.end_story(0), wrong)
