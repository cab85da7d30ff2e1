"""The Open Inference Protocol over HTTP: an infer request, read strictly.

A pure function from bytes to values; `replies.py` is the way back. What a caller got wrong is collected,
in every part that can be judged, and raised once as `InvalidRequest`, each problem with the field and the
rule. Nothing else is raised, whatever the bytes: every type is looked at before it is used.

    {"id", "parameters", "inputs": [{"name", "datatype", "shape", "parameters", "data"}], "outputs": [...]}
    └─────────────── Inference-Header-Content-Length ───────────────┘ binary data, in the order of inputs

Without the header the whole body is JSON. At 0 (a raw request) it is the data of a one-input model.
Unknown members and parameters are ignored, and a null is as good as an absent member.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import orjson

from gateway.core.errors import InvalidRequest, Problem
from gateway.protocol.contract import ROW_OUTCOME, Array, Contract, RequestedOutput, TensorSpec, read_shape
from gateway.protocol.problems import Faults
from gateway.protocol.tensor_list import (
    SPARE_ENTRIES,
    add_input,
    classes,
    hold_complete,
    hold_parameters,
    named,
)
from gateway.protocol.tensors import from_binary, from_json

__all__ = [
    "ROW_OUTCOME",
    "Contract",
    "InferRequest",
    "RequestedOutput",
    "TensorSpec",
    "parse_header_length",
    "parse_infer",
]

HEADER = "Inference-Header-Content-Length"
MAX_DEPTH = 16

_ROOT, _TENSOR = frozenset({"inputs", "outputs"}), frozenset({"shape", "data"})  # lists held to their form
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"')
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[{]}"))


class InferRequest(NamedTuple):
    """One valid request: `inputs` have the contract's dtypes and order and `rows` rows each; read-only."""

    id: str | None
    inputs: Mapping[str, Array]
    rows: int
    outputs: tuple[RequestedOutput, ...]
    timeout_us: int | None = None
    priority: int | None = None
    wants_row_outcome: bool = False


def parse_header_length(value: str | None) -> int | None:
    """The Inference-Header-Content-Length header, if there is one."""
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) <= 18):
        raise InvalidRequest([Problem(HEADER, "must be a number of bytes")])
    return int(value)


def parse_infer(body: bytes, header_length: int | None, contract: Contract) -> InferRequest:
    """The request in `body`.

    Args:    header_length: of the Inference-Header-Content-Length header; None: all JSON, 0: a raw request.
    Raises:  InvalidRequest, and nothing else.
    Cost:    FP32[1,1,28,28]: about 25 us binary, 90 us JSON (two thirds of it orjson and numpy).
    """
    if header_length == 0:
        return _parse_raw(body, contract)
    document, tail = _split(body, header_length)
    faults = Faults()
    identity = faults.member(document, "id", str, "id")
    timeout_us = priority = binary = None
    if parameters := faults.member(document, "parameters", dict, "parameters"):
        timeout_us = faults.natural(parameters, "timeout", "parameters.timeout")
        priority = faults.natural(parameters, "priority", "parameters.priority")
        binary = faults.member(parameters, "binary_data_output", bool, "parameters.binary_data_output")
    inputs = _inputs(document, tail, contract, _booleans(body), faults)
    outputs = _outputs(document, binary or False, contract, faults)
    faults.settle()
    _hold_depth(document, body, header_length)
    return settled(identity, inputs, outputs, timeout_us, priority, contract)


def settled(
    identity: str | None,
    inputs: Mapping[str, Array],
    outputs: tuple[RequestedOutput, ...],
    timeout_us: int | None,
    priority: int | None,
    contract: Contract,
) -> InferRequest:
    """A request of which nothing is wrong, inputs in the contract's order; zero is as good as unsaid."""
    return InferRequest(
        id=identity,
        inputs={name: inputs[name] for name in contract.inputs_by_name},
        rows=len(inputs[contract.inputs[0].name]),
        outputs=outputs,
        timeout_us=timeout_us or None,
        priority=priority or None,
        wants_row_outcome=any(asked.name == ROW_OUTCOME.name for asked in outputs),
    )


