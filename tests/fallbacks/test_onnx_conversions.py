"""Text and bfloat16 at a model's inputs and outputs: exact both ways; bytes that are not UTF-8 are unfit."""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from fallbacks.onnx_conversions import with_float32_io
from fallbacks.predictor import ModelTensor, UnfitInput
from tests.fallbacks.conftest import Load

F4, OBJECT = np.dtype(np.float32), np.dtype(np.object_)
STRING, BFLOAT16, FLOAT = TensorProto.STRING, TensorProto.BFLOAT16, TensorProto.FLOAT
value = helper.make_tensor_value_info


def made(
    nodes: Sequence[NodeProto], inputs: Sequence[Any], outputs: Sequence[Any], *weights: Any, opset: int = 17
) -> bytes:
    graph = helper.make_graph(list(nodes), "g", list(inputs), list(outputs), list(weights))
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


def echo(element: int, *shape: int | str) -> bytes:
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    return made(nodes, [value("x", element, shape)], [value("y", element, shape)])


def rounds() -> bytes:
    """y = x * x in float32, rounded to bfloat16 by the model."""
    nodes = [
        helper.make_node("Cast", ["x"], ["wide"], to=FLOAT),
        helper.make_node("Mul", ["wide", "wide"], ["square"]),
        helper.make_node("Cast", ["square"], ["y"], to=BFLOAT16),
    ]
    return made(nodes, [value("x", BFLOAT16, ["n"])], [value("y", BFLOAT16, ["n"])])


def objects(*values: object) -> NDArray[np.object_]:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def every_finite() -> NDArray[np.float32]:
    """All that bfloat16 can hold, as float32."""
    every = (np.arange(1 << 16, dtype=np.uint32) << 16).view(np.float32)
    return every[np.isfinite(every)]


@pytest.mark.parametrize(
    "text", [b"", b"a", b"\0", b"a\0b\0", "jä \U0001f642".encode(), b"b'a'", b"\\xff", b"x" * 100_000]
)
def test_text_goes_through_unchanged(load: Load, text: bytes) -> None:
    one = load(echo(STRING, "n", 2))
    assert one.inputs == (ModelTensor("x", OBJECT, (None, 2)),)
    x = objects(text, b"other", b"", text).reshape(2, 2)
    got = asyncio.run(one.predict({"x": x}))["y"]
    assert (got.dtype, got.tolist()) == (OBJECT, x.tolist())
    assert one.run({"x": x}, chunk=1)["y"].tolist() == x.tolist()
    assert one.run({"x": x[:0]})["y"].shape == (0, 2)


