"""Squeeze: the change of the model's answer when the image loses irrelevant detail.

A small adversarial perturbation is in low bits and single pixels. Without these the answer to a natural image
stays the same, that to a perturbed one often does not. Squeezing costs forward passes, so only rows whose
features are already unusual (`trigger`) are squeezed, all variants in one predict call: by default a tenth of
good rows, a fifth of a forward pass per row on average. The second signal needs no forward pass: whether the
nearest prototype is of the predicted class.

Detects non-adaptive attacks only: an attacker who includes the squeezers reduced detection to 0-3 %. Measured
effect, choice of the trigger and limits: docs/guards.md, squeeze.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from guards.atoms import NATS, cut_above, measured, shaken
from guards.detector import I8, as_matrix
from guards.knn import PROTOTYPES, Knn
from guards.rarity import Tail
from guards.rmd import Rmd
from guards.rows import F8, GuardBatch, Signals, Tensors
from guards.squeezers import SQUEEZERS, answer_change, variants

FLOOR = 0.01


@dataclass(frozen=True, slots=True, eq=False)
class Squeeze:
    """The fitted guard.

    bits: of the bit-depth squeezer, 1..7; trigger, trigger_cut: rows that score at least the cut are
    squeezed; prototypes: for the disagreement; change, disagreement: tails of the two signals; outer: the
    tail of the larger rarity.
    """

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
                 quantile: the share of good rows that are not squeezed, more where the row at
                 this rank is one of an atom: the cut lies above it. m: the number of prototypes.
        Raises:  ValueError for bits outside 1..7, a quantile outside [0, 1), or shapes that do not fit.
        """
        if not (1 <= bits <= 7 and 0 <= quantile < 1):
            raise ValueError(f"squeeze: bits is {bits}, quantile {quantile}; expected 1..7 and [0, 1)")
        signals = Signals(None, h=h)
        trigger, prototypes = Rmd.fit(signals, y, seed=seed), Knn.fit(signals, y, seed=seed, m=m)
        trigger_scores = trigger.score(Signals(None, h=tail_h))
        resolution = measured(trigger_scores, trigger.score(shaken(Signals(None, h=tail_h), seed)))
        untriggered = math.ceil(quantile * len(trigger_scores))
        ranked = np.sort(trigger_scores)
        cut = cut_above(ranked, untriggered - 1, resolution) if untriggered else -math.inf
        changes = np.where(trigger_scores >= cut, answer_change(p, squeezed), 0.0)
        disagreements = prototypes.disagreement(tail_h, p.argmax(1))
        change, disagreement = Tail.fit(changes, floor=FLOOR), Tail.fit(disagreements, floor=FLOOR)
        larger = np.maximum(change.rarity(changes), disagreement.rarity(disagreements))
        return cls(bits, trigger, cut, prototypes, change, disagreement, Tail.fit(larger, resolution=NATS))

    def to_squeeze(self, h: NDArray[np.float32]) -> NDArray[np.bool_]:
        """bool[n]: the rows to squeeze. h: float32[n, d]."""
        return np.asarray(self.trigger.score(Signals(None, h=h)) >= self.trigger_cut, np.bool_)

    def first_pass(self, s: Signals, /) -> tuple[F8, F8, F8]:
        """The quantities that need no further forward pass.

        Args:    s.h: float32[n, d]; s.z: float[n, k], here probabilities; the largest is the prediction.
        Returns: float64[n] each: the trigger score, the rarity of the disagreement (nats), and the score of
                 a row that is not squeezed (nats).
        Raises:  ValueError if h or z is absent or of another width.
        """
        p = as_matrix("squeeze", "probabilities", s.z)
        h = np.empty((0, 0), np.float32) if s.h is None else s.h
        disagreement = self.disagreement.rarity(self.prototypes.disagreement(h, p.argmax(1)))
        unsqueezed = self.outer.rarity(np.maximum(self.change.rarity(np.zeros(1)), disagreement))
        return self.trigger.score(s), disagreement, unsqueezed

    def squeezed_score(self, disagreement: F8, changes: F8) -> F8:
        """The score of squeezed rows: float64[n] nats, >= 0.

        Args:    disagreement: float64[n] nats, from `first_pass`; changes: float64[n] from `answer_change`.
        """
        return self.outer.rarity(np.maximum(self.change.rarity(changes), disagreement))

    def score(self, h: NDArray[np.float32], p: NDArray[Any], changes: F8) -> F8:
        """The rarity of the larger of the two signals, for rows whose changes are already known.

        Args:    h: float32[n, d], p: float[n, k], of the unsqueezed rows; changes: float64[n] in [0, 2] from
                 `answer_change`, 0 for rows that are not triggered.
        Returns: float64[n] nats, >= 0.
        Source:  Xu et al., NDSS 2018, section 4. Deviations: two squeezers, triggered rows only, combined
                 with prototype disagreement (docs/guards.md, squeeze).
        """
        return self.squeezed_score(self.first_pass(Signals(None, h=h, z=p))[1], changes)


@dataclass(frozen=True, slots=True)
class SqueezeGuard:
    """The guard: one predict call for all variants of the triggered rows, none if no row is triggered.

    first_pass: returns the three columns of `squeeze.first_pass` for a batch, float64[n, 3]; model: the name
    of the model to call; input_name: its image input, float32[n, c, h, w] in [0, 1].
    """

    squeeze: Squeeze
    first_pass: Callable[[Any], Awaitable[F8]]
    model: str
    input_name: str

    async def score(self, batch: GuardBatch) -> F8:
        """The score of each row.

        Returns: float64[n] nats, >= 0.
        Raises:  as `first_pass`, `forward` and `predict` do.
        Cost:    two forward passes per triggered row, in one call.
        """
        found = await self.first_pass(batch)
        scores = found[:, 2].copy()
        rows = np.flatnonzero(found[:, 0] >= self.squeeze.trigger_cut)
        if rows.size:
            scores[rows] = self.squeeze.squeezed_score(found[rows, 1], await self._changes(batch, rows))
        return scores

    async def _changes(self, batch: GuardBatch, rows: NDArray[np.intp]) -> F8:
        """float64[len(rows)] in [0, 2]: the change of the answers to these rows under squeezing."""
        p = (await batch.forward(self.model))["probabilities"][rows]
        inputs = {name: value[rows] for name, value in batch.inputs.items()}
        squeezed = await batch.predict(
            self.model, squeezed_inputs(inputs, self.input_name, self.squeeze.bits)
        )
        return answer_change(p, squeezed["probabilities"])


def squeezed_inputs(inputs: Tensors, name: str, bits: int) -> dict[str, NDArray[Any]]:
    """Every variant of the picture `name`, beside the other inputs as they are: SQUEEZERS times n rows."""
    same = {other: np.concatenate([array] * SQUEEZERS) for other, array in inputs.items()}
    return same | {name: variants(np.asarray(inputs[name], np.float32), bits)}
