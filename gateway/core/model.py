"""A model with its time budget, and its answer for n rows.

One bad row never fails the others: a pass that fails at n > 1 is tried again row by row, and a NaN fails its
own row alone. A pass that ran out of time is not tried again.

A row that the model cannot take is no failure of the model. Where the model raises, the rows are tried again,
each alone, and if any raises again the model is then asked for a row that it is known to answer. If it does,
the rows that raised are invalid; if not, they have failed with the model.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from gateway.core.deadline import CALL_DEADLINE_S, CALL_PRINCIPALS, call_within, now_s
from gateway.core.decision import Tensors
from gateway.core.errors import BudgetExceeded, InputRejected, ModelFailed, RowInDoubt, StageFailure
from gateway.core.rows import Mask, RowIndices, all_true, finite, stack

IMPOSSIBLE = "probabilities that are none, or a class that the model does not have"
"""What `Model.possible` finds."""


class Predictor(Protocol):
    async def predict(self, inputs: Tensors, /) -> Tensors: ...


class Forward(NamedTuple):
    """One model's answer for n rows: `outputs` are valid where `ok`; `error` says what failed elsewhere.

    `all_ok`: every row is ok. `invalid`: the rows that the model cannot take, None if there are none.
    """

    outputs: Tensors
    ok: Mask
    all_ok: bool
    elapsed_s: float
    error: str | None = None
    invalid: Mask | None = None

    def take(self, rows: RowIndices) -> Forward:
        ok = self.ok[rows]
        all_ok = bool(ok.all())
        outputs = {name: a[rows] for name, a in self.outputs.items()}
        invalid = None if self.invalid is None or all_ok else self.invalid[rows]
        return Forward(outputs, ok, all_ok, self.elapsed_s, None if all_ok else self.error, invalid)


@dataclass(frozen=True, slots=True)
class InputFaults:
    """How a predictor tells a row that it cannot take from a fault of its own.

    unfit: what it raises for rows that it cannot take; in_doubt: what it raises where it cannot tell the two
    apart; prove: returns if the model answers a row that it is known to answer, and raises if not.
    """

    unfit: type[Exception]
    in_doubt: type[Exception]
    prove: Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class Model:
    """A predictor with its time budget. `outputs` names what it must return: trailing shape by name.

    dtypes: of what it must return, by name; possible: bool[n], whether a row of the outputs can be an answer.
    still_waited_for: where the predictor reads whether anything waits for a call that it has not begun.
    """

    name: str
    predictor: Predictor
    budget_s: float
    outputs: Mapping[str, tuple[int | None, ...]] = field(default_factory=dict)
    faults: InputFaults | None = None
    dtypes: Mapping[str, np.dtype[Any]] = field(default_factory=dict)
    possible: Callable[[Tensors], Mask] | None = None
    still_waited_for: contextvars.ContextVar[Callable[[], bool]] | None = None

    async def ask(self, inputs: Tensors, n: int, until_s: float, principals: Sequence[str] = ()) -> Tensors:
        """The raw outputs for n rows, shape-checked. Raises a StageFailure, whatever the predictor does.

        principals: whose rows these are; a model that fails for one of them alone has not failed.
        """
        CALL_DEADLINE_S.set(until_s)
        CALL_PRINCIPALS.set(principals)
        try:
            if until_s < now_s() + self.budget_s:
                outputs = await self._ask_shielded(inputs, until_s)
            else:
                outputs = await call_within(
                    self.name, self.predictor.predict, inputs, self.budget_s, until_s, ModelFailed
                )
        except ModelFailed as failure:
            raise self._attributed(failure) from failure.__cause__
        self._check_outputs(outputs, n)
        return outputs

    def _attributed(self, failure: ModelFailed) -> StageFailure:
        """The failure, as one of the row where the predictor says that it may be."""
        if self.faults is not None and isinstance(failure.__cause__, self.faults.unfit):
            return InputRejected(str(failure))
        if self.faults is not None and isinstance(failure.__cause__, self.faults.in_doubt):
            return RowInDoubt(str(failure))
        return failure

    async def _ask_shielded(self, inputs: Tensors, until_s: float) -> Tensors:
        """Waits until `until_s`, and lets the model continue within its own budget.

        A caller's short deadline must not stop the model, and so must not count as its failure: a few such
        requests would open the model's circuit for every caller. A pass that has not begun by then never
        does, or such requests would keep the model from every caller.
        """
        if until_s <= now_s():
            raise BudgetExceeded(f"{self.name}: not asked, no time is left")
        waits, context = True, contextvars.copy_context()
        if self.still_waited_for is not None:
            context.run(self.still_waited_for.set, lambda: waits)
        part = asyncio.get_running_loop().create_task(
            call_within(self.name, self.predictor.predict, inputs, self.budget_s, math.inf, ModelFailed),
            context=context,
        )
        part.add_done_callback(_retrieve_exception)
        try:
            async with asyncio.timeout_at(until_s):
                return await asyncio.shield(part)
        except TimeoutError as error:
            raise BudgetExceeded(f"{self.name}: no answer before the deadline") from error
        finally:
            waits = False

    def _check_outputs(self, outputs: Tensors, n: int) -> None:
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
        for name, dtype in self.dtypes.items():
            if outputs[name].dtype != dtype:
                raise ModelFailed(f"{self.name}: output {name!r} is {outputs[name].dtype}, not {dtype}")

    async def forward(
        self, inputs: Tensors, n: int, until_s: float, principals: Sequence[str] = ()
    ) -> Forward:
        """The answer for n rows, each valid or not. Never raises."""
        start_s = time.perf_counter()
        error: str | None = None
        invalid: Mask | None = None
        try:
            outputs = await self.ask(inputs, n, until_s, principals)
            ok = self._possible(outputs, finite(outputs, n))
        except BudgetExceeded as failure:
            outputs, ok, error = {}, np.zeros(n, bool), str(failure)
        except StageFailure as failure:
            outputs, ok, invalid, error = await self._row_by_row(inputs, n, until_s, principals, failure)
        all_ok = ok is all_true(n) or bool(ok.all())
        if error is None and not all_ok:
            error = f"{self.name}: returned what is no answer: a number that is not finite, {IMPOSSIBLE}"
        return Forward(outputs, ok, all_ok, time.perf_counter() - start_s, error, invalid)

    def _possible(self, outputs: Tensors, ok: Mask) -> Mask:
        """Which of the rows that are ok can be answers."""
        return ok if self.possible is None or not outputs else ok & self.possible(outputs)

    async def _row_by_row(
        self, inputs: Tensors, n: int, until_s: float, principals: Sequence[str], failure: StageFailure
    ) -> tuple[Tensors, Mask, Mask | None, str]:
        """Each row alone, after `failure` of all together; one row alone again only if it is in doubt.

        Returns: the outputs, which rows have them, which the model cannot take, and the error of the rest.
        """
        again_until_s = min(now_s() + self.budget_s, until_s)
        ends: list[Tensors | StageFailure] = [failure] * n
        for i in range(n if n > 1 or isinstance(failure, RowInDoubt) else 0):
            row = {name: a[i : i + 1] for name, a in inputs.items()}
            try:
                ends[i] = await self.ask(row, 1, again_until_s, principals[i : i + 1])
            except StageFailure as alone:
                ends[i] = alone
        unproven = await self._fault_of_model(ends, until_s)
        outputs, ok = stack([None if isinstance(end, StageFailure) else end for end in ends])
        ok = self._possible(outputs, ok)
        rejecting = InputRejected if unproven else (InputRejected, RowInDoubt)
        invalid = np.array([isinstance(end, rejecting) for end in ends])
        return outputs, ok, invalid if invalid.any() else None, unproven or str(failure)

    async def _fault_of_model(self, ends: Sequence[Tensors | StageFailure], until_s: float) -> str:
        """Why the model is at fault for the rows in doubt; empty if it answers its known row, or none is."""
        if self.faults is None or not any(isinstance(end, RowInDoubt) for end in ends):
            return ""
        try:
            await call_within(self.name, self._prove, self.faults, math.inf, until_s, ModelFailed)
        except StageFailure as failure:
            return str(failure)
        return ""

    @staticmethod
    async def _prove(faults: InputFaults) -> None:
        await faults.prove()


def _retrieve_exception(part: asyncio.Future[Tensors]) -> None:
    """Retrieves the exception of a call that is no longer awaited: asyncio warns of one that is not."""
    if not part.cancelled():
        part.exception()


def _fits(wanted: tuple[int | None, ...], got: tuple[int, ...]) -> bool:
    """Whether a shape is one of those wanted; None is any size."""
    return len(got) == len(wanted) and all(
        want in (None, size) for want, size in zip(wanted, got, strict=True)
    )
