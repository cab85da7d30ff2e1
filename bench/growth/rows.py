"""Cost of a row against how many come in one request."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from bench.growth.in_process import InProcessGateway
from bench.growth.interleaved import Repetitions, TimedCall, compare_sizes
from bench.growth.part import CostCurve, GrowthPart

DISTINCT_REQUESTS = 32


async def rows(in_process: InProcessGateway, sizes: Sequence[int], repetitions: Repetitions) -> GrowthPart:
    """Microseconds a row, from body to reply."""
    curves = []
    for form in ("JSON", "binary"):
        calls = {size: _serving(in_process, size, binary=form == "binary") for size in sizes}
        shared = {size: size for size in sizes}
        curves.append(
            CostCurve(
                f"a row, {form}", await compare_sizes(calls, repetitions, shared, in_process.drain_audit)
            )
        )
    return GrowthPart("rows a request", "rows", curves)


def _serving(in_process: InProcessGateway, size: int, *, binary: bool) -> TimedCall:
    starts = range(0, min(DISTINCT_REQUESTS * size, len(in_process.served) - size + 1), size)
    cut = [in_process.served[start : start + size] for start in starts]
    sent = itertools.cycle([in_process.request(rows, "bench", binary=binary) for rows in cut])

    async def serve() -> None:
        in_process.use(in_process.deployment.pipeline)
        await in_process.serve(next(sent))

    return serve
