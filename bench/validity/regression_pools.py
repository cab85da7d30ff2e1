"""Four populations of numbers to predict, finite, so that every true share is counted.

A population has 1,000 inputs and for each of them 20 equally likely true values: its mean and noise. The
models are networks fitted on other rows, one with many features and one with few, so their errors are real.

| name | noise | intervals start at |
|---|---|---|
| even | normal, the same everywhere | the value |
| uneven | normal, its deviation grows tenfold between the deciles of a column | the value |
| heavy | of a t distribution with 3 degrees of freedom | the value |
| quantiles | as uneven | `lower` and `upper` of a second network |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bench.validity.fit_network import fit_regressor
from bench.validity.onnx_network import Network
from fallbacks.onnx import OnnxModel
from fallbacks.roles import LOGITS, LOWER, UPPER, VALUE
from gateway.calibration.folds import ask
from gateway.core.decision import Tensors
from gateway.policy.kinds.rows import CalibrationRows
from guards.row_view import RowView
from guards.rows import F8

INPUTS, VALUES_OF_EACH = 1_000, 20
TRAINING_ROWS = 4_000
HIDDEN = {"primary": 64, "small": 6}
REGIONS = 5
GUARDED = "uneven"
"""The population whose policies have a guard: guards read the inputs, which all four have in common."""
QUANTILES = 1.5
"""How many mean absolute errors, as a second network estimates them, lie between the value and each bound."""

Noise = Callable[[Tensors, np.random.Generator], F8]


@dataclass(frozen=True, slots=True, eq=False)
class RegressionPool:
    """A population. rows: m inputs and every rung's answers, the truth left at 0; y: float64[m, k].

    models: of each rung, without the bounds of a second network; guarded: whether its policies have a guard.
    """

    name: str
    rows: CalibrationRows
    models: Mapping[str, OnnxModel]
    y: F8
    guarded: bool


def columns(n: int, rng: np.random.Generator) -> Tensors:
    """Two measurements, a whole number and a region's code."""
    return {
        "measures": rng.normal(0, 1, (n, 2)).astype(np.float32),
        "age": np.clip(np.rint(rng.normal(45, 15, (n, 1))), 18, 95).astype(np.int64),
        "region": rng.choice(REGIONS, (n, 1), p=[0.4, 0.3, 0.15, 0.1, 0.05]).astype(np.int64),
    }


def mean(x: Tensors) -> F8:
    """float64[n]: what the networks have to learn, from about 9 to 39."""
    a, b = x["measures"].astype(np.float64).T
    age, region = x["age"][:, 0] / 45 - 1, x["region"][:, 0]
    return np.asarray(24 + 5 * np.tanh(a) + 2 * np.sin(2 * b) + 3 * a * age + 2 * (region % 3) + b * age)


def _even(x: Tensors, rng: np.random.Generator) -> F8:
    return rng.normal(0, 1, len(x["age"]))


def _uneven(x: Tensors, rng: np.random.Generator) -> F8:
    deviation = 0.6 * np.exp(0.9 * x["measures"][:, 1]) * np.where(x["region"][:, 0] == 1, 2.0, 1.0)
    return np.asarray(deviation * rng.normal(0, 1, len(deviation)))


def _heavy(x: Tensors, rng: np.random.Generator) -> F8:
    return np.asarray(0.8 * rng.standard_t(3, len(x["age"])))


NOISES: Mapping[str, Noise] = {"even": _even, "uneven": _uneven, "heavy": _heavy, "quantiles": _uneven}


def regression_pool(name: str) -> RegressionPool:
    """One of the four. Cost: a second."""
    noise, rng = NOISES[name], np.random.default_rng(21)
    training, x = columns(TRAINING_ROWS, rng), columns(INPUTS, rng)
    seen = mean(training) + noise(training, rng)
    y = np.stack([mean(x) + noise(x, rng) for _ in range(VALUES_OF_EACH)], axis=1)
    models = {rung: _model(fit_regressor(training, seen, hidden, seed=5)) for rung, hidden in HIDDEN.items()}
    answers: dict[str, Tensors] = {}
    for rung, model in models.items():
        value = ask(model, x)[VALUE]
        answers[rung] = {VALUE: value}
        if name == "quantiles":
            errors = np.abs(seen - ask(model, training)[VALUE][:, 0])
            reach = QUANTILES * _at_least(ask(_model(fit_regressor(training, errors, 64, seed=6)), x)[VALUE])
            answers[rung] = {VALUE: value, LOWER: value - reach, UPPER: value + reach}
    view, primary = RowView.fit(x, frozenset()), next(iter(models))
    nothing, m = np.zeros(INPUTS), partial(ask, models[primary])
    rows = CalibrationRows(x, nothing.astype(np.int64), nothing, answers, {}, primary, view, m)
    return RegressionPool(name, rows, models, y, name == GUARDED)


def _at_least(errors: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.maximum(errors, np.float32(0.05))


def _model(network: Network) -> OnnxModel:
    return OnnxModel("network", network.onnx(), 1, {VALUE: LOGITS})
