"""Rows as columns, and one forward pass a model.

A `Batch` is n rows of any number of requests. A model's forward pass over it is computed at most once,
remembered, and shared by the guards that read its features and by the rung that returns its output. A
failed pass is remembered too: nobody asks a broken model twice for the same rows.

One bad row never fails its neighbours: a pass that fails at n > 1 is tried again row by row, and a NaN
fails its own row alone. A pass that ran out of time is not tried again.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import time
import types
from collections.abc import Callable, Coroutine, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from gateway.core.decision import Tensors
from gateway.core.errors import BudgetExceeded, ModelFailed, StageFailure

F8: TypeAlias = NDArray[np.float64]
RowIndices: TypeAlias = NDArray[np.intp]
Mask: TypeAlias = NDArray[np.bool_]
_Begun: TypeAlias = "tuple[Coroutine[Any, Any, Forward], Any]"
A = TypeVar("A")
T = TypeVar("T")


def now_s() -> float:
    """The one clock that decides anything: the running loop's, so that tests can run on a fake one.

    It may be as coarse as a millisecond (uvloop's is), so times that are only told are measured apart.
    """
    return asyncio.get_running_loop().time()


_UNTIL_S: contextvars.ContextVar[float] = contextvars.ContextVar("until_s", default=math.inf)


def call_deadline(budget_s: float) -> tuple[float, bool]:
    """The loop time by which the model that is asked now must answer, for `predict` before it waits.

    And whether that is because somebody is in a hurry: sooner than the budget that the model has.
    Only the deadline is noted beforehand: few models ask, and a look at the clock costs more than the note.
    """
    own_s, until_s = now_s() + budget_s, _UNTIL_S.get()
    return min(own_s, until_s), until_s < own_s


async def bounded(
    name: str,
    call: Callable[[A], Coroutine[Any, Any, T]],
    given: A,
    budget_s: float,
    until_s: float,
    failure: type[StageFailure],
) -> T:
    """Awaits a part for `budget_s`, `until_s` at the latest: the one place where failures become values.

    Most parts answer without waiting for anything, and a timer costs more than many a part: it is set only
    once the part waits. Before that it could not fire anyway.

    Raises BudgetExceeded when the time is up, `failure` for whatever else the part raises, and
    CancelledError only if somebody cancelled *us*: a part that raises it of its own accord has failed.
    """
    start_s = asyncio.get_running_loop().time()
    try:
        part = call(given)
        try:
            waits_for = part.send(None)
        except StopIteration as answer:
            return answer.value  # type: ignore[no-any-return]
        async with asyncio.timeout_at(min(start_s + budget_s, until_s)):
            return await _go_on(part, waits_for)
    except TimeoutError as error:
        raise BudgetExceeded(f"{name}: no answer in {now_s() - start_s:.3f} s") from error
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise failure(f"{name}: cancelled itself") from None
    except Exception as error:
        raise failure(f"{name}: {type(error).__name__}: {error}") from error


@types.coroutine
def _go_on(part: Coroutine[Any, Any, T], waits_for: Any) -> Generator[Any, Any, T]:
    """What is left of a coroutine that has begun, and now waits for something."""
    while True:
        try:
            try:
                came = yield waits_for
            except BaseException as error:  # noqa: BLE001 - the part's to handle, cancellation too
                waits_for = part.throw(error)
            else:
                waits_for = part.send(came)
        except StopIteration as answer:
            return answer.value  # type: ignore[no-any-return]


class Measure(Protocol):
    """A pure function of some rows' arrays, told apart by identity."""

    def run(self, given: Mapping[str, NDArray[Any]], /) -> NDArray[Any]: ...


class Predictor(Protocol):
    async def predict(self, inputs: Tensors, /) -> Tensors: ...


class Row(Mapping[str, NDArray[Any]]):
    """One row of named arrays, cut out only where somebody looks: arrays with a first axis of one."""

    __slots__ = ("_at", "_tensors")

    def __init__(self, tensors: Tensors, at: int) -> None:
        self._tensors = tensors
        self._at = at

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._tensors[name][self._at : self._at + 1]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


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
        _UNTIL_S.set(until_s)
        if until_s < now_s() + self.budget_s:
            outputs = await self._ask_shielded(inputs, until_s)
        else:
            outputs = await bounded(
                self.name, self.predictor.predict, inputs, self.budget_s, until_s, ModelFailed
            )
        self._hold_to_contract(outputs, n)
        return outputs

    async def _ask_shielded(self, inputs: Tensors, until_s: float) -> Tensors:
        """Waits until `until_s`, and lets the model go on within its own budget.

        A caller who gives it too little time must not stop it, and so must not make it fail: a few of them
        would open its circuit for everybody.
        """
        if until_s <= now_s():
            raise BudgetExceeded(f"{self.name}: not asked, no time is left")
        part = asyncio.ensure_future(
            bounded(self.name, self.predictor.predict, inputs, self.budget_s, math.inf, ModelFailed)
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
    """Looks at how a part ended for which nobody waits any more, or asyncio would complain of it."""
    if not part.cancelled():
        part.exception()


def _fits(wanted: tuple[int | None, ...], got: tuple[int, ...]) -> bool:
    """Whether a shape is one of those wanted; None is any size."""
    return len(got) == len(wanted) and all(
        want in (None, size) for want, size in zip(wanted, got, strict=True)
    )


@lru_cache(maxsize=256)
def row_indices(n: int) -> RowIndices:
    """0 to n - 1, read-only and made once."""
    rows = np.arange(n)
    rows.flags.writeable = False
    return rows


@lru_cache(maxsize=256)
def all_true(n: int) -> Mask:
    """n times true, read-only and made once."""
    mask = np.ones(n, bool)
    mask.flags.writeable = False
    return mask


def finite(outputs: Tensors, n: int) -> Mask:
    """bool[n]: rows in which every floating output is finite. NaN is an error, never a number."""
    ok = all_true(n)
    for array in outputs.values():
        if array.dtype.kind == "f" and not np.logical_and.reduce(np.isfinite(array), axis=None):
            ok = ok & np.isfinite(array.reshape(n, -1)).all(axis=1)
    return ok


def stack(answers: Sequence[Tensors | None]) -> tuple[Tensors, Mask]:
    """Single-row answers as one, missing rows filled with zeros; a row that disagrees in form is missing."""
    template = next((a for a in answers if a is not None), None)
    if template is None:
        return {}, np.zeros(len(answers), bool)
    form = {name: (a.dtype, a.shape) for name, a in template.items()}
    ok = np.array([a is not None and {k: (v.dtype, v.shape) for k, v in a.items()} == form for a in answers])
    blank = {name: np.zeros_like(a) for name, a in template.items()}
    rows = [a if a is not None and good else blank for a, good in zip(answers, ok, strict=True)]
    outputs = {name: np.concatenate([row[name] for row in rows]) for name in form}
    return outputs, ok & finite(outputs, len(answers))


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """n rows: `inputs` by name with n rows each, one id, principal and deadline (loop seconds) a row.

    `models` is what `forward` may ask; the pipeline sets it. Slices (`take`) share what was computed.
    """

    ids: tuple[str, ...]
    principals: tuple[str, ...]
    inputs: Tensors
    deadlines_s: tuple[float, ...]
    models: Mapping[str, Model] = field(default_factory=dict)
    _memo: dict[str, Forward] = field(default_factory=dict)
    _measured: dict[Measure, NDArray[Any]] = field(default_factory=dict)
    _begun: dict[str, _Begun] = field(default_factory=dict)
    until_s: float = field(init=False)
    """When the last of these rows stops waiting."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "until_s", max(self.deadlines_s, default=-math.inf))

    def __len__(self) -> int:
        return len(self.ids)

    def asking(self, models: Mapping[str, Model]) -> Batch:
        """These rows with the models that `run` may ask, and nothing computed yet."""
        return Batch(self.ids, self.principals, self.inputs, self.deadlines_s, models)

    def take(self, rows: RowIndices) -> Batch:
        """The given rows, in the given order, with what was already computed for them."""
        return Batch(
            ids=tuple(self.ids[i] for i in rows),
            principals=tuple(self.principals[i] for i in rows),
            inputs={name: a[rows] for name, a in self.inputs.items()},
            deadlines_s=tuple(self.deadlines_s[i] for i in rows),
            models=self.models,
            _memo={name: f.take(rows) for name, f in self._memo.items()},
            _measured={measure: found[rows] for measure, found in self._measured.items()},
        )

    def begin(self, model: str) -> None:
        """Sets the model's pass to work without waiting for it; `run`, which must follow, waits."""
        if model in self._memo or model in self._begun:
            return
        part = self.models[model].forward(self.inputs, len(self.ids), self.until_s)
        try:
            self._begun[model] = part, part.send(None)
        except StopIteration as answer:
            self._memo[model] = answer.value

    async def run(self, model: str) -> Forward:
        """The model's pass over these rows, computed once; total."""
        self.begin(model)
        if model in self._begun:
            self._memo[model] = await _go_on(*self._begun.pop(model))
        return self._memo[model]

    def known(self, model: str) -> Forward | None:
        """The model's pass over these rows, if somebody has asked for it."""
        return self._memo.get(model)

    async def forward(self, model: str, /) -> Tensors:
        """What guards read: the model's outputs for every row. Raises ModelFailed if any row has none."""
        answer = self._memo.get(model) or await self.run(model)
        if not answer.whole:
            raise ModelFailed(answer.error or f"{model}: no answer")
        return answer.outputs

    def once(self, measure: Measure, given: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """What a measure gives for these rows, a number or more a row, computed once. Raises as it does."""
        found = self._measured.get(measure)
        if found is None:
            found = self._measured[measure] = measure.run(given)
        return found

    def measured(self, measure: Measure) -> NDArray[Any] | None:
        """What `once` gave for these rows, if somebody has asked for it."""
        return self._measured.get(measure)

    async def predict(self, model: str, inputs: Tensors, /) -> Tensors:
        """What guards read for other inputs, any number of rows: one more bounded pass. May raise."""
        n = len(next(iter(inputs.values())))
        outputs = await self.models[model].ask(inputs, n, self.until_s)
        if not finite(outputs, n).all():
            raise ModelFailed(f"{model}: returned a number that is not finite")
        return outputs


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """n rows together with the outputs that one rung gave for them: what checks judge."""

    ids: tuple[str, ...]
    inputs: Tensors
    outputs: Tensors

    @classmethod
    def of(cls, batch: Batch, answer: Forward) -> Answered:
        return cls(batch.ids, batch.inputs, answer.outputs)

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: RowIndices) -> Answered:
        return Answered(
            tuple(self.ids[i] for i in rows),
            {name: a[rows] for name, a in self.inputs.items()},
            {name: a[rows] for name, a in self.outputs.items()},
        )
