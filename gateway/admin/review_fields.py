"""The fields that requests to the review console have in common: lease and fence."""

from __future__ import annotations

from typing import Any

from starlette.exceptions import HTTPException

LEASE_S = 600.0
MAX_LEASE_S = 3600.0
MAX_FENCE_DIGITS = 16
"""Of a number below 2^53, which every client of JSON can hold."""


def lease_s_of(fields: dict[str, Any]) -> float:
    """The seconds of a lease, LEASE_S if they are not given. Raises HTTPException 422."""
    value = fields.get("lease_s", LEASE_S)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 1 <= value <= MAX_LEASE_S:
        raise HTTPException(422, f"lease_s: a number from 1 to {MAX_LEASE_S:g}")
    return float(value)


def fence_of(fields: dict[str, Any]) -> int:
    """The fence of a claim. Raises HTTPException 422."""
    value = str(fields.get("fence", ""))
    if not (value.isascii() and value.isdigit() and len(value) <= MAX_FENCE_DIGITS):
        raise HTTPException(422, "fence: the number that came with the case")
    return int(value)
