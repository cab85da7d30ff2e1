"""`kind: interval`: is this number's prediction interval narrow enough? (`guards/interval.py`)

The check gives every answer of its rung the outputs `lower` and `upper`. An answer is wrong where the true
value lies outside them, so that a certified share of wrong answers is a certified coverage of the intervals.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Discriminator, Field, Tag

from fallbacks.predictor import ModelTensor
from fallbacks.roles import LOWER, UPPER, VALUE
from gateway.core.batch import Answered
from gateway.core.decision import Reason, Tensors
from gateway.core.rows import F8
from gateway.core.stage import Guard
from gateway.policy.fields import CheckVerdict, Name, Seconds, Share, Strict
from gateway.policy.kinds.kind import FieldProblem
from gateway.policy.kinds.rows import CalibrationRows
from guards import arrays
from guards.arrays import Arrays
from guards.interval import Interval, planned_miscoverage
from guards.row_view import TABLE
from guards.selective import NEVER
from guards.width_limit import within_width


class RelativeWidth(Strict):
    """A width as a share of the answer."""

    relative: Annotated[float, Field(gt=0)]
    """The width over the absolute value: 0.3 takes 100 with an interval from 90 to 120."""


def _width_arm(value: Any) -> str:
    """The arm of `MaxWidth` that a value of the file, or a validated one, belongs to."""
    return "relative" if isinstance(value, (dict, RelativeWidth)) else "absolute"


MaxWidth: TypeAlias = Annotated[
    Annotated[Annotated[float, Field(gt=0)], Tag("absolute")] | Annotated[RelativeWidth, Tag("relative")],
    Discriminator(_width_arm),
]


class IntervalPolicy(Strict):
    """Is this number sure enough? Gives it an interval that misses the truth in at most `selective_error`."""

    reason: ClassVar[Reason] = Reason.ABSTAINED
    objection: ClassVar[str] = "not sure enough of the number"
    unbound: ClassVar[frozenset[str]] = frozenset({"budget_s", "on_error"})
    task: ClassVar[str] = "regression"
    most: ClassVar[float] = NEVER
    example: ClassVar[str] = (
        "{name: width, kind: interval, selective_error: 0.1, max_width: {relative: 0.5}, budget_s: 0.01,"
        " on_error: degrade}"
    )

    name: Name
    """The check's name in metrics and audit log. Unique among guards, rungs and checks."""
    kind: Literal["interval"]
    """Selects this check."""
    selective_error: Share
    """The share of this rung's answers whose interval may miss the true value: 0.1 for intervals of 90 %.
    `gateway calibrate` makes the intervals, and certifies it."""
    max_width: MaxWidth | None = None
    """The widest interval that may leave: `5000` in the unit of `value`, or `{relative: 0.3}` of its absolute
    value. An answer with a wider one goes on to the next rung. Without it an interval may be as wide as is
    certified: about as the widest of the calibration rows."""
    budget_s: Seconds
    """Seconds that the check may take for one batch. At the limit `on_error` applies."""
    on_error: CheckVerdict
    """What an answer gets when the check raises, exceeds its budget or returns no number: `allow` lets it
    leave, `degrade` asks the next rung. Required, never inferred."""
    enforce: bool = True
    """Whether its verdicts act. `false`: answers that it would stop leave all the same."""

    def unreadable(self, outputs: Sequence[ModelTensor]) -> Iterable[FieldProblem]:
        if what := lacks_value(outputs):
            yield (), what

    def suspicion(self, answer: Tensors) -> F8:
        lower, upper = one_a_row(answer[LOWER]), one_a_row(answer[UPPER])
        width = upper - lower
        match self.max_width:
            case None:
                return width
            case RelativeWidth(relative=most):
                size = np.abs(one_a_row(answer[VALUE]))
                with np.errstate(divide="ignore", invalid="ignore"):
                    relative = np.where(width > 0, width / size, 0.0)
                return np.where(relative <= most, relative, NEVER)
            case most:
                return np.where(width <= most, width, NEVER)

    def guard(self) -> Guard[Answered]:
        return Width(self)

    def fit(
        self, rung: str, fit: CalibrationRows, pilot: CalibrationRows, delta: float, tests: int
    ) -> FittedInterval:
        """Intervals of a rung's answers. tests: how many rows will certify them; delta: at which level.

        Raises:  ValueError naming the problem of the rows.
        """
        miscoverage = planned_miscoverage(self.selective_error, delta, len(pilot), tests)
        rows = _part(pilot, rung)
        found = Interval.fit(*_part(fit, rung), *rows, miscoverage=miscoverage, seed=0)
        if self.max_width is not None:
            found = within_width(found, *rows, self._widest(rows[1]), self.selective_error, delta, tests)
        return FittedInterval(rung, found)

    def _widest(self, value: F8) -> F8:
        """float64[n]: the widest interval with which each answer may leave."""
        match self.max_width:
            case RelativeWidth(relative=most):
                return most * np.abs(value)
            case most:
                return np.full(len(value), np.inf if most is None else most)

    def load(self, rung: str, packed: Arrays) -> FittedInterval:
        """Reads what `FittedInterval.pack` returned. Raises ValueError naming the key that is wrong."""
        return FittedInterval(rung, arrays.unpack(Interval, _key(rung), packed))


