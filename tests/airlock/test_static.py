"""What is refused before onnxruntime opens it: names, formats, operators, sizes, weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from gateway.airlock.static import MOST_NODES, static_problems
from gateway.airlock.walk import MOST_NESTED
from tests.support.hostile_models import (
    FLOAT,
    answers,
    branching,
    constant,
    harmless,
    model,
    node,
    value,
)


def with_weights(array: object) -> ModelProto:
    found = harmless()
    found.graph.initializer[0].CopyFrom(constant("w", array))
    return found


def with_tensor(dims: list[int], data: bytes) -> ModelProto:
    found = harmless()
    found.graph.initializer.add(name="huge", data_type=FLOAT, dims=dims, raw_data=data)
    return found


def in_a_function(kind: str, domain: str = "") -> ModelProto:
    """A model whose function `own.F` calls an operator."""
    inner = node(kind, ["a"], ["b"], domain=domain)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(domain or "own", 1)]
    found = model([node("F", ["x"], ["x1"], domain="own"), *answers("x1")], domains=("own",))
    found.functions.append(helper.make_function("own", "F", ["a"], ["b"], [inner], opsets))
    return found


def calling_itself() -> ModelProto:
    found = model([node("F", ["x"], ["x1"], domain="own"), *answers("x1")], domains=("own",))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    inner = node("F", ["a"], ["b"], domain="own")
    found.functions.append(helper.make_function("own", "F", ["a"], ["b"], [inner], opsets))
    return found


def doubling_functions(levels: int) -> ModelProto:
    """Functions of which each calls the next twice: a file of a few lines and 2**levels operators."""
    found = model([node("F0", ["x"], ["x1"], domain="own"), *answers("x1")], domains=("own",))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    for level in range(levels):
        called = ("Identity", "") if level == levels - 1 else (f"F{level + 1}", "own")
        calls = [node(called[0], [a], [b], domain=called[1]) for a, b in (("a", "c"), ("c", "b"))]
        found.functions.append(helper.make_function("own", f"F{level}", ["a"], ["b"], calls, opsets))
    return found


def nested(depth: int) -> ModelProto:
    graph = helper.make_graph([node("Identity", ["zero"], ["s"])], "g", [], [value("s", FLOAT, [])])
    for _ in range(depth):
        inner = node("If", ["rare"], ["s"], then_branch=graph, else_branch=graph)
        graph = helper.make_graph([inner], "g", [], [value("s", FLOAT, [])])
    return branching(list(graph.node))


def twice(of: str) -> ModelProto:
    found = harmless()
    part = getattr(found.graph, of)
    part.append(part[0])
    return found


def with_unknown_fields() -> ModelProto:
    return ModelProto.FromString(harmless().SerializeToString() + b"\xfa\x3f\x00" * 100_000)


def with_metadata(key: str, text: str) -> ModelProto:
    found = harmless()
    found.metadata_props.add(key=key, value=text)
    return found


def renamed(name: str) -> ModelProto:
    return model([*answers(), node("Identity", ["z"], [name])], outputs=[value("y", FLOAT, ["n", 3])])


def missing_in(kind: str, domain: str, **attributes: object) -> ModelProto:
    return model([node(kind, ["x"], ["x1"], domain=domain, **attributes), *answers("x1")])


NAN_SCALAR = constant("nan", np.float32(np.nan))
SELECTS = [node("IsNaN", ["x"], ["gone"]), node("Where", ["gone", "nan", "x"], ["x1"])]

REFUSED: dict[str, tuple[Callable[[], ModelProto], str]] = {
    "a node name that moves the cursor": (lambda: renamed("\x1b[2J"), "holds a control character"),
    "a name that reorders text": (lambda: renamed("a\u202eb"), "holds a control character"),
    "a name of a megabyte": (lambda: renamed("a" * 1_000_000), "has 1000000 characters"),
    "a metadata key with a line end": (lambda: with_metadata("a\r\n", ""), "its metadata holds a control"),
    "a description with an escape": (lambda: with_metadata("a", "\x1b[31m"), "a description holds a control"),
    "an operator of another domain": (
        lambda: model([node("Evil", ["x"], ["x1"], domain="evil.ops"), *answers("x1")], domains=["evil.ops"]),
        "uses the operator Evil of the domain 'evil.ops'",
    ),
    "an operator of another domain in a function": (
        lambda: in_a_function("Evil", "evil.ops"),
        "uses the operator Evil of the domain 'evil.ops'",
    ),
    "an operator of onnxruntime in a branch": (
        lambda: branching([node("Gelu", ["zero"], ["s"], domain="com.microsoft")]),
        "without onnxruntime's optimisation",
    ),
    "a random operator": (
        lambda: model([node("RandomNormalLike", ["x"], ["x1"]), *answers("x1")]),
        "RandomNormalLike, which is not served",
    ),
    "a dropout that drops": (
        lambda: model(
            [node("Dropout", ["x", "", "on"], ["x1"]), *answers("x1")], constant("on", np.bool_(True))
        ),
        "the operator Dropout is in training mode",
    ),
    "a function that calls itself": (calling_itself, f"over {MOST_NODES}"),
    "functions that double": (lambda: doubling_functions(40), f"over {MOST_NODES}"),
    "too many nodes": (
        lambda: model([*(node("Identity", ["x"], [f"i{i}"]) for i in range(MOST_NODES)), *answers()]),
        f"over {MOST_NODES}",
    ),
    "deep branches": (lambda: nested(MOST_NESTED + 2), "nests graphs deeper"),
    "an old IR version": (lambda: model(answers(), ir=2), "has IR version 2"),
    "an old opset": (lambda: model(answers(), opset=1), "has opset 1 of ai.onnx"),
    "unknown fields": (with_unknown_fields, "bytes in fields that ONNX does not know"),
    "a tensor of 2**40": (lambda: with_tensor([2**40], b"\0" * 16), "declare 1099511627776 values"),
    "dimensions that overflow": (
        lambda: with_tensor([2**33, 2**33], b"\0" * 16),
        "declare 7378697629483820646",
    ),
    "negative dimensions": (lambda: with_tensor([-4, -4], b"\0" * 64), "declare the shape [-4, -4]"),
    "fewer bytes than declared": (lambda: with_tensor([4, 4], b"\0" * 60), "hold 60 of 64 entries"),
    "more bytes than declared": (lambda: with_tensor([4, 4], b"\0" * 68), "hold 68 of 64 entries"),
    "NaN among weights": (lambda: with_weights([[np.nan] * 3, *[[1.0] * 3] * 3]), "is no number (NaN)"),
    "infinity among weights": (
        lambda: with_weights(np.array([[np.inf, 1, 2], *[[1, 2, 3]] * 3], np.float32)),
        "hold an infinite value",
    ),
    "NaN among half-precision weights": (
        lambda: model(answers(), constant("h", np.array([1, np.nan], np.float16))),
        "'h' hold a value that is no number",
    ),
    "NaN in a constant of a branch": (
        lambda: branching(
            [node("Constant", [], ["s"], value=constant("c", np.array([np.nan, 1], np.float32)))]
        ),
        "'s' hold a value that is no number",
    ),
    "NaN as the one bias": (
        lambda: model(answers(plus="nan"), NAN_SCALAR),
        "'nan' hold a value that is no number",
    ),
    "NaN in the coefficients of a linear model": (
        lambda: missing_in("Scaler", "ai.onnx.ml", scale=[1.0, np.nan, 1.0, 1.0], offset=[0.0]),
        "attribute 'scale' of Scaler",
    ),
    "an axis of zero": (
        lambda: model(answers(), inputs=[value("x", FLOAT, ["n", 0])]),
        "declares the input 'x' with an axis of 0",
    ),
    "a negative axis": (
        lambda: model(answers(), inputs=[value("x", FLOAT, ["n", -5])]),
        "with an axis of -5",
    ),
    "a row of 2**40": (
        lambda: model(answers(), inputs=[value("x", FLOAT, ["n", 2**40])]),
        "with 1099511627776 values a row",
    ),
    "nine axes": (lambda: model(answers(), inputs=[value("x", FLOAT, ["n", *[1] * 8])]), "with 9 axes"),
    "two inputs of a name": (lambda: twice("input"), "has two inputs named 'x'"),
    "two weights of a name": (lambda: twice("initializer"), "has two weights named 'w'"),
    "two results of a name": (lambda: twice("node"), "has two results named 'z0'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(case: str) -> None:
    make, told = REFUSED[case]
    problems = static_problems(make())
    assert any(told in one for one in problems), problems
    assert not any("\x1b" in one or "\n" in one or len(one) > 500 for one in problems)


TAKEN: dict[str, Callable[[], ModelProto]] = {
    "a plain model": harmless,
    "a dropout that is off": lambda: model(
        [node("Dropout", ["x", "", "on"], ["x1"]), *answers("x1")], constant("on", np.bool_(False))
    ),
    "an open axis as PaddlePaddle writes it": lambda: model(answers(), inputs=[value("x", FLOAT, [-1, -1])]),
    "the tokenizer of scikit-learn's converter": lambda: model(
        [node("Tokenizer", ["t"], ["tokens"], domain="com.microsoft", mark=0, mincharnum=1), *answers()],
        inputs=[value("x", FLOAT, ["n", 4]), value("t", TensorProto.STRING, ["n"])],
        domains=("com.microsoft",),
    ),
    "a mask of infinities": lambda: model(
        answers(), constant("mask", np.array([[0, -np.inf], [0, 0]], np.float32))
    ),
    "a bound without an end": lambda: model(answers(), constant("most", np.float32(np.inf))),
    "NaN that stands for what is missing": lambda: model([*SELECTS, *answers("x1")], NAN_SCALAR),
    "an imputer of NaN": lambda: missing_in(
        "Imputer", "ai.onnx.ml", imputed_value_floats=[1.0] * 4, replaced_value_float=float("nan")
    ),
    "a function of its own": lambda: in_a_function("Identity"),
    "texts of several lines": lambda: with_metadata("names", "{0: 'a',\n\t1: 'b'}"),
    "names of other alphabets": lambda: renamed("größe (cm) 大きさ/τ"),
    "integers of four bits": lambda: with_int4(),
    "values in typed fields": lambda: with_typed_fields(),
}


def with_int4() -> ModelProto:
    found = harmless()
    found.graph.initializer.add(name="q", data_type=TensorProto.INT4, dims=[3], raw_data=b"\x21\x03")
    return found


def with_typed_fields() -> ModelProto:
    found = harmless()
    found.graph.initializer.append(helper.make_tensor("f", FLOAT, [2], [1.0, 2.0]))
    found.graph.initializer.append(constant("t", np.array(["a", "\x1b"], object)))
    found.graph.initializer.append(helper.make_tensor("h", TensorProto.FLOAT16, [2], [1.0, 2.0]))
    return found


@pytest.mark.parametrize("case", TAKEN)
def test_takes(case: str) -> None:
    assert static_problems(TAKEN[case]()) == []
