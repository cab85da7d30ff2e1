"""Numbers, times and foreign text as the report shows them."""

from __future__ import annotations

import math
import time
from typing import Any

_SPACES = "\u202f\xa0\n"


def share(part: float | None) -> str:
    """A share in per cent; 0 % and 100 % only if exact."""
    if part is None or not math.isfinite(part):
        return "–"
    percent = 100 * part
    if 0 < percent < 0.1:
        return "<\xa00.1\xa0%"
    if 99.9 < percent < 100:
        return ">\xa099.9\xa0%"
    return f"{percent:.1f}".removesuffix(".0") + "\xa0%"


def count(number: float) -> str:
    """A number of things, in groups of three."""
    return f"{round(number):,}".replace(",", "\u202f")


def number(value: float | None) -> str:
    """A measurement in four digits, or all its digits before the point where these are up to seven."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.0f}" if 1e4 <= abs(value) < 1e7 else f"{value:.4g}"


def clock(at_s: float) -> str:
    """A Unix time in UTC."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at_s))


def printable(value: Any) -> Any:
    """Text with characters that do not print escaped, so that none can hide text or reverse its direction.

    Anything but plain text, such as markup of a template, is returned as it is.
    """
    if not isinstance(value, str) or hasattr(value, "__html__") or value.isprintable():
        return value
    return "".join(
        c if c.isprintable() or c in _SPACES else c.encode("unicode_escape").decode() for c in value
    )
