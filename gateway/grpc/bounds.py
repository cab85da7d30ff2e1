"""What a ModelInferRequest may take of memory and time, told from its bytes before protobuf reads them.

Only data may be large. Whatever else a message holds (names, shapes, parameters, and the bytes that begin a
field) counts against 64 KiB, which are also what a contract's limit leaves for it; typed data takes up to
sixteen times its bytes in memory, raw data its own.

    of 8 MiB             unbounded           bounded
    empty inputs         352 MiB, 420 ms     refused
    empty parameters     160 MiB, 440 ms     refused
    packed integers      124 MiB, 120 ms      62 MiB, 60 ms
    empty BYTES          128 MiB, 100 ms      64 MiB, 50 ms
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from fallbacks.oip import open_inference_pb2 as pb
from gateway.core.errors import InvalidRequest, Problem

MAX_REST_BYTES = 64 * 1024
MAX_TYPED_BYTES = 4 * 1024 * 1024
MAX_FIELDS = 4096

_INPUTS = pb.ModelInferRequest.INPUTS_FIELD_NUMBER
_RAW = pb.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER
_CONTENTS = pb.ModelInferRequest.InferInputTensor.CONTENTS_FIELD_NUMBER
_VARINT, _BYTES = 0, 2  # wire types; groups are of no message here
_FIXED = {1: 8, 5: 4}


def hold_memory(raw: bytes) -> None:
    """Raises InvalidRequest for a message whose form would take too much, and IndexError for what is none.

    Cost: nothing up to 64 KiB; for more, 1 us a field, of which 4096 are looked at.
    """
    if len(raw) <= MAX_REST_BYTES:
        return
    data = {_RAW: 0, _CONTENTS: 0}
    for number, size in islice(_data(raw), MAX_FIELDS):
        data[number] += size
    if len(raw) - sum(data.values()) > MAX_REST_BYTES:
        what = f"at most {MAX_REST_BYTES} bytes beside the data of tensors are taken"
        raise InvalidRequest([Problem("", what)])
    if data[_CONTENTS] > MAX_TYPED_BYTES:
        what = f"at most {MAX_TYPED_BYTES} bytes are taken as contents: use raw_input_contents"
        raise InvalidRequest([Problem("inputs", what)])


def _data(raw: bytes) -> Iterator[tuple[int, int]]:
    """Every field of the message and of its inputs: whose data it is, and how many bytes; 0 for the rest."""
    for number, start, end in _fields(raw, 0, len(raw)):
        yield _RAW, end - start if number == _RAW else 0
        if number == _INPUTS:
            for inner, inner_start, inner_end in _fields(raw, start, end):
                yield _CONTENTS, inner_end - inner_start if inner == _CONTENTS else 0


def _fields(raw: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The number of each field, and where its content lies. Raises IndexError for what is no message."""
    while at < end:
        tag, at = _varint(raw, at)
        kind, start = tag & 7, at
        if kind == _BYTES:
            size, start = _varint(raw, at)
            at = start + size
        elif kind == _VARINT:
            _, at = _varint(raw, at)
        elif kind in _FIXED:
            at += _FIXED[kind]
        else:
            raise IndexError("no field begins like this")
        if at > end:
            raise IndexError("a field is longer than what holds it")
        yield tag >> 3, start, at


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """A number, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        octet = raw[at]
        at += 1
        value |= (octet & 127) << shift
        if octet < 128:
            return value, at
    raise IndexError("a number has too many bytes")
