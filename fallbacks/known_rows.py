"""Rows that a model is known to answer, and how: they tell its faults from those of a caller's row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fallbacks.predictor import Tensors

RTOL: Final = 1e-3
ATOL: Final = 1e-4
"""How far an answer may be from the known one: another order of summation changes less."""


class WrongAnswer(Exception):
    """The model answers the known rows otherwise than it is known to."""


@dataclass(frozen=True, slots=True, eq=False)
class KnownRows:
    """Rows that the model is known to answer, by input, and the seconds within which it must.

    answers: its outputs for them, by name; None if any answer will do.
    """

    inputs: Tensors
    budget_s: float
    answers: Tensors | None = None

    def are_answered_by(self, outputs: Tensors) -> bool:
        """Whether these are the answers, up to what another order of summation changes."""
        return self.answers is None or all(
            name in outputs and _alike(outputs[name], known) for name, known in self.answers.items()
        )


def _alike(one: NDArray[Any], known: NDArray[Any]) -> bool:
    if one.dtype != known.dtype or one.shape != known.shape:
        return False
    if known.dtype.kind != "f":
        return bool((one == known).all())
    return bool(np.allclose(one, known, rtol=RTOL, atol=ATOL))
