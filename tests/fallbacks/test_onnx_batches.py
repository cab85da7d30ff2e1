"""A model whose file fixes its batch answers any number of rows, in runs of that many."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from fallbacks.onnx import OnnxModel
from fallbacks.predictor import ModelTensor
from tests.fallbacks.conftest import Load, export
from tests.support.onnx_bytes import graph, identity, node, tensor, value
from tests.support.onnx_bytes import model as model_bytes

F4 = np.dtype(np.float32)
FLOAT, INT64, STRING, BFLOAT16 = (
    TensorProto.FLOAT,
    TensorProto.INT64,
    TensorProto.STRING,
    TensorProto.BFLOAT16,
)
info, operator = helper.make_tensor_value_info, helper.make_node

Ask = Callable[[OnnxModel, dict[str, Any]], Any]


def predict(one: OnnxModel, rows: dict[str, Any]) -> Any:
    return asyncio.run(one.predict(rows))


def run(one: OnnxModel, rows: dict[str, Any]) -> Any:
    return one.run(rows, chunk=2)


ways = pytest.mark.parametrize("ask", [predict, run])


def ranks(rows: int) -> ModelProto:
    """For a batch of `rows`: each row, and its rank within the batch it ran in."""
    nodes = [
        operator("Identity", ["x"], ["y"]),
        operator("Shape", ["x"], ["size"], end=1),
        operator("Squeeze", ["size"], ["n"]),
        operator("Range", ["zero", "n", "one"], ["rank"]),
    ]
    weights = [numpy_helper.from_array(np.array(i, np.int64), name) for i, name in enumerate(("zero", "one"))]
    outputs = [info("y", FLOAT, [rows, 3]), info("rank", INT64, [rows])]
    return export(nodes, [info("x", FLOAT, [rows, 3])], outputs, weights)


@ways
@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 7])
def test_any_number_of_rows_is_answered_in_runs_of_the_fixed_batch(
    load: Load, ask: Ask, rows: int, n: int
) -> None:
    one = load(ranks(rows))
    assert one.fixed_rows == rows
    assert one.inputs == (ModelTensor("x", F4, (None, 3)),)
    assert [spec.shape for spec in one.outputs] == [(None, 3), (None,)]
    x = np.arange(n * 3, dtype=F4).reshape(n, 3)
    got = ask(one, {"x": x})
    assert got["y"].tolist() == x.tolist()
    assert got["rank"].tolist() == [i % rows for i in range(n)], "so many rows ran together"


@ways
def test_inputs_of_different_lengths_or_without_a_row_are_refused(load: Load, ask: Ask) -> None:
    inputs = [info("a", FLOAT, [2, 1]), info("b", FLOAT, ["n", 1])]
    one = load(export([operator("Add", ["a", "b"], ["y"])], inputs, [info("y", FLOAT, [2, 1])]))
    with pytest.raises(ValueError, match=r"inputs of \[2, 3\] rows"):
        ask(one, {"a": np.zeros((2, 1), F4), "b": np.zeros((3, 1), F4)})
    with pytest.raises(ValueError, match="no rows"):
        ask(one, {"a": np.zeros((0, 1), F4), "b": np.zeros((0, 1), F4)})
    assert ask(one, {"a": np.ones((3, 1), F4), "b": np.ones((3, 1), F4)})["y"].tolist() == [[2]] * 3


def test_inputs_that_fix_different_batches_are_refused(load: Load) -> None:
    inputs = [info("a", FLOAT, [2, 1]), info("b", FLOAT, [4, 1])]
    concat = operator("Concat", ["a", "b"], ["y"], axis=0)
    with pytest.raises(ValueError, match="its inputs fix different batches \\('a': 2, 'b': 4\\)"):
        load(export([concat], inputs, [info("y", FLOAT, [6, 1])]))


@ways
def test_text_and_bfloat16_go_through_a_fixed_batch(load: Load, ask: Ask) -> None:
    nodes = [operator("Identity", [name], [f"{name}_out"]) for name in ("t", "b")]
    kinds = (("t", STRING), ("b", BFLOAT16))
    one = load(
        export(
            nodes,
            [info(name, kind, [2, 1]) for name, kind in kinds],
            [info(f"{name}_out", kind, [2, 1]) for name, kind in kinds],
        )
    )
    assert one.inputs[1] == ModelTensor("b", F4, (None, 1), bf16=True)
    text = np.array([[b"a"], [b"\xc3\xa4"], [b""]], object)
    number = np.array([[1], [2], [-3]], F4)
    got = ask(one, {"t": text, "b": number})
    assert (got["t_out"].tolist(), got["b_out"].tolist()) == (text.tolist(), number.tolist())


DETECTIONS = 4


def detector(outputs: list[Any], boxes: int = DETECTIONS) -> ModelProto:
    """Of one picture x [1, 4]: `boxes` fixed rows of it, their number, and one value."""
    nodes = [
        operator("Expand", ["x", "shape"], ["boxes"]),
        operator("ReduceSum", ["x"], ["sum"], keepdims=0),
    ]
    shape = numpy_helper.from_array(np.array([boxes, 4], np.int64), "shape")
    return export(nodes, [info("x", FLOAT, [1, 4])], outputs, [shape])


@ways
def test_outputs_of_one_row_without_a_batch_axis_get_one(load: Load, ask: Ask) -> None:
    one = load(detector([info("boxes", FLOAT, [DETECTIONS, 4]), info("sum", FLOAT, [])]))
    assert [spec.shape for spec in one.outputs] == [(None, DETECTIONS, 4), (None,)]
    x = np.arange(12, dtype=F4).reshape(3, 4)
    got = ask(one, {"x": x})
    assert got["boxes"].tolist() == np.repeat(x[:, np.newaxis], DETECTIONS, axis=1).tolist()
    assert got["sum"].tolist() == x.sum(1).tolist()


def suppressed() -> ModelProto:
    """A detector with its non-maximum suppression in the graph: as many rows as boxes that are likely."""
    nodes = [
        operator("NonMaxSuppression", ["boxes", "scores", "most", "iou", "least"], ["found"]),
        operator("Cast", ["found"], ["objects"], to=FLOAT),
    ]
    weights = [
        numpy_helper.from_array(np.array([10], np.int64), "most"),
        numpy_helper.from_array(np.array([0.5], F4), "iou"),
        numpy_helper.from_array(np.array([0.5], F4), "least"),
    ]
    inputs = [info("boxes", FLOAT, [1, 3, 4]), info("scores", FLOAT, [1, 1, 3])]
    return export(nodes, inputs, [info("objects", FLOAT, ["found", 3])], weights)


@ways
def test_a_detector_answers_as_many_objects_as_it_finds_in_one_row(load: Load, ask: Ask) -> None:
    one = load(suppressed())
    assert one.outputs == (ModelTensor("objects", F4, (None, None, 3)),)
    boxes = np.array([[[0, 0, 1, 1], [2, 2, 3, 3], [4, 4, 5, 5]]], F4)
    for scores, found in (([0.9, 0.1, 0.8], [0, 2]), ([0.1, 0.9, 0.1], [1]), ([0.1, 0.1, 0.1], [])):
        got = ask(one, {"boxes": boxes, "scores": np.array([[scores]], F4)})["objects"]
        assert got.shape == (1, len(found), 3)
        assert got[0, :, 2].tolist() == found
    two = {"boxes": np.repeat(boxes, 2, axis=0), "scores": np.array([[[0.9, 0.1, 0.8]], [[0.9, 0, 0]]], F4)}
    with pytest.raises(ValueError, match="output 'objects' has another size for each row"):
        ask(one, two)


def test_an_output_that_cannot_have_the_inputs_batch_is_refused(load: Load) -> None:
    outputs = [info("y", FLOAT, [5, 4])]
    shape = numpy_helper.from_array(np.array([5, 2, 2], np.int64), "shape")
    flat = numpy_helper.from_array(np.array([5, 4], np.int64), "flat")
    nodes = [operator("Expand", ["x", "shape"], ["many"]), operator("Reshape", ["many", "flat"], ["y"])]
    with pytest.raises(ValueError, match="'y' has a first axis of 5, and the inputs a batch of 2"):
        load(export(nodes, [info("x", FLOAT, [2, 2])], outputs, [shape, flat]))


@ways
def test_an_open_first_axis_that_turns_out_not_to_be_the_batch_is_an_error(load: Load, ask: Ask) -> None:
    """As many rows as there are positive numbers."""
    nodes = [operator("Greater", ["x", "zero"], ["positive"]), operator("Compress", ["x", "flat"], ["y"])]
    nodes.insert(1, operator("Reshape", ["positive", "all"], ["flat"]))
    weights = [
        numpy_helper.from_array(np.zeros(1, F4), "zero"),
        numpy_helper.from_array(np.array([-1], np.int64), "all"),
    ]
    one = load(export(nodes, [info("x", FLOAT, [1, 3])], [info("y", FLOAT, ["k"])], weights))
    assert ask(one, {"x": np.array([[1, -1, -1]], F4)})["y"].tolist() == [1]
    with pytest.raises(ValueError, match=r"output 'y' has the shape \[2\] for a batch of 1"):
        ask(one, {"x": np.array([[1, 2, -1]], F4)})


def loop_of_one_row() -> bytes:
    """y = x + trips, one at a time, where trips = max(x): 1e18 hangs."""
    body = graph(
        [node("Identity", ["go"], ["go_on"]), node("Add", ["y_in", "one"], ["y_out"])],
        inputs=[value("i", np.int64, ()), value("go", np.bool_, ()), value("y_in", np.float32, (1, 3))],
        outputs=[value("go_on", np.bool_, ()), value("y_out", np.float32, (1, 3))],
    )
    return model_bytes(
        [
            node("ReduceMax", ["x"], ["most"], keepdims=0),
            node("Cast", ["most"], ["trips"], to=7),
            node("Loop", ["trips", "true", "x"], ["y"], body=body),
        ],
        inputs=[value("x", np.float32, (1, 3))],
        outputs=[value("y", np.float32, (1, 3))],
        weights=[tensor("true", np.array(True)), tensor("one", np.ones(1, np.float32))],
    )


async def until_free(one: OnnxModel, x: NDArray[Any]) -> Any:
    """Asks again while the model is busy with an abandoned run; ten seconds at most."""
    async with asyncio.timeout(10):
        while True:
            try:
                return await one.predict({"x": x})
            except RuntimeError as error:
                assert "still busy" in str(error)
            await asyncio.sleep(0.005)


def test_a_cancelled_call_is_stopped_in_whichever_of_its_runs_it_is(load: Load) -> None:
    one = load(loop_of_one_row())
    quick = np.full((1, 3), 5, F4)

    async def scene() -> None:
        for hung in range(3):
            rows = np.repeat(quick, 3, axis=0)
            rows[hung] = 1e18
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await one.predict({"x": rows})
            assert (await until_free(one, quick))["y"].tolist() == [[10, 10, 10]]

    asyncio.run(scene())


def test_a_cancelled_call_starts_no_further_run(load: Load) -> None:
    """A million quick runs end as soon as one long one would."""
    one = load(identity((1, 3)))
    many = np.broadcast_to(np.zeros((1, 3), F4), (5_000_000, 3))

    async def scene() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await one.predict({"x": many})
        assert (await until_free(one, np.ones((1, 3), F4)))["y"].tolist() == [[1, 1, 1]]

    asyncio.run(scene())


def test_the_canary_of_a_fixed_batch_goes_through(load: Load) -> None:
    one = load(identity((2, 3)))
    rows = one.canary(3)
    assert rows["x"].shape == (3, 3)
    assert one.run(rows)["y"].tolist() == rows["x"].tolist()