def _parse_raw(body: bytes, contract: Contract) -> InferRequest:
    """A body that is nothing but the data of the only input; every output is wanted in binary."""
    spec, sizes = contract.inputs[0], contract.inputs[0].shape[1:]
    one = math.prod(d or 0 for d in sizes) * spec.item_bytes
    if len(contract.inputs) != 1 or not one:
        raise InvalidRequest([Problem("body", "a raw request needs a model with one input, of fixed shape")])
    if spec.datatype == "BYTES":  # the whole body is one element
        rows, raw = 1, memoryview(len(body).to_bytes(8, "little")[:4] + body)
    else:
        rows, raw = len(body) // one, memoryview(body)
    faults = Faults()
    shape = read_shape(spec, [rows, *sizes], contract.max_rows, "body", faults)
    array = from_binary(spec, shape, raw, "body", faults) if shape else None
    if array is None:
        raise InvalidRequest(faults.problems)
    return InferRequest(id=None, inputs={spec.name: array}, rows=rows, outputs=contract.default_outputs[True])


def _split(body: bytes, header_length: int | None) -> tuple[dict[str, Any], _Tail]:
    """The JSON object and what follows it."""
    length = len(body) if header_length is None else header_length
    if not 0 < length <= len(body):
        what = "must not be empty" if length == 0 else f"{length}, but the body has {len(body)} bytes"
        raise InvalidRequest([Problem(HEADER if header_length else "body", what)])
    view = memoryview(body)
    try:
        document = orjson.loads(view[:length])
    except orjson.JSONDecodeError as error:
        raise InvalidRequest([Problem("body", f"not JSON: {error}")]) from None
    if not isinstance(document, dict):
        raise InvalidRequest([Problem("body", "must be a JSON object")])
    return document, _Tail(view[length:])


def _booleans(body: bytes) -> bool:
    """Whether true or false may stand in the document.

    Numbers hold none of their letters, so the last `u` and the last `s` end what needs a search: one letter
    is found at the speed of memory, a word is not.
    """
    return b"true" in body[: body.rfind(b"u") + 2] or b"false" in body[: body.rfind(b"s") + 2]


def _hold_depth(document: dict[str, Any], body: bytes, header_length: int | None) -> None:
    """Refuses valid requests that nest too deep, which they can only in members that nobody reads."""
    tensors = [*document["inputs"], *(document.get("outputs") or ())]
    if not (_nests(document, _ROOT) or any(_nests(tensor, _TENSOR) for tensor in tensors)):
        return
    steps = _STRING.sub(b"", memoryview(body)[:header_length]).translate(_STEPS, _NO_BRACKETS)
    if np.cumsum(np.frombuffer(steps, np.int8), dtype=np.int32).max() > MAX_DEPTH:
        raise InvalidRequest([Problem("body", f"nested deeper than {MAX_DEPTH}")])


def _nests(owner: dict[str, Any], read: frozenset[str]) -> bool:
    """Whether an object holds a list that nobody reads, or an object that holds more than scalars."""
    for key, value in owner.items():
        if isinstance(value, dict):
            if any(isinstance(member, (dict, list)) for member in value.values()):
                return True
        elif isinstance(value, list) and key not in read:
            return True
    return False


class _Entry(NamedTuple):
    """One tensor as a request lists it: where it stands, its members and its parameters."""

    at: str
    members: dict[str, Any]
    parameters: dict[str, Any]


