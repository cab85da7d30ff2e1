"""Arrays that record what is done to them, as nodes of an ONNX graph.

Numpy hands every ufunc and most functions over to an operand that asks for them (NEP 13 and 18), so a formula
written for arrays can be called with these. Next to what it records, such an array computes on a few real
rows, so types and shapes are numpy's own. The first axis is the row, and how many there are is not recorded.

What cannot be recorded raises TypeError or NotImplementedError, at once: assignment into an array, `len`, a
branch on values, a function that is not in the tables at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

Array: TypeAlias = NDArray[Any]

OPSET, IR = 17, 9
SCORE = "score"
END = np.iinfo(np.int64).max


class Recorded(NDArrayOperatorsMixin):
    """An array that records what is done to it. Has the few methods of an array that formulas use."""

    __slots__ = ("name", "tape", "value")

    def __init__(self, tape: Tape, name: str, value: Array) -> None:
        self.tape, self.name, self.value = tape, name, value

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.value.dtype

    @property
    def ndim(self) -> int:
        return self.value.ndim

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *args: Any, **options: Any) -> Recorded:
        tape, values = self.tape, [_value(arg) for arg in args]
        if method == "reduce" and ufunc in _REDUCTIONS:
            axis, keep = (args[1:] or (options.get("axis", 0),))[0], options.get("keepdims", False)
            return tape.reduce(_REDUCTIONS[ufunc], self, axis, keep)
        if method != "__call__" or options:
            raise NotImplementedError(f"{ufunc.__name__}.{method} with {sorted(options)} is not recorded")
        if ufunc is np.vecdot and args[0] is args[1]:
            return tape.reduce("ReduceSumSquare", self, -1, False)
        if ufunc is np.vecdot:
            return (args[0] * args[1]).sum(-1)  # type: ignore[no-any-return]
        if ufunc is np.square:
            return tape.add("Mul", [self, self], self.value * self.value)
        if ufunc not in _UFUNCS:
            raise NotImplementedError(f"{ufunc.__name__} is not recorded")
        value = ufunc(*values)
        common = value.dtype if value.dtype.kind == "f" else np.result_type(*values)
        return tape.add(_UFUNCS[ufunc], [_as(arg, common) for arg in args], value)

    def __array_function__(self, func: Any, types: Any, args: Any, options: Any) -> Recorded:
        if func not in _FUNCTIONS:
            raise NotImplementedError(f"{func.__name__} is not recorded")
        return _FUNCTIONS[func](self.tape, *args, **options)

    def __getitem__(self, key: Any) -> Recorded:
        """Slices, `...` and None, as numpy reads them."""
        return self.tape.cut(self, key if isinstance(key, tuple) else (key,))

    def astype(self, dtype: Any) -> Recorded:
        if self.dtype == dtype:
            return self
        element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self.tape.add("Cast", [self], self.value.astype(dtype), to=element)

    def reshape(self, *shape: Any) -> Recorded:
        """The first axis must be the row and given as -1: how many there are is not recorded."""
        sizes = shape[0] if isinstance(shape[0], tuple) else shape
        if sizes[0] != -1:
            raise TypeError(f"reshape to {sizes}: give the first size as -1")
        value = self.value.reshape(sizes)
        return self.tape.add("Reshape", [self, np.array(sizes, np.int64)], value)

    def sum(self, axis: int, keepdims: bool = False) -> Recorded:
        return self.tape.reduce("ReduceSum", self, axis, keepdims)

    def mean(self, axis: int, keepdims: bool = False) -> Recorded:
        return self.tape.reduce("ReduceMean", self, axis, keepdims)

    def max(self, axis: int, keepdims: bool = False) -> Recorded:
        return self.tape.reduce("ReduceMax", self, axis, keepdims)

    def min(self, axis: int, keepdims: bool = False) -> Recorded:
        return self.tape.reduce("ReduceMin", self, axis, keepdims)

    def argmax(self, axis: int) -> Recorded:
        return self.tape.add("ArgMax", [self], self.value.argmax(axis), axis=axis, keepdims=0)


@dataclass(slots=True)
class Tape:
    """The nodes and constants recorded so far."""

    nodes: list[NodeProto] = field(default_factory=list)
    constants: dict[tuple[Any, ...], TensorProto] = field(default_factory=dict)

    def add(self, op: str, args: Sequence[Any], value: Any, **options: Any) -> Recorded:
        """One node; `value` is what it computes."""
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, [self.name(arg) for arg in args], [name], **options))
        return Recorded(self, name, np.asarray(value))

    def name(self, arg: Any) -> str:
        """Of a recorded array, or of a constant, kept once however often it is used."""
        if isinstance(arg, Recorded):
            return arg.name
        array = np.ascontiguousarray(arg).reshape(np.shape(arg))
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self.constants:
            self.constants[key] = numpy_helper.from_array(array, f"c{len(self.constants)}")
        return self.constants[key].name

    def reduce(self, op: str, array: Recorded, axis: int, keep: bool) -> Recorded:
        """Sum, mean, least or greatest along one axis; of truths, how many or which share are true."""
        value = _REDUCED[op](array.value, axis=axis, keepdims=keep)
        if array.dtype == np.bool_ and op == "ReduceSum":  # exact in float32 up to 2^24 of them, and fast
            return self.reduce(op, array.astype(np.float32), axis, keep).astype(value.dtype)
        source = array.astype(value.dtype)
        if op == "ReduceSum":  # the only one that takes its axes as an input in this opset
            return self.add(op, [source, np.array([axis], np.int64)], value, keepdims=int(keep))
        return self.add(op, [source], value, axes=[axis], keepdims=int(keep))

    def cut(self, array: Recorded, key: tuple[Any, ...]) -> Recorded:
        """One Slice for all that is cut off, one Squeeze for single places, one Unsqueeze for new axes."""
        at = key.index(Ellipsis) if Ellipsis in key else len(key)
        before, after = key[:at], key[at + 1 :]
        whole = [slice(None)] * (array.ndim - sum(part is not None for part in (*before, *after)))
        old = [part for part in (*before, *whole, *after) if part is not None]
        new = [i for i, part in enumerate(before) if part is None]
        if not all(isinstance(part, int) or part.step is None for part in old) or None in after:
            raise NotImplementedError(f"the index {key} is not recorded")
        single = [i for i, part in enumerate(old) if isinstance(part, int)]
        parts = [slice(part, part + 1 or None) if isinstance(part, int) else part for part in old]
        if cuts := [(i, part) for i, part in enumerate(parts) if part != slice(None)]:
            starts = np.array([part.start or 0 for _, part in cuts], np.int64)
            stops = np.array([END if part.stop is None else part.stop for _, part in cuts], np.int64)
            axes = np.array([i for i, _ in cuts], np.int64)
            array = self.add("Slice", [array, starts, stops, axes], array.value[tuple(parts)])
        if single:
            value = np.squeeze(array.value, tuple(single))
            array = self.add("Squeeze", [array, np.array(single, np.int64)], value)
        if new:
            value = np.expand_dims(array.value, tuple(new))
            array = self.add("Unsqueeze", [array, np.array(new, np.int64)], value)
        return array

    def reads(self, name: str) -> bool:
        return any(name in node.input for node in self.nodes)

    def model(self, inputs: Sequence[Recorded], score: Recorded) -> bytes:
        """The whole as the bytes of an ONNX file."""
        self.nodes.append(helper.make_node("Identity", [score.name], [SCORE]))
        outputs = [_declared(SCORE, score.value)]
        given = [_declared(one.name, one.value) for one in inputs]
        graph = helper.make_graph(self.nodes, "guard", given, outputs, list(self.constants.values()))
        version = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=version, ir_version=IR).SerializeToString()


def _declared(name: str, array: Array) -> ValueInfoProto:
    element = helper.np_dtype_to_tensor_dtype(array.dtype)
    return helper.make_tensor_value_info(name, element, ["n", *array.shape[1:]])


def _value(arg: Any) -> Any:
    return arg.value if isinstance(arg, Recorded) else arg


def _as(arg: Any, dtype: np.dtype[Any]) -> Any:
    return arg.astype(dtype) if isinstance(arg, Recorded) else np.asarray(arg, dtype)


def _where(tape: Tape, condition: Any, yes: Any, no: Any) -> Recorded:
    value = np.where(_value(condition), _value(yes), _value(no))
    return tape.add("Where", [condition, _as(yes, value.dtype), _as(no, value.dtype)], value)


def _stack(tape: Tape, arrays: Sequence[Any], axis: int = 0) -> Recorded:
    if axis == 0:
        raise TypeError("stack: the first axis is the row; give another")
    value = np.stack([_value(one) for one in arrays], axis)
    wide = [
        tape.add("Unsqueeze", [one, np.array([axis])], np.expand_dims(_value(one), axis)) for one in arrays
    ]
    return tape.add("Concat", wide, value, axis=axis)


def _smallest(tape: Tape, array: Recorded, value: Array, largest: bool = False) -> Recorded:
    """The smallest values along the last axis, ascending: as many as `value` has."""
    order = helper.make_node  # TopK has two outputs, of which the second, where they stood, is not needed
    name = f"t{len(tape.nodes)}"
    k = tape.name(np.array([value.shape[-1]], np.int64))
    tape.nodes.append(order("TopK", [array.name, k], [name, f"{name}_at"], axis=-1, largest=int(largest)))
    return Recorded(tape, name, value)


def _sort(tape: Tape, array: Recorded, axis: int = -1) -> Recorded:
    if axis not in (-1, array.ndim - 1):
        raise NotImplementedError(f"sort along axis {axis} is not recorded")
    return _smallest(tape, array, np.sort(array.value, axis))


def _partition(tape: Tape, array: Recorded, kth: int, axis: int = -1) -> Recorded:
    """The smallest values up to `kth`, ascending; the rest of a partition is in no stated order."""
    if axis not in (-1, array.ndim - 1):
        raise NotImplementedError(f"partition along axis {axis} is not recorded")
    return _smallest(tape, array, np.sort(array.value, axis)[..., : kth + 1])


def _take_along_axis(tape: Tape, table: Array, indices: Recorded, axis: int) -> Recorded:
    value = np.take_along_axis(table, indices.value, axis)
    if axis != 0 or isinstance(table, Recorded):
        raise NotImplementedError("take_along_axis: only along the first axis of a constant is recorded")
    if indices.shape[1:] == (1,) * (table.ndim - 1) and table.shape[1:] != indices.shape[1:]:
        rows = tape.add("Reshape", [indices, np.array([-1], np.int64)], indices.value.reshape(-1))
        return tape.add("Gather", [table, rows], value, axis=0)
    return tape.add("GatherElements", [table, indices], value, axis=0)


_UFUNCS = {
    np.add: "Add",
    np.subtract: "Sub",
    np.multiply: "Mul",
    np.divide: "Div",
    np.negative: "Neg",
    np.maximum: "Max",
    np.minimum: "Min",
    np.power: "Pow",
    np.sqrt: "Sqrt",
    np.exp: "Exp",
    np.log: "Log",
    np.absolute: "Abs",
    np.rint: "Round",
    np.matmul: "MatMul",
    np.less: "Less",
    np.less_equal: "LessOrEqual",
    np.greater: "Greater",
    np.greater_equal: "GreaterOrEqual",
    np.equal: "Equal",
    np.bitwise_or: "Or",
    np.bitwise_and: "And",
    np.invert: "Not",
}
_REDUCED: dict[str, Any] = {
    "ReduceSum": np.sum,
    "ReduceSumSquare": lambda array, axis, keepdims: np.sum(array * array, axis=axis, keepdims=keepdims),
    "ReduceMean": np.mean,
    "ReduceMax": np.max,
    "ReduceMin": np.min,
}
_REDUCTIONS = {np.add: "ReduceSum", np.maximum: "ReduceMax", np.minimum: "ReduceMin"}
_FUNCTIONS: dict[Any, Callable[..., Recorded]] = {
    np.where: _where,
    np.stack: _stack,
    np.sort: _sort,
    np.partition: _partition,
    np.take_along_axis: _take_along_axis,
}
