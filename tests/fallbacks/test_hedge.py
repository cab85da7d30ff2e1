"""The hedge: when a second call is sent, which answer is taken, what becomes of the other; fake clock."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from fallbacks.breaker import Breaker, BreakerState
from fallbacks.hedge import Hedge
from fallbacks.oip.errors import UnexpectedAnswer, UpstreamUnreachable, may_repeat
from fallbacks.predictor import ModelRaised, Predictor, Tensors
from fallbacks.recent_latencies import CALLS, LEAST_CALLS, RecentLatencies
from fallbacks.retry import Retry
from fallbacks.retry_budget import RetryBudget
from tests.support.core_parts import run

ROW = {"x": np.zeros((1, 1))}
REFUSED = UpstreamUnreachable("reset")
End: TypeAlias = "tuple[float, str | Exception]"
"""After how many seconds a call ends, and with which answer or error."""


class Servers:
    """Several servers behind one address: each call ends as told, in order."""

    def __init__(self, ends: Sequence[End] = ()) -> None:
        self.ends, self.called, self.cancelled, self.under_way = list(ends), 0, 0, 0

    async def predict(self, inputs: Tensors, /) -> Tensors:
        self.called += 1
        after_s, end = self.ends.pop(0)
        self.under_way += 1
        try:
            await asyncio.sleep(after_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.under_way -= 1
        if isinstance(end, Exception):
            raise end
        return {"y": np.array([end])}


class HedgeWorld:
    """A hedge over servers that have answered often, within 0.1 s each; `budget` repeats are left."""

    def __init__(self, *ends: End, budget: int = 1) -> None:
        self.servers, self.budget = Servers(), RetryBudget()
        clock = asyncio.get_running_loop().time
        self.hedge = Hedge(self.servers, self.budget, repeatable=may_repeat, clock=clock)
        self.ends = ends
        for _ in range(5 * (budget - 1)):
            self.budget.pay_in()
        if not budget:
            assert self.budget.take()

    async def ask(self, predictor: Predictor | None = None) -> str:
        """The answer to a call whose attempts end as told."""
        self.servers.ends = [(0.1, "usual")] * LEAST_CALLS
        for _ in range(LEAST_CALLS):
            await self.hedge.predict(ROW)
        self.servers.ends, self.servers.called = list(self.ends), 0
        outputs = await (predictor or self.hedge).predict(ROW)
        await asyncio.sleep(0)
        assert not self.servers.under_way
        return str(outputs["y"][0])


def test_a_call_in_the_usual_time_is_sent_once() -> None:
    async def main() -> None:
        world = HedgeWorld((0.09, "first"))
        assert await world.ask() == "first"
        assert world.servers.called == 1

    run(main)


def test_a_slower_call_is_sent_again_and_the_first_answer_taken() -> None:
    async def main() -> None:
        world = HedgeWorld((5.0, "first"), (0.05, "second"))
        start_s = asyncio.get_running_loop().time()
        assert await world.ask() == "second"
        elapsed_s = asyncio.get_running_loop().time() - start_s - 0.1 * LEAST_CALLS
        assert elapsed_s == pytest.approx(0.1 + 0.05)
        assert (world.servers.called, world.servers.cancelled) == (2, 1)

    run(main)


def test_the_first_call_may_still_win() -> None:
    async def main() -> None:
        world = HedgeWorld((0.12, "first"), (0.05, "second"))
        assert await world.ask() == "first"
        assert (world.servers.called, world.servers.cancelled) == (2, 1)

    run(main)


def test_without_budget_a_slow_call_is_waited_for() -> None:
    async def main() -> None:
        world = HedgeWorld((5.0, "first"), budget=0)
        assert await world.ask() == "first"
        assert (world.servers.called, world.servers.cancelled) == (1, 0)

    run(main)


def test_before_it_knows_how_long_calls_take_it_sends_none_twice() -> None:
    async def main() -> None:
        servers = Servers([(60.0, "slow")] * (LEAST_CALLS - 1))
        hedge = Hedge(servers, RetryBudget(), repeatable=may_repeat)
        for _ in range(LEAST_CALLS - 1):
            await hedge.predict(ROW)
        assert servers.called == LEAST_CALLS - 1

    run(main)


@pytest.mark.parametrize(("first", "second"), [(0.12, 0.3), (0.5, 0.01)])
def test_an_outage_of_one_of_two_calls_leaves_the_other(first: float, second: float) -> None:
    async def main() -> None:
        ends: list[End] = [(first, "first"), (second, "second")]
        ends[first > second] = (min(first, second), REFUSED)
        world = HedgeWorld(*ends)
        assert await world.ask() == ("first" if first > second else "second")

    run(main)


@pytest.mark.parametrize("judgement", [ModelRaised("400"), UnexpectedAnswer("another model")])
@pytest.mark.parametrize("by_first", [True, False])
def test_a_judgement_of_either_call_ends_both(judgement: Exception, by_first: bool) -> None:
    async def main() -> None:
        world = HedgeWorld(
            *(((0.12, judgement), (0.5, "y")) if by_first else ((0.5, "y"), (0.05, judgement)))
        )
        with pytest.raises(type(judgement)):
            await world.ask()
        await asyncio.sleep(0)
        assert (world.servers.called, world.servers.cancelled) == (2, 1)

    run(main)


def test_two_outages_are_one() -> None:
    async def main() -> None:
        world = HedgeWorld((0.2, REFUSED), (0.3, REFUSED))
        with pytest.raises(UpstreamUnreachable):
            await world.ask()

    run(main)


def test_an_outage_before_the_usual_time_is_no_matter_of_the_hedge() -> None:
    async def main() -> None:
        world = HedgeWorld((0.05, REFUSED), (0.05, "second"))
        with pytest.raises(UpstreamUnreachable):
            await world.ask()
        assert world.servers.called == 1

    run(main)


@pytest.mark.parametrize("how", ["cancelled", "abandoned"])
def test_a_call_that_ends_early_ends_both(how: str) -> None:
    async def main() -> None:
        world = HedgeWorld((9.0, "first"), (9.0, "second"))
        if how == "cancelled":
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1 * LEAST_CALLS + 1.0):
                    await world.ask()
        else:
            world.servers.ends = [(9.0, "first")]
            call = world.hedge.predict(ROW)
            call.send(None)  # begun, as the gateway begins a pass before it waits for it
            await asyncio.sleep(1)
            call.close()
        await asyncio.sleep(0.01)
        assert (world.servers.cancelled, world.servers.under_way) == (2 if how == "cancelled" else 1, 0)

    run(main)


def test_the_call_that_lost_is_no_failure_for_the_breaker_outside() -> None:
    async def main() -> None:
        world = HedgeWorld((5.0, "first"), (0.05, "second"))
        breaker = Breaker(world.hedge, failures=1)
        assert await world.ask(breaker) == "second"
        assert breaker.state is BreakerState.CLOSED

    run(main)


def test_retries_and_hedges_share_one_budget() -> None:
    async def main() -> None:
        world = HedgeWorld((5.0, "slow"), budget=1)
        retry = Retry(
            world.hedge,
            world.budget,
            retries=1,
            repeatable=may_repeat,
            call_deadline=lambda: (1e9, False),
            part=lambda: 0.0,
        )
        world.ends = ((0.2, REFUSED), (0.2, REFUSED), (0.05, "third"))
        with pytest.raises(UpstreamUnreachable):
            await world.ask(retry)
        assert world.servers.called == 2, "the hedge took the one that was left"

    run(main)


def test_servers_that_are_all_slow_get_a_fifth_more_calls_at_most() -> None:
    async def main() -> None:
        world = HedgeWorld((0.09, "first"))
        await world.ask()
        world.servers.ends, world.servers.called = [(0.3, "slow")] * 1000, 0
        retry = Retry(
            world.hedge, world.budget, retries=0, repeatable=may_repeat, call_deadline=lambda: (1e9, False)
        )
        for _ in range(200):
            await retry.predict(ROW)
        assert 200 < world.servers.called <= 200 + 1 + 40

    run(main)


# ---------------------------------------------------------------- recent latencies


def test_calls_before_the_last_hundred_say_nothing() -> None:
    recent = RecentLatencies()
    for elapsed_s, p95_s in ((9.0, 9.0), (0.1, 0.1), (3.0, 3.0)):
        for _ in range(CALLS):
            recent.add(elapsed_s)
        assert recent.p95_s() == p95_s


@given(arrays(np.float64, st.integers(0, 250), elements=st.floats(0, 10)))
def test_p95_is_that_of_the_last_hundred(latencies: NDArray[np.float64]) -> None:
    recent = RecentLatencies()
    for one in latencies.tolist():
        recent.add(one)
    last = latencies[-CALLS:]
    if len(last) < LEAST_CALLS:
        assert recent.p95_s() is None
    else:
        assert recent.p95_s() == np.quantile(last, 0.95, method="inverted_cdf")
