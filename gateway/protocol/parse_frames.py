"""What a gateway and its parser process send each other: a body to parse, and the request that was read.

    frame    length of the header (4 bytes), length of the payload (8 bytes), header: JSON, payload
    job      the contract and how the body is to be read; the body as it came
    reply    the request without its arrays, or why there is none; the arrays, each at a multiple of 16 bytes

The process reads bytes that a caller wrote, so its reply is data as well: no pickle, and the gateway rebuilds
arrays from its own contract. BYTES travel as the lengths of all elements (uint32) and then their content, and
become Python objects in slices, between which other requests run.
"""

from __future__ import annotations

import asyncio
import math
import struct
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import orjson

from fallbacks.oip.tensors import Array
from gateway.core.errors import InvalidRequest, Problem
from gateway.protocol.contract import Contract, RequestedOutput, TensorSpec
from gateway.protocol.endings import Rejection
from gateway.protocol.infer_request import InferRequest
from gateway.protocol.rejected import RequestRejected

PREFIX = struct.Struct("<IQ")
ALIGNMENT = 16
SLICE_ITEMS = 2000
"""Elements of BYTES that are made at a time: 0.3 ms."""


def frame(header: dict[str, Any], parts: list[bytes | memoryview]) -> list[bytes | memoryview]:
    """The parts of a frame. Every part of the payload is filled up to a multiple of ALIGNMENT."""
    encoded = orjson.dumps(header)
    padded: list[bytes | memoryview] = []
    for part in parts:
        padded.append(part)
        if fill := -memoryview(part).nbytes % ALIGNMENT:
            padded.append(bytes(fill))
    size = sum(memoryview(part).nbytes for part in padded)
    return [PREFIX.pack(len(encoded), size), encoded, *padded]


def contract_header(contract: Contract) -> dict[str, Any]:
    """What of a contract decides how a body is parsed."""
    return {
        "model": contract.model,
        "version": contract.version,
        "max_rows": contract.max_rows,
        "inputs": [_spec_header(spec) for spec in contract.inputs],
        "outputs": [_spec_header(spec) for spec in contract.outputs],
    }


def _spec_header(spec: TensorSpec) -> list[Any]:
    finite = (
        bound if bound is not None and math.isfinite(bound) else None for bound in (spec.low, spec.high)
    )
    return [spec.name, spec.dtype.str, spec.shape, *finite, spec.bf16, spec.missing, spec.utf8]


def read_contract(header: dict[str, Any]) -> Contract:
    """The contract in the header of a job."""
    inputs, outputs = (tuple(map(_read_spec, header[key])) for key in ("inputs", "outputs"))
    return Contract(header["model"], inputs, outputs, header["max_rows"], header["version"])


def _read_spec(fields: list[Any]) -> TensorSpec:
    name, dtype, shape, low, high, bf16, missing, utf8 = fields
    return TensorSpec(name, np.dtype(dtype), tuple(shape), low, high, bf16, missing, utf8)


def parsed_frame(parse: Callable[[], InferRequest], cpu_s: Callable[[], float]) -> list[bytes | memoryview]:
    """The reply to a job: what `parse` returns or raises, and the CPU seconds that it took."""
    parts: list[bytes | memoryview] = []
    header: dict[str, Any]
    try:
        request = parse()
        header = {"request": _request_header(request, parts)}
    except InvalidRequest as error:
        header = {"problems": [[one.field, one.what, one.nearest] for one in error.problems]}
    except RequestRejected as rejected:
        header = {"rejected": str(rejected.end), "error": rejected.error}
    return frame(header | {"cpu_s": cpu_s()}, parts)


def _request_header(request: InferRequest, parts: list[bytes | memoryview]) -> dict[str, Any]:
    """The request without its arrays, which are appended to the parts."""
    shapes = {}
    for name, array in request.inputs.items():
        shapes[name] = array.shape
        if array.dtype.kind == "O":
            items = array.reshape(-1).tolist()
            parts += [np.fromiter(map(len, items), "<u4", len(items)).tobytes(), b"".join(items)]
        else:
            parts.append(np.ascontiguousarray(array).data.cast("B"))
    return {
        "id": request.id,
        "shapes": shapes,
        "outputs": [[one.name, one.binary, one.classification] for one in request.outputs],
        "timeout_us": request.timeout_us,
        "priority": request.priority,
        "wants_row_outcome": request.wants_row_outcome,
    }


async def read_reply(header: dict[str, Any], payload: memoryview, contract: Contract) -> InferRequest:
    """The request in a reply. Raises InvalidRequest and RequestRejected as the parser did."""
    if "problems" in header:
        raise InvalidRequest(
            [Problem(field, what, nearest=nearest) for field, what, nearest in header["problems"]]
        )
    if "rejected" in header:
        raise RequestRejected(Rejection(header["rejected"]), header["error"])
    told, parts = header["request"], _Parts(payload)
    inputs: dict[str, Array] = {}
    for name, spec in contract.inputs_by_name.items():
        shape = tuple(told["shapes"][name])
        count = math.prod(shape)
        if spec.dtype.kind == "O":
            array = await _byte_strings(parts.take(4 * count), parts, count)
        else:
            array = np.frombuffer(parts.take(count * spec.dtype.itemsize), spec.dtype)
        inputs[name] = array = array.reshape(shape)
        array.flags.writeable = False
    return InferRequest(
        id=told["id"],
        inputs=inputs,
        rows=len(inputs[contract.inputs[0].name]),
        outputs=tuple(RequestedOutput(*fields) for fields in told["outputs"]),
        timeout_us=told["timeout_us"],
        priority=told["priority"],
        wants_row_outcome=told["wants_row_outcome"],
    )


class _Parts:
    """The parts of a payload, taken in order."""

    __slots__ = ("_at", "_payload")

    def __init__(self, payload: memoryview) -> None:
        self._payload, self._at = payload, 0

    def take(self, size: int) -> memoryview:
        start, self._at = self._at, self._at + size + -size % ALIGNMENT
        return self._payload[start : start + size]


async def _byte_strings(lengths: memoryview, parts: _Parts, count: int) -> Array:
    """The elements of BYTES as a flat array of objects; other tasks run between slices."""
    ends = np.cumsum(np.frombuffer(lengths, "<u4"), dtype=np.int64)
    content = bytes(parts.take(int(ends[-1])))
    array = np.empty(count, np.object_)
    for start, stop in _slices(count):
        begin = 0 if start == 0 else int(ends[start - 1])
        bounds = [begin, *ends[start:stop].tolist()]
        array[start:stop] = [content[a:b] for a, b in pairwise(bounds)]
        await asyncio.sleep(0)
    return array


def _slices(count: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + SLICE_ITEMS, count)) for start in range(0, count, SLICE_ITEMS))
