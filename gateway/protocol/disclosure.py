"""How much of an answer a caller may see: a tier changes values only, never name, shape, dtype or argmax.

Exact scores are what extraction, inversion and membership attacks need. Each row's scores are on the last
axis. Only floating-point outputs change; one with a single value a row is only rounded, since it has no
scores to leave out. Values of an output that travels as BF16 are those that BF16 can represent.

    Full()       bit-identical, the same arrays
    Rounded(2)   two digits; where rounding ties the largest with one before it, it goes one step up
    Top(3)       the three largest, the rest 0 (the type's minimum if 0 would not be smaller)
    Label()      1 at the largest, 0 elsewhere
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import Any, TypeAlias, assert_never

import numpy as np
from numpy.typing import NDArray

from gateway.core.decision import Tensors
from gateway.protocol.tensors import LOWEST_BF16, nearest_bf16

Floats: TypeAlias = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Full:
    """All values, unchanged."""


@dataclass(frozen=True, slots=True)
class Rounded:
    """Values with `digits` decimals, 0 to 15."""

    digits: int

    def __post_init__(self) -> None:
        if not 0 <= self.digits <= 15:
            raise ValueError(f"digits must be 0 to 15, not {self.digits}")


@dataclass(frozen=True, slots=True)
class Top:
    """The k largest values of each row, k at least 1."""

    k: int

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k must be at least 1, not {self.k}")


@dataclass(frozen=True, slots=True)
class Label:
    """Which value of each row is the largest."""


Tier: TypeAlias = Full | Rounded | Top | Label


def disclose(outputs: Tensors, tier: Tier, bf16: Set[str] = frozenset()) -> Tensors:
    """The outputs as a tier discloses them. Each row's result depends on that row alone.

    Args:    outputs: finite values, as every answer of the pipeline has.
             bf16: the names of those that travel as BF16.
    """
    if isinstance(tier, Full):
        return outputs
    return {
        name: _disclosed(a, tier, name in bf16) if a.dtype.kind == "f" else a for name, a in outputs.items()
    }


def _disclosed(array: Floats, tier: Rounded | Top | Label, bf16: bool) -> Floats:
    if not array.size:
        return array
    scores = array.reshape(-1, array.shape[-1] if array.ndim > 1 else 1)
    match tier:
        case Rounded():
            disclosed = _rounded(scores, tier.digits, bf16)
        case Top() | Label() if scores.shape[1] == 1:
            return array
        case Top():
            disclosed = _top(scores, tier.k, LOWEST_BF16 if bf16 else float(np.finfo(scores.dtype).min))
        case Label():
            disclosed = np.zeros_like(scores)
            disclosed[np.arange(len(scores)), scores.argmax(axis=1)] = 1
        case _:
            assert_never(tier)
    return disclosed.reshape(array.shape)


def _rounded(scores: Floats, digits: int, bf16: bool) -> Floats:
    """Rounded in float64, where a step of the last digit is exact; larger values have no such digit."""
    scale = 10.0**digits
    exact = scores.astype(np.float64)
    has_digit = np.abs(exact) < 2.0**52 / scale
    steps = np.rint(np.where(has_digit, exact, 0.0) * scale) + 0.0  # no -0.0
    disclosed = _as_dtype(np.where(has_digit, steps / scale, exact), scores, bf16)
    rows, best = np.arange(len(scores)), scores.argmax(axis=1)
    tied = disclosed.argmax(axis=1) != best
    if tied.any():
        at = rows[tied], best[tied]
        disclosed[at] = _as_dtype((steps[at] + 1) / scale, scores, bf16)
    return disclosed


def _as_dtype(exact: NDArray[np.float64], like: Floats, bf16: bool) -> Floats:
    """Values rounded to the output's own datatype."""
    rounded = exact.astype(like.dtype)
    return nearest_bf16(rounded) if bf16 else rounded


def _top(scores: Floats, k: int, lowest: float) -> Floats:
    last = scores.shape[1] - 1
    order = last - np.argsort(scores[:, ::-1], axis=1, kind="stable")[:, ::-1]  # the first of equals first
    rows, kept = np.arange(len(scores))[:, None], order[:, :k]
    rest = np.where(scores[rows, kept[:, :1]] > 0, 0, lowest)
    disclosed = np.empty_like(scores)
    disclosed[:] = rest
    disclosed[rows, kept] = scores[rows, kept]
    return disclosed
