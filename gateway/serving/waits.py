"""How long a request may take or wait, from its headers and parameters."""

from __future__ import annotations

import math

from gateway.core.errors import InvalidRequest, Problem

LONGEST_WAIT_S = 30
TIMEOUT_HEADER = "x-request-timeout-seconds"


def time_limit_s(
    longest_s: float, timeout_us: int | None, header: str | None, left_s: float | None = None
) -> float:
    """Seconds until the request's deadline: a client may only shorten that of the policy.

    Args:    timeout_us: of the protocol; header: X-Request-Timeout-Seconds; left_s: of a gRPC deadline.
    Raises:  InvalidRequest for a header that is no positive number.
    """
    if timeout_us is None and header is None and left_s is None:  # the usual case
        return longest_s
    limits_s = [longest_s]
    if timeout_us:
        limits_s.append(timeout_us / 1e6)
    if left_s is not None:
        limits_s.append(max(left_s, 0.0))
    if header is not None:
        limits_s.append(_seconds(header))
    return min(limits_s)


def _seconds(header: str) -> float:
    try:
        seconds = float(header)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise InvalidRequest([Problem(TIMEOUT_HEADER, "must be a positive number of seconds")])
    return seconds


def preferred_wait_s(prefer: str) -> float:
    """The N of `Prefer: wait=N`: seconds, at most 30; 0 without one."""
    for part in prefer.replace(";", ",").split(","):
        name, _, value = part.strip().partition("=")
        if name == "wait":
            return float(bounded_natural(value, LONGEST_WAIT_S))
    return 0.0


def bounded_natural(text: str, most: int) -> int:
    """A natural number in a header, at most `most`; 0 for any other text."""
    text = text.strip()
    if not (text.isascii() and text.isdigit()):
        return 0
    return min(int(text), most) if len(text) <= 18 else most
