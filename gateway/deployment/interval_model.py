"""A regressor whose answers have prediction intervals: the model, and what was fitted to its errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from fallbacks.predictor import LoadedModel, ModelTensor
from fallbacks.roles import LOWER, UPPER, VALUE
from gateway.core.decision import Tensors
from gateway.policy.kinds.interval import FittedInterval, IntervalPolicy, lacks_value
from gateway.policy.kinds.kind import FieldProblem
from gateway.policy.schema import Policy, RungPolicy
from guards.row_view import RowView


def interval_check(rung: RungPolicy) -> IntervalPolicy | None:
    """The rung's check of intervals, if it has one."""
    return next((check for check in rung.checks if isinstance(check, IntervalPolicy)), None)


def declared_outputs(rung: RungPolicy, model: LoadedModel) -> tuple[ModelTensor, ...]:
    """The outputs of a rung: the model's, and the bounds that its check adds, of the form of `value`."""
    value = next((spec for spec in model.outputs if spec.name == VALUE), None)
    if interval_check(rung) is None or value is None:
        return model.outputs
    kept = tuple(spec for spec in model.outputs if spec.name not in (LOWER, UPPER))
    return (*kept, *(ModelTensor(name, value.dtype, value.shape, value.bf16) for name in (LOWER, UPPER)))


def without_value(policy: Policy, models: Mapping[str, LoadedModel]) -> Iterator[FieldProblem]:
    """The rungs without the number whose error `absolute_error` promises."""
    for i, rung in enumerate(policy.rungs):
        if policy.absolute_error is not None and (what := lacks_value(models[rung.name].outputs)):
            yield ("rungs", i, "model"), f"absolute_error {what}"


def with_intervals(
    policy: Policy, models: Mapping[str, LoadedModel], view: RowView, fitted: Mapping[str, FittedInterval]
) -> dict[str, LoadedModel]:
    """The models, those with fitted intervals wrapped."""
    return {
        rung.name: models[rung.name]
        if rung.name not in fitted
        else cast(
            LoadedModel,
            IntervalModel(
                models[rung.name], view, fitted[rung.name], declared_outputs(rung, models[rung.name])
            ),
        )
        for rung in policy.rungs
    }


@dataclass(frozen=True, slots=True, eq=False)
class IntervalModel:
    """A loaded model whose answers have `lower` and `upper`. Everything else is the model's own."""

    model: LoadedModel
    view: RowView
    fitted: FittedInterval
    outputs: tuple[ModelTensor, ...]

    @property
    def digest(self) -> str:
        return self.model.digest

    @property
    def inputs(self) -> tuple[ModelTensor, ...]:
        return self.model.inputs

    @property
    def classes(self) -> None:
        """A number has none."""

    @property
    def lost(self) -> bool:
        return self.model.lost

    async def predict(self, inputs: Tensors, /) -> Tensors:
        """The model's outputs and the bounds. Raises as the model. Cost: that of `Interval.bounds` more."""
        return self._bounded(inputs, await self.model.predict(inputs))

    def run(self, inputs: Tensors, *, chunk: int = 256) -> Tensors:
        """The same for a whole data set; blocks."""
        return self._bounded(inputs, self.model.run(inputs, chunk=chunk))

    def close(self) -> None:
        self.model.close()

    async def closed(self) -> None:
        await self.model.closed()

    def _bounded(self, inputs: Tensors, answer: Tensors) -> Tensors:
        table = self.view.table
        return self.fitted.with_bounds(None if table is None else table.read(inputs), answer)
