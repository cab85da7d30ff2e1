"""A model with its time budget, and its answer for n rows.

One bad row never fails its neighbours: a pass that fails at n > 1 is tried again row by row, and a NaN fails
its own row alone. A pass that ran out of time is not tried again.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from gateway.core.deadline import CALL_DEADLINE_S, call_within, now_s
from gateway.core.decision import Tensors
from gateway.core.errors import BudgetExceeded, ModelFailed, StageFailure
from gateway.core.rows import Mask, RowIndices, all_true, finite, stack


class Predictor(Protocol):
    async def predict(self, inputs: Tensors, /) -> Tensors: ...


class Forward(NamedTuple):
    """One model's answer for n rows: `outputs` are valid where `ok`; `error` says what failed elsewhere.

    `whole`: every row is ok.
    """

    outputs: Tensors
    ok: Mask
    whole: bool
    elapsed_s: float
    error: str | None = None

    def take(self, rows: RowIndices) -> Forward:
        ok = self.ok[rows]
        whole = bool(ok.all())
        outputs = {name: a[rows] for name, a in self.outputs.items()}
        return Forward(outputs, ok, whole, self.elapsed_s, None if whole else self.error)


@dataclass(frozen=True, slots=True)
class Model:
    """A predictor with its time budget. `outputs` names what it must return: trailing shape by name."""

    name: str
    predictor: Predictor
    budget_s: float
    outputs: Mapping[str, tuple[int | None, ...]] = field(default_factory=dict)

    async def ask(self, inputs: Tensors, n: int, until_s: float) -> Tensors:
        """The raw outputs for n rows, shape-checked. Raises a StageFailure, whatever the predictor does."""
        CALL_DEADLINE_S.set(until_s)
        if until_s < now_s() + self.budget_s:
            outputs = await self._ask_shielded(inputs, until_s)
        else:
            outputs = await call_within(
                self.name, self.predictor.predict, inputs, self.budget_s, until_s, ModelFailed
            )
        self._hold_to_contract(outputs, n)
        return outputs

    async def _ask_shielded(self, inputs: Tensors, until_s: float) -> Tensors:
        """Waits until `until_s`, and lets the model go on within its own budget.

        A caller's short deadline must not stop the model, and so must not count as its failure: a few such
        requests would open the model's circuit for every caller.
        """
        if until_s <= now_s():
            raise BudgetExceeded(f"{self.name}: not asked, no time is left")
        part = asyncio.ensure_future(
            call_within(self.name, self.predictor.predict, inputs, self.budget_s, math.inf, ModelFailed)
        )
        part.add_done_callback(_retrieve_exception)
        try:
            async with asyncio.timeout_at(until_s):
                return await asyncio.shield(part)
        except TimeoutError as error:
            raise BudgetExceeded(f"{self.name}: no answer before the deadline") from error

    def _hold_to_contract(self, outputs: Tensors, n: int) -> None:
        if not isinstance(outputs, Mapping) or not outputs:
            raise ModelFailed(f"{self.name}: returned {type(outputs).__name__} instead of named outputs")
        for name, array in outputs.items():
            if not isinstance(array, np.ndarray) or array.shape[:1] != (n,):
                raise ModelFailed(f"{self.name}: output {name!r} does not have {n} rows")
        for name, shape in self.outputs.items():
            if name not in outputs:
                raise ModelFailed(f"{self.name}: output {name!r} is missing")
            got = outputs[name].shape[1:]
            if got != shape and not _fits(shape, got):
                raise ModelFailed(f"{self.name}: output {name!r} has shape {got} a row, not {shape}")

    async def forward(self, inputs: Tensors, n: int, until_s: float) -> Forward:
        """The answer for n rows, each valid or not; total."""
        start_s = time.perf_counter()
        error: str | None = None
        try:
            outputs = await self.ask(inputs, n, until_s)
            ok = finite(outputs, n)
        except BudgetExceeded as failure:
            outputs, ok, error = {}, np.zeros(n, bool), str(failure)
        except StageFailure as failure:
            outputs, ok, error = {}, np.zeros(n, bool), str(failure)
            if n > 1:
                outputs, ok = await self._row_by_row(inputs, n, min(now_s() + self.budget_s, until_s))
        whole = ok is all_true(n) or bool(ok.all())
        if error is None and not whole:
            error = f"{self.name}: returned a number that is not finite"
        return Forward(outputs, ok, whole, time.perf_counter() - start_s, error)

    async def _row_by_row(self, inputs: Tensors, n: int, until_s: float) -> tuple[Tensors, Mask]:
        answers: list[Tensors | None] = []
        for i in range(n):
            try:
                answers.append(await self.ask({name: a[i : i + 1] for name, a in inputs.items()}, 1, until_s))
            except StageFailure:
                answers.append(None)
        return stack(answers)


def _retrieve_exception(part: asyncio.Future[Tensors]) -> None:
    """Retrieves the exception of a call that is no longer awaited: asyncio warns of one that is not."""
    if not part.cancelled():
        part.exception()


def _fits(wanted: tuple[int | None, ...], got: tuple[int, ...]) -> bool:
    """Whether a shape is one of those wanted; None is any size."""
    return len(got) == len(wanted) and all(
        want in (None, size) for want, size in zip(wanted, got, strict=True)
    )
