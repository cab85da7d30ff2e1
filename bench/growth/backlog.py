"""Cost against how many cases wait for review, in the real store on this machine's disk."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from bench.growth.in_process import InProcessGateway
from bench.growth.interleaved import Repetitions, TimedCall, compare_sizes
from bench.growth.part import CostCurve, GrowthPart
from fallbacks.oip.payload import encode
from fallbacks.review.cases import WAITING, Case
from fallbacks.review.open_store import open_store
from fallbacks.review.quotas import PutResult
from fallbacks.review.store import ReviewStore
from gateway.admin.console import LISTED_CASES
from gateway.serving.review import QueuedReview

CAPACITY, CHUNK = 10**9, 1000
EXPIRE_S = 86_400.0


async def backlog(
    in_process: InProcessGateway, sizes: Sequence[int], scratch: Path, repetitions: Repetitions
) -> GrowthPart:
    """To put one case, to list the console's page, to count, and whole requests that are served meanwhile."""
    few_calls = replace(repetitions, calls=max(1, repetitions.calls // 25))  # the disk is slow
    async with _stores(in_process, sizes, scratch) as stores:
        operations = {
            "put a case": {size: _putting(in_process, store) for size, store in stores.items()},
            "list a page": {size: _listing(store) for size, store in stores.items()},
            "count": {size: _counting(store) for size, store in stores.items()},
        }
        curves = [
            CostCurve(what, await compare_sizes(calls, few_calls)) for what, calls in operations.items()
        ]
        whole = {size: _serving(in_process, store) for size, store in stores.items()}
        curves.append(
            CostCurve("request", await compare_sizes(whole, repetitions, after=in_process.drain_audit))
        )
    return GrowthPart("cases that wait for review", "cases", curves)


@asynccontextmanager
async def _stores(
    in_process: InProcessGateway, sizes: Sequence[int], scratch: Path
) -> AsyncIterator[dict[int, ReviewStore]]:
    stores: dict[int, ReviewStore] = {}
    try:
        for size in sizes:
            stores[size] = open_store(f"sqlite:///review-{size}.db", scratch, capacity=CAPACITY)
            cases = _cases(in_process, "waiting")
            for start in range(0, size, CHUNK):
                await stores[size].put([*itertools.islice(cases, min(CHUNK, size - start))])
        yield stores
    finally:
        for store in stores.values():
            store.close()


def _cases(in_process: InProcessGateway, name: str) -> Iterator[Case]:
    """Real rows as cases, each one that has not been there before."""
    now_s, why, view = time.time(), '{"reason":"abstained","raised":[]}', "[[3,0.52],[5,0.41],[1,0.03]]"
    for i in itertools.count():
        row = in_process.served[i % len(in_process.served)][None]
        payload = encode({in_process.deployment.source: row})
        yield Case(f"{name}-{i}", "bench", now_s, now_s + EXPIRE_S, payload, why, view)


def _putting(in_process: InProcessGateway, store: ReviewStore) -> TimedCall:
    cases = _cases(in_process, "new")

    async def put() -> None:
        if await store.put([next(cases)]) != [PutResult.STORED]:
            raise RuntimeError("the store did not take a case")

    return put


def _listing(store: ReviewStore) -> TimedCall:
    async def first_page() -> None:
        await store.list_cases(WAITING, LISTED_CASES)

    return first_page


def _counting(store: ReviewStore) -> TimedCall:
    return store.counts


def _serving(in_process: InProcessGateway, store: ReviewStore) -> TimedCall:
    pipeline = replace(in_process.deployment.pipeline, review=QueuedReview(store, EXPIRE_S))
    sent = in_process.request(in_process.served[:1], "bench")

    async def serve() -> None:
        in_process.use(pipeline)
        await in_process.serve(sent)

    return serve
