"""Bounds the memory and time of a ModelInferRequest from its bytes, before protobuf parses them.

Only tensor data may be large. Everything else in a message (names, shapes, parameters, and the tag and length
of each field) may have 64 KiB in all, as much as a contract's body limit allows for it. Typed data takes up
to sixteen times its bytes in memory, raw data only its own.

    of 8 MiB             unbounded           bounded
    empty inputs         352 MiB, 420 ms     refused
    empty parameters     160 MiB, 440 ms     refused
    packed integers      124 MiB, 120 ms      62 MiB, 60 ms
    empty BYTES          128 MiB, 100 ms      64 MiB, 50 ms
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from fallbacks.oip import open_inference_pb2 as pb
from fallbacks.oip.wire_format import fields
from gateway.core.errors import InvalidRequest, Problem

MAX_OTHER_BYTES = 64 * 1024
MAX_TYPED_BYTES = 4 * 1024 * 1024
MAX_FIELDS = 4096
OUTLINE_FIELDS = 256
INLINE_BYTES = 32 * 1024
"""A message with no more than this beside `raw_input_contents` is parsed on the event loop, within 1 ms."""

_NAME = pb.ModelInferRequest.MODEL_NAME_FIELD_NUMBER
_VERSION = pb.ModelInferRequest.MODEL_VERSION_FIELD_NUMBER
_INPUTS = pb.ModelInferRequest.INPUTS_FIELD_NUMBER
_RAW = pb.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER
_CONTENTS = pb.ModelInferRequest.InferInputTensor.CONTENTS_FIELD_NUMBER


class Outline(NamedTuple):
    """A message as far as it is known without parsing it.

    other_bytes: beside raw data, and all that follows the first OUTLINE_FIELDS fields.
    """

    model: str
    version: str
    other_bytes: int


def outline_of(raw: bytes) -> Outline:
    """The model that a message names among its first fields, and how much of it has to be parsed.

    Raises:  IndexError or UnicodeDecodeError where the bytes are no message.
    Cost:    1 us a field, for at most OUTLINE_FIELDS.
    """
    names, other_bytes = {_NAME: b"", _VERSION: b""}, len(raw)
    for number, start, end in islice(fields(raw, 0, len(raw)), OUTLINE_FIELDS):
        if number in names:
            names[number] = raw[start:end]
        elif number == _RAW:
            other_bytes -= end - start
    return Outline(names[_NAME].decode(), names[_VERSION].decode(), other_bytes)


def check_memory(raw: bytes) -> None:
    """Raises InvalidRequest for a message that would take too much memory, IndexError for a malformed one.

    Cost: nothing up to 64 KiB; for more, 1 us a field, for at most 4096 fields.
    """
    if len(raw) <= MAX_OTHER_BYTES:
        return
    data = {_RAW: 0, _CONTENTS: 0}
    for number, size in islice(_data(raw), MAX_FIELDS):
        data[number] += size
    if len(raw) - sum(data.values()) > MAX_OTHER_BYTES:
        what = f"at most {MAX_OTHER_BYTES} bytes beside the data of tensors are taken"
        raise InvalidRequest([Problem("", what)])
    if data[_CONTENTS] > MAX_TYPED_BYTES:
        what = f"at most {MAX_TYPED_BYTES} bytes are taken as contents: use raw_input_contents"
        raise InvalidRequest([Problem("inputs", what)])


def _data(raw: bytes) -> Iterator[tuple[int, int]]:
    """For every field of the message and its inputs: raw or typed data, and its bytes; 0 if neither."""
    for number, start, end in fields(raw, 0, len(raw)):
        yield _RAW, end - start if number == _RAW else 0
        if number == _INPUTS:
            for inner, inner_start, inner_end in fields(raw, start, end):
                yield _CONTENTS, inner_end - inner_start if inner == _CONTENTS else 0
