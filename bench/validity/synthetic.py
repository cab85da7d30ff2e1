"""Two tables with a known rule: a coarse survey whose rows repeat, and rows of several inputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gateway.core.decision import Tensors
from gateway.policy.kinds.rows import Labels
from guards.rows import F8

SURVEY_LEVELS = (3, 3, 4, 2, 5, 3)
SURVEY_CLASSES = 4
MIXED_CLASSES = 5
REGIONS = 6


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """n labelled rows. x: the inputs in the order of the model's; y: int64[n] of `classes` classes."""

    x: Tensors
    y: Labels
    classes: int

    def at(self, rows: slice) -> Table:
        """Some of the rows."""
        return Table({name: array[rows] for name, array in self.x.items()}, self.y[rows], self.classes)


def survey(n: int, seed: int) -> Table:
    """Six questions of two to five answers each, unevenly chosen: thousands of rows, many of them equal."""
    rng = np.random.default_rng(seed)
    columns = [
        rng.choice(levels, n, p=_falling(levels, 0.7 if i % 2 else 0.5))
        for i, levels in enumerate(SURVEY_LEVELS)
    ]
    answers = np.stack(columns, axis=1).astype(np.float32)
    y = _labels(answers.astype(np.float64), SURVEY_CLASSES, 2.5, seed=11, rng=rng)
    return Table({"answers": answers}, y, SURVEY_CLASSES)


def mixed(n: int, seed: int) -> Table:
    """Whole numbers with an account number of ten digits, measurements in float64, and a region's code.

    The account number says nothing of the class, and float32 cannot hold it.
    """
    rng = np.random.default_rng(seed)
    region = rng.choice(REGIONS, n, p=_falling(REGIONS, 0.8))
    group = rng.normal(0, 1, n)
    visits = rng.poisson(np.exp(1 + 0.5 * group))
    age = np.clip(np.rint(45 + 15 * rng.normal(0, 1, n) + 4 * group), 18, 95)
    accounts = rng.integers(4_000_000_000, 4_000_500_000, n)
    amounts = np.exp(rng.normal(3 + 0.8 * group, 0.7))
    x = {
        "counts": np.stack([accounts, visits, age], axis=1).astype(np.int64),
        "measures": np.stack([amounts, rng.normal(0, 1, n), group + rng.normal(0, 0.5, n)], axis=1),
        "region": region[:, None].astype(np.int64),
    }
    seen = np.concatenate(
        [x["counts"][:, 1:], np.log(amounts)[:, None], x["measures"][:, 1:], x["region"]], 1
    )
    return Table(x, _labels(seen.astype(np.float64), MIXED_CLASSES, 5.0, seed=13, rng=rng), MIXED_CLASSES)


def _falling(levels: int, factor: float) -> F8:
    """Probabilities that fall by a factor from one level to the next."""
    share = factor ** np.arange(levels)
    return np.asarray(share / share.sum())


def _labels(columns: F8, classes: int, sharpness: float, seed: int, rng: np.random.Generator) -> Labels:
    """A class drawn for each row, of which a fixed random rule of the columns makes one more probable."""
    rule = np.random.default_rng(seed)
    z = (columns - columns.mean(0)) / columns.std(0)
    hidden = np.tanh(z @ rule.normal(0, 1, (columns.shape[1], 12)))
    logits = sharpness * hidden @ rule.normal(0, 0.6, (12, classes))
    found: Labels = np.argmax(logits + rng.gumbel(0, 1, logits.shape), axis=1).astype(np.int64)
    return found
