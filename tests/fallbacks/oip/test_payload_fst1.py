"""Payloads of the format FST1: recorded from the last release that wrote it, and hostile ones."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fallbacks.oip import payload_fst1
from fallbacks.oip.payload import decode, encode

DTYPES = ("?", "i1", "u1", "i2", "u2", "f2", "i4", "u4", "f4", "i8", "u8", "f8")
RECORDED: dict[str, tuple[str, dict[str, NDArray[Any]]]] = {
    "nothing": (
        "465354310000",
        {},
    ),
    "every number": (
        "465354310c0001003f7c62310201000000000000000300000000000000020069317c6931020100000000000000"
        "0300000000000000020075317c75310201000000000000000300000000000000020069323c6932020100000000"
        "0000000300000000000000020075323c75320201000000000000000300000000000000020066323c6632020100"
        "0000000000000300000000000000020069343c69340201000000000000000300000000000000020075343c7534"
        "0201000000000000000300000000000000020066343c6634020100000000000000030000000000000002006938"
        "3c69380201000000000000000300000000000000020075383c7538020100000000000000030000000000000002"
        "0066383c6638020100000000000000030000000000000000010100010300010300000100030000000100030000"
        "00003c0042000000000100000003000000000000000100000003000000000000000000803f0000404000000000"
        "000000000100000000000000030000000000000000000000000000000100000000000000030000000000000000"
        "00000000000000000000000000f03f0000000000000840",
        {dtype: np.array([[0, 1, 3]], dtype) for dtype in DTYPES},
    ),
    "text, a scalar, nothing": (
        "4653543104000100747c532a02010000000000000003000000000000000100733c66340004006e6f6e653c6638"
        "020000000000000000020000000000000007006e6f20746578747c532a01000000000000000000000000030000"
        "0061ff0002000000c3a900002040",
        {
            "t": np.array([[b"", b"a\xff\0", "é".encode()]], object),
            "s": np.array(2.5, "f4"),
            "none": np.zeros((0, 2)),
            "no text": np.zeros(0, object),
        },
    ),
    "big-endian numbers": (
        "4653543101000100783c66340102000000000000000000c03f000000c0",
        {"x": np.array([1.5, -2], "<f4")},
    ),
    "bits of NaN and of -0": (
        "4653543101000100783c66340103000000000000004523c17f010080ff00000080",
        {"x": np.array([0x7FC12345, 0xFF800001, 0x80000000], "<u4").view("<f4")},
    ),
}


def same(back: dict[str, NDArray[Any]], tensors: dict[str, NDArray[Any]]) -> None:
    assert list(back) == list(tensors)
    for name, array in tensors.items():
        assert (back[name].dtype, back[name].shape) == (array.dtype, array.shape)
        if array.dtype == object:
            assert back[name].tolist() == array.tolist()
        else:
            assert back[name].tobytes() == array.tobytes()


@pytest.mark.parametrize(("recorded", "tensors"), RECORDED.values(), ids=list(RECORDED))
def test_recorded_payload_is_read_bit_for_bit(recorded: str, tensors: dict[str, NDArray[Any]]) -> None:
    same(decode(bytes.fromhex(recorded)), tensors)


def test_arrays_are_writable() -> None:
    back = decode(bytes.fromhex(RECORDED["big-endian numbers"][0]))["x"]
    back += 1
    assert back.tolist() == [2.5, -1]


def test_what_is_read_is_stored_again_as_a_request() -> None:
    for recorded, tensors in RECORDED.values():
        again = encode(decode(bytes.fromhex(recorded)))
        assert not again.startswith(b"FST1")
        same(decode(again), tensors)


def written(tensors: dict[str, NDArray[Any]]) -> bytes:
    """The one encoding of tensors in this format."""
    heads, values = [], []
    for name, array in tensors.items():
        code = b"|S*" if array.dtype == object else array.dtype.str.encode()
        heads.append(head(name.encode(), code, *array.shape))
        items = [struct.pack("<I", len(item)) + item for item in array.flat] if array.dtype == object else []
        values.append(b"".join(items) if items or array.dtype == object else array.tobytes())
    return b"".join((b"FST1", struct.pack("<H", len(tensors)), *heads, *values))


def head(name: bytes, code: bytes, *dims: int) -> bytes:
    return struct.pack("<H", len(name)) + name + code + struct.pack(f"<B{len(dims)}Q", len(dims), *dims)


def test_the_writer_of_these_tests_writes_what_was_recorded() -> None:
    for recorded, tensors in RECORDED.values():
        assert written(tensors).hex() == recorded


@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda tail: b"FST1" + tail))
def test_hostile_bytes_raise_value_error_or_are_canonical(content: bytes) -> None:
    try:
        tensors = payload_fst1.decode_fst1(content)
    except ValueError:
        return
    assert written(tensors) == content


@given(st.data())
def test_one_flipped_cut_or_added_byte_raises_value_error_or_is_canonical(data: st.DataObject) -> None:
    texts = np.array([b"", b"a\xff\0", b"\x01\0\0\0"], object)
    numbers = np.arange(6, dtype=np.float32).reshape(2, 3)
    good = written({"x": numbers, "t": texts, "mask": np.array([True, False])})
    at = data.draw(st.integers(0, len(good) - 1))
    byte = bytes([data.draw(st.integers(0, 255))])
    for content in (good[:at] + byte + good[at + 1 :], good[:at], good[:at] + byte + good[at:]):
        try:
            tensors = payload_fst1.decode_fst1(content)
        except ValueError:
            continue
        assert written(tensors) == content


@pytest.mark.parametrize(
    ("heads", "numbers", "says"),
    [
        ([head(b"x", b"<f4", 2**62)], b"", "cut short"),
        ([head(b"x", b"<f4", 2**63, 2**63)], b"", "cut short"),
        ([head(b"x", b"<f4", 0, 2**63)], b"", "."),  # whatever numpy says of it
        ([head(b"x", b"<f4", *[1] * 33)], b"1234", "rank 33"),
        ([head(b"x", b"|O8", 1)], b"12345678", "not allowed"),
        ([head(b"x", b"|S*", 2**62)], b"\0" * 64, "cut short"),
        ([head(b"x", b"|S*", 2**63, 2**63)], b"\0" * 64, "cut short"),
        ([head(b"x", b"|S*", 1)], b"\xff\xff\xff\xffab", "cut short"),
        ([head(b"x", b"|S*", 1)], b"\x02\0\0\0a", "cut short"),
        ([head(b"x", b"|S*", 2)], b"\x03\0\0\0abc\0", "cut short|unpack_from"),
        ([head(b"x", b"|S*", 1)], b"\0\0\0\0a", "1 bytes too many"),
        ([head(b"x", b"|S*", 0, 2**63)], b"", "."),
        ([head(b"x", b">f4", 1)], b"1234", "not allowed"),
        ([head(b"x", b"|b1", 3)], b"\x00\x02\x01", "no bool"),
        ([head(b"x", b"|u1", 1), head(b"x", b"|u1", 1)], b"12", "twice"),
        ([head(b"\xff", b"|u1", 1)], b"1", "utf-8"),
        ([head(b"x", b"|u1", 1)], b"12", "1 bytes too many"),
    ],
)
def test_heads_that_do_not_match_the_values_are_refused(
    heads: list[bytes], numbers: bytes, says: str
) -> None:
    content = b"FST1" + struct.pack("<H", len(heads)) + b"".join(heads) + numbers
    with pytest.raises(ValueError, match=says):
        payload_fst1.decode_fst1(content)
