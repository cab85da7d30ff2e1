"""The content codings of bodies, both ways (RFC 9110, section 8.4): gzip and deflate, read strictly.

A body of a few bytes may decode to gigabytes, so decoding has a limit and never produces more than one byte
beyond it. The limit is that of the contract, and less for a body that decodes to more than EXPANSION times
its bytes, so that what is costly here is costly to send. Deflate reaches a thousand times; rows of zeros in
JSON, which are often sent, more than a hundred, so that the first FREE_BYTES are not held to it.
Pure functions, which run in the caller's thread.

One member of gzip (RFC 1952) is accepted, though a file may have several: no client sends more, and a further
member could hide data from a proxy that inspects the first only. Deflate is the zlib form (RFC 1950), as RFC
9110 says: a raw deflate stream has no checksum that tells garbage from data.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from typing import Literal

from gateway.caching import BoundedCache
from gateway.core.errors import InvalidRequest, Problem
from gateway.protocol.endings import Rejection
from gateway.protocol.rejected import RequestRejected

Coding = Literal["gzip", "deflate"]

LEVEL = 1
"""Of compression: higher levels take two to ten times as long and save a tenth of the size of JSON."""
EXPANSION, FREE_BYTES = 100, 2**20
LONGEST_CACHED = 256
CODINGS = ("identity", "gzip", "x-gzip", "deflate")
"""The codings of request bodies."""
_WINDOW = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
_ACCEPTED = re.compile(
    r"\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*(?:;\s*[qQ]=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?))?\s*"
)


def decode(body: bytes, coding: str, limit_bytes: int) -> bytes:
    """A body without its coding.

    Args:    coding: the value of Content-Encoding; limit_bytes: of the decoded body.
    Raises:  InvalidRequest for a body that is broken, cut short or followed by more; RequestRejected for
             another coding and for a body that is too large.
    Cost:    3 ms for 1 MB of JSON; for a moment, twice the memory of the decoded body.
    """
    name = coding.strip().lower()
    if name == "identity":
        data = body if len(body) <= limit_bytes else None
    elif name in _WINDOW:
        limit_bytes = min(limit_bytes, FREE_BYTES + EXPANSION * len(body))
        data = _inflate(body, name, limit_bytes)
    else:
        raise unsupported_coding()
    if data is None:
        raise RequestRejected(
            Rejection.TOO_LARGE, f"the body may have at most {limit_bytes} bytes when decoded"
        )
    return data


def unsupported_coding() -> RequestRejected:
    """Why a request ends whose coding is not one of `CODINGS`. The reply names those that are."""
    what = "Content-Encoding must be one of identity, gzip and deflate"
    return RequestRejected(
        Rejection.UNSUPPORTED_MEDIA, what, headers={"accept-encoding": "identity, gzip, deflate"}
    )


def decode_small(body: bytes, coding: str, limit_bytes: int) -> bytes | None:
    """A body without its coding, if it then has at most this size; else None. Raises InvalidRequest."""
    if coding == "identity":
        return body
    return _inflate(body, coding, limit_bytes) if len(body) <= limit_bytes else None


def _inflate(body: bytes, name: str, limit_bytes: int) -> bytes | None:
    """The decoded body; None if it is larger than the limit. Raises InvalidRequest."""
    decompressor = zlib.decompressobj(wbits=_WINDOW[name])
    try:
        data = decompressor.decompress(body, limit_bytes + 1)
    except zlib.error:
        raise InvalidRequest([Problem("body", f"is not {name}")]) from None
    if len(data) > limit_bytes:
        return None
    if not decompressor.eof:
        raise InvalidRequest([Problem("body", f"ends before its {name} does")])
    if decompressor.unused_data:
        raise InvalidRequest(
            [Problem("body", f"{len(decompressor.unused_data)} bytes after the end of its {name}")]
        )
    return data


def encode(body: bytes, coding: Coding) -> bytes:
    """A body in a coding. Cost: 8 ms for 1 MB of JSON."""
    return gzip.compress(body, LEVEL, mtime=0) if coding == "gzip" else zlib.compress(body, LEVEL)


def accepted_coding(accept_encoding: str | None) -> Coding | None:
    """The coding for a reply to a request with this Accept-Encoding: gzip, else deflate, else None.

    Only a named coding is used; `*` does not cause compression. None if identity is named with as high a
    weight; malformed members are ignored.
    Cost: 0.3 us for a header that was seen lately.
    """
    if accept_encoding is None:
        return None
    return _CHOSEN[accept_encoding]


def _choose(accept_encoding: str) -> Coding | None:
    weights = dict(_weights(accept_encoding))
    gzip_, deflate = max(weights.get("gzip", 0.0), weights.get("x-gzip", 0.0)), weights.get("deflate", 0.0)
    best = max(gzip_, deflate)
    if best <= weights.get("identity", 0.0):
        return None
    return "gzip" if gzip_ >= deflate else "deflate"


def _weights(accept_encoding: str) -> Iterator[tuple[str, float]]:
    """The codings in a header with their weights (`q`)."""
    for member in accept_encoding.split(","):
        if match := _ACCEPTED.fullmatch(member):
            yield match[1].lower(), float(match[2] or 1)


_CHOSEN = BoundedCache(_choose, entries=128, longest=LONGEST_CACHED)
