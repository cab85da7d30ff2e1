"""Confidence: one minus the largest predicted probability, as a check of one model's answer.

Does not detect confident errors. Limits and the certified cut: docs/guards.md, sections 7 and 8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guards.rows import F8, AnsweredBatch


def uncertainty(p: NDArray[Any]) -> F8:
    """One minus the largest probability.

    Args:    p: float[n, k], rows that sum to one.
    Returns: float64[n] in [0, 1 - 1/k]; NaN for a row that holds NaN.
    Raises:  ValueError for another rank or no classes.
    Cost:    O(n k): about 4 us at n=1.
    Source:  Hendrycks and Gimpel, ICLR 2017; as a selective classifier: Geifman and El-Yaniv, NeurIPS 2017.
    """
    if p.ndim != 2 or p.shape[1] < 1:
        raise ValueError(
            f"confidence: probabilities have shape {list(p.shape)}, expected [n, k]; check the output"
        )
    return np.asarray(1.0 - p.max(1).astype(np.float64), np.float64)


@dataclass(frozen=True, slots=True)
class Confidence:
    """The check. output: the name of the model output that holds float[n, k] probabilities."""

    output: str = "probabilities"

    async def score(self, batch: AnsweredBatch) -> F8:
        """One minus the largest probability of each row.

        Returns: float64[n] in [0, 1 - 1/k].
        Raises:  ValueError if the output is absent, of another rank, or has another number of rows.
        """
        if self.output not in batch.outputs:
            raise ValueError(f"confidence: the model gives {sorted(batch.outputs)}, not {self.output!r}")
        score = uncertainty(batch.outputs[self.output])
        if len(score) != len(batch):
            raise ValueError(f"confidence: {len(score)} rows of {self.output!r} for a batch of {len(batch)}")
        return score
