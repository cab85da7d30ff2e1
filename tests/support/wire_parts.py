"""A client of the protocol in a few lines, from the specification, sharing no code with the gateway."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from gateway.listener.messages import Reply
from gateway.protocol.contract import Contract, TensorSpec

Array = NDArray[Any]

DTYPES = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BYTES": np.object_,
}
BINARY_ONLY = ("FP16", "BF16")


def spec_of(
    datatype: str, shape: Sequence[int | None] = (None, 2), name: str = "x", **more: Any
) -> TensorSpec:
    dtype = np.float32 if datatype == "BF16" else DTYPES[datatype]
    return TensorSpec(name, np.dtype(dtype), tuple(shape), bf16=datatype == "BF16", **more)


def contract_of(*inputs: TensorSpec, outputs: Sequence[TensorSpec] = (), max_rows: int = 8) -> Contract:
    return Contract("m", inputs, tuple(outputs) or (spec_of("FP32", name="y"),), max_rows, "1")


IMAGE = contract_of(
    spec_of("FP32", (None, 1, 2, 2), "image", low=0.0, high=1.0),
    outputs=[spec_of("FP32", (None, 3), "p"), spec_of("INT64", (None,), "label")],
)


def octets_of(spec: TensorSpec, array: Array) -> bytes:
    if spec.datatype == "BYTES":
        return b"".join(struct.pack("<I", len(v)) + v for v in array.ravel())
    if spec.datatype == "BF16":
        return (array.view(np.uint32) >> 16).astype("<u2").tobytes()
    return array.astype(array.dtype.newbyteorder("<")).tobytes()


def values_of(spec: TensorSpec, array: Array, nested: bool) -> Any:
    if spec.datatype == "BYTES":
        array = np.array([*(v.decode() for v in array.ravel()), None], object)[:-1].reshape(array.shape)
    return array.tolist() if nested else array.ravel().tolist()


def entry_of(spec: TensorSpec, array: Array) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(array.shape)}


def json_request(
    sent: Mapping[TensorSpec, Array], nested: bool = False, **members: Any
) -> tuple[bytes, None]:
    inputs = [
        entry_of(spec, array) | {"data": values_of(spec, array, nested)} for spec, array in sent.items()
    ]
    return json.dumps({"inputs": inputs, **members}).encode(), None


def binary_request(sent: Mapping[TensorSpec, Array], pad: int = 0, **members: Any) -> tuple[bytes, int]:
    tail = [octets_of(spec, array) for spec, array in sent.items()]
    inputs = [
        entry_of(spec, array) | {"parameters": {"binary_data_size": len(octets)}}
        for (spec, array), octets in zip(sent.items(), tail, strict=True)
    ]
    head = json.dumps({"inputs": inputs, **members}).encode() + b" " * pad
    return head + b"".join(tail), len(head)


def headers_of(reply: Reply) -> dict[str, str]:
    """The headers by name, each of which is there once, in lower case, and ended as HTTP wants it."""
    lines = reply.headers.decode("ascii").split("\r\n")
    assert lines.pop() == ""
    pairs = [line.split(": ", 1) for line in lines]
    headers = {line[0]: line[1] for line in pairs}
    assert len(headers) == len(pairs)
    assert all(name == name.lower() and value.isprintable() for name, value in pairs)
    return headers


def json_of(reply: Reply) -> Any:
    length = headers_of(reply).get("inference-header-content-length")
    return json.loads(reply.body if length is None else reply.body[: int(length)])


def tensors_of(reply: Reply) -> dict[str, Array]:
    """What tritonclient's as_numpy gives for every output of a 200."""
    length = headers_of(reply).get("inference-header-content-length")
    document = json_of(reply)
    rest = reply.body[int(length) :] if length else b""
    found = {}
    for output in document["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            flat = json_array(output["datatype"], output["data"])
        else:
            flat = binary_array(output["datatype"], rest[:size])
            rest = rest[size:]
        found[output["name"]] = flat.reshape(output["shape"])
    assert rest == b""
    return found


def json_array(datatype: str, data: list[Any]) -> Array:
    if datatype == "BYTES" or None in data:
        return np.array([v.encode() if isinstance(v, str) else v for v in data] + [None], object)[:-1]
    return np.array(data, np.float32 if datatype == "BF16" else DTYPES[datatype])


def binary_array(datatype: str, octets: bytes) -> Array:
    if datatype == "BF16":
        return (np.frombuffer(octets, "<u2").astype(np.uint32) << 16).view(np.float32)
    if datatype != "BYTES":
        return np.frombuffer(octets, DTYPES[datatype])
    items: list[Any] = []
    while octets:
        size = struct.unpack("<I", octets[:4])[0]
        items.append(octets[4 : 4 + size])
        octets = octets[4 + size :]
    return np.array([*items, None], object)[:-1]


def same_bits(a: Array, b: Array) -> bool:
    if a.dtype == object:
        return a.shape == b.shape and a.tolist() == b.tolist()
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


@st.composite
def tensors(
    draw: st.DrawFn, datatypes: Sequence[str], name: str = "x", rows: int | None = None
) -> tuple[TensorSpec, Array]:
    """A spec and finite values that keep to it, some of its sizes left open."""
    datatype = draw(st.sampled_from(list(datatypes)))
    n = rows or draw(st.integers(1, 4))
    shape = (n, *draw(st.lists(st.integers(1, 4), max_size=3)))
    spec = spec_of(datatype, (None, *(draw(st.sampled_from([None, d])) for d in shape[1:])), name)
    if datatype == "BYTES":
        count = int(np.prod(shape))
        items = draw(
            st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=count, max_size=count)
        )
        return spec, np.array([*(t.encode() for t in items), None], object)[:-1].reshape(shape)
    if datatype == "BF16":
        bits = draw(
            npst.arrays(np.uint16, shape, elements=st.integers(0, 0x7F7F) | st.integers(0x8000, 0xFF7F))
        )
        return spec, (bits.astype(np.uint32) << 16).view(np.float32)
    finite: dict[str, Any] = {"allow_nan": False, "allow_infinity": False} if spec.dtype.kind == "f" else {}
    return spec, draw(npst.arrays(spec.dtype, shape, elements=npst.from_dtype(spec.dtype, **finite)))
