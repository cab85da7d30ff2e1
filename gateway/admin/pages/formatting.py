"""Numbers and times as the pages show them."""

from __future__ import annotations

import time

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86_400


def span(seconds: float | None) -> str:
    """A length of time, coarse: 12 s, 4 min, 2 h 5 min, 3 d 4 h."""
    if seconds is None:
        return "–"
    whole = max(0, int(seconds))
    if whole < MINUTE_S:
        return f"{whole} s"
    if whole < HOUR_S:
        return f"{whole // MINUTE_S} min"
    large, small, names = (HOUR_S, MINUTE_S, "h min") if whole < DAY_S else (DAY_S, HOUR_S, "d h")
    first, second = names.split()
    rest = whole % large // small
    return f"{whole // large} {first}" + (f" {rest} {second}" if rest else "")


def count(number: float | None) -> str:
    """A number of things, in groups of three."""
    return "–" if number is None else f"{int(number):,}".replace(",", "\u202f")


def share(part: float) -> str:
    """A share in per cent; 0 % and 100 % only if exact."""
    percent = 100 * part
    if 0 < percent < 0.1:
        return "< 0.1 %"
    if 99.9 < percent < 100:
        return "> 99.9 %"
    return f"{percent:.1f} %".replace(".0 %", " %")


def milliseconds(seconds: float | None) -> str:
    """A short time, two digits: 0.21 ms, 3.4 ms, 120 ms."""
    if seconds is None:
        return "–"
    ms = 1e3 * seconds
    return f"{ms:.2f} ms" if ms < 1 else f"{ms:.1f} ms" if ms < 10 else f"{ms:.0f} ms"


def clock(at_s: float) -> str:
    """A Unix time in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at_s))


def evidence(e_value: float) -> str:
    """An e-value, two digits: 0.95, 12, 3 400, 5 · 10¹²."""
    if e_value < 10:
        return f"{e_value:.2g}"
    if e_value < 1e6:
        digits = 2 - len(str(int(e_value)))
        return count(round(e_value, min(digits, 0)))
    mantissa, _, exponent = f"{e_value:.0e}".partition("e")
    raised = str(int(exponent)).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{mantissa} · 10{raised}"
