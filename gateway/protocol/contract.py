"""One model's inputs and outputs on the wire: names, datatypes, shapes, ranges and the row limit.

A contract is made once, at load, from the policy and the model; every request and every answer is checked
against it. Only exposed outputs are in it, so an output that exists for guards alone cannot be requested.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from fallbacks.oip.tensors import MAX_RANK, Array, Shape
from gateway.core.errors import ArtifactError, Problem
from gateway.protocol.problems import RequestProblems
from gateway.protocol.targets import NO_FORM, Target

_INTEGERS = {int}  # type(True) is bool
MAX_BODY_BYTES = 8 * 1024 * 1024
MAX_JSON_VALUES = MAX_BODY_BYTES // 2
"""Of one body, whatever the contract: as many numbers as fit the largest, but half as many empty lists."""
OTHER_JSON_VALUES = 8192
"""JSON values beside the tensors' data: names, shapes, parameters, requested outputs."""

MAX_TEXTS = 2**17
"""Elements of BYTES in one tensor whose shape is open. Each becomes an object of its own, several times."""

_DATATYPES: dict[np.dtype[Any], str] = {
    np.dtype(np.bool_): "BOOL",
    np.dtype(np.uint8): "UINT8",
    np.dtype(np.uint16): "UINT16",
    np.dtype(np.uint32): "UINT32",
    np.dtype(np.uint64): "UINT64",
    np.dtype(np.int8): "INT8",
    np.dtype(np.int16): "INT16",
    np.dtype(np.int32): "INT32",
    np.dtype(np.int64): "INT64",
    np.dtype(np.float16): "FP16",
    np.dtype(np.float32): "FP32",
    np.dtype(np.float64): "FP64",
    np.dtype(np.object_): "BYTES",
}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """The form of one tensor: `shape[0]` is the row, None any length from 1 up, `low` and `high` inclusive.

    `bf16` marks a float32 that travels as BF16, for which numpy has no dtype. `missing`: NaN is data, a
    missing value, which JSON writes as null; floats only. `utf8`: BYTES must be UTF-8 text.
    Raises:  ArtifactError for a form that the protocol cannot carry.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]
    low: float | None = None
    high: float | None = None
    bf16: bool = False
    missing: bool = False
    utf8: bool = False
    datatype: str = field(init=False, compare=False)
    bounds: tuple[Any, Any] | None = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        datatype = "BF16" if self.bf16 else _DATATYPES.get(self.dtype, "")
        if not datatype or (self.bf16 and self.dtype != np.float32):
            raise ArtifactError([Problem(self.name, f"{self.dtype} has no datatype in the protocol")])
        if self.missing and self.dtype.kind != "f":
            raise ArtifactError([Problem(self.name, f"{datatype} has no NaN, so no value can be missing")])
        if not 1 <= len(self.shape) <= MAX_RANK or any(d is not None and d < 1 for d in self.shape):
            raise ArtifactError(
                [Problem(self.name, f"{self.shape} is not a shape of 1 to {MAX_RANK} positive sizes")]
            )
        object.__setattr__(self, "datatype", datatype)
        object.__setattr__(self, "bounds", _bounds(self))

    @property
    def wire_shape(self) -> list[int]:
        """The shape as metadata shows it: -1 is any length."""
        return [-1 if d is None else d for d in self.shape]

    @property
    def item_bytes(self) -> int:
        """The size of one element in binary; of BYTES, at least 1."""
        return {"BF16": 2, "BYTES": 1}.get(self.datatype, self.dtype.itemsize)

    def fits(self, array: Array) -> bool:
        """Whether an output array has this datatype and shape."""
        if not (array.dtype.kind in "OSU" if self.datatype == "BYTES" else array.dtype == self.dtype):
            return False
        wanted, got = self.shape[1:], array.shape[1:]
        if wanted == got:  # the usual case, at a tenth of the cost
            return array.ndim > 0
        sizes = zip(wanted, got, strict=False)
        return array.ndim == len(self.shape) and all(want in (None, size) for want, size in sizes)


def _bounds(spec: TensorSpec) -> tuple[Any, Any] | None:
    """The smallest and the largest value allowed, in the tensor's own precision; None where any value is."""
    low = -math.inf if spec.low is None else spec.low
    high = math.inf if spec.high is None else spec.high
    ranged = spec.low is not None or spec.high is not None
    if ranged and (spec.dtype.kind not in "iuf" or not low <= high):
        raise ArtifactError([Problem(spec.name, f"[{low}, {high}] is not a range of {spec.datatype}")])
    if spec.dtype.kind == "f":
        info = np.finfo(spec.dtype)
        bottom, top = max(low, float(info.min)), min(high, float(info.max))
    elif ranged:
        whole, far = np.iinfo(spec.dtype), 2.0**64
        bottom, top = max(math.ceil(max(low, -far)), whole.min), min(math.floor(min(high, far)), whole.max)
    else:
        return None
    if bottom > top:
        raise ArtifactError([Problem(spec.name, f"no {spec.datatype} lies in [{low}, {high}]")])
    return spec.dtype.type(bottom), spec.dtype.type(top)


