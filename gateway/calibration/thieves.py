"""The rows that simulated thieves send, made of held-out rows, to see what they would pay.

| kind | rows | stands for |
|---|---|---|
| `random` | honest rows | one with data like the deployment's own |
| `active` | the tenth of the rows that the primary is least sure of | one that picks what tells most |
| `synthetic` | mixtures of two rows, values shuffled over rows, noise | one without such data |
| `walk` | bisections between rows of different answers | a search by near-duplicates |

Numbers stay within the range that they have among the rows, and whole numbers stay whole. Texts are those of
the rows.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fallbacks.roles import PROBABILITIES
from gateway.core.decision import Tensors
from gateway.core.rows import F8
from gateway.policy.kinds.rows import CalibrationRows
from guards.price import uncertainty
from guards.price_fit import RANDOM

log = logging.getLogger(__name__)

EXACT: Final = 2.0**53
"""Below it float64 has every whole number."""
ACTIVE_SHARE: Final = 0.1
MOST_OF_EACH: Final = 500
MOST_WALKS: Final = 60
STEPS: Final = 12
SEGMENTS: Final = 4
NOISE: Final = 0.5
"""In standard deviations of each value."""


def thieves_rows(rows: CalibrationRows, seed: int) -> Mapping[str, Tensors]:
    """The inputs by kind of thief. rows: n >= 2; without `probabilities` there is no `active` thief.

    Cost:    12 passes of 60 rows through the first rung.
    """
    rng, x, n = np.random.default_rng(seed), rows.x, len(rows)
    found: dict[str, Tensors] = {RANDOM: x}
    p = rows.answers[rows.primary].get(PROBABILITIES)
    if p is not None:
        order = np.argsort(-uncertainty(p.reshape(n, -1)), kind="stable")
        found["active"] = _take(x, order[: max(1, int(ACTIVE_SHARE * n))])
    some = _take(x, rng.permutation(n)[:MOST_OF_EACH])
    made = (_mixed(some, rng), _shuffled(some, rng), _noisy(some, rng))
    found["synthetic"] = {name: np.concatenate([one[name] for one in made]) for name in x}
    found["walk"] = _walks(x, rows.ask_primary, rng)
    return found


def _take(x: Tensors, at: NDArray[np.intp]) -> Tensors:
    return {name: array[at] for name, array in x.items()}


def _mixed(x: Tensors, rng: np.random.Generator) -> Tensors:
    n = len(next(iter(x.values())))
    return blend(x, _take(x, rng.permutation(n)), rng.uniform(0.2, 0.8, n))


def blend(a: Tensors, b: Tensors, share: F8) -> Tensors:
    """Rows between those of a and b, share: float64[n] in [0, 1], of b; where no number, the nearer one."""
    found = {}
    for name, one in a.items():
        part = share.reshape(-1, *[1] * (one.ndim - 1))
        if _is_number(one):
            wide = one.astype(np.float64)
            found[name] = _as(wide + part * (b[name].astype(np.float64) - wide), one.dtype)
        else:
            found[name] = np.where(part < 0.5, one, b[name])
    return found


def _is_number(array: NDArray[Any]) -> bool:
    """Whether values may stand between those of the array. Not between identifiers beyond 2^53."""
    whole = array.dtype.kind in "iu"
    return array.dtype.kind == "f" or (whole and bool((np.abs(array.astype(np.float64)) < EXACT).all()))


def _as(values: F8, dtype: np.dtype[Any]) -> NDArray[Any]:
    return (values if dtype.kind == "f" else np.rint(values)).astype(dtype)


def _shuffled(x: Tensors, rng: np.random.Generator) -> Tensors:
    """Rows whose values are of several rows each: every value of a table, four bands of a picture."""
    found = {}
    for name, array in x.items():
        flat = array.reshape(len(array), -1).copy()
        several = flat.shape[1] if array.ndim <= 2 else min(SEGMENTS, flat.shape[1])
        for at in np.array_split(np.arange(flat.shape[1]), several):
            flat[:, at] = flat[rng.permutation(len(flat))][:, at]
        found[name] = flat.reshape(array.shape)
    return found


def _noisy(x: Tensors, rng: np.random.Generator) -> Tensors:
    found = {}
    for name, array in x.items():
        if not _is_number(array):
            found[name] = array
            continue
        wide = array.astype(np.float64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of values that every row lacks
            spread, low, high = (one(wide, axis=0) for one in (np.nanstd, np.nanmin, np.nanmax))
        noise = NOISE * np.nan_to_num(spread) * rng.standard_normal(wide.shape)
        found[name] = _as(np.clip(wide + noise, low, high), array.dtype)
    return found


def _walks(x: Tensors, ask: Callable[[Tensors], Tensors], rng: np.random.Generator) -> Tensors:
    """Every row of bisections between pairs of rows; halfway back and forth at random without classes."""
    n = len(next(iter(x.values())))
    starts, ends = (_take(x, rng.permutation(n)[:MOST_WALKS]) for _ in range(2))
    here, pairs = _classes(starts, ask), min(n, MOST_WALKS)
    low, high, sent = np.zeros(pairs), np.ones(pairs), list[Tensors]()
    for _ in range(STEPS):
        middle = (low + high) / 2
        step = blend(starts, ends, middle)
        sent.append(step)
        answer = _classes(step, ask)
        same = rng.random(pairs) < 0.5 if here is None or answer is None else answer == here
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    return {name: np.concatenate([one[name] for one in sent]) for name in x}


def _classes(x: Tensors, ask: Callable[[Tensors], Tensors]) -> NDArray[Any] | None:
    """The class of each row; None where the model has none, or cannot take rows between two good ones."""
    try:
        p = ask(x).get(PROBABILITIES)
    except Exception as error:  # noqa: BLE001 - every runtime has failures of its own
        log.info("no walk follows the model's answers: %s", error)
        return None
    return None if p is None else p.reshape(len(p), -1).argmax(axis=1)
