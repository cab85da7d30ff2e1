"""Requests with large bodies: valid ones that reach the limit, and ones that are over it and refused."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import orjson

LARGE_INTERVAL = 200
REFUSED_BYTES = 1_000_000
MARGIN = 1024
END_OF_HEAD = b"\r\n\r\n"


def with_large(requests: Sequence[bytes], limit: int) -> list[bytes]:
    """400 requests, of which one has a body just below the limit, and one a body over it."""
    small = [*itertools.islice(itertools.cycle(requests), 2 * LARGE_INTERVAL)]
    return [
        padded(small[0], limit),
        *small[1:LARGE_INTERVAL],
        oversized(small[LARGE_INTERVAL], limit),
        *small[LARGE_INTERVAL + 1 :],
    ]


def padded(request: bytes, limit: int) -> bytes:
    """The same JSON request with a member that the gateway reads and ignores, just below the body limit."""
    body = request.partition(END_OF_HEAD)[2]
    document = orjson.loads(body) | {"ignored": "x" * max(0, limit - len(body) - MARGIN)}
    return _post(request, orjson.dumps(document))


def oversized(request: bytes, limit: int) -> bytes:
    """The same request with about a megabyte, or with more than the limit where that is larger."""
    return _post(request, b" " * max(REFUSED_BYTES, limit + MARGIN))


def _post(request: bytes, body: bytes) -> bytes:
    """The request with another body, and the length of that."""
    head = request.partition(END_OF_HEAD)[0].split(b"\r\n")
    kept = [line for line in head if not line.lower().startswith(b"content-length:")]
    return b"\r\n".join([*kept, b"content-length: %d" % len(body)]) + END_OF_HEAD + body
