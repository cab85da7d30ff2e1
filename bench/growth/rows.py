"""Cost of a row against how many come in one request."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from bench.growth.inside import Inside
from bench.growth.interleaved import Call, Effort, compare
from bench.growth.part import Curve, Part

DIFFERENT = 32


async def rows(inside: Inside, sizes: Sequence[int], effort: Effort) -> Part:
    """Microseconds a row, from body to reply."""
    curves = []
    for form in ("JSON", "binary"):
        calls = {size: _serving(inside, size, binary=form == "binary") for size in sizes}
        shared = {size: size for size in sizes}
        curves.append(Curve(f"a row, {form}", await compare(calls, effort, shared, inside.settle)))
    return Part("rows a request", "rows", curves)


def _serving(inside: Inside, size: int, *, binary: bool) -> Call:
    starts = range(0, min(DIFFERENT * size, len(inside.served) - size + 1), size)
    cut = [inside.served[start : start + size] for start in starts]
    sent = itertools.cycle([inside.request(rows, "bench", binary=binary) for rows in cut])

    async def serve() -> None:
        inside.use(inside.opened.pipeline)
        await inside.serve(next(sent))

    return serve
