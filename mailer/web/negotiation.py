"""Which form of the metrics a client wants, by its Accept field (RFC 9110 12.5.1).

Pure functions. What cannot be read is passed over; a client that names none of our forms gets JSON.
"""

from __future__ import annotations

import enum
import re

_RANGE = re.compile(r"([a-z0-9!#$&^_.+\-*]+)/([a-z0-9!#$&^_.+\-*]+)")
_QUALITY = re.compile(r"q[ \t]*=[ \t]*(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")
_OPENMETRICS_VERSIONS = frozenset({"", "1.0.0", "0.0.1"})  # 0.0.1 is what older Prometheus asks for, and takes 1.0.0


class Form(enum.Enum):
    """The forms that ``/metrics`` has."""

    JSON = "json"
    PROMETHEUS = "prometheus"
    OPENMETRICS = "openmetrics"


def metrics_form(accept: str) -> Form:
    """The form asked for most; of equals the one named more exactly, then the one named first. ``*/*`` means JSON."""
    best = (0.0, 0)
    chosen = Form.JSON
    for entry in accept.lower().split(","):
        media, *parameters = (part.strip() for part in entry.split(";"))
        match = _RANGE.fullmatch(media)
        if match is None:
            continue
        form = _form(match[1], match[2], parameters)
        rank = (_quality(parameters), (match[1] != "*") + (match[2] != "*"))
        if form is not None and rank[0] > 0 and rank > best:
            best, chosen = rank, form
    return chosen


def _form(kind: str, subtype: str, parameters: list[str]) -> Form | None:
    if (kind, subtype) == ("application", "openmetrics-text"):
        return Form.OPENMETRICS if _version(parameters) in _OPENMETRICS_VERSIONS else None
    if kind == "text" and subtype in ("plain", "*"):
        return Form.PROMETHEUS  # text of any version: a reader of a newer one reads 0.0.4 too
    if kind in ("application", "*") and subtype in ("json", "*"):
        return Form.JSON
    return None


def _version(parameters: list[str]) -> str:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "version":
            return value.strip().strip('"')
    return ""


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q"):
            match = _QUALITY.fullmatch(parameter)
            return float(match[1]) if match else 0.0
    return 1.0
