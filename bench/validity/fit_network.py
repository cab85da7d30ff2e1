"""Fits a small network in numpy: a random hidden layer, and a softmax or linear regression on it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bench.validity.onnx_network import Network
from gateway.core.decision import Tensors
from gateway.policy.kinds.rows import Labels
from guards.rows import F8

STEPS = 400
RATE = 0.5
RIDGE = 1e-3


def fit_network(x: Tensors, y: Labels, classes: int, hidden: int, seed: int) -> Network:
    """The network with `hidden` random features that fits these rows.

    Args:    x: int64, float32 or float64[n, width] each; y: int64[n] in 0 .. classes - 1.
    Cost:    some hundred steps of full gradient descent: about a second for 4,000 rows.
    """
    return _network(x, hidden, seed, lambda h: _softmax_regression(h, np.eye(classes)[y]))


def fit_regressor(x: Tensors, y: F8, hidden: int, seed: int) -> Network:
    """The same with one output, `logits`, the least squares fit of y: float64[n].

    Cost:    one linear system of `hidden` unknowns.
    """
    return _network(x, hidden, seed, lambda h: _least_squares(h, y))


def _network(x: Tensors, hidden: int, seed: int, fit_output: Callable[[F8], tuple[F8, F8]]) -> Network:
    columns = np.concatenate([array.astype(np.float64) for array in x.values()], axis=1)
    rng, mean, spread = np.random.default_rng(seed), columns.mean(0), columns.std(0)
    scale = 1 / np.where(spread > 0, spread, 1.0)
    d = columns.shape[1]
    w1, b1 = rng.normal(0, 1.5 / np.sqrt(d), (d, hidden)), rng.normal(0, 0.5, hidden)
    h = np.maximum((columns - mean) * scale @ w1 + b1, 0)
    w2, b2 = fit_output(h)
    inputs = {name: (array.dtype, array.shape[1]) for name, array in x.items()}
    f4 = [array.astype(np.float32) for array in (mean, scale, w1, b1, w2, b2)]
    return Network(inputs, *f4)


def _least_squares(h: F8, y: F8) -> tuple[F8, F8]:
    """Weights [h, 1] and bias [1], with a ridge of a thousandth of each feature's mean square."""
    centre = h.mean(0)
    z = h - centre
    gram = z.T @ z
    w = np.linalg.solve(gram + RIDGE * np.diag(np.diag(gram) + 1), z.T @ (y - y.mean()))
    return w[:, None], np.array([y.mean() - centre @ w])


def _softmax_regression(h: F8, target: F8) -> tuple[F8, F8]:
    """Weights [h, k] and bias [k], by gradient descent with momentum on features of unit scale."""
    unit = h.std(0) + 1e-3
    z = np.concatenate([h / unit, np.ones((len(h), 1))], axis=1) / np.sqrt(h.shape[1])
    w, speed = np.zeros((z.shape[1], target.shape[1])), np.zeros((z.shape[1], target.shape[1]))
    for _ in range(STEPS):
        raised = np.exp(z @ w)
        slope = z.T @ (raised / raised.sum(1, keepdims=True) - target) / len(z) + RIDGE * w / len(z)
        speed = 0.9 * speed - RATE * slope
        w = w + speed
    w = w / np.sqrt(h.shape[1])
    return w[:-1] / unit[:, None], w[-1]
