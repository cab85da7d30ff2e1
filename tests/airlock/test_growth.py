"""Loops and sizes: what a value of an input may not choose, and what exporters write for bounded ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import GraphProto, ModelProto, helper

from gateway.airlock.static import static_problems
from tests.support.hostile_models import (
    AXIS1,
    BOOL,
    FLOAT,
    INT64,
    LOOP_CONSTANTS,
    adding_body,
    answers,
    branching,
    constant,
    growing,
    looping,
    model,
    node,
    value,
    value_of_input,
)

HUGE = constant("rounds", np.int64(2**62))
ROWS = [node("Shape", ["x"], ["shape"]), node("Gather", ["shape", "at0"], ["rounds"])]
AT0 = constant("at0", np.int64(0))


def until_false() -> ModelProto:
    """A loop without a number of rounds."""
    loop = node("Loop", ["", "true", "zero"], ["v"], body=adding_body())
    return model([loop, *answers(plus="v")], *LOOP_CONSTANTS)


def nested_loop() -> ModelProto:
    """A loop that runs as often as an input says, in a loop of three rounds."""
    inner = node("Loop", ["scalar", "true", "v_in"], ["inner"], body=_inner_body())
    body = helper.make_graph(
        [node("Identity", ["go"], ["go_on"]), inner, node("Add", ["inner", "one"], ["v_out"])],
        "outer",
        [value("i", INT64, []), value("go", BOOL, []), value("v_in", FLOAT, [])],
        [value("go_on", BOOL, []), value("v_out", FLOAT, [])],
    )
    loop = node("Loop", ["three", "true", "zero"], ["v"], body=body)
    return model(
        [*value_of_input(), loop, *answers(plus="v")],
        *LOOP_CONSTANTS,
        AXIS1,
        constant("three", np.int64(3)),
    )


def _inner_body() -> GraphProto:
    body = adding_body()
    for old, new in (("v_in", "u_in"), ("v_out", "u_out"), ("go", "u_go"), ("go_on", "u_go_on"), ("i", "j")):
        for part in (*body.input, *body.output):
            part.name = new if part.name == old else part.name
        for one in body.node:
            one.input[:] = [new if name == old else name for name in one.input]
            one.output[:] = [new if name == old else name for name in one.output]
    return body


def counter_as_size() -> ModelProto:
    """A loop of few rounds in which a counter doubles, and becomes a size of what an input says."""
    return growing([*value_of_input(), node("Mul", ["number", "number"], ["sizes"])], AXIS1)


def in_a_function() -> ModelProto:
    """The size that an input says, behind a function."""
    opsets = [helper.make_opsetid("", 17)]
    found = growing([*value_of_input(), node("F", ["number"], ["sizes"], domain="own")], AXIS1)
    found.opset_import.append(helper.make_opsetid("own", 1))
    inner = [node("Identity", ["a"], ["b"])]
    found.functions.append(helper.make_function("own", "F", ["a"], ["b"], inner, opsets))
    return found


def sized_by(kind: str, *, extra: tuple[str, ...] = (), **attributes: object) -> ModelProto:
    """An operator that makes a tensor as large as an input says."""
    nodes = [
        node(kind, [*extra, "number"], ["big"], **attributes),
        node("ReduceSum", ["big"], ["s"], keepdims=0),
    ]
    return model(
        [*value_of_input(), *nodes, *answers(plus="s")], AXIS1, constant("one1", np.array([1], np.float32))
    )


def ranged() -> ModelProto:
    nodes = [
        node("Range", ["zero", "largest", "one"], ["big"]),
        node("ReduceSum", ["big"], ["s"], keepdims=0),
    ]
    return model([*value_of_input(), *nodes, *answers(plus="s")], AXIS1, *LOOP_CONSTANTS)


EXPANDS = [node("Expand", ["one", "sizes"], ["e"]), node("ReduceSum", ["e"], ["s"], keepdims=0)]

REFUSED: dict[str, tuple[Callable[[], ModelProto], str]] = {
    "2**62 rounds": (lambda: looping([], HUGE), "Loop may run 4611686018427387904 times"),
    "2**62 rounds under another name": (
        lambda: looping([node("Identity", ["rounds"], ["again"])], HUGE, name="again"),
        "Loop may run 4611686018427387904 times",
    ),
    "rounds that an input says": (
        lambda: looping(value_of_input(), AXIS1, name="scalar"),
        "runs as often as",
    ),
    "rounds that an input says, less a number": (
        lambda: looping(
            [*value_of_input(), node("Sub", ["scalar", "trillion"], ["rounds"])],
            AXIS1,
            constant("trillion", np.int64(10**12)),
        ),
        "runs as often as",
    ),
    "rounds that what was found is multiplied to": (
        lambda: looping(
            [
                node("NonZero", ["x"], ["found"]),
                node("Size", ["found"], ["count"]),
                node("Mul", ["count", "much"], ["rounds"]),
            ],
            constant("much", np.int64(2**40)),
        ),
        "runs as often as",
    ),
    "a loop without rounds": (until_false, "runs until its condition is false"),
    "a loop in a loop": (nested_loop, "runs as often as"),
    "a size that an input says": (
        lambda: growing([*value_of_input(), node("Max", ["number", "axis1"], ["sizes"])], AXIS1),
        "Expand makes a tensor as large as",
    ),
    "a size that an input says, at most negative": (
        lambda: growing(
            [*value_of_input(), node("Min", ["number", "axis1"], ["low"]), node("Neg", ["low"], ["sizes"])],
            AXIS1,
        ),
        "Expand makes a tensor as large as",
    ),
    "a squared size": (counter_as_size, "Expand makes a tensor as large as"),
    "a size behind a function": (in_a_function, "Expand makes a tensor as large as"),
    "ConstantOfShape": (lambda: sized_by("ConstantOfShape"), "ConstantOfShape makes a tensor as large as"),
    "Tile": (lambda: sized_by("Tile", extra=("one1",)), "Tile makes a tensor as large as"),
    "Range": (ranged, "Range makes a tensor as large as"),
    "a huge tensor in a branch": (
        lambda: branching(EXPANDS, constant("sizes", np.array([2**34], np.int64))),
        "Expand makes over 67108864 values in a branch",
    ),
    "a huge tensor in a branch, of two axes": (
        lambda: branching(EXPANDS, constant("sizes", np.array([2**17, 2**17], np.int64))),
        "Expand makes over 67108864 values in a branch",
    ),
    "a loop in a branch": (
        lambda: branching([node("Loop", ["rounds", "true", "zero"], ["s"], body=adding_body())], HUGE),
        "Loop may run",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(case: str) -> None:
    make, told = REFUSED[case]
    problems = static_problems(make())
    assert any(told in one for one in problems), problems


TAKEN: dict[str, Callable[[], ModelProto]] = {
    "a constant number of rounds": lambda: looping([], constant("rounds", np.int64(20))),
    "a round for each row": lambda: looping(ROWS, AT0),
    "a round for each thing found": lambda: looping(
        [
            node("NonZero", ["x"], ["found"]),
            node("Shape", ["found"], ["sizes"]),
            node("Gather", ["sizes", "at1"], ["rounds"]),
        ],
        constant("at1", np.int64(1)),
    ),
    "the shape of another tensor": lambda: growing([node("Shape", ["x"], ["sizes"])]),
    "twice the shape of another tensor": lambda: growing(
        [node("Shape", ["x"], ["shape"]), node("Mul", ["shape", "two"], ["sizes"])],
        constant("two", np.array([2], np.int64)),
    ),
    "as many as were found": lambda: growing(
        [node("NonZero", ["x"], ["found"]), node("Shape", ["found"], ["sizes"])]
    ),
    "a choice of two sizes": lambda: growing(
        [
            *value_of_input(),
            node("Greater", ["number", "axis1"], ["many"]),
            node("Where", ["many", "two", "axis1"], ["sizes"]),
        ],
        AXIS1,
        constant("two", np.array([2], np.int64)),
    ),
    "a small tensor in a branch": lambda: branching(EXPANDS, constant("sizes", np.array([2, 3], np.int64))),
    "a loop of a few rounds in a branch": lambda: branching(
        [node("Loop", ["rounds", "true", "zero"], ["s"], body=adding_body())], constant("rounds", np.int64(9))
    ),
}


@pytest.mark.parametrize("case", TAKEN)
def test_takes(case: str) -> None:
    assert static_problems(TAKEN[case]()) == []
