"""How many requests one caller, and all of them, may have in flight."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gateway.access.in_flight import InFlight
from gateway.core.decision import Reason, Refused
from tests.support.data_planes import plane_of
from tests.support.deployments import FULL_RATE, Hangs, key_for, letters, swap


def test_one_caller_at_its_limit_does_not_block_others() -> None:
    in_flight = InFlight(limit=10, limit_per_caller=2)
    assert in_flight.acquire("ada") is None
    assert in_flight.acquire("ada") is None
    assert in_flight.acquire("ada") == Refused(Reason.RATE_LIMITED, 1.0)
    assert in_flight.acquire("bob") is None
    in_flight.release("ada")
    assert in_flight.acquire("ada") is None


def test_the_total_limit_refuses_every_caller() -> None:
    in_flight = InFlight(limit=2, limit_per_caller=2)
    assert [in_flight.acquire(name) for name in ("ada", "bob")] == [None, None]
    assert in_flight.acquire("eve") == Refused(Reason.UNAVAILABLE, 1.0)
    in_flight.release("bob")
    assert in_flight.acquire("eve") is None


def test_nothing_is_kept_of_a_caller_without_requests() -> None:
    in_flight = InFlight(limit=10, limit_per_caller=2)
    for i in range(1000):
        assert in_flight.acquire(f"caller{i}") is None
        in_flight.release(f"caller{i}")
    assert (in_flight.total, len(in_flight._by_caller)) == (0, 0)


def test_a_caller_beyond_its_limit_is_told_to_retry_and_then_served(tmp_path: Path) -> None:
    bounds = ("anonymous: loopback", "anonymous: loopback, max_in_flight_per_caller: 2, max_in_flight: 3")
    folder = letters(tmp_path, FULL_RATE, bounds, ("budget_s: 2\n", "budget_s: 0.4\n"))
    with plane_of(folder, ada=key_for(folder, "ada"), bob=key_for(folder, "bob")) as plane:

        async def main() -> None:
            before = plane.gateway.loaded
            swap(plane.gateway, Hangs())
            held = [asyncio.create_task(plane.ada.infer(plane.good[:1])) for _ in range(2)]
            await asyncio.sleep(0.05)
            over = await plane.ada.infer(plane.good[:1])
            assert over.outcome == (429, "refused", "rate_limited")
            assert over.headers["retry-after"] == "1"
            held.append(asyncio.create_task(plane.anonymous.infer(plane.good[:1])))
            await asyncio.sleep(0.05)
            over = await plane.ada.infer(plane.good[:1])
            assert over.outcome == (503, "refused", "unavailable")
            await asyncio.gather(*held)
            plane.gateway.loaded = before
            assert plane.gateway.in_flight.total == 0
            assert (await plane.ada.infer(plane.good[:1])).status == 200

        plane.run(main)
