"""Rows as columns, and one forward pass a model.

A `Batch` is n rows of any number of requests. A model's forward pass over it is computed at most once,
kept, and shared by the guards that read its features and by the rung that returns its output. A failed pass
is kept too: a broken model is not called twice for the same rows.
"""

from __future__ import annotations

import math
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from numpy.typing import NDArray

from gateway.core.budget import Charges
from gateway.core.deadline import resume
from gateway.core.decision import Tensors
from gateway.core.errors import ModelFailed
from gateway.core.model import Forward, Model
from gateway.core.rows import RowIndices, finite

if TYPE_CHECKING:
    from gateway.core.pipeline import Pipeline

_StartedPass: TypeAlias = "tuple[Coroutine[Any, Any, Forward], Any]"


class Measure(Protocol):
    """A pure function of some rows' arrays; two are equal only if they are the same object."""

    def run(self, arrays: Mapping[str, NDArray[Any]], /) -> NDArray[Any]: ...


# Not frozen: that takes 50 ns for each field, and every request makes a batch.
@dataclass(slots=True, eq=False)
class Batch:
    """n rows: `inputs` by name with n rows each, one id, principal and deadline (loop seconds) a row.

    None of these is changed. models: those that `forward` may call, set by the pipeline; charges: each budget
    and its score of each row, added as the rows are admitted (`budget.py`); pipeline: which decides the rows,
    set before they are admitted. Slices (`take`) share what was computed.
    """

    ids: tuple[str, ...]
    principals: tuple[str, ...]
    inputs: Tensors
    deadlines_s: tuple[float, ...]
    models: Mapping[str, Model] = field(default_factory=dict)
    charges: Charges = field(default_factory=list)
    pipeline: Pipeline | None = None
    _memo: dict[str, Forward] = field(default_factory=dict)
    _measured: dict[object, NDArray[Any]] = field(default_factory=dict)
    _started: dict[str, _StartedPass] = field(default_factory=dict)
    until_s: float = field(init=False)
    """The latest of the rows' deadlines, in loop seconds."""

    def __post_init__(self) -> None:
        several = self.deadlines_s
        self.until_s = several[0] if len(several) == 1 else max(several, default=-math.inf)

    def __len__(self) -> int:
        return len(self.ids)

    def with_models(self, models: Mapping[str, Model]) -> Batch:
        """The same rows with the models that `run` may call, and nothing computed yet."""
        return Batch(self.ids, self.principals, self.inputs, self.deadlines_s, models, self.charges)

    def take(self, rows: RowIndices) -> Batch:
        """The given rows, in the given order, with what was already computed for them."""
        return Batch(
            ids=tuple(self.ids[i] for i in rows),
            principals=tuple(self.principals[i] for i in rows),
            inputs={name: a[rows] for name, a in self.inputs.items()},
            deadlines_s=tuple(self.deadlines_s[i] for i in rows),
            models=self.models,
            charges=[(stage, [scores[i] for i in rows]) for stage, scores in self.charges],
            pipeline=self.pipeline,
            _memo={name: f.take(rows) for name, f in self._memo.items()},
            _measured={measure: found[rows] for measure, found in self._measured.items()},
        )

    def start_pass(self, model: str) -> None:
        """Starts the model's pass without waiting for it; `run`, which must follow, waits."""
        if model in self._memo or model in self._started:
            return
        forward = self.models[model].forward(self.inputs, len(self.ids), self.until_s, self.principals)
        try:
            self._started[model] = forward, forward.send(None)
        except StopIteration as finished:
            self._memo[model] = finished.value

    async def run(self, model: str) -> Forward:
        """The model's pass over these rows, computed once. Never raises."""
        self.start_pass(model)
        if model in self._started:
            self._memo[model] = await resume(*self._started.pop(model))
        return self._memo[model]

    def known(self, model: str) -> Forward | None:
        """The model's pass over these rows, if it has been computed."""
        return self._memo.get(model)

    def budget_share(self, model: str) -> float:
        """How much of its budget the model's pass over these rows took; 0 if there was none."""
        answer = self._memo.get(model)
        return 0.0 if answer is None else answer.elapsed_s / self.models[model].budget_s

    async def forward(self, model: str, /) -> Tensors:
        """The model's outputs for every row, for guards. Raises ModelFailed if any row has none."""
        answer = self._memo.get(model) or await self.run(model)
        if not answer.all_ok:
            raise ModelFailed(answer.error or f"{model}: no answer")
        return answer.outputs

    def measure(self, measure: Measure, arrays: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """The measure of these rows, one number or more a row, computed once. Raises what it raises."""
        found = self._measured.get(measure)
        if found is None:
            found = self._measured[measure] = measure.run(arrays)
        return found

    def measured(self, measure: object) -> NDArray[Any] | None:
        """The measure of these rows, or what was kept of them under this key, if there is any."""
        return self._measured.get(measure)

    def keep(self, key: object, found: NDArray[Any]) -> None:
        """Keeps what a guard found of these rows for a later step. found: one entry a row."""
        self._measured[key] = found

    async def predict(self, model: str, inputs: Tensors, /) -> Tensors:
        """The outputs for other inputs, any number of rows: one more bounded pass. Raises StageFailure."""
        n = len(next(iter(inputs.values())))
        outputs = await self.models[model].ask(inputs, n, self.until_s, self.principals)
        if not finite(outputs, n).all():
            raise ModelFailed(f"{model}: returned a number that is not finite")
        return outputs


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """n rows with the outputs of one rung for them: the input of checks."""

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
