"""Promises that the rows should support, from what the models do on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fallbacks.predictor import LoadedModel
from fallbacks.roles import PROBABILITIES, VALUE
from gateway.calibration.dataset import Dataset
from gateway.calibration.folds import SHARES, ask
from gateway.calibration.label_order import likely_order
from gateway.calibration.true_values import labelled_classes, names_of, true_values
from gateway.core.decision import Tensors
from gateway.core.errors import ArtifactError, Problem
from gateway.policy.kinds.interval import one_a_row
from gateway.policy.schema import Policy
from gateway.scaffold.draft import Draft, error_to_promise, mean_to_promise

MEASURED_ROWS = 5_000
LEAST_TESTS = 200
"""Rows of the fold `risk` from which a mean error is promised."""


def with_promises(draft: Draft, policy: Policy, models: Mapping[str, LoadedModel], file: Dataset) -> Draft:
    """The draft with errors that calibration can certify. Raises ArtifactError for labels that do not fit."""
    if draft.task == "opaque" or file.y is None:
        return draft
    tests = int(SHARES["risk"] * draft.rows)
    x = {name: array[:MEASURED_ROWS] for name, array in file.x.items()}
    y, n = file.y[:MEASURED_ROWS], min(draft.rows, MEASURED_ROWS)
    answers = {name: ask(model, x) for name, model in models.items()}
    if draft.task == "regression":
        off = np.abs(one_a_row(answers[draft.models[0].name][VALUE]) - y.astype(np.float64))
        return replace(draft, mean_error=mean_to_promise(off) if tests >= LEAST_TESTS else None)
    first = next(iter(models))
    if not draft.labels and not models[first].classes:
        draft = _with_labels(draft, policy, answers[first], y)
        policy = policy.model_copy(update={"labels": list(draft.labels)})
    try:
        truth = true_values(policy, models[first].classes, answers[first], y, n)
    except ValueError as error:
        raise ArtifactError([Problem("", str(error))]) from error
    wrong = {
        name: float((_predicted(answer, labelled_classes(truth.target, answer)) != truth.y).mean())
        for name, answer in answers.items()
    }
    rungs = tuple(
        replace(one, error=error_to_promise(wrong[one.name], tests, checked=draft.checked(one)))
        for one in draft.models
    )
    return replace(draft, models=rungs, measured_error=wrong[first])


def _with_labels(draft: Draft, policy: Policy, answer: Tensors, y: NDArray[Any]) -> Draft:
    """The draft with the classes that the rows name, in the order of the columns that they fit."""
    p = answer.get(PROBABILITIES)
    if p is None or p.ndim != 2 or y.dtype.kind == "b" or (y.dtype.kind == "f" and (y != np.rint(y)).any()):
        return draft
    names = names_of(y)
    if len(names) != p.shape[1] or names == [str(i) for i in range(len(names))]:
        return draft
    truth = true_values(policy.model_copy(update={"labels": names}), None, answer, y, len(y))
    ordered = tuple(names[i] for i in likely_order(p, truth.y))
    note = (
        "The model's file names no classes: labels are those of y, in the order that fits the rows; check it."
    )
    return replace(draft, labels=ordered, notes=(*draft.notes, note))


def _predicted(answer: Tensors, labelled: np.ndarray[tuple[int], np.dtype[np.int64]] | None) -> object:
    p = answer.get(PROBABILITIES)
    return labelled if p is None else p.argmax(axis=1)
