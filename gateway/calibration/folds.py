"""Held-out rows as four disjoint folds, each with every rung's answers.

| fold | share | for |
|---|---|---|
| `fit` | 1/3 | the detectors |
| `tail` | 1/5 | the rarity of each score; planning the confidence cuts |
| `cut` | 4/15 | the false-alarm cut over all guards together; planning the confidence cuts |
| `risk` | 1/5 | the confidence cuts, from labels |

Folds are made of samples: rows of one sample (copies, or rows of one group) are in the same fold, and `cut`
and `risk`, which certify, have one row of each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from fallbacks.predictor import LoadedModel
from gateway.calibration.data_files import load_columns
from gateway.calibration.dataset import read
from gateway.calibration.samples import Samples, count_samples, one_row_of_each
from gateway.core.decision import Tensors
from gateway.core.errors import ArtifactError, Problem
from gateway.core.rows import RowIndices, finite
from gateway.policy.kinds.rows import CalibrationRows, Labels
from gateway.protocol.contract import Contract

SHARES = {"fit": 1 / 3, "tail": 1 / 5, "cut": 4 / 15, "risk": 1 / 5}
ONE_OF_EACH = ("cut", "risk")
SEED = 0
CHUNK_ROWS = 512
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """The rows of a calibration file with every rung's answers, and what they count as."""

    rows: CalibrationRows
    samples: Samples

    def samples_by_fold(self) -> dict[str, int]:
        """How many samples each fold has."""
        parts = fold_indices(self.samples)
        return {name: len(np.unique(self.samples.group[part])) for name, part in parts.items()}

    def folds(self) -> dict[str, CalibrationRows]:
        """The folds by name."""
        return {name: self.rows.take(part) for name, part in fold_indices(self.samples).items()}


def held_out(
    contract: Contract, models: Mapping[str, LoadedModel], data: Path, progress: Progress
) -> HeldOut:
    """The rows of a file with every model's answers. Raises ArtifactError naming the file."""
    primary = next(iter(models))
    x, y, samples = read_rows(contract, data)
    answers: dict[str, Tensors] = {}
    for name, model in models.items():
        progress(f"asking {name} for {len(y)} rows")
        answers[name] = _answers(name, model, x, data)
        bad = np.flatnonzero(~finite(answers[name], len(y)))
        if bad.size:
            what = (
                f"{name} answers {bad.size} of the rows with a number that is not finite, first row {bad[0]}"
            )
            raise ArtifactError([Problem("", f"{what}: leave them out, or mend the model", str(data))])
    p = answers[primary].get("probabilities")
    classes = p.shape[1] if p is not None and p.ndim == 2 else None
    if classes is not None and not (y.min() >= 0 and y.max() < classes):
        what = f"y: holds labels from {y.min()} to {y.max()}; the model has the classes 0 to {classes - 1}"
        raise ArtifactError([Problem("", what, str(data))])
    source = contract.inputs[0].name
    return HeldOut(CalibrationRows(x, y, answers, primary, source, partial(ask, models[primary])), samples)


def _answers(name: str, model: LoadedModel, x: Tensors, data: Path) -> Tensors:
    """The answers to all rows. Raises ArtifactError naming the first row that the model cannot take."""
    try:
        return ask(model, x)
    except Exception as error:  # every runtime has failures of its own
        for i in range(len(next(iter(x.values())))):
            try:
                ask(model, {key: array[i : i + 1] for key, array in x.items()})
            except Exception as alone:
                what = f"{name} cannot answer row {i}: {alone}; leave such rows out, or correct the model"
                raise ArtifactError([Problem("", what, str(data))]) from alone
        what = f"{name} answers each row alone, and not {CHUNK_ROWS} rows together: {error}"
        raise ArtifactError([Problem("", what, str(data))]) from error


def read_rows(contract: Contract, data: Path) -> tuple[Tensors, Labels, Samples]:
    """The rows of a file, their labels, and what they count as. Raises ArtifactError naming the file."""
    try:
        texts = {spec.name for spec in contract.inputs if spec.datatype == "BYTES"}
        held = read(load_columns(data, texts), contract)
        y = held.y
        if y is None or y.dtype.kind not in "iu":
            what = "missing" if y is None else f"is {y.dtype}{list(y.shape)}"
            raise ValueError(f"y: {what}, not one integer label a row")
        y = y.astype(np.int64)
        return held.x, y, count_samples(held.x, y, held.group)
    except OSError as error:
        what = f"cannot be read: {error.strerror or error}; give held-out rows as .npz, .csv or .parquet"
        raise ArtifactError([Problem("", what, str(data))]) from error
    except ValueError as error:
        what = str(error).removeprefix(f"{data}: ")
        raise ArtifactError([Problem("", what, str(data))]) from error


def ask(model: LoadedModel, x: Tensors) -> Tensors:
    """The model's outputs for any number of rows, a chunk at a time. Raises what the model raises."""
    n = len(next(iter(x.values())))
    parts = [model.run({k: a[i : i + CHUNK_ROWS] for k, a in x.items()}) for i in range(0, n, CHUNK_ROWS)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def fold_indices(samples: Samples) -> dict[str, RowIndices]:
    """Which rows are in which fold: a seeded permutation, so that the same file gives the same folds."""
    place = np.empty(samples.counted, np.intp)
    place[np.random.default_rng(SEED).permutation(samples.counted)] = np.arange(samples.counted)
    order = np.argsort(place[samples.group], kind="stable")
    edges = np.cumsum([int(share * samples.counted) for share in SHARES.values()])[:-1]
    parts = np.split(order, np.searchsorted(place[samples.group][order], edges))
    found = dict(zip(SHARES, parts, strict=True))
    return found | {name: one_row_of_each(samples.group, found[name], SEED) for name in ONE_OF_EACH}
