"""Tensors as a serialised `ModelInferRequest`: the payload of a review case, or a stored upstream's probes.

Any client of the protocol can read it, and send it to a model again. Every tensor has its values in
`raw_input_contents`. BF16 is float32 in this project's arrays, and is stored as FP32, which is exact.

Neither pickle (which runs code) nor npz (a zip file: few bytes can unpack to very many). Payloads that a
release before this format stored begin with `FST1`, which begins no message, and are still read.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from fallbacks.oip import payload_fst1
from fallbacks.oip.open_inference_pb2 import ModelInferRequest
from fallbacks.oip.payload_fst1 import MAX_PAYLOAD_RANK
from fallbacks.oip.values import NUMBER_DTYPES, join_byte_strings, split_byte_strings
from fallbacks.oip.wire_format import field_start, fields
from fallbacks.predictor import Tensors

MAX_HEAD_BYTES: Final = 2**18
"""Names, datatypes and shapes together. protobuf takes up to 44 times as much memory for them."""
PAYLOAD_DTYPES: Final = {**NUMBER_DTYPES, "BYTES": np.dtype(np.object_)}
_RAW_FIELD: Final = ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER
DATATYPE_NAMES: Final = {dtype: datatype for datatype, dtype in PAYLOAD_DTYPES.items()}


def encode(tensors: Tensors) -> bytes:
    """The tensors as bytes that `decode` reads back, equal in name, dtype, shape and every bit.

    Raises: ValueError for a dtype other than bool, integers and floats of 1 to 8 bytes, for objects that are
            not bytes, for a rank over 32, or for names and shapes of over 256 KiB.
    """
    message, data = ModelInferRequest(), []
    for name, array in tensors.items():
        little = array.dtype.newbyteorder("<")
        if little not in DATATYPE_NAMES or array.ndim > MAX_PAYLOAD_RANK:
            raise ValueError(f"{name!r}: cannot encode {array.dtype} of rank {array.ndim}")
        message.inputs.add(name=name, datatype=DATATYPE_NAMES[little], shape=array.shape)
        raw = _raw(name, array.astype(little, copy=False))
        data += [field_start(_RAW_FIELD, len(raw)), raw]
    content = b"".join((message.SerializeToString(), *data))  # the raw contents are its last field
    _require_small_head(content)
    return content


def decode(content: bytes) -> dict[str, NDArray[Any]]:
    """The tensors in a payload, as new writable arrays. The bytes need not be trusted.

    Raises: ValueError for anything but a `ModelInferRequest` whose inputs have raw contents that fit them.
    Cost:   memory for the values twice more, and at most 11 MiB and 0.2 s for the rest.
    """
    if content.startswith(payload_fst1.MAGIC):
        return payload_fst1.decode_fst1(content)
    _require_small_head(content)
    try:
        message = ModelInferRequest.FromString(content)
    except DecodeError as error:
        raise ValueError(f"not a ModelInferRequest: {error}") from error
    if len(message.inputs) != len(message.raw_input_contents):
        raise ValueError(f"{len(message.raw_input_contents)} raw contents for {len(message.inputs)} inputs")
    tensors: dict[str, NDArray[Any]] = {}
    for tensor, raw in zip(message.inputs, message.raw_input_contents, strict=True):
        if tensor.name in tensors:
            raise ValueError(f"{tensor.name!r} comes twice")
        tensors[tensor.name] = _array(tensor, raw)
    return tensors


def _require_small_head(content: bytes) -> None:
    """Raises ValueError if everything but the values takes over 256 KiB, or the bytes are no message."""
    head_bytes = at = 0
    try:
        for number, start, end in fields(content, 0, len(content)):
            head_bytes += (start if number == _RAW_FIELD else end) - at
            at = end
            if head_bytes > MAX_HEAD_BYTES:  # the rest is not even counted
                raise ValueError(f"names and shapes take over {MAX_HEAD_BYTES} bytes")
    except IndexError as error:
        raise ValueError(f"not a ModelInferRequest: {error}") from error


def _raw(name: str, array: NDArray[Any]) -> bytes:
    """The row-major little-endian values."""
    if array.dtype.kind != "O":
        return array.tobytes()
    items = array.reshape(-1).tolist()
    if not all(isinstance(item, bytes) and len(item) <= 0xFFFFFFFF for item in items):
        raise ValueError(f"{name!r}: cannot encode objects other than bytes of up to 4 GiB")
    return join_byte_strings(items)


def _array(tensor: ModelInferRequest.InferInputTensor, raw: bytes) -> NDArray[Any]:
    """One input. Nothing is allocated before the raw contents are known to be as large as the shape says."""
    name, shape, dtype = tensor.name, tuple(tensor.shape), PAYLOAD_DTYPES.get(tensor.datatype)
    if dtype is None or len(shape) > MAX_PAYLOAD_RANK or min(shape, default=0) < 0:
        raise ValueError(
            f"{name!r}: {tensor.datatype} of shape {list(shape)[:MAX_PAYLOAD_RANK]} is not allowed"
        )
    if dtype.kind == "O":
        items = split_byte_strings(raw, math.prod(shape))
        if items is None:
            raise ValueError(f"{name!r}: not {math.prod(shape)} byte strings")
        array = np.empty(len(items), np.object_)
        array[:] = items
        return array.reshape(shape)
    if len(raw) != math.prod(shape) * dtype.itemsize or (dtype.kind == "b" and raw.strip(b"\0\1")):
        raise ValueError(f"{name!r}: cut short, too long, or not {tensor.datatype}")
    return np.ndarray(shape, dtype, bytearray(raw))
