"""A healthy model asked for more than it can answer: its circuit stays closed, and reviewers get nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from fallbacks.breaker import Breaker, BreakerState
from fallbacks.predictor import Predictor, Tensors
from gateway.core.decision import Deferred, Reason, Refused, Served
from tests.support.deployments import FULL_RATE, batch_of, clean_rows, letters, opened, predictor_of

ROW_S = 0.002
DEADLINE_S = 0.5


@dataclass
class OnePassAtATime:
    """A model that takes so long for each row, one pass after another."""

    inner: Predictor
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    passes: list[int] = field(default_factory=list)

    async def predict(self, inputs: Tensors, /) -> Tensors:
        async with self.lock:
            rows = len(next(iter(inputs.values())))
            self.passes.append(rows)
            await asyncio.sleep(ROW_S * rows)
            return await self.inner.predict(inputs)


def test_load_beyond_its_capacity_opens_no_circuit_and_fills_no_queue(tmp_path: Path) -> None:
    async def main() -> None:
        budgets = ("budget_s: 0.1\n", "budget_s: 0.2\n"), ("budget_s: 0.2}", "budget_s: 0.1}")
        folder = letters(tmp_path, FULL_RATE, *budgets, patient=False)
        async with opened(folder) as gateway:
            breaker = predictor_of(gateway)
            assert isinstance(breaker, Breaker)
            breaker._predictor = OnePassAtATime(breaker._predictor)
            x, ends, until_s = clean_rows(32), Counter[str](), asyncio.get_running_loop().time() + 3.0

            async def caller(name: str) -> None:
                while asyncio.get_running_loop().time() < until_s:
                    decisions = await gateway.decide(batch_of(x, name, DEADLINE_S, name=f"{name}."))
                    for one in decisions:
                        ends[_end(one.outcome)] += 1
                    if all(isinstance(one.outcome, Refused) for one in decisions):
                        await asyncio.sleep(0.05)

            await asyncio.gather(*(caller(f"c{i}") for i in range(12)))
            assert breaker.state is BreakerState.CLOSED
            assert ends["served"] > 0.5 * 3.0 / ROW_S
            assert ends["deferred, unavailable"] <= 0.1 * ends["served"], "but for what it learns by at first"
            assert ends["refused, unavailable"] > 0, "it was never asked for more than it can answer"
            assert ends["degraded"] > ends["served"], "the fallback answers what there was no room for"

    asyncio.run(main())


def _end(outcome: object) -> str:
    match outcome:
        case Served():
            return "served"
        case Deferred(reason=Reason.UNAVAILABLE):
            return "deferred, unavailable"
        case Refused(reason=reason):
            return f"refused, {reason}"
    return type(outcome).__name__.lower()
