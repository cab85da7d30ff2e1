"""Cost against how many callers the gateway knows: principals in the rate guard, and keys on file."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson

from bench.growth.in_process import InProcessGateway
from bench.growth.interleaved import Repetitions, TimedCall, compare_sizes
from bench.growth.part import CostCurve, GrowthPart, SizeFigure, measure_bytes, measure_collection
from gateway.access.callers import KEYS_FILE, Callers, Key, add_key
from gateway.core.pipeline import Pipeline
from guards.rate import RateGuard

PERIOD_S, BURST = 3600.0, 1e6  # no bucket refills while this runs, so that no principal is forgotten
CHUNK = 10_000
CYCLE_LENGTH = 5000
HASH_BYTES = 32


async def principals(
    in_process: InProcessGateway, sizes: Sequence[int], repetitions: Repetitions
) -> GrowthPart:
    """The rate guard alone, and whole requests of one row, each from a random one of its principals."""
    facts: list[SizeFigure] = []
    guards = {size: filled(size, facts) for size in sizes}
    alone: dict[int, TimedCall] = {size: _charging(guard, size) for size, guard in guards.items()}
    whole: dict[int, TimedCall] = {size: _serving(in_process, guard, size) for size, guard in guards.items()}
    curves = [
        CostCurve(
            "rate guard", await compare_sizes(alone, replace(repetitions, calls=20 * repetitions.calls))
        ),
        CostCurve("request", await compare_sizes(whole, repetitions, after=in_process.drain_audit)),
    ]
    return GrowthPart("principals that the rate guard remembers", "principals", curves, facts)


def filled(size: int, facts: list[SizeFigure]) -> RateGuard:
    """A rate guard that remembers so many principals."""
    guard = RateGuard(1 / PERIOD_S, BURST, time.monotonic)
    with measure_collection(size, facts), measure_bytes(size, "principal", facts):
        for start in range(0, size, CHUNK):
            for i in range(start, min(start + CHUNK, size)):
                guard.charge(_name(i), 1)
    return guard


def _name(i: int) -> str:
    return f"caller-{i:07d}"


def _random_names(size: int) -> Iterator[str]:
    return itertools.cycle([_name(i) for i in np.random.default_rng(size).integers(0, size, CYCLE_LENGTH)])


def _charging(guard: RateGuard, size: int) -> TimedCall:
    names = _random_names(size)

    async def charge() -> None:
        guard.charge(next(names), 1)

    return charge


def _serving(in_process: InProcessGateway, guard: RateGuard, size: int) -> TimedCall:
    names, pipeline = _random_names(size), limited_by(in_process.deployment.pipeline, guard)
    sent = in_process.request(in_process.served[:1], "")

    async def serve() -> None:
        in_process.use(pipeline)
        await in_process.serve(replace(sent, principal=next(names)))

    return serve


def limited_by(pipeline: Pipeline, guard: RateGuard) -> Pipeline:
    """The same pipeline with another rate guard in place of its own."""
    return replace(pipeline, budgets=tuple(replace(one, budget=guard) for one in pipeline.budgets))


async def keys(sizes: Sequence[int], scratch: Path, repetitions: Repetitions) -> GrowthPart:
    """To identify a caller by the key, and to read the file of keys, as a restart does."""
    facts: list[SizeFigure] = []
    calls: dict[int, TimedCall] = {
        size: _identifying(scratch / f"keys-{size}", size, facts) for size in sizes
    }
    curves = [
        CostCurve(
            "identify a caller",
            await compare_sizes(calls, replace(repetitions, calls=20 * repetitions.calls)),
        )
    ]
    return GrowthPart("callers with a key", "keys", curves, facts)


def _identifying(var: Path, size: int, facts: list[SizeFigure]) -> TimedCall:
    token = add_key(var, "bench", tier="trusted", per_s=1e6, scopes=frozenset({"infer"}))
    others = (Key(name=f"k{i}", hash=secrets.token_hex(HASH_BYTES), per_s=1.0) for i in range(size - 1))
    with (var / KEYS_FILE).open("ab") as file:
        file.writelines(orjson.dumps(key.model_dump(mode="json")) + b"\n" for key in others)
    with measure_bytes(size, "key", facts):
        callers = Callers(var, anonymous_loopback=False)
        assert callers.identify(token, "127.0.0.1")
    start_s = time.perf_counter()
    Callers(var, anonymous_loopback=False).identify(token, "127.0.0.1")
    facts.append(SizeFigure("ms to read the file", size, 1e3 * (time.perf_counter() - start_s)))

    async def identify() -> None:
        if callers.identify(token, "127.0.0.1") is None:
            raise RuntimeError("a known key is not known any more")

    return identify
