"""Reviewers get a sample of what no model answered, and all of what a guard deferred."""

from __future__ import annotations

import asyncio

from gateway.core.deferral_cap import BURST_ROWS, ROWS_PER_S, DeferralCap
from tests.support.core_parts import run


def test_a_burst_is_deferred_and_then_so_many_a_second() -> None:
    async def main() -> None:
        cap = DeferralCap()
        assert cap.take(10) == 10
        assert cap.take(10_000) == BURST_ROWS - 10
        assert cap.take(1) == 0
        await asyncio.sleep(2.0)
        assert cap.take(10_000) == 2 * ROWS_PER_S
        await asyncio.sleep(3600.0)
        assert cap.take(10_000) == BURST_ROWS

    run(main)
