"""Cost against how many cases wait for a person, in the real store on this machine's disk."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from bench.growth.inside import Inside
from bench.growth.interleaved import Call, Effort, compare
from bench.growth.part import Curve, Part
from fallbacks.oip.payload import encode
from fallbacks.review.cases import WAITING, Case
from fallbacks.review.open_store import open_store
from fallbacks.review.store import ReviewStore
from gateway.admin.console import LISTED_CASES
from gateway.serving.review import QueuedReview

CAPACITY, CHUNK = 10**9, 1000
EXPIRE_S = 86_400.0


async def backlog(inside: Inside, sizes: Sequence[int], scratch: Path, effort: Effort) -> Part:
    """To put one case, to list the console's page, to count, and whole requests that are served meanwhile."""
    often = replace(effort, calls=max(1, effort.calls // 25))  # the disk is slow
    async with _stores(inside, sizes, scratch) as stores:
        asked = {
            "put a case": {size: _putting(inside, store) for size, store in stores.items()},
            "list a page": {size: _listing(store) for size, store in stores.items()},
            "count": {size: _counting(store) for size, store in stores.items()},
        }
        curves = [Curve(what, await compare(calls, often)) for what, calls in asked.items()]
        whole = {size: _serving(inside, store) for size, store in stores.items()}
        curves.append(Curve("request", await compare(whole, effort, after=inside.settle)))
    return Part("cases that wait for a person", "cases", curves)


@asynccontextmanager
async def _stores(
    inside: Inside, sizes: Sequence[int], scratch: Path
) -> AsyncIterator[dict[int, ReviewStore]]:
    stores: dict[int, ReviewStore] = {}
    try:
        for size in sizes:
            stores[size] = open_store(f"sqlite:///review-{size}.db", scratch, capacity=CAPACITY)
            cases = _cases(inside, "waiting")
            for start in range(0, size, CHUNK):
                await stores[size].put([*itertools.islice(cases, min(CHUNK, size - start))])
        yield stores
    finally:
        for store in stores.values():
            store.close()


def _cases(inside: Inside, name: str) -> Iterator[Case]:
    """Real rows as cases, each one that has not been there before."""
    now_s, why, view = time.time(), '{"reason":"abstained","raised":[]}', "[[3,0.52],[5,0.41],[1,0.03]]"
    for i in itertools.count():
        row = inside.served[i % len(inside.served)][None]
        payload = encode({inside.opened.source: row})
        yield Case(f"{name}-{i}", "bench", now_s, now_s + EXPIRE_S, payload, why, view)


def _putting(inside: Inside, store: ReviewStore) -> Call:
    cases = _cases(inside, "new")

    async def put() -> None:
        if not all(await store.put([next(cases)])):
            raise RuntimeError("the store did not take a case")

    return put


def _listing(store: ReviewStore) -> Call:
    async def first_page() -> None:
        await store.list_cases(WAITING, LISTED_CASES)

    return first_page


def _counting(store: ReviewStore) -> Call:
    return store.counts


def _serving(inside: Inside, store: ReviewStore) -> Call:
    pipeline = replace(inside.opened.pipeline, review=QueuedReview(store, EXPIRE_S))
    sent = inside.request(inside.served[:1], "bench")

    async def serve() -> None:
        inside.use(pipeline)
        await inside.serve(sent)

    return serve
