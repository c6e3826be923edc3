"""Turns log records into lines, text or JSON, in such a way that no outside text can forge a line or a field.

A log call's format string is ours, its arguments may be anybody's. So the format is cut into its ``key=value`` tokens
once, and each argument is rendered inside its own token: escaped, shortened, quoted as soon as it holds a space.

Most lines need none of that. So a text line is first made by the format as a whole, and then one pattern tells whether
it is what the careful way would have made: as many words and quoted texts as the format has, and nothing else.

No threads, no locks: a ``Lines`` belongs to the one thread that writes the log. A record that cannot be formatted
becomes a line that says so.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import re
import time
from collections.abc import Mapping
from typing import NamedTuple

from mailer.mail.address import Address
from mailer.mail.outcome import Reply, Stage
from mailer.observe.template import EVENT, KEY, WORD, Template, Token, cut, escaped

MAX_VALUE_CHARS = 2_000
"""Longest value in a line: twice a reply's longest text, so that a hostile argument makes no endless line."""

MAX_ITEMS = 20  # of a list: a message may have thousands of recipients
MAX_TRACEBACK_CHARS = 16_000  # about 100 frames: enough to find the fault, bounded all the same
_MAX_TEMPLATES = 2_000
"""Formats kept cut up: far more than the program has log calls, and bounded should one log outside text as a format."""

_SIMPLE_TYPES = frozenset({str, int, float, Address, Reply, Stage})  # those of usual lines that are shown as "%s" shows them
_LEVEL_NAMES = {
    level: logging.getLevelName(level)
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)
}
_RESERVED_FIELDS = frozenset({"time", "level", "event", "thread", "text", "traceback"})
# A local part behind quotes or up to what cannot be in one. Both are anchored or bounded: no text takes quadratic time.
_ADDRESS = re.compile(r"""("[^"]{0,64}"|(?<![^\s<>",;:()\[\]@])[^\s<>",;:()\[\]@]+)(?=@[^\s@])""")
_FORMAT_FAULTS = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RuntimeError)


class _WrongArguments(ValueError):
    """A log call's arguments do not fit its format."""


class _Decimal(float):
    """A number that is shown as its format wrote it: ``1.50``."""

    __slots__ = ("_text",)
    _text: str

    def __new__(cls, text: str) -> _Decimal:
        number = super().__new__(cls, text)
        number._text = text
        return number

    def __str__(self) -> str:
        return self._text


class Entry(NamedTuple):
    """What is kept of a log record on its way to the writer: a tenth of a ``LogRecord``."""

    created: float
    level: int
    logger: str
    format: object
    args: object
    thread: str
    traceback: str


