"""An infer request of the Open Inference Protocol, and its form over HTTP, read strictly.

Parsing is a pure function from bytes to values; `gateway/http/replies.py` writes the reply. The problems of
all parts are collected and raised once as `InvalidRequest`, each with the field and the rule. Nothing else
is raised, whatever the bytes: every type is checked before it is used.

    {"id", "parameters", "inputs": [{"name", "datatype", "shape", "parameters", "data"}], "outputs": [...]}
    └─────────────── Inference-Header-Content-Length ───────────────┘ binary data, in the order of inputs

Without the header the whole body is JSON. At 0 (a raw request) it is the data of a one-input model.
Unknown members and parameters are ignored; a null counts as an absent member. A parameter is a string, a
number or a boolean, so one that is a list or an object is invalid, known or not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import orjson

from fallbacks.oip.tensors import Array
from gateway.core.errors import InvalidRequest, Problem
from gateway.protocol.contract import ROW_OUTCOME, Contract, RequestedOutput, TensorSpec, read_shape
from gateway.protocol.problems import RequestProblems
from gateway.protocol.tensor_list import (
    EXTRA_ENTRIES,
    add_input,
    classification_count,
    reject_shared_memory,
    report_missing_inputs,
    spec_named,
)
from gateway.protocol.tensors import from_binary, from_json

HEADER = "Inference-Header-Content-Length"
MAX_DEPTH = 16
INLINE_BYTES = 32 * 1024
"""JSON up to this size is parsed on the event loop, within a millisecond whatever it holds."""

_ROOT, _TENSOR = frozenset({"inputs", "outputs"}), frozenset({"shape", "data"})  # lists whose form is checked
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"')
_SEPARATORS = (b",", b"[", b"{")
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[{]}"))


class InferRequest(NamedTuple):
    """One valid request. inputs: read-only, in the contract's dtypes and order, `rows` rows each."""

    id: str | None
    inputs: Mapping[str, Array]
    rows: int
    outputs: tuple[RequestedOutput, ...]
    timeout_us: int | None = None
    priority: int | None = None
    wants_row_outcome: bool = False

    @property
    def inputs_bytes(self) -> int:
        """What the inputs hold in memory, of texts only their references."""
        return sum(array.nbytes for array in self.inputs.values())


def parse_header_length(value: str | None) -> int | None:
    """The value of the Inference-Header-Content-Length header, in bytes. Raises InvalidRequest."""
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) <= 18):
        raise InvalidRequest([Problem(HEADER, "must be a number of bytes")])
    return int(value)


def parses_inline(body: bytes, header_length: int | None, contract: Contract) -> bool:
    """Whether a body is parsed within 1 ms or so: little JSON, and binary data that needs no copy."""
    if len(body) <= INLINE_BYTES:
        return True
    return header_length is not None and header_length <= INLINE_BYTES and contract.views_binary


def parse_http_infer(body: bytes, header_length: int | None, contract: Contract) -> InferRequest:
    """The infer request in the body of an HTTP request.

    Args:    header_length: of the Inference-Header-Content-Length header; None: all JSON, 0: a raw request.
    Raises:  InvalidRequest, and nothing else.
    Cost:    FP32[1,1,28,28]: about 25 us binary, 90 us JSON (two thirds of it orjson and numpy).
    """
    if header_length == 0:
        return _parse_raw(body, contract)
    document, tail = _split(body, header_length, contract.max_json_values)
    problems = RequestProblems()
    identity = problems.read_member(document, "id", str, "id")
    timeout_us = priority = binary = None
    if parameters := problems.read_parameters(document, "parameters"):
        timeout_us = problems.read_count(parameters, "timeout", "parameters.timeout")
        priority = problems.read_count(parameters, "priority", "parameters.priority")
        binary = problems.read_member(parameters, "binary_data_output", bool, "parameters.binary_data_output")
    inputs = _inputs(document, tail, contract, _may_hold_booleans(body), problems)
    outputs = _outputs(document, binary or False, contract, problems)
    problems.raise_if_any()
    _check_depth(document, body, header_length)
    return build_request(identity, inputs, outputs, timeout_us, priority, contract)


def build_request(
    identity: str | None,
    inputs: Mapping[str, Array],
    outputs: tuple[RequestedOutput, ...],
    timeout_us: int | None,
    priority: int | None,
    contract: Contract,
) -> InferRequest:
    """The request from valid parts, inputs in the contract's order. A timeout or priority of 0 means none."""
    return InferRequest(
        id=identity,
        inputs={name: inputs[name] for name in contract.inputs_by_name},
        rows=len(inputs[contract.inputs[0].name]),
        outputs=outputs,
        timeout_us=timeout_us or None,
        priority=priority or None,
        wants_row_outcome=ROW_OUTCOME.name in [output.name for output in outputs],
    )


