"""The Open Inference Protocol over gRPC: reads a ModelInferRequest strictly, writes a ModelInferResponse.

The rules and error texts are those of JSON over HTTP (`protocol/infer_request.py`). Tensors come either all
as `raw_input_contents`, in the order of the inputs, or all as typed `contents`; the answer has the same form.
FP16 and BF16 have no typed form, so an answer that holds them is raw. Parameters are written as text:
KServe's version of the message has no double, Triton's has.

A message takes more memory than its bytes: an empty tensor is two bytes and 88 of memory, so that 8 MiB of
them would take 352 MiB and half a second of the event loop. `bounds.py` checks the bytes before protobuf
reads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from google.protobuf.message import DecodeError

from fallbacks.oip import open_inference_pb2 as pb
from fallbacks.oip.tensors import Array
from gateway.core.errors import InvalidRequest, Problem
from gateway.grpc.bounds import check_memory
from gateway.protocol.answers import Answer, reply_outputs
from gateway.protocol.contract import Contract, RequestedOutput, TensorSpec, read_shape
from gateway.protocol.endings import Stamp, reply_parameters
from gateway.protocol.infer_request import InferRequest, build_request
from gateway.protocol.problems import RequestProblems
from gateway.protocol.tensor_list import (
    EXTRA_ENTRIES,
    add_input,
    classification_count,
    reject_shared_memory,
    report_missing_inputs,
    spec_named,
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

NO_MESSAGE = "this is no ModelInferRequest"
Parameters: TypeAlias = Mapping[str, Any]


class _Entry(NamedTuple):
    """One tensor of a request's list. at: its place for problems; parameters: as plain values."""

    at: str
    tensor: Any
    parameters: dict[str, Any]


def read_message(raw: bytes) -> Any:
    """The ModelInferRequest in these bytes. Raises InvalidRequest. Cost: at most 64 MiB and 100 ms."""
    try:
        check_memory(raw)
    except IndexError:
        raise InvalidRequest([Problem("", NO_MESSAGE)]) from None
    return read_small_message(raw)


def read_small_message(raw: bytes) -> Any:
    """The same of a message with little beside raw data. Raises InvalidRequest. Cost: at most 1 ms."""
    try:
        return pb.ModelInferRequest.FromString(raw)
    except DecodeError:
        raise InvalidRequest([Problem("", NO_MESSAGE)]) from None


def parse_named_grpc_infer(raw: bytes, model: str, version: str, contract: Contract) -> InferRequest:
    """The infer request in a large message, whose model was read beforehand. Raises InvalidRequest."""
    message = read_message(raw)
    if (message.model_name, message.model_version) != (model, version):
        what = "must stand before the inputs, once, in a large message"
        raise InvalidRequest([Problem("model_name", what)])
    return parse_grpc_infer(message, contract)


def parse_grpc_infer(message: Any, contract: Contract) -> InferRequest:
    """The infer request in a ModelInferRequest.

    Raises:  InvalidRequest, and nothing else.
    Cost:    raw FP32[1,1,28,28]: about 20 us.
    """
    problems = RequestProblems()
    parameters = _plain(message.parameters)
    raw = len(message.raw_input_contents) > 0
    timeout_us = problems.read_count(parameters, "timeout", "parameters.timeout")
    priority = problems.read_count(parameters, "priority", "parameters.priority")
    inputs = _inputs(message, raw, contract, problems)
    outputs = _outputs(message, raw, contract, problems)
    problems.raise_if_any()
    return build_request(message.id or None, inputs, outputs, timeout_us, priority, contract)


def _plain(parameters: Any) -> dict[str, Any]:
    """Parameters as plain values; one without a value counts as absent."""
    chosen = ((name, one, one.WhichOneof("parameter_choice")) for name, one in parameters.items())
    return {name: getattr(one, choice) for name, one, choice in chosen if choice is not None}