class Lines:
    """Makes lines of entries: ``as_json`` or text, addresses masked or not."""

    def __init__(self, as_json: bool, mask_addresses: bool) -> None:
        self._as_json = as_json
        self._mask = mask_addresses
        self._templates: dict[str, Template] = {}
        self._second = -1.0
        self._second_text = ""

    def __repr__(self) -> str:
        return f"Lines(as_json={self._as_json}, mask={self._mask}, templates={len(self._templates)})"

    def line(self, entry: Entry) -> str:
        """The line for ``entry``, with its newline at the end (text with a traceback: several, the others indented)."""
        try:
            return self._simple_line(entry) or self._write(entry, *self._fields(entry))
        except _FORMAT_FAULTS as fault:
            form = entry.format if isinstance(entry.format, str) else type(entry.format).__name__
            why = f"{type(fault).__name__}: {fault}" if isinstance(fault, _WrongArguments) else type(fault).__name__
            return self._write(entry, "log.unformattable", [("format", _shortened(form, MAX_VALUE_CHARS)), ("why", why)])

    def _simple_line(self, entry: Entry) -> str:
        """The line, if the format as a whole makes one that nobody can mistake; else nothing."""
        args, form, created = entry.args, entry.format, entry.created
        if self._as_json or entry.traceback or not args or type(args) is not tuple or type(form) is not str:
            return ""
        template = self._templates.get(form) or self._template(form)
        if not template.whole or len(args) != template.args or entry.level not in _LEVEL_NAMES:
            return ""
        if not _SIMPLE_TYPES.issuperset(map(type, args)):
            return ""
        text = template.whole % args
        if len(text) > MAX_VALUE_CHARS or template.is_plain(text) is None or (self._mask and "@" in text):
            return ""
        second = created // 1.0
        if second != self._second:
            self._turn_to(second)
        return f"{self._second_text}.{int((created - second) * 1000):03d}Z {_LEVEL_NAMES[entry.level]} {text}\n"

    def _fields(self, entry: Entry) -> tuple[str, list[tuple[str, object]]]:
        form = str(entry.format)
        if not entry.args:  # as logging does: without arguments the format is taken as it stands
            return _words(self._plain(form))
        if isinstance(entry.args, Mapping):
            return "", [("", self._plain(form % entry.args))]
        args = entry.args if isinstance(entry.args, tuple) else (entry.args,)
        template = self._template(form)
        if len(args) != template.args:
            raise _WrongArguments(f"{len(args)} arguments for {template.args} places")
        return template.event, self._render(template, args)

    def _write(self, entry: Entry, event: str, fields: list[tuple[str, object]]) -> str:
        return self._json(entry, event, fields) if self._as_json else self._text(entry, event, fields)

    def _render(self, template: Template, args: tuple[object, ...]) -> list[tuple[str, object]]:
        fields: list[tuple[str, object]] = []
        used = 0
        for token in template.tokens:
            if token.is_bare:
                arg = args[used]
                value: object = arg if arg is None or isinstance(arg, (int, float)) else self._plain(arg)
            else:
                value = self._value(token, args[used : used + token.args])
            used += token.args
            fields.append((token.key, value))
        return fields

    def _value(self, token: Token, args: tuple[object, ...]) -> object:
        """The value of a token that is not its argument as it stands: text, or a number where that is all there is."""
        text = token.template % tuple(a if isinstance(a, (int, float)) else self._plain(a) for a in args)
        return _Decimal(text) if token.is_decimal else text

    def _plain(self, arg: object) -> str:
        """An argument as text, shortened and masked. ``%r`` of a text is the text: quotes are this module's business."""
        if isinstance(arg, str):
            text = arg
        elif isinstance(arg, Address):
            return _mask_address(arg) if self._mask else str(arg)
        elif isinstance(arg, (bytes, bytearray)):
            text = bytes(arg[: MAX_VALUE_CHARS + 1]).decode("utf-8", "backslashreplace")
        elif isinstance(arg, (list, tuple, set, frozenset)):
            text = ",".join(self._plain(item) for item in itertools.islice(arg, MAX_ITEMS))
            if len(arg) > MAX_ITEMS:
                text += f",…(+{len(arg) - MAX_ITEMS})"
        else:
            text = str(arg)
        text = _shortened(text, MAX_VALUE_CHARS)
        return mask_addresses(text) if self._mask and "@" in text else text

    def _text(self, entry: Entry, event: str, fields: list[tuple[str, object]]) -> str:
        parts = [self._time(entry.created), logging.getLevelName(entry.level)]
        if event:
            parts.append(event)
        for key, value in fields:
            if isinstance(value, str):
                shown = value if WORD.fullmatch(value) else quoted(value)
            else:
                shown = "-" if value is None else str(value)
            parts.append(f"{key}={shown}" if key else shown)
        line = " ".join(parts) + "\n"
        if entry.traceback:
            rows = self._traceback(entry).split("\n")
            line += "".join(f"    {escaped(row)}\n" for row in rows if row)
        return line

    def _json(self, entry: Entry, event: str, fields: list[tuple[str, object]]) -> str:
        row: dict[str, object] = {
            "time": self._time(entry.created),
            "level": logging.getLevelName(entry.level),
            "event": event or entry.logger,
        }
        prose = []
        for key, value in fields:
            if not key:
                prose.append(str(value))
                continue
            name = key
            while name in row or name in _RESERVED_FIELDS:
                name += "_"
            is_odd = isinstance(value, float) and not math.isfinite(value)  # JSON has neither NaN nor infinity
            row[name] = str(value) if is_odd else value
        if prose:
            row["text"] = " ".join(prose)
        row["thread"] = entry.thread
        if entry.traceback:
            row["traceback"] = self._traceback(entry)
        return json.dumps(row, ensure_ascii=True) + "\n"  # ASCII: no character that some reader takes for a line's end

    def _traceback(self, entry: Entry) -> str:
        text = _shortened(entry.traceback, MAX_TRACEBACK_CHARS)
        return mask_addresses(text) if self._mask else text

    def _time(self, created: float) -> str:
        """RFC 3339 in UTC with milliseconds. The seconds' part is kept: thousands of lines share it."""
        second = created // 1.0
        if second != self._second:
            self._turn_to(second)
        return f"{self._second_text}.{int((created - second) * 1000):03d}Z"

    def _turn_to(self, second: float) -> None:
        self._second = second
        self._second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))

    def _template(self, form: str) -> Template:
        template = self._templates.get(form)
        if template is None:
            if len(self._templates) >= _MAX_TEMPLATES:
                self._templates.clear()
            template = self._templates[form] = cut(form)
        return template


def _words(text: str) -> tuple[str, list[tuple[str, object]]]:
    """A message that is not cut up: its event where it has one, and the rest as prose, which no reader takes for fields."""
    event, _, rest = _shortened(text, MAX_VALUE_CHARS).partition(" ")
    if not EVENT.fullmatch(event):
        return "", [("", text[:MAX_VALUE_CHARS])]
    if "=" not in rest:
        return event, [("", rest)] if rest else []
    fields: list[tuple[str, object]] = []
    for word in rest.split():
        key, equals, value = word.partition("=")
        fields.append((key, value) if equals and KEY.fullmatch(key) else ("", word))
    return event, fields


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}…(+{len(text) - most})"


def quoted(text: str) -> str:
    """``text`` as one word: as it is, or in double quotes with ``"``, backslashes and unprintable characters escaped."""
    if text and " " not in text and '"' not in text and text.isprintable():
        return text
    return '"' + escaped(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def mask_addresses(text: str) -> str:
    """``text`` with all that looks like local@domain shown as the first letter of the local part, ``***`` and the domain."""
    return _ADDRESS.sub(lambda match: _mask_local_part(match[1]), text)


def _mask_address(address: Address) -> str:
    return f"{_mask_local_part(address.local_part)}@{address.domain}" if address else ""


def _mask_local_part(local_part: str) -> str:
    return next((c for c in local_part if c.isalnum()), "") + "***"