def _parse_raw(body: bytes, contract: Contract) -> InferRequest:
    """A body that is only the data of the model's one input; every output is replied in binary."""
    spec, sizes = contract.inputs[0], contract.inputs[0].shape[1:]
    one = math.prod(d or 0 for d in sizes) * spec.item_bytes
    if len(contract.inputs) != 1 or not one:
        raise InvalidRequest([Problem("body", "a raw request needs a model with one input, of fixed shape")])
    if spec.datatype == "BYTES":  # the whole body is one element
        rows, raw = 1, memoryview(len(body).to_bytes(8, "little")[:4] + body)
    else:
        rows, raw = len(body) // one, memoryview(body)
    problems = RequestProblems()
    shape = read_shape(spec, [rows, *sizes], contract.max_rows, "body", problems)
    array = from_binary(spec, shape, raw, "body", problems) if shape else None
    if array is None:
        raise InvalidRequest(problems.found)
    return InferRequest(id=None, inputs={spec.name: array}, rows=rows, outputs=contract.default_outputs[True])


def _split(body: bytes, header_length: int | None, max_values: int) -> tuple[dict[str, Any], _BinaryData]:
    """The JSON object and the binary data after it."""
    length = len(body) if header_length is None else header_length
    if not 0 < length <= len(body):
        what = "must not be empty" if length == 0 else f"{length}, but the body has {len(body)} bytes"
        raise InvalidRequest([Problem(HEADER if header_length else "body", what)])
    view = memoryview(body)
    if length > INLINE_BYTES:
        _check_values(body[:length], max_values)
    try:
        document = orjson.loads(view[:length])
    except orjson.JSONDecodeError as error:
        raise InvalidRequest([_not_json(body[:length], header_length, error)]) from None
    if not isinstance(document, dict):
        raise InvalidRequest([Problem("body", "must be a JSON object")])
    return document, _BinaryData(view[length:])


def _check_values(document: bytes, most: int) -> None:
    """Raises InvalidRequest for JSON with more values than fit the contract, before they take memory.

    Each value but the first of a list or object follows a comma, and each list or object has a bracket. A
    text may hold as many as it likes, so texts are left out where they could matter.
    Cost:    1 ms for 1 MB; 10 ms if texts are left out.
    """
    if sum(map(document.count, _SEPARATORS)) > most and (found := _separators_outside_texts(document)) > most:
        raise InvalidRequest([Problem("body", f"has {found} JSON values; at most {most} are taken")])


def _separators_outside_texts(document: bytes) -> int:
    plain = document.replace(b"\\\\", b"").replace(b'\\"', b"")  # every quote left begins or ends a text
    octets = np.frombuffer(plain, np.uint8)
    outside = np.cumsum(octets == ord('"'), dtype=np.uint8) & 1 == 0  # even, though it wraps around
    return sum(int(np.count_nonzero(outside & (octets == separator[0]))) for separator in _SEPARATORS)


def _not_json(document: bytes, header_length: int | None, error: orjson.JSONDecodeError) -> Problem:
    """Why a document is not JSON: most often it is binary data, or compressed, without the header for it."""
    if header_length is None and b'"binary_data_size"' in document:
        return Problem(HEADER, "is missing: the body has binary data, and this header says where it begins")
    if document.startswith(b"\x1f\x8b"):
        return Problem("body", "not JSON: it is gzip, which needs Content-Encoding: gzip")
    what = str(error)
    try:
        document.decode()
    except UnicodeDecodeError as bad:
        what = f"byte {bad.start} (0x{document[bad.start]:02x}) is not UTF-8"
        if header_length is None:
            what += f"; binary data needs {HEADER}"
    if b"NaN" in document or b"Infinity" in document:
        what += "; JSON has no NaN and no Infinity"
    if header_length is not None:
        what += f" (the JSON has {header_length} bytes by {HEADER})"
    return Problem("body", f"not JSON: {what}")


def _may_hold_booleans(body: bytes) -> bool:
    """Whether true or false may stand in the document.

    Numbers contain neither `u` nor `s`, so only the part up to the last of these has to be searched. To find
    one letter from the end is much faster than to find a word.
    """
    return b"true" in body[: body.rfind(b"u") + 2] or b"false" in body[: body.rfind(b"s") + 2]


def _check_depth(document: dict[str, Any], body: bytes, header_length: int | None) -> None:
    """Raises InvalidRequest for a request that nests too deep, which only ignored members can."""
    if body.count(b"[", 0, header_length) + body.count(b"{", 0, header_length) <= MAX_DEPTH:
        return
    tensors = [*document["inputs"], *(document.get("outputs") or ())]
    if not (_nests(document, _ROOT) or any(_nests(tensor, _TENSOR) for tensor in tensors)):
        return
    steps = _STRING.sub(b"", memoryview(body)[:header_length]).translate(_STEPS, _NO_BRACKETS)
    if np.cumsum(np.frombuffer(steps, np.int8), dtype=np.int32).max() > MAX_DEPTH:
        raise InvalidRequest([Problem("body", f"nested deeper than {MAX_DEPTH}")])


