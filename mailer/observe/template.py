"""A log call's format cut into tokens, once: what each takes of the arguments, and how a line made of it can be checked.

No threads, no locks, no faults of its own: any text is a format.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

KEY = re.compile(r"[A-Za-z][A-Za-z0-9_.\-]*")
EVENT = re.compile(r"[a-z][a-z0-9_\-]*(?:\.[a-z0-9_\-]+)+")
WORD = re.compile(r"[!#-~]+")  # what needs neither quotes nor escapes; most values
_CONVERSION = re.compile(r"%(?:%|[#0\-+]*\d*(?:\.\d+)?[diouxXeEfFgGcrsa])")
_TOKEN = re.compile(r"[^ ]+")
_WORDS = r'"(?=[^" ]* )[ !#-\[\]-~]+"'  # what needs quotes, because of a space, and no escapes
_NOTHING = re.compile(r"(?!)")
_REPR_INSIDE = re.compile(r"(?!^%r$)%[^%a-zA-Z]*[ra]")  # repr() of a part of a word: of an address it is not that of its text


class Token(NamedTuple):
    """One word of a format: ``key=template``, or a word of prose (``key`` empty), with its number of arguments.

    ``is_bare``: the argument is the value, whole (``%s``, ``%d``, ``%r``); ``is_decimal``: it is its number (``%.1f``).
    """

    key: str
    template: str
    args: int
    is_bare: bool
    is_decimal: bool


@dataclass(frozen=True, slots=True)
class Template:
    """A format cut up. ``args`` is the number of arguments that it takes in all.

    ``whole`` is the format for values that need no care: ``%r`` stands for a text of several words, all else for one word.
    ``is_plain`` tells of what it made whether they were such: a match, or None. Empty: the format itself needs care.
    """

    event: str
    tokens: tuple[Token, ...]
    args: int
    whole: str
    is_plain: Callable[[str], object]


def cut(form: str) -> Template:
    tokens = []
    event = ""
    args = 0
    for match in _TOKEN.finditer(escaped(form)):
        word = match[0]
        takes = sum(1 for conversion in _CONVERSION.finditer(word) if conversion[0] != "%%")
        args += takes
        if match.start() == 0 and EVENT.fullmatch(word):
            event = word
            continue
        key, equals, template = word.partition("=")
        if not (equals and KEY.fullmatch(key)):
            key, template = "", word
        template = template.replace('"%s"', "%s").replace("'%s'", "%s")  # quotes are put where they are needed
        is_decimal = template[-1:] in "eEfFgG" and _CONVERSION.fullmatch(template) is not None
        tokens.append(Token(key, template, takes, template in ("%s", "%d", "%r"), is_decimal))
    return Template(event, tuple(tokens), args, *_whole(event, tokens))


def _whole(event: str, tokens: Sequence[Token]) -> tuple[str, Callable[[str], object]]:
    """A format for the line as a whole, and the pattern of what it makes of values that need no care (``Template``)."""
    forms = [event] if event else []
    patterns = [re.escape(event)] if event else []
    for token in tokens:
        label = f"{token.key}=" if token.key else ""
        if not (token.is_bare or WORD.fullmatch(token.template)) or _REPR_INSIDE.search(token.template):
            return "", _NOTHING.fullmatch
        is_text = token.template == "%r"
        forms.append(label + ('"%s"' if is_text else "%s" if token.is_bare else token.template))
        patterns.append(re.escape(label) + (_WORDS if is_text else WORD.pattern))
    return " ".join(forms), re.compile(" ".join(patterns)).fullmatch


def escaped(text: str) -> str:
    """``text`` with every control, line-breaking, invisible or unencodable character written as a backslash escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
