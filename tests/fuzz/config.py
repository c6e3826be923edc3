"""The configuration: the text of a file; behind a NUL, lines ``NAME=value`` of the environment.

Invariants: a configuration or a list of problems, and no other exception; each problem and warning is one printable
line; a problem is not empty. What was loaded can be shown.
"""

from __future__ import annotations

from mailer.config.load import Loaded, load_text
from mailer.config.problems import ConfigError
from mailer.config.show import masked


def check(data: bytes) -> None:
    text, *rest = data.decode("utf-8", "surrogateescape").split("\0")
    environ = dict(line.partition("=")[::2] for piece in rest for line in piece.splitlines())
    # Files that the input may name are those of this machine: none may be one that never ends.
    if "file:" in text or "_FILE" in "".join(environ) or "file:" in "".join(environ.values()):
        return
    made: Loaded | ConfigError
    try:
        made = load_text(text, environ)
    except ConfigError as error:
        made = error
    lines = made.warnings if isinstance(made, Loaded) else made.problems
    assert isinstance(made, Loaded) or lines, "refused without a reason"
    for line in lines:
        assert line, "an empty line"
        assert line.isprintable(), ascii(line)
    if isinstance(made, Loaded):
        assert masked(made.config)
