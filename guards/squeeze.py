"""Squeeze: does the model change its mind when the picture loses detail that should not matter?

An adversarial perturbation lives in the low bits and in single pixels. Take these away and a natural picture
keeps its answer, a perturbed one often does not. It costs forward passes, so only rows whose features are
already odd (`trigger`) are squeezed, all variants in one predict call. A second signal is free: whether the
nearest prototype is of the predicted class. Non-adaptive attacks only: an attacker who knows it drives its
detection to 0-3 % (guards.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from guards.detector import I8, matrix
from guards.knn import PROTOTYPES, Knn
from guards.rarity import Tail
from guards.rmd import Rmd
from guards.rows import F8, Rows, Signals
from guards.squeezers import SQUEEZERS, distance, variants

FLOOR = 0.01


@dataclass(frozen=True, slots=True, eq=False)
class Squeeze:
    """What calibration learned: when to squeeze, how rare each of the two signals is, and their maximum."""

    bits: int
    trigger: Rmd
    trigger_cut: float
    prototypes: Knn
    change: Tail
    disagreement: Tail
    outer: Tail

    @classmethod
    def fit(
        cls,
        h: NDArray[np.float32],
        y: I8,
        tail_h: NDArray[np.float32],
        p: NDArray[Any],
        squeezed: NDArray[Any],
        *,
        seed: int,
        bits: int = 4,
        quantile: float = 0.8,
        m: int = PROTOTYPES,
    ) -> Self:
        """Trigger and prototypes on one fold, cut and tails on a disjoint one.

        Args:    h: float32[n, d], y: int64[n] of the one. tail_h: float32[t, d], p: float[t, k] and
                 squeezed: float[2t, k], the model's answers to `variants(x, bits)`, of the other, all rows.
                 quantile: the share of good rows that are not squeezed.
        Raises:  ValueError for bits outside 1..7, a quantile outside [0, 1), or shapes that do not fit.
        """
        if not (1 <= bits <= 7 and 0 <= quantile < 1):
            raise ValueError(f"squeeze: bits is {bits}, quantile {quantile}; expected 1..7 and [0, 1)")
        signals = Signals(h, h)
        trigger, prototypes = Rmd.fit(signals, y, seed=seed), Knn.fit(signals, y, seed=seed, m=m)
        oddness = trigger.score(Signals(tail_h, tail_h))
        cut = float(np.quantile(oddness, quantile))
        changes = np.where(oddness >= cut, distance(p, squeezed), 0.0)
        disagreements = prototypes.disagreement(tail_h, p.argmax(1))
        change, disagreement = Tail.fit(changes, floor=FLOOR), Tail.fit(disagreements, floor=FLOOR)
        worse = np.maximum(change.rarity(changes), disagreement.rarity(disagreements))
        return cls(bits, trigger, cut, prototypes, change, disagreement, Tail.fit(worse))

    def triggered(self, h: NDArray[np.float32]) -> NDArray[np.bool_]:
        """bool[n]: the rows that are worth squeezing. About 10 us at n=1."""
        return np.asarray(self.trigger.score(Signals(h, h)) >= self.trigger_cut, np.bool_)

    def score(self, h: NDArray[np.float32], p: NDArray[Any], changes: F8) -> F8:
        """The rarity of the worse of the two signals.

        Args:    h: float32[n, d], p: float[n, k] of the rows as they came; changes: float64[n] from
                 `distance`, 0 for rows that are not triggered.
        Returns: float64[n] nats, >= 0.
        Cost:    about 45 us at n=1, beside two forward passes for a triggered row.
        Source:  Xu et al., NDSS 2018, section 4; combined with prototype agreement (guards.md,
                 "Perturbation").
        """
        predicted = matrix("squeeze", "probabilities", p).argmax(1)
        disagreements = self.prototypes.disagreement(h, predicted)
        return self.outer.rarity(
            np.maximum(self.change.rarity(changes), self.disagreement.rarity(disagreements))
        )


@dataclass(frozen=True, slots=True)
class SqueezeGuard:
    """The guard: one predict call for all variants of the triggered rows, none if there are none."""

    squeeze: Squeeze
    model: str
    input_name: str

    async def score(self, batch: Rows) -> F8:
        """float64[n] nats.

        Raises ValueError if the model gives no features, or what forward and predict raise.
        """
        answer = await batch.forward(self.model)
        if not {"features", "probabilities"} <= answer.keys():
            raise ValueError(
                f"squeeze: {self.model} gives {sorted(answer)}; it needs features and probabilities"
            )
        h, p = answer["features"], answer["probabilities"]
        changes = np.zeros(len(batch))
        rows = np.flatnonzero(self.squeeze.triggered(h))
        if rows.size:
            twice = {name: np.concatenate([value[rows]] * SQUEEZERS) for name, value in batch.inputs.items()}
            x = np.asarray(batch.inputs[self.input_name], np.float32)[rows]
            inputs = twice | {self.input_name: variants(x, self.squeeze.bits)}
            squeezed = await batch.predict(self.model, inputs)
            changes[rows] = distance(p[rows], squeezed["probabilities"])
        return self.squeeze.score(h, p, changes)
