"""The entry: ``python mailer.py`` from a checkout, and the script that the one-file executable is frozen from.

It owns the one message that an old interpreter must be able to print, so this file keeps to the syntax that Python 2.7
and 3.0 read as well; everything else stands in ``mailer.cli``.
"""

import sys

OLDEST_PYTHON = (3, 11)
EX_UNAVAILABLE = 69  # sysexits.h: a program that we need is missing

if sys.version_info < OLDEST_PYTHON:
    sys.stderr.write(
        "mailer: needs Python 3.11 or newer, but %s is Python %d.%d. Start it with a newer one, such as python3.11, "  # noqa: UP031 - Python 2.7 reads this line
        "or use the executable, which brings its own.\n" % (sys.executable, sys.version_info[0], sys.version_info[1])
    )
    sys.exit(EX_UNAVAILABLE)

from mailer.cli import main  # noqa: E402 - an interpreter that is too old must not get as far as this import

if __name__ == "__main__":
    sys.exit(main())
