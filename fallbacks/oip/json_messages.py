"""The messages of the protocol over HTTP: JSON, with the values in it or in binary after it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from fallbacks.oip.description import ModelDescription, TensorEntry
from fallbacks.oip.errors import UnexpectedAnswer, excerpt
from fallbacks.oip.tensors import BINARY_ONLY, Array
from fallbacks.predictor import Tensors

BINARY_EXTENSIONS: Final = frozenset({"binary_tensor_data", "binary_data_extension"})
"""What Triton and KServe call the binary tensor extension."""


def encode_request(
    inputs: Tensors, description: ModelDescription, request_id: str, timeout_s: float, *, binary: bool
) -> tuple[bytes, int | None]:
    """The body that requests every declared output, and the size of its JSON if binary data follows.

    Raises:  ValueError for datatypes that travel as binary only, if `binary` is false.
    """
    tensors = (*description.inputs, *description.outputs)
    binary_only = [tensor for tensor in tensors if tensor.datatype in BINARY_ONLY]
    if binary_only and not binary:
        name, datatype = binary_only[0].name, binary_only[0].datatype
        raise ValueError(f"{name!r}: {datatype} travels as binary only: use grpc://")
    tails = [one.to_bytes(inputs[one.name]) for one in description.inputs] if binary else []
    entries: list[dict[str, Any]] = [
        {"name": one.name, "shape": inputs[one.name].shape, "datatype": one.datatype}
        for one in description.inputs
    ]
    for i, entry in enumerate(entries):
        if binary:
            entry["parameters"] = {"binary_data_size": len(tails[i])}
        else:
            entry["data"] = inputs[entry["name"]].reshape(-1).tolist()
    as_binary = {"parameters": {"binary_data": True}} if binary else {}
    head = orjson.dumps(
        {
            "id": request_id,
            "parameters": {"timeout": max(1, int(timeout_s * 1e6))},
            "inputs": entries,
            "outputs": [{"name": one.name, **as_binary} for one in description.outputs],
        }
    )
    return b"".join((head, *tails)), len(head) if binary else None


def decode_json_response(
    content: bytes, head_bytes: int | None, request_id: str, description: ModelDescription, n: int
) -> dict[str, Array]:
    """Every declared output, n rows each; others are skipped. Raises UnexpectedAnswer."""
    at = len(content) if head_bytes is None else head_bytes
    if at > len(content):
        raise UnexpectedAnswer("the answer is shorter than its own header")
    response = json_object(content[:at])
    outputs = _list_or_empty(response.get("outputs"))
    if not all(isinstance(output, dict) for output in outputs):
        raise UnexpectedAnswer("an output of the answer is no object")
    if response.get("id") not in (None, "", request_id):
        raise UnexpectedAnswer("the answer is to another request")
    declared = description.require_outputs([str(output.get("name")) for output in outputs])
    found = {}
    for output in outputs:
        size = _binary_size(output)
        part, at = content[at : at + size], at + size
        if (tensor := declared.get(str(output.get("name")))) is None:
            continue
        shape = tensor.checked_shape(output.get("datatype"), _list_or_empty(output.get("shape")), n)
        in_json = output.get("data") is not None
        array = tensor.from_list(output["data"], shape) if in_json else tensor.from_bytes(part, shape)
        found[tensor.name] = array
    if at != len(content):
        raise UnexpectedAnswer(f"the answer has {len(content)} bytes, and says {at}")
    return found


def _binary_size(output: Mapping[str, Any]) -> int:
    """How many bytes of an output follow the JSON. Raises UnexpectedAnswer."""
    parameters = output.get("parameters")
    size = parameters.get("binary_data_size", 0) if isinstance(parameters, dict) else 0
    if type(size) is not int or size < 0:
        raise UnexpectedAnswer(f"an output has a binary_data_size of {excerpt(str(size))}")
    return size


def decode_metadata(content: bytes) -> ModelDescription:
    """A model's metadata. Raises UnexpectedAnswer."""
    metadata = json_object(content)
    return ModelDescription.parse(
        _tensor_entries(metadata.get("inputs")), _tensor_entries(metadata.get("outputs"))
    )


def lists_binary_extension(content: bytes) -> bool:
    """Whether a server's metadata lists the binary extension. Raises UnexpectedAnswer."""
    extensions = _list_or_empty(json_object(content).get("extensions"))
    return not BINARY_EXTENSIONS.isdisjoint(name for name in extensions if isinstance(name, str))


def json_object(content: bytes) -> dict[str, Any]:
    """The JSON object in these bytes. Raises UnexpectedAnswer."""
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        shown = excerpt(content[:800].decode(errors="replace"))
        raise UnexpectedAnswer(f"not JSON ({error}): {shown}") from None
    if not isinstance(value, dict):
        raise UnexpectedAnswer("not a JSON object")
    return value


def _tensor_entries(tensors: object) -> list[TensorEntry]:
    objects = [one for one in _list_or_empty(tensors) if isinstance(one, dict)]
    return [(one.get("name"), one.get("datatype"), _list_or_empty(one.get("shape"))) for one in objects]


def _list_or_empty(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
