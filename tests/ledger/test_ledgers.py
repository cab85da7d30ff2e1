"""What every ledger does: grants what the bucket holds, charges what is owed, does each batch once."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import pytest

from gateway.ledger.ledger import Batch, Grant, Ledger, Want
from gateway.ledger.open_ledger import open_ledger
from tests.support.redis_server import RedisServer

PER_S, BURST = 400.0, 200.0
KEY, OTHER = b"k" * 16, b"\0\xff{}" * 4
FILLED_S = BURST / PER_S + 0.1
NEAR = 24
"""Units that come in while a few calls are made."""


class Asking:
    """One replica that asks for one key at a time."""

    def __init__(self, ledger: Ledger, replica: bytes = b"r" * 16) -> None:
        self.ledger, self.replica, self.number = ledger, replica, 0

    async def __call__(
        self, units: float, owed: float = 0.0, key: bytes = KEY, *, again: bool = False
    ) -> Grant:
        self.number += not again
        want = Want(key, units, owed, 1 / PER_S, BURST / PER_S)
        (grant,) = await self.ledger.lease(Batch(self.replica, self.number, (want,)))
        return grant


Runs: TypeAlias = Callable[[Callable[[Asking], Awaitable[None]]], None]


@asynccontextmanager
async def opened(where: str, folder: Path) -> AsyncIterator[Asking]:
    ledger = open_ledger(where, folder)
    try:
        yield Asking(ledger)
    finally:
        await ledger.close()


@pytest.fixture(params=["local", "redis"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Runs]:
    """Runs a test against a ledger whose buckets are full."""
    server = RedisServer(tmp_path) if request.param == "redis" else None

    async def runs(test: Callable[[Asking], Awaitable[None]]) -> None:
        async with opened(server.url if server else "local", tmp_path) as ask:
            await ask(0, 0)
            await asyncio.sleep(FILLED_S)
            await test(ask)

    yield lambda test: asyncio.run(runs(test))
    if server:
        server.kill()


def test_grants_what_the_bucket_holds_and_tells_what_is_left(run: Runs) -> None:
    async def test(ask: Asking) -> None:
        assert await ask(60) == pytest.approx((60, 140), abs=NEAR)
        assert (await ask(60)).units == pytest.approx(60)
        assert await ask(1e6) == pytest.approx((80, 0), abs=NEAR)
        assert (await ask(1e6)).units < NEAR

    run(test)


def test_charges_what_is_owed_beyond_the_bucket_and_gives_back_up_to_a_full_one(run: Runs) -> None:
    async def test(ask: Asking) -> None:
        assert await ask(10, owed=300) == pytest.approx((0, -100), abs=NEAR)
        assert await ask(0, owed=-1e9) == pytest.approx((0, BURST))

    run(test)


def test_does_a_batch_once_however_often_it_is_sent(run: Runs) -> None:
    async def test(ask: Asking) -> None:
        await ask(50, owed=100)
        for _ in range(5):
            assert await ask(50, owed=100, again=True) == pytest.approx((0, 50), abs=NEAR)
        await ask(0, owed=-100)
        await ask(150)
        assert (await ask(0, owed=-100, again=True)).left < NEAR
        other = Asking(ask.ledger, b"o" * 16)
        await asyncio.sleep(0.2)
        assert (await other(20)).units == pytest.approx(20), "another replica's batches are others"

    run(test)


def test_keys_share_nothing_and_a_batch_has_many(run: Runs) -> None:
    async def test(ask: Asking) -> None:
        wants = [Want(bytes([i]) * 16, float(i), 0.0, 1 / PER_S, BURST / PER_S) for i in range(220)]
        grants = await ask.ledger.lease(Batch(b"m" * 16, 1, tuple(wants)))
        assert [grant.units for grant in grants] == pytest.approx([min(i, BURST) for i in range(220)])
        assert (await ask(BURST, key=OTHER)).units == pytest.approx(BURST)
        assert await ask.ledger.lease(Batch(b"m" * 16, 2, ())) == []

    run(test)


def test_a_new_ledger_gives_no_burst_and_fills_at_the_rate(tmp_path: Path) -> None:
    async def test(where: str) -> None:
        async with opened(where, tmp_path) as ask:
            assert (await ask(1e6)).units < NEAR
            await asyncio.sleep(0.25)
            assert (await ask(1e6)).units == pytest.approx(100, abs=NEAR)

    asyncio.run(test("local"))
    with RedisServer(tmp_path) as server:
        asyncio.run(test(server.url))


@pytest.mark.parametrize(
    "want",
    [
        Want(KEY, math.nan, 0, 1, 1), Want(KEY, -1, 0, 1, 1), Want(KEY, 1, math.nan, 1, 1),
        Want(KEY, 1, -math.inf, 1, 1), Want(KEY, 1, 0, 0, 1), Want(KEY, 1, 0, 1, math.inf),
    ],
)  # fmt: skip
def test_refuses_what_is_no_number_and_charges_nothing_of_the_batch(run: Runs, want: Want) -> None:
    async def test(ask: Asking) -> None:
        good = Want(KEY, 10, 0.0, 1 / PER_S, BURST / PER_S)
        with pytest.raises(ValueError, match="are no units, owed, period and tolerance"):
            await ask.ledger.lease(Batch(b"n" * 16, 1, (good, want)))
        assert (await ask(0)).left == pytest.approx(BURST)

    run(test)


def test_names_of_ledgers_that_do_not_exist_are_told_without_their_secrets(tmp_path: Path) -> None:
    for where in ("", "locale", "http://user:secret@x", "sqlite:///x"):
        with pytest.raises(ValueError, match="expected local, ray, redis") as error:
            open_ledger(where, tmp_path)
        assert "secret" not in str(error.value)
