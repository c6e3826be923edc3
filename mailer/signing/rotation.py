"""A new key in the place of an old one, in steps of which each leaves a state that signs and verifies.

``begin`` names the next selector in ``<selector>.next`` and then makes its key; a further call finds both and goes on with
them. Until its record is seen in DNS the old key signs. ``finish`` lets ``<selector>.selector`` name the new one, which
takes effect at the next reload or start; the old key stays where it is, for messages that it signed are still on their way.

No threads, no locks. Fails with ``KeyUnusable`` or OSError.
"""

from __future__ import annotations

import contextlib
import re

from mailer.signing.keys import GOOD_RSA_BITS, PrivateKey, make_key
from mailer.signing.places import Place, read_key_file, read_selector, write_key_file, write_selector

_NUMBER = re.compile(r"([0-9]*)$")


def begin(place: Place) -> tuple[str, PrivateKey]:
    """The selector and the key that are to come, made or found."""
    selector = read_selector(place.next_file)
    if not selector or selector == place.selector:  # none, or one that was switched to before the file was removed
        old = place.read()  # an old key that cannot sign is no state to rotate from
        selector = _next_selector(place)
        write_selector(place.next_file, selector)
        return selector, _made(place, selector, old)
    return selector, _made(place, selector, None)


def finish(place: Place, selector: str) -> None:
    """Switch to ``selector``."""
    write_selector(place.selector_file, selector)
    place.next_file.unlink(missing_ok=True)


def _made(place: Place, selector: str, old: PrivateKey | None) -> PrivateKey:
    """The key of a selector, of the kind of the old one; the one that is there, if there is one."""
    path = place.file_of(selector)
    if not path.exists():
        old = old or place.read()
        with contextlib.suppress(FileExistsError):
            write_key_file(path, make_key(old.kind, max(old.bits, GOOD_RSA_BITS)))
    return read_key_file(path)


def _next_selector(place: Place) -> str:
    """The one in use with a number that has no key yet: mail, mail2, mail3."""
    stem = _NUMBER.sub("", place.selector)
    number = int(_NUMBER.search(place.selector)[1] or 1)  # type: ignore[index]  # (it matches any text)
    while True:
        number += 1
        if not place.file_of(f"{stem}{number}").exists():
            return f"{stem}{number}"
