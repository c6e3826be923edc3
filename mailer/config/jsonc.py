"""Owns JSON with ``//`` and ``/* */`` comments and trailing commas, as people paste it.

Comments and trailing commas become spaces and the rest goes to the standard library's parser, so line and column of an
error are those of the file. No state, no threads. Fails with ``JsonError`` and nothing else, whatever the text.
"""

from __future__ import annotations

import json
import re
from collections import Counter

MAX_DEPTH = 32  # ours is 4 deep; the parser beneath recurses
_MAX_INTEGER_DIGITS = 18  # beyond, a number counts as a float: converting millions of digits takes minutes

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"?|//[^\r\n]*|/\*.*?\*/|/\*|[\[\]{}:,]|[^\s\[\]{}:,"/]+|/', re.DOTALL)
_NOT_NEWLINE = re.compile(r"[^\n]")


class JsonError(ValueError):
    """The text is not JSON. ``str()`` names line and column and never quotes the text: it may hold secrets."""


class JsonObject(dict[str, object]):
    """A JSON object that knows which of its keys were there more than once (the last one counts)."""

    repeated: tuple[str, ...] = ()


def parse(text: str) -> object:
    """The value of ``text``: objects as ``JsonObject``, everything else as ``json.loads`` gives it."""
    plain = _without_comments(text.removeprefix("\ufeff"))
    try:
        return json.loads(plain, object_pairs_hook=_object, parse_int=_integer, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise JsonError(f"line {error.lineno}, column {error.colno}: {_reason(error, plain)}") from None


def _without_comments(text: str) -> str:
    """``text`` with its comments and trailing commas turned to spaces; every other character keeps its place."""
    parts: list[str] = []
    end, depth, before = 0, 0, ""  # ``before``: the last token that is not a comment
    comma = -1  # where in ``parts`` a comma stands that may turn out to be trailing
    for match in _TOKEN.finditer(text):
        word = match[0]
        parts.append(text[end : match.start()])
        end = match.end()
        if word == "/*":
            raise JsonError(f"{_place(text, match.start())}: comment without its end */")
        if word.startswith(("//", "/*")):
            parts.append(_NOT_NEWLINE.sub(" ", word))
            continue
        if word in "]}":
            depth -= 1
            if before == "," and comma >= 0:
                parts[comma] = " "
        elif word in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise JsonError(f"{_place(text, match.start())}: nested more than {MAX_DEPTH} deep")
        comma = len(parts) if word == "," and before not in ("", "[", "{", ",", ":") else -1
        parts.append(word)
        before = word
    parts.append(text[end:])
    return "".join(parts)


def _place(text: str, offset: int) -> str:
    return f"line {text.count(chr(10), 0, offset) + 1}, column {offset - text.rfind(chr(10), 0, offset)}"


def _object(pairs: list[tuple[str, object]]) -> JsonObject:
    made = JsonObject(pairs)
    if len(made) < len(pairs):
        made.repeated = tuple(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
    return made


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MAX_INTEGER_DIGITS else float(digits)


def _refuse_constant(name: str) -> object:
    raise JsonError(f"{name} is not a JSON number")


def _reason(error: json.JSONDecodeError, text: str) -> str:
    found = text[error.pos : error.pos + 1]
    if not text.strip():
        return "the file is empty: expected an object in { }"
    if found in tuple("“”„‟‘’"):
        return f'found the quotation mark {found}: JSON takes only "'
    if found == "'":
        return 'strings stand in double quotes "'
    if found == "\u00a0":
        return "found a no-break space: replace it by a plain one"
    return error.msg[:1].lower() + error.msg[1:]
