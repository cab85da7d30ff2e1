"""Held-out rows as four disjoint folds, each with every rung's answers.

| fold | share | for |
|---|---|---|
| `fit` | 1/3 | the detectors |
| `tail` | 1/5 | the rarity of each score |
| `cut` | 4/15 | the one false-alarm cut over all guards together |
| `risk` | 1/5 | the confidence cuts, from labels |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from fallbacks.predictor import LoadedModel
from gateway.calibration.dataset import read
from gateway.core.decision import Tensors
from gateway.core.errors import ArtifactError, Problem
from gateway.core.rows import RowIndices
from gateway.policy.kinds.rows import CalibrationRows
from gateway.protocol.contract import Contract
from guards import arrays

SHARES = {"fit": 1 / 3, "tail": 1 / 5, "cut": 4 / 15, "risk": 1 / 5}
SEED = 0
CHUNK_ROWS = 512
Progress = Callable[[str], None]


def answered_rows(
    contract: Contract, models: Mapping[str, LoadedModel], data: Path, progress: Progress
) -> CalibrationRows:
    """The rows of a file with every model's answers. Raises ArtifactError naming the file."""
    primary = next(iter(models))
    try:
        x, y = read(arrays.load(data), contract)
    except (OSError, ValueError) as error:
        raise ArtifactError([Problem("", str(error), str(data))]) from error
    answers = {}
    for name, model in models.items():
        progress(f"asking {name} for {len(y)} rows")
        answers[name] = ask(model, x)
    p = answers[primary].get("probabilities")
    classes = p.shape[1] if p is not None and p.ndim == 2 else None
    if classes is not None and not (y.min() >= 0 and y.max() < classes):
        what = f"y: holds labels from {y.min()} to {y.max()}; the model has the classes 0 to {classes - 1}"
        raise ArtifactError([Problem("", what, str(data))])
    source = contract.inputs[0].name
    return CalibrationRows(x, y, answers, primary, source, partial(ask, models[primary]))


def ask(model: LoadedModel, x: Tensors) -> Tensors:
    """The model's outputs for any number of rows, a chunk at a time."""
    n = len(next(iter(x.values())))
    parts = [model.run({k: a[i : i + CHUNK_ROWS] for k, a in x.items()}) for i in range(0, n, CHUNK_ROWS)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def split(rows: CalibrationRows) -> dict[str, CalibrationRows]:
    """The folds by name."""
    return {name: rows.take(part) for name, part in fold_indices(len(rows)).items()}


def fold_indices(n: int) -> dict[str, RowIndices]:
    """Which of n rows are in which fold: a seeded permutation, so that the same file gives the same folds."""
    order = np.random.default_rng(SEED).permutation(n)
    edges = np.cumsum([int(share * n) for share in SHARES.values()])[:-1]
    return dict(zip(SHARES, np.split(order, edges), strict=True))
