"""Theft of the model: rows are asked, and a model of the thief's own is fitted on the answers.

| queries from | rows | source |
|---|---|---|
| in-distribution | the model's own kind | Tramer et al., USENIX Security 2016 |
| public | other data | Orekondy, Schiele, Fritz: Knockoff nets, CVPR 2019 |
| active | of both, those of which the thief's model is least sure | Pal et al.: ActiveThief, AAAI 2020 |

Fidelity is the share of held-out rows on which the stolen model and the bare one agree (Jagielski et al.,
USENIX Security 2020). Deviations: the thief's model is a small network (`substitute.py`), not the victim's
kind, so what it reaches is a lower bound of what an attacker can take; uncertainty is the entropy of its
answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gateway.core.rows import F8
from gateway.redteam.answers import Answer, Model
from gateway.redteam.keyring import Keyring
from gateway.redteam.records import Checkpoint
from gateway.redteam.run import Ended, Limits, Over, Tally
from gateway.redteam.substitute import Substitute

FIRST, GROWTH, LEAST_ANSWERS = 50, 2, 10


@dataclass(slots=True)
class Theft:
    """What one theft has come to. pace: as of `Keyring`."""

    curve: list[Checkpoint] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    answers: list[Answer] = field(default_factory=list)
    ended: Ended = "queries"
    pace: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Loot:
    """held, truth: held-out rows and the bare model's classes of them; classes: how many the model has."""

    held: F8
    truth: NDArray[np.intp]
    classes: int


def extract(
    models: Sequence[Model],
    pool: F8,
    loot: Loot,
    limits: Limits,
    rng: np.random.Generator,
    theft: Theft,
    *,
    active: bool = False,
) -> None:
    """Asks the rows of a pool, float64[n, d], each once, and fits a model at 50, 100, 200, ... rows.

    Args:    models: the target as each key sees it, asked in turn but for those that have to wait; theft:
             what grows meanwhile, so that an interrupted one is kept; active: the next rows are those of
             which the fitted model is least sure.
    """
    asked: list[int] = []
    left = rng.permutation(len(pool))
    keys = Keyring(models, limits, theft.tally)
    own: Substitute | None = None
    size = FIRST
    try:
        while len(left):
            take = min(size - len(asked), len(left))
            if active and own is not None:
                left = left[np.argsort(-_entropy(own.probabilities(pool[left])), kind="stable")]
            for i in left[:take].tolist():
                theft.answers.append(keys.ask(pool[i]))
                asked.append(i)
            left, size = left[take:], size * GROWTH
            own = _fitted(theft, pool[asked[: len(theft.answers)]], loot, rng) or own
    except Over as over:
        theft.ended = over.why
        if len(asked) > (theft.curve[-1].rows if theft.curve else 0):
            _fitted(theft, pool[asked[: len(theft.answers)]], loot, rng)
    finally:
        theft.pace = keys.pace()


def _fitted(theft: Theft, rows: F8, loot: Loot, rng: np.random.Generator) -> Substitute | None:
    """The thief's model, and its fidelity as a checkpoint; None with too few answers for one."""
    known = [(row, told) for row, one in zip(rows, theft.answers, strict=True)
             if (told := _told(one, loot.classes)) is not None]  # fmt: skip
    if len(known) < LEAST_ANSWERS:
        theft.curve.append(Checkpoint(theft.tally.queries, len(known), 0.0, theft.tally.waited_s))
        return None
    own = Substitute.fit(np.array([row for row, _ in known]), np.array([p for _, p in known]), rng)
    agree = own.probabilities(loot.held).argmax(axis=1) == loot.truth
    fidelity = float(agree.mean())
    theft.curve.append(Checkpoint(theft.tally.queries, len(known), fidelity, theft.tally.waited_s))
    return own


def _told(answer: Answer, classes: int) -> F8 | None:
    """float64[k] that sum to one: as disclosed, one-hot of a label alone; None without an answer."""
    if answer.label is None:
        return None
    if answer.p is None or answer.p.sum() <= 0:
        return np.asarray(np.eye(1, classes, answer.label)[0])
    return np.asarray(answer.p / answer.p.sum())


def _entropy(p: F8) -> F8:
    return np.asarray(-(p * np.log(np.maximum(p, 1e-12))).sum(axis=1))


def tier_of(answers: Sequence[Answer]) -> str:
    """Which disclosure the answers show: `label`, `rounded: d`, `top: k` or `full`."""
    told = [one.p for one in answers if one.p is not None]
    if not told:
        return "label" if any(one.label is not None for one in answers) else "none seen"
    p = np.array(told)
    if ((p == 0) | (p == 1)).all():
        return "label"
    for digits in range(1, 6):
        if np.abs(p - np.round(p, digits)).max() < 1e-6:
            return f"rounded: {digits}"
    shown = int((p > 0).sum(axis=1).max())
    return f"top: {shown}" if shown < p.shape[1] else "full"
