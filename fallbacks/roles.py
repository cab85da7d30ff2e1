"""Outputs that a model leaves out, made of those that it has: probabilities of logits, two classes of one.

Exporters end a classifier at its logits, or with one probability, that of the second class. Guards, checks
and callers read one form: `probabilities`, a column a class. The answer is converted once, where it arrives.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fallbacks.predictor import LoadedModel, ModelTensor, Tensors

Array: TypeAlias = NDArray[Any]

PROBABILITIES: Final = "probabilities"
LOGITS: Final = "logits"
LABEL: Final = "label"
FEATURES: Final = "features"
VALUE: Final = "value"
LOWER: Final = "lower"
UPPER: Final = "upper"
"""The roles of a model's outputs, which are their names in policies and on the wire."""
VALUE_TOLERANCE: Final = 1e-3
"""How far outside [0, 1] a probability may lie: a float16 near 1 has a step of 5e-4."""
SUM_TOLERANCE: Final = 1e-2
"""How far from 1 a row may sum: 1,000 float16 probabilities, each rounded, sum to within 6e-4 of 1."""


def with_roles(model: LoadedModel) -> LoadedModel:
    """A model whose `probabilities` have a column a class, where they can be made of what it returns.

    Logits alone give probabilities by softmax, one column of logits by the logistic function; one column of
    probabilities p becomes (1 - p, p). A model that needs none of this is returned itself.
    """
    outputs = {spec.name: spec for spec in model.outputs}
    if found := outputs.get(PROBABILITIES):
        return _converted(model, found, complement, 2) if _is_column(found) else model
    found = outputs.get(LOGITS)
    if found is None or found.dtype.kind != "f":
        return model
    if _is_column(found):
        return _converted(model, found, logistic, 2)
    return _converted(model, found, softmax, found.shape[1]) if len(found.shape) == 2 else model


def _converted(
    model: LoadedModel, source: ModelTensor, convert: Callable[[Array], Array], columns: int | None
) -> ConvertedModel:
    made = ModelTensor(PROBABILITIES, source.dtype, (source.shape[0], columns))
    outputs = {spec.name: spec for spec in model.outputs} | {PROBABILITIES: made}
    digest = hashlib.sha256(f"{model.digest} {convert.__name__} {source.name}".encode()).hexdigest()
    return ConvertedModel(model, source.name, convert, digest, tuple(outputs.values()))


@dataclass(frozen=True, slots=True)
class ConvertedModel:
    """A model with `probabilities` made of its output `source`; the rest is the model's own.

    `digest` depends on the formula too. `outputs` are the model's, `probabilities` in its place, or last.
    Cost:   2 to 6 us a call at one row, over the model's own.
    """

    model: LoadedModel
    source: str
    convert: Callable[[Array], Array]
    digest: str
    outputs: tuple[ModelTensor, ...]

    @property
    def lost(self) -> bool:
        return self.model.lost

    @property
    def inputs(self) -> tuple[ModelTensor, ...]:
        return self.model.inputs

    @property
    def classes(self) -> tuple[int | str, ...] | None:
        return self.model.classes

    async def predict(self, inputs: Tensors, /) -> Tensors:
        return self._with_probabilities(await self.model.predict(inputs))

    def run(self, inputs: Tensors, *, chunk: int = 256) -> Tensors:
        return self._with_probabilities(self.model.run(inputs, chunk=chunk))

    def close(self) -> None:
        self.model.close()

    async def closed(self) -> None:
        await self.model.closed()

    def _with_probabilities(self, answer: Tensors) -> Tensors:
        return {**answer, PROBABILITIES: self.convert(answer[self.source])}


def softmax(z: Array) -> Array:
    """Probabilities of logits. z: float[n, k]. Returns the same dtype; NaN where a row has NaN or +inf."""
    wide = z.astype(np.float32) if z.dtype == np.float16 else z  # float16 sums too coarsely
    with np.errstate(invalid="ignore"):
        odds = np.exp(wide - wide.max(axis=1, keepdims=True))
    p: Array = odds / odds.sum(axis=1, keepdims=True)
    return p.astype(z.dtype, copy=False)


def logistic(z: Array) -> Array:
    """Probabilities of two classes. z: float[n] or [n, 1], the log odds of the second. Same dtype, [n, 2]."""
    second = z.reshape(len(z), 1)
    return softmax(np.concatenate([np.zeros_like(second), second], axis=1))


def complement(p: Array) -> Array:
    """Probabilities of two classes. p: float[n] or [n, 1], that of the second. Same dtype, [n, 2]."""
    second = p.reshape(len(p), 1)
    return np.concatenate([1 - second, second], axis=1)


def not_distributions(p: Array) -> NDArray[np.bool_]:
    """Which rows are no probability distribution, by what no rounding explains.

    Args:    p: float[n, k], any float dtype; summed as float64.
    Returns: bool[n]: whether a value is NaN or outside [0, 1] by more than VALUE_TOLERANCE, or the row's sum
             differs from 1 by more than SUM_TOLERANCE.
    """
    wide = p.astype(np.float64)
    with np.errstate(invalid="ignore"):
        within = ((wide >= -VALUE_TOLERANCE) & (wide <= 1 + VALUE_TOLERANCE)).all(axis=1)
        sums = np.abs(wide.sum(axis=1) - 1) <= SUM_TOLERANCE
    flagged: NDArray[np.bool_] = ~(within & sums)
    return flagged


def _is_column(spec: ModelTensor) -> bool:
    return spec.dtype.kind == "f" and (len(spec.shape) == 1 or spec.shape[1:] == (1,))
