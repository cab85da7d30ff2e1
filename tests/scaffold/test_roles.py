"""The role of each output is guessed from its name, its form, its values and the true values of the rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fallbacks.predictor import ModelTensor
from gateway.scaffold.roles import Guess, guess_roles

F4, I8, TEXT = np.dtype(np.float32), np.dtype(np.int64), np.dtype(object)
N = 20
RNG = np.random.default_rng(0)
SHARES = RNG.dirichlet(np.ones(3), N).astype(np.float32)
SCORES = RNG.normal(size=(N, 3)).astype(np.float32)
CLASSES = RNG.integers(0, 3, N)
NUMBERS = RNG.normal(size=N)


def output(name: str, dtype: np.dtype[Any], *sizes: int | None) -> ModelTensor:
    return ModelTensor(name, dtype, (None, *sizes))


def guess(
    outputs: list[tuple[ModelTensor, NDArray[Any] | None]],
    classes: tuple[int | str, ...] | None = None,
    y: NDArray[Any] | None = None,
) -> Guess:
    answer = {spec.name: values for spec, values in outputs if values is not None}
    return guess_roles([spec for spec, _ in outputs], classes, answer or None, y)


LABEL = output("output_label", I8), CLASSES
PROBABILITIES = output("output_probability", F4, 3), SHARES
CASES: dict[str, tuple[list[Any], Any, Any, str, dict[str, str]]] = {
    "as scikit-learn exports a classifier": (
        [LABEL, PROBABILITIES],
        (0, 1, 2),
        CLASSES,
        "classification",
        {"label": "output_label", "probabilities": "output_probability"},
    ),
    "without rows, by the classes that the file names": (
        [(LABEL[0], None), (output("prediction", F4, 3), None)],
        ("a", "b", "c"),
        None,
        "classification",
        {"label": "output_label", "probabilities": "prediction"},
    ),
    "by values that sum to one, whatever the name": (
        [(output("save_infer_model/scale_0.tmp_1", F4, 3), SHARES)],
        None,
        None,
        "classification",
        {"probabilities": "save_infer_model/scale_0.tmp_1"},
    ),
    "scores that do not sum to one are logits": (
        [(output("out", F4, 3), SCORES)],
        None,
        CLASSES,
        "classification",
        {"logits": "out"},
    ),
    "features by their name": (
        [(output("logits", F4, 3), SCORES), (output("last_hidden", F4, 64), None)],
        None,
        CLASSES,
        "classification",
        {"logits": "logits", "features": "last_hidden"},
    ),
    "a label alone": ([LABEL], None, CLASSES, "classification", {"label": "output_label"}),
    "a text label": (
        [(output("output_label", TEXT, 1), None)],
        None,
        None,
        "classification",
        {"label": "output_label"},
    ),
    "one column between 0 and 1 for two classes": (
        [(output("dense", F4, 1), SHARES[:, :1])],
        None,
        CLASSES % 2,
        "classification",
        {"probabilities": "dense"},
    ),
    "a regressor": (
        [(output("variable", F4, 1), SCORES[:, :1])],
        None,
        NUMBERS,
        "regression",
        {"value": "variable"},
    ),
    "a regressor of shares, by the true values": (
        [(output("sigmoid", F4, 1), SHARES[:, :1])],
        None,
        NUMBERS,
        "regression",
        {"value": "sigmoid"},
    ),
    "quantiles by their names": (
        [(output(name, F4, 1), SCORES[:, :1]) for name in ("price", "price_lower", "price_upper")],
        None,
        NUMBERS,
        "regression",
        {"value": "price", "lower": "price_lower", "upper": "price_upper"},
    ),
    "boxes are opaque": ([(output("boxes", F4, 100, 4), None)], None, None, "opaque", {}),
    "a map of scores is opaque": ([(output("map", F4, 1, None, None), None)], None, None, "opaque", {}),
    "a matrix of numbers is opaque to true numbers": (
        [(output("embedding", F4, 64), None)],
        None,
        NUMBERS,
        "opaque",
        {},
    ),
}


@pytest.mark.parametrize(("outputs", "classes", "y", "task", "names"), CASES.values(), ids=CASES)
def test_outputs_are_known_by(
    outputs: Any, classes: Any, y: NDArray[Any] | None, task: str, names: dict[str, str]
) -> None:
    found = guess(outputs, classes, y)
    assert (found.task, dict(found.names)) == (task, names)


def test_a_role_has_one_output() -> None:
    """Two heads of one model: the first is the answer, the second has no role but features."""
    found = guess([PROBABILITIES, (output("second", F4, 3), SHARES)], (0, 1, 2), CLASSES)
    assert found.names["probabilities"] == "output_probability"
    assert sorted(found.names) in (["probabilities"], ["features", "probabilities"])
