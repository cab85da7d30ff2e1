"""The retry: what is called again, what is not, within which time and which budget; on a fake clock."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallbacks.breaker import Breaker, BreakerState
from fallbacks.oip.errors import (
    RequestRefused,
    UnexpectedAnswer,
    UpstreamFailed,
    UpstreamUnreachable,
    may_repeat,
)
from fallbacks.predictor import CallerDeadlineExceeded, ModelRaised, Tensors, UnfitInput
from fallbacks.retry import LONGEST_FIRST_PAUSE_S, Retry
from fallbacks.retry_budget import MOST_SAVED, RetryBudget
from tests.support.core_parts import run

ROW = {"x": np.zeros((1, 1))}
REFUSED = UpstreamUnreachable("connection refused")


class Server:
    """Ends calls as told, in order, then answers; notes when it was called."""

    def __init__(self, *ends: Exception | None, takes_s: float = 0.0) -> None:
        self.ends, self.takes_s, self.called_s = list(ends), takes_s, list[float]()

    async def predict(self, inputs: Tensors, /) -> Tensors:
        self.called_s.append(asyncio.get_running_loop().time())
        if self.takes_s:
            await asyncio.sleep(self.takes_s)
        if self.ends and (error := self.ends.pop(0)) is not None:
            raise error
        return inputs


def rich_budget() -> RetryBudget:
    budget = RetryBudget()
    for _ in range(100):
        budget.pay_in()
    return budget


def retry(
    server: Server,
    retries: int = 1,
    *,
    budget: RetryBudget | None = None,
    call_deadline: Callable[[], tuple[float, bool]] = lambda: (math.inf, False),
    part: float = 0.5,
) -> Retry:
    return Retry(
        server,
        budget or rich_budget(),
        retries=retries,
        repeatable=may_repeat,
        call_deadline=call_deadline,
        part=lambda: part,
    )


def test_a_call_whose_connection_is_refused_is_answered_at_the_second_attempt() -> None:
    async def main() -> None:
        server = Server(REFUSED)
        assert await retry(server).predict(ROW) is ROW
        assert len(server.called_s) == 2

    run(main)


def test_the_last_error_is_raised_when_no_retry_is_left() -> None:
    async def main() -> None:
        last = UpstreamUnreachable("reset")
        server = Server(REFUSED, REFUSED, last)
        with pytest.raises(UpstreamUnreachable) as raised:
            await retry(server, 2).predict(ROW)
        assert raised.value is last
        assert len(server.called_s) == 3

    run(main)


JUDGED = {
    "a row in doubt": ModelRaised("400"),
    "an unfit row": UnfitInput("no text"),
    "a refused request": RequestRefused("500", 500),
    "an answer that breaks the contract": UnexpectedAnswer("the answer is to another request"),
    "a status that is no outage": UpstreamFailed("429", 429),
    "a missed deadline": TimeoutError("no answer"),
    "a caller's deadline": CallerDeadlineExceeded("no answer"),
    "a model that took too long behind its server": UpstreamUnreachable("504", 504),
}


@pytest.mark.parametrize("error", JUDGED.values(), ids=JUDGED)
def test_what_is_no_outage_is_never_called_again(error: Exception) -> None:
    async def main() -> None:
        server = Server(error)
        with pytest.raises(type(error)):
            await retry(server, 3).predict(ROW)
        assert len(server.called_s) == 1

    run(main)


@pytest.mark.parametrize("status", ["", 502, 503, "UNAVAILABLE"])
def test_outages_may_be_called_again(status: int | str) -> None:
    assert may_repeat(UpstreamUnreachable("away", status))


def test_pauses_are_a_random_part_of_a_doubling_length() -> None:
    async def main() -> None:
        server = Server(REFUSED, REFUSED, REFUSED)
        await retry(server, 3, part=0.5).predict(ROW)
        assert np.diff(server.called_s) == pytest.approx(LONGEST_FIRST_PAUSE_S * np.array([0.5, 1, 2]))

    run(main)


def test_no_call_is_begun_at_or_after_the_deadline_and_the_error_comes_without_a_pause() -> None:
    async def main() -> None:
        clock = asyncio.get_running_loop().time
        start_s, server = clock(), Server(REFUSED, REFUSED, takes_s=1.0)
        one = retry(server, call_deadline=lambda: (clock() + 1.02, True))
        with pytest.raises(UpstreamUnreachable):
            await one.predict(ROW)
        assert len(server.called_s) == 1
        assert clock() == pytest.approx(start_s + 1.0)

    run(main)


def test_the_time_runs_from_the_first_call_on() -> None:
    async def main() -> None:
        clock = asyncio.get_running_loop().time
        server = Server(REFUSED, REFUSED, REFUSED, takes_s=1.0)
        one = retry(server, 3, call_deadline=lambda: (clock() + 2.05, False))
        with pytest.raises(UpstreamUnreachable):
            await one.predict(ROW)
        assert len(server.called_s) == 2

    run(main)


def test_no_more_than_a_fifth_of_calls_is_repeated_while_a_server_is_away() -> None:
    async def main() -> None:
        server = Server(*[REFUSED] * 10_000)
        one = retry(server, 3, budget=RetryBudget())
        for _ in range(1000):
            with pytest.raises(UpstreamUnreachable):
                await one.predict(ROW)
        assert len(server.called_s) == 1000 + 1 + 200, "one more was there from the start"

    run(main)


def test_after_any_number_of_calls_no_more_repeats_are_saved_than_those_of_fifty() -> None:
    for calls in (50, 51, 1000):
        budget = RetryBudget()
        for _ in range(calls):
            budget.pay_in()
        assert sum(budget.take() for _ in range(calls)) == MOST_SAVED == 10


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 80)), max_size=8))
def test_over_any_stretch_of_calls_a_fifth_and_what_was_saved_are_repeated_at_most(
    stretches: list[tuple[bool, int]],
) -> None:
    """In stretches, as neither more than is ever saved nor all of that is spent by turns."""
    budget, calls, repeats = RetryBudget(), [0], [0]
    steps = [pays for pays, length in stretches for _ in range(length)]
    for pays in steps:
        if pays:
            budget.pay_in()
        taken = not pays and budget.take()
        calls.append(calls[-1] + pays)
        repeats.append(repeats[-1] + taken)
    for i in range(len(steps) + 1):
        for j in range(i, len(steps) + 1, 7):
            assert repeats[j] - repeats[i] <= (calls[j] - calls[i]) / 5 + MOST_SAVED
    assert repeats[-1] <= calls[-1] / 5 + 1


def test_the_breaker_outside_sees_one_call_and_its_last_end() -> None:
    async def main() -> None:
        server = Server(REFUSED, None, REFUSED, None, REFUSED, REFUSED)
        breaker = Breaker(retry(server), failures=1)
        for _ in range(2):
            await breaker.predict(ROW)
        assert breaker.state is BreakerState.CLOSED, "two calls were answered at the second attempt"
        with pytest.raises(UpstreamUnreachable):
            await breaker.predict(ROW)
        assert str(breaker.state) == "open"

    run(main)


def test_a_cancelled_pause_calls_nothing_more() -> None:
    async def main() -> None:
        server = Server(REFUSED)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await retry(server).predict(ROW)
        await asyncio.sleep(1)
        assert len(server.called_s) == 1

    run(main)
