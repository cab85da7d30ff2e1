"""How much of an answer a caller may see: a tier changes values only, never name, shape, dtype or argmax.

What is withheld is what extraction, inversion and membership attacks feed on. Each row's scores stand on
the last axis. Only floating outputs change, and of those with one value a row only by rounding: there
is no smaller answer in them. What is shown of an output that travels as BF16 is what BF16 can hold.

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
    """Everything."""


@dataclass(frozen=True, slots=True)
class Rounded:
    """So many digits after the point."""

    digits: int

    def __post_init__(self) -> None:
        if not 0 <= self.digits <= 15:
            raise ValueError(f"digits must be 0 to 15, not {self.digits}")


@dataclass(frozen=True, slots=True)
class Top:
    """The k largest."""

    k: int

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k must be at least 1, not {self.k}")


@dataclass(frozen=True, slots=True)
class Label:
    """Which is the largest."""


Tier: TypeAlias = Full | Rounded | Top | Label


def disclose(outputs: Tensors, tier: Tier, bf16: Set[str] = frozenset()) -> Tensors:
    """The outputs as a tier shows them. Each row's result depends on that row alone.

    Args:    outputs: finite values, as every answer that leaves the pipeline has.
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
            shown = _rounded(scores, tier.digits, bf16)
        case Top() | Label() if scores.shape[1] == 1:
            return array
        case Top():
            shown = _top(scores, tier.k, LOWEST_BF16 if bf16 else float(np.finfo(scores.dtype).min))
        case Label():
            shown = np.zeros_like(scores)
            shown[np.arange(len(scores)), scores.argmax(axis=1)] = 1
        case _:
            assert_never(tier)
    return shown.reshape(array.shape)


def _rounded(scores: Floats, digits: int, bf16: bool) -> Floats:
    """Rounded in float64, where a step of the last digit is exact; what is larger has no such digit."""
    scale = 10.0**digits
    exact = scores.astype(np.float64)
    has_digit = np.abs(exact) < 2.0**52 / scale
    steps = np.rint(np.where(has_digit, exact, 0.0) * scale) + 0.0  # no -0.0
    shown = _held(np.where(has_digit, steps / scale, exact), scores, bf16)
    rows, best = np.arange(len(scores)), scores.argmax(axis=1)
    tied = shown.argmax(axis=1) != best
    if tied.any():
        at = rows[tied], best[tied]
        shown[at] = _held((steps[at] + 1) / scale, scores, bf16)
    return shown


def _held(exact: NDArray[np.float64], like: Floats, bf16: bool) -> Floats:
    """Values as the output's own datatype holds them."""
    held = exact.astype(like.dtype)
    return nearest_bf16(held) if bf16 else held


def _top(scores: Floats, k: int, lowest: float) -> Floats:
    last = scores.shape[1] - 1
    order = last - np.argsort(scores[:, ::-1], axis=1, kind="stable")[:, ::-1]  # the first of equals first
    rows, kept = np.arange(len(scores))[:, None], order[:, :k]
    rest = np.where(scores[rows, kept[:, :1]] > 0, 0, lowest)
    shown = np.empty_like(scores)
    shown[:] = rest
    shown[rows, kept] = scores[rows, kept]
    return shown
