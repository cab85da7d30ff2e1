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

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fallbacks.predictor import LoadedModel
from fallbacks.roles import FEATURES, LABEL, LOGITS, LOWER, PROBABILITIES, UPPER, VALUE, not_distributions
from gateway.calibration.data_files import load_columns
from gateway.calibration.dataset import EXPECTED, Dataset, read
from gateway.calibration.label_order import refuse_other_order
from gateway.calibration.parity import Parity, parity
from gateway.calibration.samples import Samples, count_samples, one_row_of_each
from gateway.calibration.true_values import TrueValues, labelled_classes, true_values
from gateway.core.decision import Tensors
from gateway.core.errors import ArtifactError, PolicyError, Problem
from gateway.core.rows import RowIndices, finite
from gateway.deployment.certificate import CertifiedTarget
from gateway.deployment.contract import contract_of
from gateway.deployment.deployment import Deployment
from gateway.deployment.model_files import refuse_at_sizes
from gateway.deployment.row_independence import separate_rows
from gateway.policy.kinds.rows import CalibrationRows
from guards.row_view import RowView

SHARES = {"fit": 1 / 3, "tail": 1 / 5, "cut": 4 / 15, "risk": 1 / 5}
ONE_OF_EACH = ("cut", "risk")
SEED = 0
CHUNK_ROWS = 512
SHOWN_ROWS, SHOWN_COLUMNS = 3, 5
ROLES = frozenset({PROBABILITIES, LOGITS, FEATURES, LABEL, VALUE, LOWER, UPPER})
"""The outputs that calibration reads."""
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """The rows of a calibration file with every rung's answers, and what they count as.

    parity: how far the first rung's outputs are from those that the file expects; unused: the arrays of the
    file that nothing takes.
    """

    rows: CalibrationRows
    samples: Samples
    target: CertifiedTarget
    parity: Parity
    unused: tuple[str, ...]

    def samples_by_fold(self) -> dict[str, int]:
        """How many samples each fold has."""
        parts = fold_indices(self.samples)
        return {name: len(np.unique(self.samples.group[part])) for name, part in parts.items()}

    def folds(self) -> dict[str, CalibrationRows]:
        """The folds by name."""
        return {name: self.rows.take(part) for name, part in fold_indices(self.samples).items()}


def held_out(
    deployment: Deployment, models: Mapping[str, LoadedModel], data: Path, progress: Progress
) -> HeldOut:
    """The rows of a file with every model's answers. Raises ArtifactError naming the file."""
    policy = deployment.policy
    file = read_rows(deployment, models, data)
    n, primary = len(next(iter(file.x.values()))), next(iter(models))
    sizes = {name: array.shape[1:] for name, array in file.x.items()}
    contract_of(deployment, models, sizes)  # these sizes suit every model
    if any(None in spec.shape[1:] for model in models.values() for spec in model.inputs):
        refuse_at_sizes(deployment, sizes)
    separate_rows(deployment, models, file.x)
    answers: dict[str, Tensors] = {}
    for name, model in models.items():
        progress(f"asking {name} for {n} rows")
        answers[name] = _answers(name, model, file, data)
        _refuse_bad_probabilities(name, answers[name], data)
    with _naming(data):
        truth = true_values(policy, models[primary].classes, answers[primary], file.y, n)
        _refuse_other_labels(deployment, truth, answers[primary].get(PROBABILITIES))
        samples = samples_of(file, truth)
        missing = {name for name, one in policy.inputs.items() if one.missing == "allow"}
        fit = fold_indices(samples)["fit"]
        any_size = {name for name, one in policy.inputs.items() if one.shape is not None and -1 in one.shape}
        view = RowView.fit({name: array[fit] for name, array in file.x.items()}, missing, any_size)
        agreement = parity(file.expected, answers[primary])
    labelled = {
        name: found
        for name, answer in answers.items()
        if (found := labelled_classes(truth.target, answer)) is not None
    }
    rows = CalibrationRows(
        file.x, truth.y, truth.values, answers, labelled, primary, view, partial(ask, models[primary])
    )
    return HeldOut(rows, samples, truth.target, agreement, file.unused)


def _refuse_other_labels(deployment: Deployment, truth: TrueValues, p: NDArray[Any] | None) -> None:
    """Raises PolicyError if the rows name classes that `labels` has in another order than the model."""
    labels = deployment.policy.labels
    if p is None or p.ndim != 2 or not labels or not getattr(truth.target, "by_name", False):
        return
    try:
        refuse_other_order(p, truth.y, labels)
    except ValueError as error:
        raise PolicyError([deployment.problem(("labels",), str(error))]) from error


