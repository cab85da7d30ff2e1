"""Redis as a ledger: restarts, failovers and steps of its clock make no budget and lock no caller out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import pytest
from redis import Redis, RedisError

from gateway.ledger.redis_ledger import PREFIX
from tests.ledger.test_ledgers import BURST, FILLED_S, KEY, NEAR, PER_S, Asking, opened
from tests.support.redis_server import RedisServer

CLOCK = PREFIX + b"clock"
Test: TypeAlias = Callable[[Asking], Awaitable[None]]


@pytest.fixture(params=[False, True], ids=["in memory", "persistent"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path, persist=request.param) as server:
        yield server


def run(server: RedisServer, test: Test) -> None:
    async def runs() -> None:
        async with opened(server.url, Path()) as ask:
            await ask(0)
            await asyncio.sleep(FILLED_S)
            await test(ask)

    asyncio.run(runs())


def step(server: RedisServer, seconds: float) -> None:
    """As if the server's clock had been set by so much since the last batch."""
    with Redis.from_url(server.url) as redis:
        wall_s = float(str(redis.hget(CLOCK.decode(), "wall"), "ascii"))
        redis.hset(CLOCK.decode(), "wall", str(wall_s - seconds))


def test_a_server_that_was_killed_gives_no_burst_and_fills_at_the_rate(server: RedisServer) -> None:
    async def test(ask: Asking) -> None:
        assert (await ask(10)).units == 10
        server.kill()
        with pytest.raises((OSError, RedisError)):
            await ask(10)
        server.start()
        assert (await ask(1e6)).units < NEAR
        await asyncio.sleep(FILLED_S)
        assert (await ask(1e6)).units == pytest.approx(BURST), "no caller is locked out"

    run(server, test)


def test_a_server_that_kept_its_debts_still_has_them(tmp_path: Path) -> None:
    kept = RedisServer(tmp_path, persist=True)

    async def test(ask: Asking) -> None:
        await ask(0, owed=10 * BURST)
        kept.kill()
        kept.start()
        with suppress(OSError, RedisError):  # the old connection
            await ask(0)
        assert (await ask(0)).left < -8 * BURST

    with kept:
        run(kept, test)


@pytest.mark.parametrize("seconds", [-86_400.0, 61.0, 86_400.0])
def test_a_step_of_the_servers_clock_pays_no_debt_and_makes_none(server: RedisServer, seconds: float) -> None:
    async def test(ask: Asking) -> None:
        await ask(0, owed=BURST + 100 * PER_S)
        before = (await ask(0)).left
        step(server, seconds)
        paid = (await ask(0)).left - before
        assert paid <= 60 * PER_S + NEAR, "a minute passes at most"
        assert paid >= 0
        other = await ask(1e6, key=b"not seen before!")
        assert other.units < NEAR if seconds > 60 else other.units == pytest.approx(BURST)

    run(server, test)


def test_buckets_that_are_full_are_forgotten(server: RedisServer) -> None:
    async def test(ask: Asking) -> None:
        await ask(10)
        with Redis.from_url(server.url) as redis:
            assert 100 < redis.ttl((PREFIX + KEY).decode()) < 130

    run(server, test)


def test_two_clusters_share_one_bucket(server: RedisServer) -> None:
    async def test(ask: Asking) -> None:
        async with opened(server.url, Path()) as other:
            other.replica = b"another cluster!"
            grants = [(await one(60)).units for one in (ask, other, ask, other)]
        assert sum(grants) == pytest.approx(BURST, abs=NEAR)

    run(server, test)