class _Tail:
    """The binary data after the JSON, handed out in the order of the inputs."""

    __slots__ = ("lost", "rest")

    def __init__(self, rest: memoryview) -> None:
        self.rest = rest
        self.lost = False

    def take(self, entry: _Entry, faults: Faults) -> memoryview | None:
        """The bytes that an input announces, if it announces any and they are there."""
        if entry.parameters.get("binary_data_size") is None:
            return None
        at = f"{entry.at}.parameters.binary_data_size"
        size = faults.natural(entry.parameters, "binary_data_size", at)
        if size is None or size > self.rest.nbytes:
            if size is not None:
                faults.add(at, f"announces {size} bytes, {self.rest.nbytes} follow ({HEADER} says where)")
            self.lost = True
            return None
        taken, self.rest = self.rest[:size], self.rest[size:]
        return taken


def _entries(document: dict[str, Any], key: str, most: int, faults: Faults) -> Iterator[_Entry]:
    """What a request lists: of more than can be right, enough to name what is wrong."""
    listed = faults.member(document, key, list, key) or []
    for i, members in enumerate(listed[: most + SPARE_ENTRIES]):
        at = f"{key}[{i}]"
        if not isinstance(members, dict):
            faults.add(at, "must be an object")
            continue
        parameters = faults.member(members, "parameters", dict, f"{at}.parameters") or {}
        hold_parameters(at, parameters, faults)
        yield _Entry(at, members, parameters)


def _named(
    entry: _Entry, known: Mapping[str, TensorSpec], seen: set[str], faults: Faults
) -> TensorSpec | None:
    name, at = entry.members.get("name"), f"{entry.at}.name"
    if isinstance(name, str):
        return named(at, name, known, seen, faults)
    faults.add(at, "must be a string")
    return None


def _inputs(
    document: dict[str, Any], tail: _Tail, contract: Contract, booleans: bool, faults: Faults
) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    seen: set[str] = set()
    for entry in _entries(document, "inputs", len(contract.inputs), faults):
        raw = tail.take(entry, faults)
        spec = _named(entry, contract.inputs_by_name, seen, faults)
        array = _input(spec, entry, raw, contract.max_rows, booleans, faults) if spec else None
        if spec is not None and array is not None:
            add_input(arrays, spec.name, array, entry.at, faults)
    hold_complete(contract.inputs_by_name, seen, faults)
    if tail.rest and not tail.lost:
        faults.add("body", f"{tail.rest.nbytes} bytes after the data of the last input")
    return arrays


def _input(
    spec: TensorSpec, entry: _Entry, raw: memoryview | None, max_rows: int, booleans: bool, faults: Faults
) -> Array | None:
    at, data = f"{entry.at}.data", entry.members.get("data")
    announced = entry.parameters.get("binary_data_size") is not None
    shape = read_shape(spec, entry.members.get("shape"), max_rows, f"{entry.at}.shape", faults)
    if entry.members.get("datatype") != spec.datatype:
        faults.add(f"{entry.at}.datatype", f"must be {spec.datatype}")
        shape = None
    if announced and data is not None:
        faults.add(at, "give either data or binary_data_size, not both")
    elif not announced and data is None:
        faults.add(at, "is missing")
    elif shape is not None and raw is not None:
        return from_binary(spec, shape, raw, at, faults)
    elif shape is not None and not announced:
        return from_json(spec, shape, data, at, faults, booleans=booleans)
    return None


def _outputs(
    document: dict[str, Any], binary: bool, contract: Contract, faults: Faults
) -> tuple[RequestedOutput, ...]:
    if document.get("outputs") is None:
        return contract.default_outputs[binary]
    asked: list[RequestedOutput] = []
    seen: set[str] = set()
    for entry in _entries(document, "outputs", len(contract.outputs_by_name), faults):
        spec = _named(entry, contract.outputs_by_name, seen, faults)
        own = faults.member(entry.parameters, "binary_data", bool, f"{entry.at}.parameters.binary_data")
        count = classes(entry.at, entry.parameters, spec, faults)
        if spec is not None:
            asked.append(RequestedOutput(spec.name, binary if own is None else own, count))
    return tuple(asked) or contract.default_outputs[binary]