@pytest.mark.parametrize("text", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\x80", b"ok\xe2\x82"])
def test_bytes_that_are_not_utf8_are_an_unfit_input_and_are_not_repeated(load: Load, text: bytes) -> None:
    one = load(echo(STRING, "n"))
    for ask in (lambda x: asyncio.run(one.predict(x)), one.run):
        with pytest.raises(UnfitInput, match=r"^input 'x', row 1: not UTF-8 text$"):
            ask({"x": objects(b"fine", text, text)})


def test_numpys_own_strings_are_refused_which_onnxruntime_would_read_past_their_end(load: Load) -> None:
    one = load(echo(STRING, "n"))
    for array in (np.array([b"a", b"bb"]), np.array(["a", "bb"])):
        with pytest.raises(ValueError, match="not object"):
            one.run({"x": array})


def test_text_output_that_is_not_utf8_raises(load: Load) -> None:
    broken = TensorProto(name="c", data_type=STRING, dims=[1], string_data=[b"\xff"])
    nodes = [helper.make_node("Where", ["b", "c", "x"], ["y"])]
    inputs = [value("x", STRING, ["n"]), value("b", TensorProto.BOOL, ["n"])]
    one = load(made(nodes, inputs, [value("y", STRING, ["n"])], broken))
    assert one.run({"x": objects(b"a"), "b": np.array([False])})["y"].tolist() == [b"a"]
    with pytest.raises(UnicodeDecodeError):
        one.run({"x": objects(b"a"), "b": np.array([True])})


def test_the_canary_of_text_is_empty_text(load: Load) -> None:
    one = load(echo(STRING, "n", "m"))
    assert one.canary(2)["x"].tolist() == [[b""], [b""]]
    assert one.run(one.canary(2))["y"].tolist() == [[b""], [b""]]


def test_every_bfloat16_goes_through_bit_for_bit(load: Load) -> None:
    one = load(echo(BFLOAT16, "n"))
    assert one.inputs == (ModelTensor("x", F4, (None,), bf16=True),)
    assert one.outputs == (ModelTensor("y", F4, (None,), bf16=True),)
    x = every_finite()
    assert one.run({"x": x})["y"].tobytes() == x.tobytes()
    assert asyncio.run(one.predict({"x": x}))["y"].tobytes() == x.tobytes()


def test_what_the_model_rounds_to_bfloat16_is_what_onnxruntime_alone_rounds(load: Load) -> None:
    """The model's own Cast is not folded away together with the inserted one."""
    x = every_finite()
    bits = (x.view(np.uint32) >> 16).astype(np.uint16)
    session = onnxruntime.InferenceSession(rounds(), providers=["CPUExecutionProvider"])
    given = onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, BFLOAT16)
    (alone,) = session.run_with_ort_values(["y"], {"x": given})
    wanted = np.frombuffer(ctypes.string_at(alone.data_ptr(), 2 * len(x)), np.uint16)
    got = load(rounds()).run({"x": x})["y"].view(np.uint32)
    assert not (got & 0xFFFF).any()
    assert (got >> 16 == wanted).all()


def test_text_and_bfloat16_and_numbers_go_through_together(load: Load) -> None:
    shapes: dict[str, tuple[int, list[str | int | None]]] = {
        "t": (STRING, ["n"]),
        "b": (BFLOAT16, ["n", 2]),
        "i": (TensorProto.INT64, ["n", "m"]),
    }
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in shapes]
    one = load(
        made(
            nodes,
            [value(name, kind, shape) for name, (kind, shape) in shapes.items()],
            [value(f"{name}_out", kind, shape) for name, (kind, shape) in shapes.items()],
        )
    )
    x = {"t": objects(b"a", b"b"), "b": np.array([[1, 0.5], [2, -3]], F4), "i": np.arange(6).reshape(2, 3)}
    got = asyncio.run(one.predict(x))
    assert {name: array.tolist() for name, array in got.items()} == {
        f"{name}_out": array.tolist() for name, array in x.items()
    }


def test_a_bfloat16_weight_that_is_listed_as_an_input_stays_a_weight(load: Load) -> None:
    weight = numpy_helper.from_array(np.array([1.5], F4), "w")
    narrow = helper.make_tensor("w", BFLOAT16, [1], numpy_helper.to_array(weight).tolist())
    nodes = [helper.make_node("Concat", ["x", "w"], ["y"], axis=0)]
    inputs = [value("x", BFLOAT16, ["n"]), value("w", BFLOAT16, [1])]
    one = load(made(nodes, inputs, [value("y", BFLOAT16, ["m"])], narrow))
    assert [spec.name for spec in one.inputs] == ["x"]
    assert one.run({"x": np.array([2.0], F4)})["y"].tolist() == [2.0, 1.5]


def test_a_row_of_several_texts_is_named_by_its_number(load: Load) -> None:
    one = load(echo(STRING, "n", 2))
    with pytest.raises(UnfitInput, match=r"^input 'x', row 1: not UTF-8 text$"):
        one.run({"x": objects(b"a", b"b", b"c", b"\xff").reshape(2, 2)})


def test_a_model_without_bfloat16_is_left_as_it_is() -> None:
    plain = onnx.load_model_from_string(echo(FLOAT, "n", 3))
    assert with_float32_io(plain.graph) == frozenset()
    assert plain.SerializeToString() == echo(FLOAT, "n", 3)
