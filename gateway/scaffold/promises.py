"""Promises that the rows should support, from what the models do on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from fallbacks.predictor import LoadedModel
from fallbacks.roles import PROBABILITIES, VALUE
from gateway.calibration.dataset import Dataset
from gateway.calibration.folds import SHARES, ask
from gateway.calibration.true_values import labelled_classes, true_values
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


def _predicted(answer: Tensors, labelled: np.ndarray[tuple[int], np.dtype[np.int64]] | None) -> object:
    p = answer.get(PROBABILITIES)
    return labelled if p is None else p.argmax(axis=1)
