"""With an interpreter lock all threads share one processor; without one they do not."""

from __future__ import annotations

import subprocess
import sys

PRINT_AFFINITY = """
import os, threading
from mailer import process
chosen = process.share_one_processor()
seen = []
thread = threading.Thread(target=lambda: seen.append(os.sched_getaffinity(0)))
thread.start(); thread.join()
print(chosen is not None and seen == [{chosen}])
"""


def test_threads_started_later_share_the_processor() -> None:
    program = "import sys; sys._is_gil_enabled = lambda: True" + PRINT_AFFINITY
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def test_without_the_interpreter_lock_nothing_is_pinned() -> None:
    program = "import sys; sys._is_gil_enabled = lambda: False" + PRINT_AFFINITY
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
