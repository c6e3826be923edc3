"""``make fuzz``: each target in a process of its own, one after another, for some minutes.

    python -m tests.fuzz                            all of them, 10 minutes each
    python -m tests.fuzz --minutes 1 session http   these

What libFuzzer finds worth keeping goes to build/fuzz/TARGET and is where the next run begins; an input that breaks an
invariant to build/fuzz/TARGET-crash-…: make it smaller, mend what it shows, keep it in tests/fuzz/corpus/TARGET.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from tests.fuzz import CORPUS, TARGETS

ROOT = Path(__file__).resolve().parents[2]
FOUND = ROOT / "build" / "fuzz"
MOST_BYTES = 8192  # of one input: longer ones find little that these do not, and slowly
MOST_SECONDS = 20  # for one input: it hangs
MOST_MEGABYTES = 2048  # an input that takes more is a fault too


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--minutes", type=float, default=10.0, help="for each target (default: 10)")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)} (default: all)")
    arguments = parser.parse_args()
    unknown = set(arguments.targets) - set(TARGETS)
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    broken = [target for target in arguments.targets or TARGETS if not run(target, arguments.minutes)]
    print(f"fuzz: {'broken: ' + ', '.join(broken) if broken else 'nothing found'}")
    return 1 if broken else 0


def run(target: str, minutes: float) -> bool:
    """Whether the target stood it."""
    found = FOUND / target
    found.mkdir(parents=True, exist_ok=True)
    options = [f"-max_total_time={max(1, round(minutes * 60))}", f"-artifact_prefix={FOUND}/{target}-", f"-max_len={MOST_BYTES}"]
    options += [f"-timeout={MOST_SECONDS}", f"-rss_limit_mb={MOST_MEGABYTES}", "-print_final_stats=1", "-verbosity=0"]
    dictionary = CORPUS / f"{target}.dict"
    if dictionary.exists():
        options.append(f"-dict={dictionary}")
    command = [sys.executable, "-m", "tests.fuzz.drive", target, *options, str(found), str(CORPUS / target)]
    print(f"fuzz: {target} for {minutes:g} minutes", flush=True)
    return subprocess.run(command, cwd=ROOT, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
