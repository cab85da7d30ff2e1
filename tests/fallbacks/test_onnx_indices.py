"""Inputs that graphs read as indices, sizes and divisors, and the ranges that their tables imply."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from fallbacks.onnx_indices import IndexUse, index_uses
from tests.support.kinds import F32, I64, info, model, node

TABLE = np.zeros((40, 8), np.float32)
IDS = info("ids", I64, ["n", 6])
ZERO_AND_ONE = {"zero": np.array(0), "one": np.array(1)}


def gather(indices: str) -> Any:
    return node("Gather", ["t", indices], ["y"])


def uses(*nodes: Any, inputs: Any = (IDS,), **weights: Any) -> dict[str, IndexUse]:
    content = model(nodes, inputs, [info("y", F32, None)], **weights)
    return index_uses(onnx.load_model_from_string(content).graph)


@pytest.mark.parametrize(
    ("nodes", "weights", "low", "high"),
    [
        ([gather("ids")], {}, 0, 39),
        ([node("Gather", ["t", "ids"], ["y"], axis=1)], {}, 0, 7),
        ([node("GatherElements", ["t", "ids"], ["y"])], {}, 0, 39),
        ([node("ArrayFeatureExtractor", ["t", "ids"], ["y"], domain="ai.onnx.ml")], {}, 0, 7),
        ([node("ScatterElements", ["t", "ids", "t"], ["y"])], {}, 0, 39),
        (
            [
                node("Cast", ["ids"], ["c"], to=I64),
                node("Squeeze", ["c"], ["d"]),
                gather("d"),
            ],
            {},
            0,
            39,
        ),
        (
            [node("Add", ["two", "ids"], ["c"]), gather("c")],
            {"two": np.array([2, 2])},
            -2,
            37,
        ),
        (
            [node("Sub", ["ids", "two"], ["c"]), gather("c")],
            {"two": np.array(2)},
            2,
            41,
        ),
        (
            [gather("ids"), node("Gather", ["few", "ids"], ["z"])],
            {"few": TABLE[:10]},
            0,
            9,
        ),
        ([node("GatherND", ["t", "ids"], ["y"])], {}, None, None),
        (
            [node("Slice", ["ids", "a", "b"], ["c"]), gather("c")],
            {"a": np.array([0]), "b": np.array([1])},
            None,
            None,
        ),
        (
            [node("Add", ["ids", "o"], ["c"]), gather("c")],
            {"o": np.arange(6)},
            None,
            None,
        ),
        (
            [node("Range", ["zero", "ids", "one"], ["y"])],
            {"zero": np.array(0), "one": np.array(1)},
            None,
            None,
        ),
        ([node("Tile", ["t", "ids"], ["y"])], {}, None, None),
        ([node("Div", ["t", "ids"], ["y"])], {}, None, None),
    ],
)
def test_an_index_has_the_range_of_its_table_and_a_size_has_none(
    nodes: Any, weights: Any, low: int | None, high: int | None
) -> None:
    found = uses(*nodes, t=TABLE, **weights)["ids"]
    assert (found.low, found.high) == (low, high)


def test_a_table_in_a_constant_and_a_use_inside_a_loop_are_found() -> None:
    body = onnx.helper.make_graph(
        [node("Identity", ["on"], ["still_on"]), node("Gather", ["t", "ids"], ["row"])],
        "body",
        [info("turn", I64, []), info("on", onnx.TensorProto.BOOL, [])],
        [info("still_on", onnx.TensorProto.BOOL, []), info("row", F32, None)],
    )
    table = node("Constant", [], ["t"], value=onnx.numpy_helper.from_array(TABLE))
    found = uses(table, node("Loop", ["turns", "on"], ["y"], body=body), turns=np.array(1), on=np.array(True))
    assert found == {"ids": IndexUse("Gather", 0, 39)}


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Clip", ["ids", "zero", "zero"], ["c"]), gather("c")],
        [node("Gather", ["ids", "zero"], ["y"])],
        [node("Add", ["ids", "ids"], ["y"])],
    ],
    ids=["clipped", "the table itself", "a sum"],
)
def test_what_is_no_index_is_not_found(nodes: Any) -> None:
    assert uses(*nodes, t=TABLE, zero=np.array(0)) == {}


def test_a_float_may_divide() -> None:
    assert uses(node("Div", ["t", "x"], ["y"]), inputs=[info("x", F32, ["n", 8])], t=TABLE) == {}
