"""How much one caller, and all of them, may have under way."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gateway.access.in_flight import InFlight
from gateway.core.decision import Reason, Refused
from tests.support.data_planes import plane_of
from tests.support.deployments import FULL_RATE, Hangs, key_for, letters, swap


def test_one_caller_at_its_limit_does_not_keep_others_out() -> None:
    seats = InFlight(most=10, most_per_caller=2)
    assert seats.enter("ada") is None
    assert seats.enter("ada") is None
    assert seats.enter("ada") == Refused(Reason.RATE_LIMITED, 1.0)
    assert seats.enter("bob") is None
    seats.leave("ada")
    assert seats.enter("ada") is None


def test_all_together_at_the_limit_keep_everybody_out() -> None:
    seats = InFlight(most=2, most_per_caller=2)
    assert [seats.enter(who) for who in ("ada", "bob")] == [None, None]
    assert seats.enter("eve") == Refused(Reason.UNAVAILABLE, 1.0)
    seats.leave("bob")
    assert seats.enter("eve") is None


def test_nothing_is_kept_of_who_has_left() -> None:
    seats = InFlight(most=10, most_per_caller=2)
    for i in range(1000):
        assert seats.enter(f"caller{i}") is None
        seats.leave(f"caller{i}")
    assert (seats.total, len(seats._by_caller)) == (0, 0)


def test_a_caller_that_holds_too_much_is_asked_to_wait_and_is_let_in_again(tmp_path: Path) -> None:
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