def read_shape(
    spec: TensorSpec, shape: object, max_rows: int, at: str, problems: RequestProblems
) -> Shape | None:
    """The shape that a request declares, if the spec and the row limit allow it; otherwise None."""
    if not isinstance(shape, list) or not shape:
        what = "must be a list of integers"
    elif len(shape) > MAX_RANK:
        what = f"has rank {len(shape)}; at most {MAX_RANK} is taken"
    elif set(map(type, shape)) != _INTEGERS:
        what = "must be a list of integers"
    elif len(shape) != len(spec.shape):
        what = f"{shape} does not have the rank of {spec.wire_shape}"
    elif not 1 <= shape[0] <= max_rows:
        what = f"{shape[0]} rows; from 1 to {max_rows} are taken"
    elif tuple(shape[1:]) != spec.shape[1:] and not _matches(spec.shape, shape):
        what = f"{shape} does not match {spec.wire_shape}"
    elif spec.dtype.kind == "O" and None in spec.shape[1:] and math.prod(shape) > MAX_TEXTS:
        what = f"{math.prod(shape)} texts; at most {MAX_TEXTS} are taken"
    else:
        return tuple(shape)
    problems.add(at, what)
    return None


def _matches(wanted: tuple[int | None, ...], shape: list[int]) -> bool:
    return all(d >= 1 if want is None else d == want for d, want in zip(shape, wanted, strict=True))


ONNX_PLATFORM = "onnxruntime_onnx"
UPSTREAM_PLATFORM = "oip_upstream"
"""What metadata calls a model: `backend_format`, as Triton does. An upstream is a model in another server."""

ROW_OUTCOME = TensorSpec("fs_row_outcome", np.dtype(np.object_), (None,))
"""How each row ended. A client that requests this output accepts partial answers."""

WithheldRows: TypeAlias = Literal["refuse_request", "mark"]
"""What a request gets of which some rows are answered and some withheld: its worst row's end, or an answer
in which the withheld rows are marked and blank."""


class RequestedOutput(NamedTuple):
    """One output that a request names. classification: its k largest values, as `value:index` texts."""

    name: str
    binary: bool
    classification: int | None = None


@dataclass(frozen=True, slots=True)
class Contract:
    """One model on the wire.

    outputs: the exposed ones only; body_limit_bytes: of the largest body that is read;
    max_json_values: in it.
    views_binary: whether no element of binary data has to be converted by itself.
    labels: the names of the classes, for outputs whose last axis is so long.
    platform: of the first rung's model, ONNX_PLATFORM or UPSTREAM_PLATFORM.
    target: what a person may answer for a row.
    withheld_rows: what a client gets that does not ask how each row ended.
    bf16: the outputs that travel as BF16.

    Raises:  ArtifactError for names that repeat or are reserved, or no input or exposed output.
    """

    model: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_rows: int
    version: str
    labels: tuple[str, ...] = ()
    platform: str = ONNX_PLATFORM
    target: Target = NO_FORM
    withheld_rows: WithheldRows = "refuse_request"
    inputs_by_name: Mapping[str, TensorSpec] = field(init=False, compare=False, repr=False)
    outputs_by_name: Mapping[str, TensorSpec] = field(init=False, compare=False, repr=False)
    default_outputs: Mapping[bool, tuple[RequestedOutput, ...]] = field(init=False, compare=False, repr=False)
    bf16: frozenset[str] = field(init=False, compare=False, repr=False)
    body_limit_bytes: int = field(init=False, compare=False, repr=False)
    max_json_values: int = field(init=False, compare=False, repr=False)
    views_binary: bool = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        inputs_by_name = {spec.name: spec for spec in self.inputs}
        outputs_by_name = {spec.name: spec for spec in (*self.outputs, ROW_OUTCOME)}
        if len(inputs_by_name) != len(self.inputs) or len(outputs_by_name) != len(self.outputs) + 1:
            raise ArtifactError(
                [Problem(self.model, f"tensor names must differ, and from {ROW_OUTCOME.name!r}")]
            )
        if not inputs_by_name or len(outputs_by_name) == 1 or self.max_rows < 1:
            raise ArtifactError(
                [Problem(self.model, "needs an input, an exposed output and max_rows of at least 1")]
            )
        default_outputs = {
            binary: tuple(RequestedOutput(s.name, binary) for s in self.outputs) for binary in (False, True)
        }
        object.__setattr__(self, "body_limit_bytes", _body_limit(self.inputs, self.max_rows))
        bf16 = frozenset(spec.name for spec in self.outputs if spec.bf16)
        for name, value in (
            ("inputs_by_name", inputs_by_name),
            ("outputs_by_name", outputs_by_name),
            ("default_outputs", default_outputs),
            ("bf16", bf16),
            ("max_json_values", _max_json_values(self.inputs, self.max_rows)),
            ("views_binary", all(s.datatype not in ("BYTES", "FP16", "BF16") for s in self.inputs)),
        ):
            object.__setattr__(self, name, value)


def _body_limit(inputs: Sequence[TensorSpec], max_rows: int) -> int:
    """The largest body that is read: 32 bytes a JSON number and 64 KiB for the rest, at most 8 MiB."""
    values = 0
    for spec in inputs:
        if spec.datatype == "BYTES" or None in spec.shape[1:]:
            return MAX_BODY_BYTES
        values += max_rows * math.prod(d for d in spec.shape[1:] if d is not None)
    return min(MAX_BODY_BYTES, 65536 + 32 * values)


def _max_json_values(inputs: Sequence[TensorSpec], max_rows: int) -> int:
    """How many values and lists the largest valid JSON has, with data nested as deep as its shape."""
    values = OTHER_JSON_VALUES
    for spec in inputs:
        level = max_rows
        values += level
        for size in spec.shape[1:]:
            level *= size or MAX_JSON_VALUES
            values += level
    return min(MAX_JSON_VALUES, values)
