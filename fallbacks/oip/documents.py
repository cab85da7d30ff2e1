"""The documents of the protocol over HTTP: JSON, with the numbers in it or in binary behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from fallbacks.oip.described import Described, Told
from fallbacks.oip.errors import WrongAnswer, excerpt
from fallbacks.oip.tensors import BINARY_ONLY, Array
from fallbacks.predictor import Tensors

BINARY: Final = frozenset({"binary_tensor_data", "binary_data_extension"})
"""What Triton and KServe call the extension."""


def question(
    inputs: Tensors, like: Described, asked: str, timeout_s: float, *, binary: bool
) -> tuple[bytes, int | None]:
    """The body that asks for every declared output, and how much of it is JSON if the rest is binary.

    Raises:  ValueError for what travels as binary only, if it may not.
    """
    narrow = [one for one in (*like.inputs, *like.outputs) if one.datatype in BINARY_ONLY]
    if narrow and not binary:
        raise ValueError(f"{narrow[0].name!r}: {narrow[0].datatype} travels as binary only: use grpc://")
    tails = [one.to_bytes(inputs[one.name]) for one in like.inputs] if binary else []
    told: list[dict[str, Any]] = [
        {"name": one.name, "shape": inputs[one.name].shape, "datatype": one.datatype} for one in like.inputs
    ]
    for i, one in enumerate(told):
        if binary:
            one["parameters"] = {"binary_data_size": len(tails[i])}
        else:
            one["data"] = inputs[one["name"]].reshape(-1).tolist()
    wanted = {"parameters": {"binary_data": True}} if binary else {}
    head = orjson.dumps(
        {
            "id": asked,
            "parameters": {"timeout": max(1, int(timeout_s * 1e6))},
            "inputs": told,
            "outputs": [{"name": one.name, **wanted} for one in like.outputs],
        }
    )
    return b"".join((head, *tails)), len(head) if binary else None


def answer(content: bytes, head_bytes: int | None, asked: str, like: Described, n: int) -> dict[str, Array]:
    """Every declared output, n rows each; others are skipped. Raises WrongAnswer."""
    at = len(content) if head_bytes is None else head_bytes
    if at > len(content):
        raise WrongAnswer("the answer is shorter than its own header")
    told = document(content[:at])
    outputs = _listed(told.get("outputs"))
    if not all(isinstance(one, dict) for one in outputs):
        raise WrongAnswer("an output of the answer is no object")
    if told.get("id") not in (None, "", asked):
        raise WrongAnswer("the answer is to another request")
    declared, found = like.asked_for([str(one.get("name")) for one in outputs]), {}
    for output in outputs:
        size = _binary_size(output)
        part, at = content[at : at + size], at + size
        if (one := declared.get(str(output.get("name")))) is None:
            continue
        shape = one.fits(output.get("datatype"), _listed(output.get("shape")), n)
        in_json = output.get("data") is not None
        found[one.name] = one.from_list(output["data"], shape) if in_json else one.from_bytes(part, shape)
    if at != len(content):
        raise WrongAnswer(f"the answer has {len(content)} bytes, and says {at}")
    return found


def _binary_size(output: Mapping[str, Any]) -> int:
    """How many bytes of an output follow the JSON. Raises WrongAnswer."""
    parameters = output.get("parameters")
    size = parameters.get("binary_data_size", 0) if isinstance(parameters, dict) else 0
    if type(size) is not int or size < 0:
        raise WrongAnswer(f"an output has a binary_data_size of {excerpt(str(size))}")
    return size


def described(content: bytes) -> Described:
    """A model's metadata. Raises WrongAnswer."""
    told = document(content)
    return Described.of(_told(told.get("inputs")), _told(told.get("outputs")))


def speaks_binary(content: bytes) -> bool:
    """Whether a server's metadata lists the binary extension. Raises WrongAnswer."""
    extensions = _listed(document(content).get("extensions"))
    return not BINARY.isdisjoint(one for one in extensions if isinstance(one, str))


def document(content: bytes) -> dict[str, Any]:
    """A JSON object. Raises WrongAnswer."""
    try:
        told = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise WrongAnswer(f"not JSON ({error}): {excerpt(content[:800].decode(errors='replace'))}") from None
    if not isinstance(told, dict):
        raise WrongAnswer("not a JSON object")
    return told


def _told(tensors: object) -> list[Told]:
    held = [one for one in _listed(tensors) if isinstance(one, dict)]
    return [(one.get("name"), one.get("datatype"), _listed(one.get("shape"))) for one in held]


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
