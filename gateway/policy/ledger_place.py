"""Where a budget's ledger is: the policy's field `ledger`."""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias
from urllib.parse import urlsplit

from pydantic import Field

LOCAL: Final = "local"
RAY: Final = "ray"
LedgerPlace: TypeAlias = Annotated[str, Field(pattern=r"^(local|ray|(redis|rediss|unix)://.+)$")]
"""`local`, `ray`, or the URL of a Redis."""


def secret_in(place: str) -> str:
    """What is wrong with a place that holds a password; empty for others. The policy is shown to viewers."""
    if place in (LOCAL, RAY):
        return ""
    try:
        url = urlsplit(place)
        has_one = url.password is not None or "password=" in url.query
    except ValueError as error:
        return f"is no URL: {error}"
    what = "holds a password, and policies are shown: leave it out, and set GATEWAY_LEDGER_PASSWORD"
    return what if has_one else ""