def _entries(tensors: Any, key: str, most: int, problems: RequestProblems) -> Iterator[_Entry]:
    """The entries of a list of tensors, at most EXTRA_ENTRIES more than the contract has."""
    for i, tensor in enumerate(tensors[: most + EXTRA_ENTRIES]):
        at, parameters = f"{key}[{i}]", _plain(tensor.parameters)
        reject_shared_memory(at, parameters, problems)
        yield _Entry(at, tensor, parameters)


def _inputs(message: Any, raw: bool, contract: Contract, problems: RequestProblems) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    seen: set[str] = set()
    parts: Sequence[bytes] = message.raw_input_contents
    if raw and len(parts) != len(message.inputs):
        problems.add("raw_input_contents", f"has {len(parts)} parts for {len(message.inputs)} inputs")
    for i, entry in enumerate(_entries(message.inputs, "inputs", len(contract.inputs), problems)):
        spec = spec_named(f"{entry.at}.name", entry.tensor.name, contract.inputs_by_name, seen, problems)
        part = parts[i] if i < len(parts) else None
        array = _input(spec, entry, part, raw, contract.max_rows, problems) if spec else None
        if spec is not None and array is not None:
            add_input(arrays, spec.name, array, entry.at, problems)
    report_missing_inputs(contract.inputs_by_name, seen, problems)
    return arrays


def _input(
    spec: TensorSpec, entry: _Entry, part: bytes | None, raw: bool, max_rows: int, problems: RequestProblems
) -> Array | None:
    tensor, at = entry.tensor, f"{entry.at}.contents"
    shape = read_shape(spec, list(tensor.shape), max_rows, f"{entry.at}.shape", problems)
    if tensor.datatype != spec.datatype:
        problems.add(f"{entry.at}.datatype", f"must be {spec.datatype}")
        shape = None
    member = CONTENTS.get(spec.datatype)
    if raw and tensor.HasField("contents"):
        problems.add(at, "give either contents or raw_input_contents, not both")
    elif raw:
        if part is not None and shape is not None:
            return from_binary(spec, shape, memoryview(part), f"{entry.at}.raw", problems)
    elif member is None:
        problems.add(at, f"{spec.datatype} travels in raw_input_contents only")
    elif any(field.name != member for field, _ in tensor.contents.ListFields()):
        problems.add(at, f"{spec.datatype} travels in {member} only")
    elif shape is not None:
        return from_values(spec, shape, getattr(tensor.contents, member), f"{at}.{member}", problems)
    return None


def _outputs(
    message: Any, raw: bool, contract: Contract, problems: RequestProblems
) -> tuple[RequestedOutput, ...]:
    requested: list[RequestedOutput] = []
    seen: set[str] = set()
    for entry in _entries(message.outputs, "outputs", len(contract.outputs_by_name), problems):
        spec = spec_named(f"{entry.at}.name", entry.tensor.name, contract.outputs_by_name, seen, problems)
        count = classification_count(entry.at, entry.parameters, spec, problems)
        if spec is not None:
            requested.append(RequestedOutput(spec.name, raw, count))
    return tuple(requested) or contract.default_outputs[raw]


def render_grpc_infer(contract: Contract, request: InferRequest, answer: Answer, stamp: Stamp) -> Any:
    """The message of an answer."""
    parameters = reply_parameters(answer.ending, stamp, answer.urls, answer.row_outcomes)
    response = pb.ModelInferResponse(
        model_name=contract.model,
        model_version=contract.version,
        id=request.id or "",
        parameters={name: pb.InferParameter(string_param=value) for name, value in parameters.items()},
    )
    outputs = reply_outputs(contract, request, answer.outputs, answer.withheld)
    raw = any(requested.binary or spec.datatype not in CONTENTS for requested, spec, _, _ in outputs)
    for _, spec, array, _ in outputs:
        tensor = response.outputs.add(name=spec.name, datatype=spec.datatype, shape=array.shape)
        if raw:
            response.raw_output_contents.append(bytes(to_binary(spec, array)))
        else:
            getattr(tensor.contents, CONTENTS[spec.datatype]).extend(to_values(spec, array))
    return response
