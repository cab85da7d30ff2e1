"""The role of each output of a model, guessed from its name, form, values and the true values of some rows.

A guess is written into the policy, where its author sees and corrects it; nothing is guessed when serving.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fallbacks.predictor import ModelTensor
from fallbacks.roles import FEATURES, LABEL, LOGITS, LOWER, PROBABILITIES, UPPER, VALUE, not_distributions
from gateway.core.decision import Tensors

Task: TypeAlias = Literal["classification", "regression", "opaque"]
MOST_CLASSES = 20_000
ROLES = (PROBABILITIES, LOGITS, LABEL, FEATURES, VALUE, LOWER, UPPER)
HINTS: Mapping[str, tuple[str, ...]] = {
    PROBABILITIES: ("prob", "softmax", "sigmoid"),
    LOGITS: ("logit",),
    FEATURES: ("feature", "embed", "hidden", "penultimate"),
    LOWER: ("lower", "quantile_low", "q05", "q10"),
    UPPER: ("upper", "quantile_high", "q95", "q90"),
}
"""What the names of outputs hold that have a role."""


@dataclass(frozen=True, slots=True)
class Guess:
    """task, and the model's output of each role: names[role] is the model's own name."""

    task: Task
    names: Mapping[str, str]


def guess_roles(
    outputs: Sequence[ModelTensor],
    classes: Sequence[int | str] | None,
    answer: Tensors | None,
    y: NDArray[Any] | None,
) -> Guess:
    """The task and the roles.

    Args:    outputs: as the model declares them; classes: those that its file names; answer: its outputs for
             a few rows; y: the true values of these or other rows. None: not known.
    """
    numbers = y is not None and y.dtype.kind == "f" and not (y == np.rint(y)).all()
    found: dict[str, str] = {}
    given = None if y is None else len(np.unique(y))

    def rank(spec: ModelTensor) -> tuple[bool, bool]:
        """A name that is a role goes first, then as many columns as the rows have classes."""
        return spec.name not in ROLES, spec.shape[1:] != (given,)

    for spec in sorted(outputs, key=rank):
        roles = list(_roles(spec, classes, answer, y, numbers=numbers))
        role = next((role for role in roles if role not in found), None)
        if role is not None:
            found[role] = spec.name
    if numbers or (VALUE in found and not {PROBABILITIES, LOGITS, LABEL} & set(found)):
        kept = {role: name for role, name in found.items() if role in (VALUE, LOWER, UPPER, FEATURES)}
        return Guess("regression", kept) if VALUE in kept else Guess("opaque", {})
    kept = {role: name for role, name in found.items() if role not in (VALUE, LOWER, UPPER)}
    if {PROBABILITIES, LOGITS, LABEL} & set(kept):
        return Guess("classification", kept)
    return Guess("opaque", {})


def _roles(
    spec: ModelTensor,
    classes: Sequence[int | str] | None,
    answer: Tensors | None,
    y: NDArray[Any] | None,
    *,
    numbers: bool,
) -> Iterator[str]:
    """The roles that an output may have, the likeliest first."""
    values = None if answer is None else answer.get(spec.name)
    shape = spec.shape if values is None else (None, *values.shape[1:])
    column = len(shape) <= 2 and shape[1:] in ((), (1,))
    if spec.name in ROLES and (column or spec.name not in (VALUE, LOWER, UPPER)):
        yield spec.name
    elif column:
        yield from _of_column(spec, values, y, numbers=numbers)
    elif len(shape) == 2 and spec.dtype.kind == "f":
        yield from _of_matrix(spec, shape[1], classes, values)


def _of_column(
    spec: ModelTensor, values: NDArray[Any] | None, y: NDArray[Any] | None, *, numbers: bool
) -> Iterator[str]:
    """One value a row: a label, a number, or the probability of the second of two classes."""
    if spec.dtype.kind in "iubO":
        yield LABEL
        return
    yield from (role for role in (LOWER, UPPER) if _hints(role, spec.name))
    two = y is not None and y.dtype.kind != "f" and len(np.unique(y)) == 2
    share = values is not None and bool(((values >= 0) & (values <= 1)).all())
    if not numbers and (_hints(PROBABILITIES, spec.name) or (two and share)):
        yield PROBABILITIES
    if not numbers and _hints(LOGITS, spec.name):
        yield LOGITS
    yield VALUE


def _of_matrix(
    spec: ModelTensor, k: int | None, classes: Sequence[int | str] | None, values: NDArray[Any] | None
) -> Iterator[str]:
    """Several values a row: probabilities, logits or features."""
    if _hints(FEATURES, spec.name) or (k is not None and k > MOST_CLASSES):
        yield FEATURES
        return
    if _hints(LOGITS, spec.name):
        yield LOGITS
        return
    known = classes is not None and k == len(classes)
    if values is not None and not not_distributions(values).any():
        yield PROBABILITIES
    elif (
        values is not None and not ((values >= 0) & (values <= 1)).all()
    ):  # shares of several labels are none
        yield LOGITS
    elif values is None and (known or _hints(PROBABILITIES, spec.name)):
        yield PROBABILITIES
    yield FEATURES


def _hints(role: str, name: str) -> bool:
    return any(hint in name.lower() for hint in HINTS[role])
