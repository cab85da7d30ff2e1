"""A retry: a predictor that calls a model again where no answer came, within a budget.

    | a call ends with               | and                                     | next             |
    |--------------------------------|-----------------------------------------|------------------|
    | an answer                      |                                         | the answer       |
    | an error that may be repeated  | a retry, budget and time are left       | pause, new call  |
    | an error that may be repeated  | one of them is not left                 | the error        |
    | any other error                |                                         | the error        |
    | cancellation                   |                                         | cancelled        |

What may be repeated is a call to which no model answered: the connection was refused or reset, or the
server is unavailable. A judgement is never repeated: a row that the model cannot take, an answer that is not
what was asked for, or a model that is not the certified one would be asked until it says something else. Nor
is a deadline that was missed: the time is gone.

Order: the circuit breaker is outside, so it sees one call with one end, and a call that is answered at the
second attempt is an answer. The model's verification is inside: after a connection failed, another process
may answer the next call, and the predictor verifies it first.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Final

from fallbacks.predictor import Predictor, Tensors
from fallbacks.retry_budget import RetryBudget

LONGEST_FIRST_PAUSE_S: Final = 0.05
"""The most before the first retry, twice as much before each next; each pause is a random part of that."""


class Retry:
    """Calls at most `retries` times again.

    repeatable: whether a call with this error may be repeated. call_deadline: when (loop time) the call that
    begins now must have its answer, and whether its caller set that. part: a random number in [0, 1).
    """

    def __init__(
        self,
        predictor: Predictor,
        budget: RetryBudget,
        *,
        retries: int,
        repeatable: Callable[[Exception], bool],
        call_deadline: Callable[[], tuple[float, bool]],
        part: Callable[[], float] = random.random,
    ) -> None:
        self._predictor, self._budget, self._retries = predictor, budget, retries
        self._repeatable, self._call_deadline, self._part = repeatable, call_deadline, part

    async def predict(self, inputs: Tensors, /) -> Tensors:
        """The answer of the first call that has one. Raises what the last call raises."""
        self._budget.pay_in()
        until_s, _ = self._call_deadline()
        longest_s = LONGEST_FIRST_PAUSE_S
        for _ in range(self._retries):
            pause_s = longest_s * self._part()
            try:
                return await self._predictor.predict(inputs)
            except Exception as error:
                in_time = asyncio.get_running_loop().time() + pause_s < until_s
                if not (self._repeatable(error) and in_time and self._budget.take()):
                    raise
            await asyncio.sleep(pause_s)
            longest_s *= 2
        return await self._predictor.predict(inputs)
