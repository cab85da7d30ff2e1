"""Generated outliers, which no model should answer, and harmless changes of rows, which it should.

From near to far: a mix of two real halves is close to the data, noise is not. No model is involved.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gateway.cli.samples import Rows
from gateway.policy.kinds.rows import Labels

Bounds: TypeAlias = tuple[float, float]
FamilyArrays: TypeAlias = dict[str, NDArray[Any]]
PATCHES = 4
BRIGHTER = 0.1


def outliers(x: Rows, y: Labels, bounds: Bounds, seed: int) -> dict[str, Rows]:
    """Generated outliers by family, as many rows as x; none for an input that is no picture and no table."""
    rng = np.random.default_rng(seed)
    families = {4: _pictures, 2: _table}.get(x.ndim, _no_outliers)(x, y, bounds, rng)
    return {name: np.clip(rows, *bounds).astype(np.float32) for name, rows in families.items()}


def harmless(x: Rows, bounds: Bounds, seed: int) -> dict[str, Rows]:
    """Changes that do not change the class: a good guard lets them pass."""
    rng = np.random.default_rng(seed)
    families: FamilyArrays = {}
    if x.ndim == 4:
        families = {
            "10 % brighter": x * (1 + BRIGHTER),
            "10 % darker": x * (1 - BRIGHTER),
            "shifted one pixel": _shifted(x, bounds[0], rng),
        }
    elif x.ndim == 2 and _is_integral(x):
        families = {"one value off by one": _stepped(x, bounds, rng)}
    return {name: np.clip(rows, *bounds).astype(np.float32) for name, rows in families.items()}


def _pictures(x: Rows, y: Labels, bounds: Bounds, rng: np.random.Generator) -> FamilyArrays:
    n, width = len(x), x.shape[3]
    other = _of_another_class(y, rng)
    return {
        "uniform noise": rng.uniform(*bounds, x.shape),
        "Gaussian noise": rng.normal(x.mean(), x.std(), x.shape),
        "constant": np.broadcast_to(rng.uniform(*bounds, (n, 1, 1, 1)), x.shape),
        "inverted": sum(bounds) - x,
        "rotated 90 degrees": np.rot90(x, axes=(2, 3)),
        "patches shuffled": np.stack([_patches_shuffled(row, rng) for row in x]),
        "halves of two classes": np.concatenate([x[..., : width // 2], x[other][..., width // 2 :]], axis=3),
    }


def _table(x: Rows, y: Labels, bounds: Bounds, rng: np.random.Generator) -> FamilyArrays:
    whole: Callable[[NDArray[np.float64]], NDArray[np.float64]] = np.rint if _is_integral(x) else np.positive
    low, high = x.min(0), x.max(0)
    families: FamilyArrays = {
        "uniform noise": whole(rng.uniform(low, high, x.shape)),
        "columns shuffled": rng.permuted(x, axis=0),
        "constant": np.broadcast_to(whole(rng.uniform(low.max(), high.min(), (len(x), 1))), x.shape),
        "halves of two classes": np.where(
            np.arange(x.shape[1]) < x.shape[1] // 2, x, x[_of_another_class(y, rng)]
        ),
    }
    if _is_integral(x):
        families["fractional"] = x + rng.uniform(-0.5, 0.5, x.shape)
    return families


def _no_outliers(x: Rows, y: Labels, bounds: Bounds, rng: np.random.Generator) -> FamilyArrays:
    return {}


def _of_another_class(y: Labels, rng: np.random.Generator) -> NDArray[np.intp]:
    """For each row another one, at random, of another class where there is any."""
    return np.array([rng.choice(others if (others := np.flatnonzero(y != c)).size else len(y)) for c in y])


def _patches_shuffled(row: Rows, rng: np.random.Generator) -> Rows:
    """A picture cut into 4 x 4 patches, in another order; what does not divide evenly stays."""
    c, height, width = row.shape[0], row.shape[1] // PATCHES, row.shape[2] // PATCHES
    inner = row[:, : height * PATCHES, : width * PATCHES]
    patches = inner.reshape(c, PATCHES, height, PATCHES, width).transpose(1, 3, 0, 2, 4)
    mixed = rng.permutation(patches.reshape(PATCHES**2, c, height, width))
    shuffled = row.copy()
    shuffled[:, : height * PATCHES, : width * PATCHES] = (
        mixed.reshape(PATCHES, PATCHES, c, height, width).transpose(2, 0, 3, 1, 4).reshape(inner.shape)
    )
    return shuffled


def _shifted(x: Rows, background: float, rng: np.random.Generator) -> Rows:
    """Each picture by one pixel up, down, left or right, with background behind it."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=background)
    height, width = x.shape[2:]
    directions = ((0, 1), (2, 1), (1, 0), (1, 2))
    moved = np.empty_like(x)
    for i, direction in enumerate(rng.integers(0, len(directions), len(x))):
        down, right = directions[direction]
        moved[i] = padded[i, :, down : down + height, right : right + width]
    return moved


def _stepped(x: Rows, bounds: Bounds, rng: np.random.Generator) -> Rows:
    """One value of each row a step up or down, inside the bounds."""
    rows, columns = np.arange(len(x)), rng.integers(0, x.shape[1], len(x))
    step = rng.choice([-1.0, 1.0], len(x))
    before = x[rows, columns]
    nudged = x.copy()
    inside = (before + step >= bounds[0]) & (before + step <= bounds[1])
    nudged[rows, columns] = before + np.where(inside, step, -step)
    return nudged


def _is_integral(x: Rows) -> bool:
    return bool((x == np.rint(x)).all())