@dataclass(frozen=True, slots=True)
class Width:
    """The check that serves."""

    policy: IntervalPolicy

    async def score(self, rows: Answered) -> F8:
        """float64[n], the widths; NEVER beyond `max_width`."""
        return self.policy.suspicion(rows.outputs)


@dataclass(frozen=True, slots=True, eq=False)
class FittedInterval:
    """The intervals of one rung: in `guards.npz` under the rung's name."""

    rung: str
    interval: Interval

    def pack(self) -> Arrays:
        return arrays.pack(_key(self.rung), self.interval)

    def with_bounds(self, t: NDArray[np.float32] | None, answer: Tensors) -> Tensors:
        """The answer with `lower` and `upper`, of the datatype and shape of `value`.

        Bounds are rounded outwards to the datatype, and end at its largest number. t: float32[n, f], the
        table of the rows.
        """
        value = answer[VALUE]
        own = [one_a_row(answer[name]) if name in answer else None for name in (LOWER, UPPER)]
        lower, upper = self.interval.bounds(t, one_a_row(value), *own)
        found = {LOWER: _outwards(lower, value, -np.inf), UPPER: _outwards(upper, value, np.inf)}
        return {**answer, **found}


def lacks_value(outputs: Sequence[ModelTensor]) -> str:
    """Why the errors of a model's `value` cannot be measured; empty if they can."""
    value = next((spec for spec in outputs if spec.name == VALUE), None)
    if value is None:
        named = ", ".join(spec.name for spec in outputs)
        return f"reads {VALUE!r}, one float a row, and the model has {named}; map its name (names)"
    if value.dtype.kind != "f" or any(size != 1 for size in value.shape[1:]):
        sizes = ", ".join("?" if size is None else str(size) for size in value.shape[1:])
        return f"reads {VALUE!r} as one float a row, and the model's is {value.dtype}[n, {sizes}]"
    return ""


def one_a_row(output: NDArray[Any]) -> F8:
    """float64[n] of an output [n], [n, 1]..."""
    return np.asarray(output, np.float64).reshape(len(output))


def _outwards(bound: F8, like: NDArray[Any], away: float) -> NDArray[Any]:
    most = np.finfo(like.dtype)
    bound = np.clip(bound, float(most.min), float(most.max))
    rounded = bound.astype(like.dtype)
    inside = rounded > bound if away < 0 else rounded < bound
    with np.errstate(over="ignore"):  # beyond the largest number, which is not inside
        further = np.nextafter(rounded, like.dtype.type(away))
    return np.where(inside, further, rounded).reshape(like.shape)


def _part(rows: CalibrationRows, rung: str) -> tuple[Any, F8, F8, F8 | None, F8 | None]:
    """What `Interval.fit` takes of one fold: table, value, truth, lower, upper."""
    answer, truth = rows.answers[rung], rows.truth
    assert truth is not None, "task: regression has true values"
    lower, upper = (one_a_row(answer[name]) if name in answer else None for name in (LOWER, UPPER))
    return rows.view.arrays(rows.x).get(TABLE), one_a_row(answer[VALUE]), truth, lower, upper


def _key(rung: str) -> str:
    return f"{rung}.interval"
