"""Payloads: whatever is encoded comes back bit for bit, and no bytes do more than raise ValueError."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from fallbacks.review.payload import decode, encode

DTYPES = (
    hnp.boolean_dtypes()
    | hnp.integer_dtypes(endianness="?")
    | hnp.unsigned_integer_dtypes(endianness="?")
    | hnp.floating_dtypes(endianness="?", sizes=(16, 32, 64))
)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
NUMBERS: st.SearchStrategy[NDArray[Any]] = DTYPES.flatmap(lambda dtype: hnp.arrays(dtype, SHAPES))
OCTETS = hnp.arrays(np.dtype(object), SHAPES, elements=st.binary(max_size=6))
ARRAYS = NUMBERS | OCTETS


@settings(max_examples=60)
@given(st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), ARRAYS, max_size=4))
def test_what_is_encoded_comes_back_bit_for_bit_in_order(tensors: dict[str, NDArray[Any]]) -> None:
    back = decode(encode(tensors))
    assert list(back) == list(tensors)
    for name, array in tensors.items():
        assert back[name].dtype == array.dtype.newbyteorder("<")
        assert back[name].shape == array.shape
        if array.dtype == object:
            assert back[name].tolist() == array.tolist()
        else:
            assert back[name].tobytes() == array.astype(array.dtype.newbyteorder("<")).tobytes()


def test_arrays_come_back_writable_and_a_transposed_view_comes_back_the_same() -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3).T
    back = decode(encode({"x": x}))["x"]
    back += 1
    assert (back == x + 1).all()


@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda tail: b"FST1" + tail))
def test_hostile_bytes_raise_value_error_or_are_canonical(content: bytes) -> None:
    try:
        tensors = decode(content)
    except ValueError:
        return
    assert encode(tensors) == content


@given(st.data())
def test_one_flipped_cut_or_added_byte_raises_value_error_or_is_canonical(data: st.DataObject) -> None:
    texts = np.array([b"", b"a\xff\0", b"\x01\0\0\0"], object)
    numbers = np.arange(6, dtype=np.float32).reshape(2, 3)
    good = encode({"x": numbers, "t": texts, "mask": np.array([True, False])})
    at = data.draw(st.integers(0, len(good) - 1))
    byte = bytes([data.draw(st.integers(0, 255))])
    for content in (good[:at] + byte + good[at + 1 :], good[:at], good[:at] + byte + good[at:]):
        try:
            tensors = decode(content)
        except ValueError:
            continue
        assert encode(tensors) == content


def spec(name: bytes, code: bytes, *dims: int) -> bytes:
    return struct.pack("<H", len(name)) + name + code + struct.pack(f"<B{len(dims)}Q", len(dims), *dims)


@pytest.mark.parametrize(
    ("head", "numbers", "says"),
    [
        ([spec(b"x", b"<f4", 2**62)], b"", "cut short"),
        ([spec(b"x", b"<f4", 2**63, 2**63)], b"", "cut short"),
        ([spec(b"x", b"<f4", 0, 2**63)], b"", "."),  # whatever numpy says of it
        ([spec(b"x", b"<f4", *[1] * 33)], b"1234", "rank 33"),
        ([spec(b"x", b"|O8", 1)], b"12345678", "not allowed"),
        ([spec(b"x", b"|S*", 2**62)], b"\0" * 64, "cut short"),
        ([spec(b"x", b"|S*", 2**63, 2**63)], b"\0" * 64, "cut short"),
        ([spec(b"x", b"|S*", 1)], b"\xff\xff\xff\xffab", "cut short"),
        ([spec(b"x", b"|S*", 1)], b"\x02\0\0\0a", "cut short"),
        ([spec(b"x", b"|S*", 2)], b"\x03\0\0\0abc\0", "cut short|unpack_from"),
        ([spec(b"x", b"|S*", 1)], b"\0\0\0\0a", "1 bytes too many"),
        ([spec(b"x", b"|S*", 0, 2**63)], b"", "."),
        ([spec(b"x", b">f4", 1)], b"1234", "not allowed"),
        ([spec(b"x", b"|b1", 3)], b"\x00\x02\x01", "no bool"),
        ([spec(b"x", b"|u1", 1), spec(b"x", b"|u1", 1)], b"12", "twice"),
        ([spec(b"\xff", b"|u1", 1)], b"1", "utf-8"),
        ([spec(b"x", b"|u1", 1)], b"12", "1 bytes too many"),
    ],
)
def test_lies_in_the_head_are_refused(head: list[bytes], numbers: bytes, says: str) -> None:
    content = b"FST1" + struct.pack("<H", len(head)) + b"".join(head) + numbers
    with pytest.raises(ValueError, match=says):
        decode(content)


@pytest.mark.parametrize(
    "array",
    [
        np.array([None]),
        np.array(["a"], object),
        np.array([b"a", 1], object),
        np.array(["a"]),
        np.array([b"a"]),
        np.array([1j]),
        np.array(["2020"], "M8[D]"),
        np.zeros(1, "f4,i4"),
    ],
)
def test_what_cannot_be_read_back_is_not_written(array: NDArray[Any]) -> None:
    with pytest.raises(ValueError, match="cannot encode"):
        encode({"x": array})


def test_too_long_a_name_or_too_many_tensors_are_not_written() -> None:
    with pytest.raises(ValueError, match="65536"):
        encode({"x" * 65536: np.zeros(1)})
    one = np.zeros((), np.int8)
    with pytest.raises(ValueError, match="65536"):
        encode({str(i): one for i in range(65536)})
    with pytest.raises(ValueError, match="rank 33"):
        encode({"x": np.zeros((1,) * 33)})
