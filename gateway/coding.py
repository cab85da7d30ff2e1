"""Content codings (placeholder until the door's own is merged)."""

from __future__ import annotations

import zlib

from gateway.errors import InvalidRequest, Problem

BITS = {"gzip": 31, "deflate": 15}


class TooLong(Exception):
    """More comes out than may."""


def decoded(body: bytes, coding: str, limit_bytes: int) -> bytes:
    if coding == "identity":
        return body
    machine = zlib.decompressobj(BITS[coding])
    try:
        out = machine.decompress(body, limit_bytes + 1)
    except zlib.error:
        raise InvalidRequest([Problem("body", f"is not {coding}")]) from None
    if len(out) > limit_bytes:
        raise TooLong
    if not machine.eof or machine.unused_data:
        raise InvalidRequest([Problem("body", f"is not {coding}")])
    return out


def accepted(accept_encoding: str | None) -> str | None:
    for part in (accept_encoding or "").split(","):
        if part.strip() in BITS:
            return part.strip()
    return None


def encoded(body: bytes, coding: str) -> bytes:
    machine = zlib.compressobj(1, wbits=BITS[coding])
    return machine.compress(body) + machine.flush()