def _nests(owner: dict[str, Any], checked: frozenset[str]) -> bool:
    """Whether an object holds a list that is not checked, or an object that holds more than scalars."""
    for key, value in owner.items():
        if isinstance(value, dict):
            if any(isinstance(member, (dict, list)) for member in value.values()):
                return True
        elif isinstance(value, list) and key not in checked:
            return True
    return False


class _Entry(NamedTuple):
    """One tensor of a request's list. at: its place for problems, as in `inputs[0]`."""

    at: str
    members: dict[str, Any]
    parameters: dict[str, Any]


class _BinaryData:
    """The binary data after the JSON, taken in the order of the inputs.

    lost: an announced size was wrong, so that no later input's data can be found.
    """

    __slots__ = ("lost", "rest")

    def __init__(self, rest: memoryview) -> None:
        self.rest = rest
        self.lost = False

    def take(self, entry: _Entry, problems: RequestProblems) -> memoryview | None:
        """The next `binary_data_size` bytes; None if the input has no such parameter, or fewer follow."""
        if entry.parameters.get("binary_data_size") is None:
            return None
        at = f"{entry.at}.parameters.binary_data_size"
        size = problems.read_count(entry.parameters, "binary_data_size", at)
        if size is None or size > self.rest.nbytes:
            if size is not None:
                problems.add(at, f"announces {size} bytes, {self.rest.nbytes} follow ({HEADER} says where)")
            self.lost = True
            return None
        taken, self.rest = self.rest[:size], self.rest[size:]
        return taken


def _entries(document: dict[str, Any], key: str, most: int, problems: RequestProblems) -> Iterator[_Entry]:
    """The entries of a list of tensors, at most EXTRA_ENTRIES more than the contract has."""
    entries = problems.read_member(document, key, list, key) or []
    for i, members in enumerate(entries[: most + EXTRA_ENTRIES]):
        at = f"{key}[{i}]"
        if not isinstance(members, dict):
            problems.add(at, "must be an object")
            continue
        parameters: dict[str, Any] = {}
        if "parameters" in members:
            parameters = problems.read_parameters(members, f"{at}.parameters")
            reject_shared_memory(at, parameters, problems)
        yield _Entry(at, members, parameters)


def _named(
    entry: _Entry, known: Mapping[str, TensorSpec], seen: set[str], problems: RequestProblems
) -> TensorSpec | None:
    name, at = entry.members.get("name"), f"{entry.at}.name"
    if isinstance(name, str):
        return spec_named(at, name, known, seen, problems)
    problems.add(at, "must be a string")
    return None


def _inputs(
    document: dict[str, Any], tail: _BinaryData, contract: Contract, booleans: bool, problems: RequestProblems
) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    seen: set[str] = set()
    for entry in _entries(document, "inputs", len(contract.inputs), problems):
        raw = tail.take(entry, problems)
        spec = _named(entry, contract.inputs_by_name, seen, problems)
        array = _input(spec, entry, raw, contract.max_rows, booleans, problems) if spec else None
        if spec is not None and array is not None:
            add_input(arrays, spec.name, array, entry.at, problems)
    report_missing_inputs(contract.inputs_by_name, seen, problems)
    if tail.rest and not tail.lost:
        problems.add("body", f"{tail.rest.nbytes} bytes after the data of the last input")
    return arrays


def _input(
    spec: TensorSpec,
    entry: _Entry,
    raw: memoryview | None,
    max_rows: int,
    booleans: bool,
    problems: RequestProblems,
) -> Array | None:
    at, data = f"{entry.at}.data", entry.members.get("data")
    announced = entry.parameters.get("binary_data_size") is not None
    shape = read_shape(spec, entry.members.get("shape"), max_rows, f"{entry.at}.shape", problems)
    if entry.members.get("datatype") != spec.datatype:
        problems.add(f"{entry.at}.datatype", f"must be {spec.datatype}")
        shape = None
    if announced and data is not None:
        problems.add(at, "give either data or binary_data_size, not both")
    elif not announced and data is None:
        problems.add(at, "is missing")
    elif shape is not None and raw is not None:
        return from_binary(spec, shape, raw, at, problems)
    elif shape is not None and not announced:
        return from_json(spec, shape, data, at, problems, booleans=booleans)
    return None


def _outputs(
    document: dict[str, Any], binary: bool, contract: Contract, problems: RequestProblems
) -> tuple[RequestedOutput, ...]:
    if document.get("outputs") is None:
        return contract.default_outputs[binary]
    requested: list[RequestedOutput] = []
    seen: set[str] = set()
    for entry in _entries(document, "outputs", len(contract.outputs_by_name), problems):
        spec = _named(entry, contract.outputs_by_name, seen, problems)
        own = problems.read_member(
            entry.parameters, "binary_data", bool, f"{entry.at}.parameters.binary_data"
        )
        count = classification_count(entry.at, entry.parameters, spec, problems)
        if spec is not None:
            requested.append(RequestedOutput(spec.name, binary if own is None else own, count))
    return tuple(requested) or contract.default_outputs[binary]
