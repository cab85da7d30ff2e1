"""What a first policy says, chosen from the models, a timed run, and rows where there are some."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fallbacks.onnx_indices import IndexUse
from fallbacks.predictor import ModelTensor
from fallbacks.roles import FEATURES, LABEL, LOGITS, LOWER, PROBABILITIES, UPPER, VALUE
from gateway.calibration.rows_needed import SURE_OF_PASSING, least_budget, rows_for_budget
from gateway.core.decision import Tensors
from gateway.scaffold.roles import Task
from guards.row_view import is_picture
from guards.selective import margins
from guards.table import MOST_TEXTS

BUDGETS = (0.02, 0.05, 0.1)
ERRORS = (0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
INTERVAL_ERROR = 0.1
DELTA = 0.05
GATED_MARGIN = 0.5
"""Standard deviations by which a promise should pass where a gate can still choose its cut."""
LEAST_BUDGET_S, SLACK = 0.05, 10.0
"""A model's time budget: at least so many seconds, and so many times what a full batch takes here."""


@dataclass(frozen=True, slots=True)
class DraftModel:
    """One rung. path or url: where its model is; names: role to the model's own name; error: of its check."""

    name: str
    names: Mapping[str, str]
    budget_s: float
    path: str = ""
    url: str = ""
    server_model: str = ""
    error: float = 0.05
    row_by_row: bool = False

    @property
    def outputs(self) -> set[str]:
        """The roles that its answers have; probabilities follow from logits."""
        roles = set(self.names)
        return roles | {PROBABILITIES} if LOGITS in roles else roles


@dataclass(frozen=True, slots=True)
class DraftInput:
    """One input. low, high: of pictures and of indices; shape: sizes of open axes; missing: NaN is data."""

    spec: ModelTensor
    low: float | None = None
    high: float | None = None
    shape: tuple[int, ...] | None = None
    missing: bool = False


@dataclass(frozen=True, slots=True)
class Draft:
    """All that the policy's text is made from. rows: how many a calibration file has, 0 without one."""

    name: str
    task: Task
    models: tuple[DraftModel, ...]
    inputs: tuple[DraftInput, ...]
    exposed: tuple[str, ...]
    labels: tuple[str, ...] = ()
    rows: int = 0
    measured_error: float | None = None
    mean_error: tuple[float, float] | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def false_alarm_budget(self) -> float:
        """The smallest usual budget that the rows can certify; 2 % without rows."""
        if not self.rows:
            return BUDGETS[0]
        fitting = [a for a in BUDGETS if self.rows >= rows_for_budget(a, DELTA)]
        return fitting[0] if fitting else min(0.5, least_budget(max(1, self.rows * 4 // 15), DELTA))

    @property
    def detectors(self) -> list[str]:
        """Those of guard `ood` that the first model can feed."""
        has = self.models[0].outputs
        found = [
            *(["gen"] if LOGITS in has else []),
            *(["rmd", "residual", "knn"] if FEATURES in has else []),
        ]
        raw = ["raw"] if any(map(_readable, self.inputs)) else []
        return [*found, *raw] if self.task == "classification" else raw

    @property
    def picture(self) -> DraftInput | None:
        """The input that is a picture."""
        return next((one for one in self.inputs if is_picture(one.spec)), None)

    @property
    def squeezes(self) -> bool:
        """Whether the model can feed guard `squeeze`."""
        picture = self.picture
        fed = {PROBABILITIES, FEATURES} <= self.models[0].outputs
        return fed and picture is not None and (picture.low, picture.high) == (0.0, 1.0)

    def checked(self, model: DraftModel) -> bool:
        """Whether a check can judge a model's answers."""
        needed = {"classification": PROBABILITIES, "regression": VALUE}.get(self.task)
        return needed is not None and needed in model.outputs


def _readable(one: DraftInput) -> bool:
    """Whether detector `raw` reads an input; an axis that is open counts as one value."""
    sizes = one.spec.shape[1:] if one.shape is None else one.shape
    width = math.prod(1 if size is None else size for size in sizes)
    return width > 0 and (one.spec.dtype.kind != "O" or width <= MOST_TEXTS)


def exposed_outputs(task: Task, models: Sequence[DraftModel], own: Sequence[str]) -> tuple[str, ...]:
    """The outputs that callers see: the answers that every model gives. own: of the first model."""
    if task == "opaque":
        return tuple(own)
    if task == "regression":
        return (VALUE, LOWER, UPPER)
    shared = set.intersection(*(model.outputs for model in models))
    return tuple(role for role in (PROBABILITIES, LABEL) if role in shared)


def error_to_promise(wrong: float, tests: int, *, checked: bool) -> float:
    """The smallest usual error that so many rows should certify of a model that errs in the share `wrong`.

    checked: a confidence gate may reject the answers that are least sure, and so needs less of a margin.
    """
    accepted, errors = np.array(tests), np.array(round(wrong * tests))
    enough = GATED_MARGIN if checked else SURE_OF_PASSING
    return next((r for r in ERRORS if margins(accepted, errors, r, DELTA, 1.0) >= enough), ERRORS[-1])


def mean_to_promise(errors: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, float]:
    """(mean, clip) that rows with these absolute errors should certify, rounded up to two digits."""
    clip = two_digits(float(np.quantile(errors, 0.995)) or 1.0)
    mean = two_digits(1.4 * float(np.minimum(errors, clip).mean()))
    return (mean, clip) if clip > mean > 0 else (max(mean, 1e-9), 2 * max(mean, clip, 1e-9))


def two_digits(number: float) -> float:
    """A positive number, rounded up to two significant digits."""
    if not number > 0:
        return number
    unit = 10.0 ** (math.floor(math.log10(number)) - 1)
    return float(f"{math.ceil(number / unit - 1e-9) * unit:.2g}")


def budget_s(batch_s: float) -> float:
    """The time budget of a model that takes so long for a full batch."""
    return max(LEAST_BUDGET_S, two_digits(SLACK * batch_s))


def draft_inputs(
    specs: Sequence[ModelTensor],
    rows: Tensors | None,
    index_uses: Mapping[str, IndexUse] = MappingProxyType({}),
) -> tuple[DraftInput, ...]:
    """The inputs, with what the rows say of open axes, missing values and pictures, and tables of indices."""
    found = []
    for spec in specs:
        array = None if rows is None else rows[spec.name]
        drafted, use = _draft_input(spec, array), index_uses.get(spec.name)
        found.append(drafted if use is None else _with_range(drafted, use, array))
    return tuple(found)


def _with_range(drafted: DraftInput, use: IndexUse, array: NDArray[Any] | None) -> DraftInput:
    """The input with the range of the table that it indexes, unless there is none or the rows leave it."""
    if use.low is None or use.high is None:
        return drafted
    if array is not None and array.size and not (use.low <= array.min() and array.max() <= use.high):
        return drafted  # a negative index counts from the end
    return replace(drafted, low=use.low, high=use.high)


def _draft_input(
    spec: ModelTensor, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]] | None
) -> DraftInput:
    if array is None:
        return DraftInput(spec)
    low = high = None
    if is_picture(spec) and spec.dtype.kind == "f":
        least, most = float(array.min()), float(array.max())
        low, high = (0.0, 1.0) if least >= 0 and most <= 1 else (None, None)
    shape = tuple(array.shape[1:]) if None in spec.shape[1:] else None
    missing = spec.dtype.kind == "f" and bool(np.isnan(array).any())
    return DraftInput(spec, low, high, shape, missing)
