"""A deployment's names for a model's inputs and outputs, and sizes for the axes that it leaves open."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from fallbacks.predictor import ModelTensor
from tests.fallbacks.conftest import Load, export
from tests.support.onnx_bytes import classifier, identity

F4 = np.dtype(np.float32)
MODEL = classifier(np.eye(4, 3, dtype=F4), np.zeros(3, F4))
X = np.array([[0, 5, 0, 1]], F4)


def test_inputs_and_outputs_have_the_deployments_names(load: Load) -> None:
    one = load(MODEL, names={"pixels": "x", "p": "probabilities"})
    assert one.inputs == (ModelTensor("pixels", F4, (None, 4)),)
    assert [spec.name for spec in one.outputs] == ["p", "logits"]
    assert list(one.canary(1)) == ["pixels"]
    for got in (one.run({"pixels": X}), asyncio.run(one.predict({"pixels": X}))):
        assert list(got) == ["p", "logits"]
        assert got["logits"].tolist() == [[0, 5, 0]]
    with pytest.raises(ValueError, match="input 'pixels' is missing"):
        one.run({"x": X})
    assert one.digest == load(MODEL).digest


def test_names_can_be_exchanged(load: Load) -> None:
    one = load(MODEL, names={"logits": "probabilities", "probabilities": "logits"})
    assert [spec.name for spec in one.outputs] == ["logits", "probabilities"]
    assert one.run({"x": X})["probabilities"].tolist() == [[0, 5, 0]]


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (
            {"p": "probabilites"},
            "the model has no 'probabilites' \\(nearest: 'probabilities'\\); "
            "its inputs: 'x'; its outputs: 'probabilities', 'logits'$",
        ),
        ({"p": "@@@"}, "the model has no '@@@'; its inputs: 'x'"),
        ({"a": "x", "b": "x"}, "gives 'x' two names, 'a', 'b'; give it one$"),
        (
            {"logits": "probabilities"},
            "gives 'probabilities', 'logits' one name, 'logits'; give one of them another$",
        ),
    ],
)
def test_names_that_do_not_fit_the_file_list_what_it_has(
    load: Load, names: dict[str, str], says: str
) -> None:
    with pytest.raises(ValueError, match=f"names: {says}"):
        load(MODEL, names=names)


def test_text_that_is_not_utf8_is_reported_under_the_deployments_name(load: Load) -> None:
    texts = [helper.make_tensor_value_info(name, TensorProto.STRING, ["n"]) for name in ("x", "y")]
    one = load(
        export([helper.make_node("Identity", ["x"], ["y"])], texts[:1], texts[1:]), names={"note": "x"}
    )
    with pytest.raises(ValueError, match=r"^input 'note', row 0: not UTF-8 text$"):
        one.run({"note": np.array([b"\xff"], object)})


def test_open_axes_take_the_sizes_given_and_the_rest_of_the_model_is_shared(load: Load) -> None:
    one = load(identity(("n", 3, "h", "w")))
    sized = one.with_shapes({"x": (None, 3, None, 192)})
    assert one.inputs == (ModelTensor("x", F4, (None, 3, None, None)),)
    assert sized.inputs == (ModelTensor("x", F4, (None, 3, None, 192)),)
    assert sized.with_shapes({"x": (None, 3, 48, None)}).inputs[0].shape == (None, 3, 48, 192)
    assert (sized.canary(2)["x"].shape, sized.digest) == ((2, 3, 1, 192), one.digest)
    rows = {"x": np.ones((2, 3, 48, 192), F4)}
    assert (asyncio.run(sized.predict(rows))["y"] == 1).all()
    sized.close()
    with pytest.raises(RuntimeError, match="closed"):
        asyncio.run(one.predict(rows))


@pytest.mark.parametrize(
    ("shapes", "says"),
    [
        (
            {"x": (None, 4, 5)},
            r"input 'x' has the shape \[None, 3, None\], which \[None, 4, 5\] does not fit",
        ),
        ({"x": (None, 3)}, r"input 'x' has the shape .*, which \[None, 3\] does not fit"),
        ({"x": (8, 3, 5)}, r"input 'x' has the shape .*, which \[8, 3, 5\] does not fit"),
        ({"xx": (None, 3, 5)}, r"has no input 'xx' \(nearest: 'x'\); its inputs: 'x'"),
    ],
)
def test_sizes_that_contradict_the_model_are_refused(load: Load, shapes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        load(identity(("n", 3, "w"))).with_shapes(shapes)


def test_an_output_of_unknown_rank_is_refused_as_such(load: Load) -> None:
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3]),
        helper.make_tensor_value_info("shape", TensorProto.INT64, ["k"]),
    ]
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    with pytest.raises(ValueError, match="'y' is declared without a shape; export it with one"):
        load(export(nodes, inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]))
