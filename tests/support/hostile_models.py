"""ONNX models that mean harm, and their harmless relatives, made with the `onnx` package.

Each takes `x` float32[n, 4] and gives `y` float32[n, 3], unless it says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
WEIGHTS = np.random.default_rng(3).normal(size=(4, 3)).astype(np.float32)


def value(name: str, kind: int, shape: Sequence[int | str | None] | None) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def constant(name: str, array: Any) -> TensorProto:
    return numpy_helper.from_array(np.asarray(array), name)


def node(kind: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> NodeProto:
    return helper.make_node(kind, list(inputs), list(outputs), **attributes)


def answers(x: str = "x", plus: str = "") -> list[NodeProto]:
    """y = softmax(x @ w), with a scalar added before if one is named."""
    nodes = [node("MatMul", [x, "w"], ["z0"])]
    nodes.append(node("Add", ["z0", plus], ["z"]) if plus else node("Identity", ["z0"], ["z"]))
    return [*nodes, node("Softmax", ["z"], ["y"], axis=1)]


def model(
    nodes: Sequence[NodeProto],
    *constants: TensorProto,
    inputs: Sequence[ValueInfoProto] = (value("x", FLOAT, ["n", 4]),),
    outputs: Sequence[ValueInfoProto] = (value("y", FLOAT, ["n", 3]),),
    domains: Sequence[str] = ("ai.onnx.ml",),
    opset: int = 17,
    ir: int = 9,
) -> ModelProto:
    graph = helper.make_graph(nodes, "g", inputs, outputs, [constant("w", WEIGHTS), *constants])
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir)


def harmless() -> ModelProto:
    return model(answers())


def adding_body(more: Sequence[NodeProto] = ()) -> GraphProto:
    """The body of a loop that adds `one` to a scalar."""
    nodes = [node("Identity", ["go"], ["go_on"]), node("Add", ["v_in", "one"], ["v_out"]), *more]
    inputs = [value("i", INT64, []), value("go", BOOL, []), value("v_in", FLOAT, [])]
    return helper.make_graph(nodes, "body", inputs, [value("go_on", BOOL, []), value("v_out", FLOAT, [])])


LOOP_CONSTANTS = (
    constant("true", np.bool_(True)),
    constant("zero", np.float32(0)),
    constant("one", np.float32(1)),
)


def looping(rounds: Sequence[NodeProto], *constants: TensorProto, name: str = "rounds") -> ModelProto:
    """Adds one as many times as the value `name` says, which `rounds` make."""
    loop = node("Loop", [name, "true", "zero"], ["v"], body=adding_body())
    return model([*rounds, loop, *answers(plus="v")], *LOOP_CONSTANTS, *constants)


def growing(sizes: Sequence[NodeProto], *constants: TensorProto) -> ModelProto:
    """Expands a one to the shape `sizes`, and adds the sum."""
    nodes = [node("Expand", ["one", "sizes"], ["e"]), node("ReduceSum", ["e"], ["s"], keepdims=0)]
    return model([*sizes, *nodes, *answers(plus="s")], constant("one", np.float32(1)), *constants)


def value_of_input() -> list[NodeProto]:
    """The largest number of the input, as `number`, an integer of one axis."""
    return [
        node("ReduceMax", ["x"], ["largest"], keepdims=0),
        node("Cast", ["largest"], ["scalar"], to=INT64),
        node("Reshape", ["scalar", "axis1"], ["number"]),
    ]


AXIS1 = constant("axis1", np.array([1], np.int64))


def branching(then_nodes: Sequence[NodeProto], *constants: TensorProto) -> ModelProto:
    """Runs the nodes, which make the scalar `s`, only where an input is above a million."""
    then = helper.make_graph([*then_nodes], "then", [], [value("s", FLOAT, [])])
    none = [node("Identity", ["zero"], ["s_other"])]
    other = helper.make_graph(none, "else", [], [value("s_other", FLOAT, [])])
    nodes = [
        node("ReduceMax", ["x"], ["largest"], keepdims=0),
        node("Greater", ["largest", "million"], ["rare"]),
        node("If", ["rare"], ["v"], then_branch=then, else_branch=other),
    ]
    million = constant("million", np.float32(1e6))
    return model([*nodes, *answers(plus="v")], million, *LOOP_CONSTANTS, *constants)
