"""The wire format of protobuf, for what its library does too late or too slowly.

A parser allocates many times the bytes that it reads when these are small fields, so the fields of a hostile
message are counted before it is parsed. And a large field is copied three times on its way through a message
object, so it is written beside one. Source: protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Iterator

_VARINT, _BYTES = 0, 2  # wire types; no message of the protocol has groups
_FIXED = {1: 8, 5: 4}


def fields(raw: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The fields between two offsets of a serialised message, in order, unread.

    Yields:  the number of a field, and the offsets at which its content starts and ends.
    Raises:  IndexError where the bytes are no message.
    Cost:    1 us a field.
    """
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
    """A base-128 number, and the offset after it."""
    value = 0
    for shift in range(0, 70, 7):
        octet = raw[at]
        at += 1
        value |= (octet & 127) << shift
        if octet < 128:
            return value, at
    raise IndexError("a number has too many bytes")


def field_start(number: int, size: int) -> bytes:
    """What stands before `size` bytes of content in a field of strings, bytes or messages."""
    return _varint_bytes(number << 3 | _BYTES) + _varint_bytes(size)


def _varint_bytes(value: int) -> bytes:
    octets = bytearray()
    while value > 127:
        octets.append(value & 127 | 128)
        value >>= 7
    octets.append(value)
    return bytes(octets)
