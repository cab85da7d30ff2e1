"""Squeeze: does the model change its mind when the picture loses detail that should not matter?

An adversarial perturbation lives in the low bits and in single pixels. Take these away and a natural picture
keeps its answer, a perturbed one often does not. It costs forward passes, so only rows whose features are
already odd (`trigger`) are squeezed, all variants in one predict call: a tenth of good rows, which costs a
fifth of a forward pass a row on average. Twice as many rows stopped one more of 10,000 clean pictures and one
more of 500 halves of two classes, and nothing else in bench/quality.py; half as many missed perturbed ones.

A second signal is free: whether the nearest prototype is of the predicted class. Non-adaptive attacks only:
an attacker who knows it drives its detection to 0-3 % (guards.md).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
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
        quantile: float = 0.9,
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
        """bool[n]: the rows that are worth squeezing."""
        return np.asarray(self.trigger.score(Signals(h, h)) >= self.trigger_cut, np.bool_)

    def look(self, s: Signals, /) -> tuple[F8, F8, F8]:
        """All that needs no further forward pass.

        Args:    s.h: float32[n, d]; s.z: float[n, k] whose largest is the prediction: here probabilities.
        Returns: float64[n] each: the oddness that triggers, the rarity of the disagreement, and the score
                 of a row that is not squeezed.
        """
        p = matrix("squeeze", "probabilities", s.z)
        h = np.empty((0, 0), np.float32) if s.h is None else s.h
        disagreement = self.disagreement.rarity(self.prototypes.disagreement(h, p.argmax(1)))
        steady = self.outer.rarity(np.maximum(self.change.rarity(np.zeros(1)), disagreement))
        return self.trigger.score(s), disagreement, steady

    def moved(self, disagreement: F8, changes: F8) -> F8:
        """The score of squeezed rows: float64[n] nats, >= 0.

        Args:    disagreement: float64[n] nats, from `look`; changes: float64[n] from `distance`.
        """
        return self.outer.rarity(np.maximum(self.change.rarity(changes), disagreement))

    def score(self, h: NDArray[np.float32], p: NDArray[Any], changes: F8) -> F8:
        """The rarity of the worse of the two signals, for rows that are all known at once.

        Args:    h: float32[n, d], p: float[n, k] of the rows as they came; changes: float64[n] from
                 `distance`, 0 for rows that are not triggered.
        Returns: float64[n] nats, >= 0.
        Source:  Xu et al., NDSS 2018, section 4; combined with prototype agreement (guards.md,
                 "Perturbation").
        """
        return self.moved(self.look(Signals(h, h, p))[1], changes)


@dataclass(frozen=True, slots=True)
class SqueezeGuard:
    """The guard: one predict call for all variants of the triggered rows, none if there are none.

    look: the three columns of `squeeze.look` for a batch, float64[n, 3].
    """

    squeeze: Squeeze
    look: Callable[[Any], Awaitable[F8]]
    model: str
    input_name: str

    async def score(self, batch: Rows) -> F8:
        """float64[n] nats.

        Raises what `look`, forward and predict raise.
        """
        found = await self.look(batch)
        scores = found[:, 2].copy()
        rows = np.flatnonzero(found[:, 0] >= self.squeeze.trigger_cut)
        if rows.size:
            scores[rows] = self.squeeze.moved(found[rows, 1], await self._changes(batch, rows))
        return scores

    async def _changes(self, batch: Rows, rows: NDArray[np.intp]) -> F8:
        """How far the answers to these rows move when their pictures are squeezed."""
        p = (await batch.forward(self.model))["probabilities"][rows]
        twice = {name: np.concatenate([value[rows]] * SQUEEZERS) for name, value in batch.inputs.items()}
        x = np.asarray(batch.inputs[self.input_name], np.float32)[rows]
        inputs = twice | {self.input_name: variants(x, self.squeeze.bits)}
        squeezed = await batch.predict(self.model, inputs)
        return distance(p, squeezed["probabilities"])