def samples_of(file: Dataset, truth: TrueValues) -> Samples:
    """What the rows count as. Two rows of one input and different numbers are different rows."""
    x = file.x if truth.values is None else {**file.x, "": truth.values.reshape(-1, 1)}
    return count_samples(x, truth.y, file.group)


@contextmanager
def _naming(data: Path) -> Iterator[None]:
    """Raises ArtifactError naming the file for a ValueError."""
    try:
        yield
    except ValueError as error:
        raise ArtifactError([Problem("", str(error), str(data))]) from error


def _refuse_bad_probabilities(name: str, answer: Tensors, data: Path) -> None:
    """Raises ArtifactError for probabilities that are none, with some of the rows."""
    p = answer.get(PROBABILITIES)
    if p is None or p.ndim != 2:
        return
    wrong = np.flatnonzero(not_distributions(p))
    if wrong.size:
        shown = "; ".join(f"row {i}: {_shown(p[i])}" for i in wrong[:SHOWN_ROWS])
        what = f"{name} answers {wrong.size} of the rows with {PROBABILITIES!r} that are none ({shown}): they"
        what += " must be from 0 to 1 and sum to 1. If they are scores, map that output"
        raise ArtifactError([Problem("", f"{what} to {LOGITS!r} (names)", str(data))])


def _shown(p: NDArray[Any]) -> str:
    """The first few probabilities of a row and their sum."""
    dots = ", ..." * (len(p) > SHOWN_COLUMNS)
    return f"[{', '.join(f'{one:.3g}' for one in p[:SHOWN_COLUMNS].tolist())}{dots}], sum {p.sum():.3g}"


def _answers(name: str, model: LoadedModel, file: Dataset, data: Path) -> Tensors:
    """The answers to all rows, of the outputs that have a role or are expected; others may be large.

    Raises:  ArtifactError naming the first row that the model cannot take, or answers with no finite number.
    """
    x, kept = file.x, ROLES | file.expected.keys()
    parts: list[Tensors] = []
    for first in range(0, len(next(iter(x.values()))), CHUNK_ROWS):
        chunk = {key: array[first : first + CHUNK_ROWS] for key, array in x.items()}
        answer = _answer(name, model, chunk, first, data)
        bad = np.flatnonzero(~finite(answer, len(next(iter(chunk.values())))))
        if bad.size:
            what = f"{name} answers row {first + bad[0]} with a number that is not finite"
            raise ArtifactError([Problem("", f"{what}: leave such rows out, or mend the model", str(data))])
        parts.append({key: array for key, array in answer.items() if key in kept})
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def _answer(name: str, model: LoadedModel, chunk: Tensors, first: int, data: Path) -> Tensors:
    """The answer to some rows. Raises ArtifactError naming the row that the model cannot take."""
    try:
        return model.run(chunk)
    except Exception as error:  # every runtime has failures of its own
        n = len(next(iter(chunk.values())))
        for i in range(n):
            try:
                model.run({key: array[i : i + 1] for key, array in chunk.items()})
            except Exception as alone:
                what = f"{name} cannot answer row {first + i}: {alone}; leave such rows out"
                raise ArtifactError([Problem("", f"{what}, or correct the model", str(data))]) from alone
        what = f"{name} answers each row alone, and not {n} rows together: {error}"
        raise ArtifactError([Problem("", what, str(data))]) from error


def read_rows(
    deployment: Deployment, models: Mapping[str, LoadedModel], data: Path, *, expected: bool = True
) -> Dataset:
    """The rows of a file. expected: whether outputs that it expects are read, which needs roles.

    Raises:  ArtifactError naming the file.
    """
    contract = contract_of(deployment, models)
    try:
        texts = {spec.name for spec in contract.inputs if spec.datatype == "BYTES"}
        held = load_columns(data, texts)
        if not expected:
            own = contract.inputs_by_name
            held = {k: array for k, array in held.items() if k in own or not k.startswith(EXPECTED)}
        return read(held, contract, labels_needed=deployment.policy.task != "opaque")
    except OSError as error:
        what = f"cannot be read: {error.strerror or error}; give held-out rows as .npz, .csv or .parquet"
        raise ArtifactError([Problem("", what, str(data))]) from error
    except ValueError as error:
        raise ArtifactError([Problem("", str(error).removeprefix(f"{data}: "), str(data))]) from error


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
