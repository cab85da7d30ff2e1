"""The Open Inference Protocol over gRPC: a ModelInferRequest read strictly, a ModelInferResponse written.

Held to the same rules, in the same words, as the JSON of HTTP (`wire.py`). Tensors come either all as
`raw_input_contents`, in the order of the inputs, or all as typed `contents`; the answer has the same form.
FP16 and BF16 have no typed form, so an answer that holds them is raw. What a message may not hold in both
forms (a double among parameters, which KServe's does not know) is not written.

A message takes more memory than its bytes: an empty tensor is two bytes and 88 of memory, so that 8 MiB of
them would take 352 MiB and half a second of the event loop. `grpc_bounds.py` looks before protobuf does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from google.protobuf.message import DecodeError

from fallbacks.oip import open_inference_pb2 as pb
from gateway.core.errors import InvalidRequest, Problem
from gateway.grpc.bounds import hold_memory
from gateway.protocol.answers import Answer, shown
from gateway.protocol.contract import Array, Contract, RequestedOutput, TensorSpec, read_shape
from gateway.protocol.endings import Stamp, told
from gateway.protocol.infer_request import InferRequest, settled
from gateway.protocol.problems import Faults
from gateway.protocol.tensor_list import (
    SPARE_ENTRIES,
    add_input,
    classes,
    hold_complete,
    hold_parameters,
    named,
)
from gateway.protocol.tensors import from_binary, from_values, to_binary, to_values

CONTENTS = {
    "BOOL": "bool_contents",
    **{f"INT{bits}": "int_contents" for bits in (8, 16, 32)},
    "INT64": "int64_contents",
    **{f"UINT{bits}": "uint_contents" for bits in (8, 16, 32)},
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Which member of InferTensorContents holds a datatype. FP16 and BF16 have none."""

Parameters: TypeAlias = Mapping[str, Any]


class _Entry(NamedTuple):
    """One tensor as a request lists it: where it stands, and its parameters as plain values."""

    at: str
    tensor: Any
    parameters: dict[str, Any]


def read_message(raw: bytes) -> Any:
    """The ModelInferRequest in these bytes. Raises InvalidRequest. Cost: at most 64 MiB and 100 ms."""
    try:
        hold_memory(raw)
        return pb.ModelInferRequest.FromString(raw)
    except (DecodeError, IndexError):
        raise InvalidRequest([Problem("", "this is no ModelInferRequest")]) from None


def parse_infer(message: Any, contract: Contract) -> InferRequest:
    """The request in a message.

    Raises:  InvalidRequest, and nothing else.
    Cost:    raw FP32[1,1,28,28]: about 20 us.
    """
    faults = Faults()
    parameters = _plain(message.parameters)
    raw = len(message.raw_input_contents) > 0
    timeout_us = faults.natural(parameters, "timeout", "parameters.timeout")
    priority = faults.natural(parameters, "priority", "parameters.priority")
    inputs = _inputs(message, raw, contract, faults)
    outputs = _outputs(message, raw, contract, faults)
    faults.settle()
    return settled(message.id or None, inputs, outputs, timeout_us, priority, contract)


def _plain(parameters: Any) -> dict[str, Any]:
    """Parameters as plain values; one without a value is as good as absent."""
    chosen = ((name, one, one.WhichOneof("parameter_choice")) for name, one in parameters.items())
    return {name: getattr(one, choice) for name, one, choice in chosen if choice is not None}


def _entries(listed: Any, key: str, most: int, faults: Faults) -> Iterator[_Entry]:
    """What a request lists: of more than can be right, enough to name what is wrong."""
    for i, tensor in enumerate(listed[: most + SPARE_ENTRIES]):
        at, parameters = f"{key}[{i}]", _plain(tensor.parameters)
        hold_parameters(at, parameters, faults)
        yield _Entry(at, tensor, parameters)


def _inputs(message: Any, raw: bool, contract: Contract, faults: Faults) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    seen: set[str] = set()
    parts: Sequence[bytes] = message.raw_input_contents
    if raw and len(parts) != len(message.inputs):
        faults.add("raw_input_contents", f"has {len(parts)} parts for {len(message.inputs)} inputs")
    for i, entry in enumerate(_entries(message.inputs, "inputs", len(contract.inputs), faults)):
        spec = named(f"{entry.at}.name", entry.tensor.name, contract.inputs_by_name, seen, faults)
        part = parts[i] if i < len(parts) else None
        array = _input(spec, entry, part, raw, contract.max_rows, faults) if spec else None
        if spec is not None and array is not None:
            add_input(arrays, spec.name, array, entry.at, faults)
    hold_complete(contract.inputs_by_name, seen, faults)
    return arrays


def _input(
    spec: TensorSpec, entry: _Entry, part: bytes | None, raw: bool, max_rows: int, faults: Faults
) -> Array | None:
    tensor, at = entry.tensor, f"{entry.at}.contents"
    shape = read_shape(spec, list(tensor.shape), max_rows, f"{entry.at}.shape", faults)
    if tensor.datatype != spec.datatype:
        faults.add(f"{entry.at}.datatype", f"must be {spec.datatype}")
        shape = None
    held = CONTENTS.get(spec.datatype)
    if raw and tensor.HasField("contents"):
        faults.add(at, "give either contents or raw_input_contents, not both")
    elif raw:
        if part is not None and shape is not None:
            return from_binary(spec, shape, memoryview(part), f"{entry.at}.raw", faults)
    elif held is None:
        faults.add(at, f"{spec.datatype} travels in raw_input_contents only")
    elif any(field.name != held for field, _ in tensor.contents.ListFields()):
        faults.add(at, f"{spec.datatype} travels in {held} only")
    elif shape is not None:
        return from_values(spec, shape, getattr(tensor.contents, held), f"{at}.{held}", faults)
    return None


def _outputs(message: Any, raw: bool, contract: Contract, faults: Faults) -> tuple[RequestedOutput, ...]:
    asked: list[RequestedOutput] = []
    seen: set[str] = set()
    for entry in _entries(message.outputs, "outputs", len(contract.outputs_by_name), faults):
        spec = named(f"{entry.at}.name", entry.tensor.name, contract.outputs_by_name, seen, faults)
        count = classes(entry.at, entry.parameters, spec, faults)
        if spec is not None:
            asked.append(RequestedOutput(spec.name, raw, count))
    return tuple(asked) or contract.default_outputs[raw]


def render_infer(contract: Contract, request: InferRequest, answer: Answer, stamp: Stamp) -> Any:
    """The message with what may leave."""
    parameters = told(answer.ending, stamp, answer.urls)
    response = pb.ModelInferResponse(
        model_name=contract.model,
        model_version=contract.version,
        id=request.id or "",
        parameters={name: pb.InferParameter(string_param=value) for name, value in parameters.items()},
    )
    leaving = shown(contract, request, answer.outputs, answer.withheld)
    raw = any(asked.binary or spec.datatype not in CONTENTS for asked, spec, _, _ in leaving)
    for _, spec, array, _ in leaving:
        tensor = response.outputs.add(name=spec.name, datatype=spec.datatype, shape=array.shape)
        if raw:
            response.raw_output_contents.append(bytes(to_binary(spec, array)))
        else:
            getattr(tensor.contents, CONTENTS[spec.datatype]).extend(to_values(spec, array))
    return response
