"""A hedge: a predictor that asks a slow server once more, and takes whichever answer comes first.

    | state            | event                                     | next                         |
    |------------------|-------------------------------------------|------------------------------|
    | one call         | it ends                                   | its answer or error          |
    | one call         | p95 of recent calls, budget is left       | two calls                    |
    | one call         | p95 of recent calls, no budget is left    | one call, to its end         |
    | two calls        | one is answered                           | its answer, other cancelled  |
    | two calls        | one has an error that may be repeated     | one call, to its end         |
    | two calls        | one has any other error                   | that error, other cancelled  |
    | any              | cancellation                              | all cancelled                |

It helps where one address stands for several servers, and a few calls are slow for reasons of their own: a
pause of one process, a lost packet. It does not help where all calls are slow, and then it stays away: 5 % of
calls are slower than p95, and the budget, which retries share, ends at 20 % of calls.

A judgement of either call ends both, as it would alone: no server is asked until another one agrees with the
caller. The circuit breaker and the record of the request are outside, so two calls are one there, and a
cancelled one is no failure of the model.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from fallbacks.predictor import Predictor, Tensors
from fallbacks.recent_latencies import RecentLatencies
from fallbacks.retry_budget import RetryBudget


class Hedge:
    """Calls once, or twice at the same time. repeatable: as of `Retry`. clock: seconds, must not go back.

    Rows of a call are not looked at: where the time depends on their number, p95 is of the usual number.
    """

    def __init__(
        self,
        predictor: Predictor,
        budget: RetryBudget,
        *,
        repeatable: Callable[[Exception], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._predictor, self._budget = predictor, budget
        self._repeatable, self._clock = repeatable, clock
        self._latencies = RecentLatencies()

    async def predict(self, inputs: Tensors, /) -> Tensors:
        """The first answer. Raises the first error that may not be repeated, else the last."""
        began_s, after_s = self._clock(), self._latencies.p95_s()
        calls = [asyncio.ensure_future(self._predictor.predict(inputs))]
        try:
            if after_s is not None:
                done, _ = await asyncio.wait(calls, timeout=after_s)
                if not done and self._budget.take():
                    calls.append(asyncio.ensure_future(self._predictor.predict(inputs)))
            answer = await self._first_answer(calls)
        finally:
            for call in calls:
                call.add_done_callback(_retrieve_exception)
                call.cancel()
        # Of two calls it is the time until an answer: at least p95, or p95 would shrink with each hedge.
        self._latencies.add(self._clock() - began_s)
        return answer

    async def _first_answer(self, calls: Sequence[asyncio.Future[Tensors]]) -> Tensors:
        waiting = list(calls)
        while True:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            ended = [call for call in waiting if call in done]
            waiting = [call for call in waiting if call not in done]
            errors = [error for call in ended if isinstance(error := call.exception(), Exception)]
            for error in errors:
                if not self._repeatable(error):
                    raise error
            if len(errors) < len(ended):
                return next(call for call in ended if call.exception() is None).result()
            if not waiting:
                raise errors[-1]


def _retrieve_exception(call: asyncio.Future[Tensors]) -> None:
    """Retrieves the exception of a call that is no longer awaited: asyncio warns of one that is not."""
    if not call.cancelled():
        call.exception()
