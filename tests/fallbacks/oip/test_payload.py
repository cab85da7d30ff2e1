"""Payloads: bit for bit, in a message that any client of the protocol reads, bounded on hostile bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from fallbacks.oip.open_inference_pb2 import ModelInferRequest
from fallbacks.oip.payload import MAX_HEAD_BYTES, decode, encode
from fallbacks.oip.values import bf16_bits

DTYPES = (
    hnp.boolean_dtypes()
    | hnp.integer_dtypes(endianness="?")
    | hnp.unsigned_integer_dtypes(endianness="?")
    | hnp.floating_dtypes(endianness="?", sizes=(16, 32, 64))
)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
NUMBERS: st.SearchStrategy[NDArray[Any]] = DTYPES.flatmap(lambda dtype: hnp.arrays(dtype, SHAPES))
BIT_PATTERNS = hnp.arrays(np.uint64, SHAPES).flatmap(
    lambda bits: st.sampled_from([bits.view(f"f{size}") if bits.ndim else bits for size in (2, 4, 8)])
)
BYTES = hnp.arrays(np.dtype(object), SHAPES, elements=st.binary(max_size=6))
ARRAYS = NUMBERS | BIT_PATTERNS | BYTES
NAMES = st.text(st.characters(codec="utf-8"), max_size=8)


def same(back: dict[str, NDArray[Any]], tensors: dict[str, NDArray[Any]]) -> None:
    assert list(back) == list(tensors)
    for name, array in tensors.items():
        assert back[name].dtype == array.dtype.newbyteorder("<")
        assert back[name].shape == array.shape
        if array.dtype == object:
            assert back[name].tolist() == array.tolist()
        else:
            assert back[name].tobytes() == array.astype(array.dtype.newbyteorder("<")).tobytes()


@settings(max_examples=60)
@given(st.dictionaries(NAMES, ARRAYS, max_size=4))
def test_what_is_encoded_comes_back_bit_for_bit_in_order(tensors: dict[str, NDArray[Any]]) -> None:
    same(decode(encode(tensors)), tensors)


@pytest.mark.parametrize(
    "dtype", ["?", *(f"{k}{n}" for k in "iu" for n in (1, 2, 4, 8)), "f2", "f4", "f8", "O"]
)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0, 2), (2, 1, 2)])
def test_every_datatype_comes_back_in_every_shape(dtype: str, shape: tuple[int, ...]) -> None:
    fill = b"a\xff\0" if dtype == "O" else 1
    array = np.full(shape, fill, dtype)
    same(decode(encode({"x": array})), {"x": array})


@given(hnp.arrays(np.uint16, SHAPES))
def test_bfloat16_values_come_back_bit_for_bit(bits: NDArray[np.uint16]) -> None:
    array = (bits.astype(np.uint32) << 16).view(np.float32)
    back = decode(encode({"x": array}))["x"]
    assert back.tobytes() == array.tobytes()
    finite = np.isfinite(array)
    assert (bf16_bits(back)[finite] == bits[finite]).all()


def test_arrays_come_back_writable_and_a_transposed_view_comes_back_the_same() -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3).T
    back = decode(encode({"x": x}))["x"]
    back += 1
    assert (back == x + 1).all()


def test_payload_is_the_request_that_a_client_of_the_protocol_would_send() -> None:
    words = np.array([[b"a", b""]], object)
    content = encode({"x": np.array([[1.5, -2.0]], np.float32), "words": words})
    expected = ModelInferRequest(
        inputs=[
            ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 2]),
            ModelInferRequest.InferInputTensor(name="words", datatype="BYTES", shape=[1, 2]),
        ],
        raw_input_contents=[np.array([1.5, -2.0], "<f4").tobytes(), b"\x01\0\0\0a\0\0\0\0"],
    )
    assert content == expected.SerializeToString()


def test_what_a_request_says_beside_its_inputs_does_not_matter() -> None:
    message = ModelInferRequest.FromString(encode({"x": np.ones(2)}))
    message.id, message.model_name = "7", "letters"
    message.parameters["timeout"].int64_param = 5
    message.outputs.add(name="probabilities")
    same(decode(message.SerializeToString()), {"x": np.ones(2)})


def read_or_refuse(content: bytes) -> None:
    """Whatever is read can be stored again, and reads the same."""
    try:
        tensors = decode(content)
    except ValueError:
        return
    same(decode(encode(tensors)), tensors)


@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda tail: encode({"x": np.ones(3)}) + tail))
def test_hostile_bytes_raise_value_error_or_are_tensors(content: bytes) -> None:
    read_or_refuse(content)


@given(st.data())
def test_one_flipped_cut_or_added_byte_raises_value_error_or_is_tensors(data: st.DataObject) -> None:
    texts = np.array([b"", b"a\xff\0", b"\x01\0\0\0"], object)
    numbers = np.arange(6, dtype=np.float32).reshape(2, 3)
    good = encode({"x": numbers, "t": texts, "mask": np.array([True, False])})
    at = data.draw(st.integers(0, len(good) - 1))
    byte = bytes([data.draw(st.integers(0, 255))])
    for content in (good[:at] + byte + good[at + 1 :], good[:at], good[:at] + byte + good[at:]):
        read_or_refuse(content)


def request(*tensors: tuple[str, str, tuple[int, ...]], raw: list[bytes]) -> bytes:
    inputs = [
        ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape)
        for name, datatype, shape in tensors
    ]
    return ModelInferRequest(inputs=inputs, raw_input_contents=raw).SerializeToString()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (request(("x", "FP32", (2**62,)), raw=[b""]), "cut short"),
        (request(("x", "FP32", (2**62, 2**62)), raw=[b""]), "cut short"),
        (request(("x", "FP32", (0, 2**62)), raw=[b""]), "."),  # whatever numpy says of it
        (request(("x", "FP32", (-1,)), raw=[b""]), "not allowed"),
        (request(("x", "FP32", (-1, -1)), raw=[b"1234"]), "not allowed"),
        (request(("x", "FP32", (1,) * 33), raw=[b"1234"]), "not allowed"),
        (request(("x", "BYTES", (2**62,)), raw=[b"\0" * 64]), "byte strings"),
        (request(("x", "BYTES", (2**62, 2**62)), raw=[b"\0" * 64]), "byte strings"),
        (request(("x", "BYTES", (1,)), raw=[b"\xff\xff\xff\xffab"]), "byte strings"),
        (request(("x", "BYTES", (1,)), raw=[b"\x02\0\0\0a"]), "byte strings"),
        (request(("x", "BYTES", (2,)), raw=[b"\x03\0\0\0abc\0"]), "byte strings"),
        (request(("x", "BYTES", (1,)), raw=[b"\0\0\0\0a"]), "byte strings"),
        (request(("x", "BYTES", (0, 2**62)), raw=[b""]), "."),
        (request(("x", "OBJECT", (1,)), raw=[b"12345678"]), "not allowed"),
        (request(("x", "", (1,)), raw=[b"1"]), "not allowed"),
        (request(("x", "BF16", (1,)), raw=[b"12"]), "not allowed"),
        (request(("x", "BOOL", (3,)), raw=[b"\x00\x02\x01"]), "not BOOL"),
        (request(("x", "UINT8", (1,)), raw=[b"12"]), "too long"),
        (request(("x", "UINT8", (1,)), ("x", "UINT8", (1,)), raw=[b"1", b"2"]), "twice"),
        (request(("x", "UINT8", (1,)), raw=[]), "0 raw contents for 1 inputs"),
        (request(raw=[b"1"]), "1 raw contents for 0 inputs"),
        (b"\x2a\x04\x0a\x02\xff\xff\x3a\x00", "not a ModelInferRequest"),
        (b"\x2a", "not a ModelInferRequest"),
        (b"\x3a\x05abc", "not a ModelInferRequest"),
        (b"PK\x03\x04", "not a ModelInferRequest"),
    ],
)
def test_what_is_no_request_of_raw_tensors_is_refused(content: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        decode(content)


@pytest.mark.parametrize(
    "unit",
    [
        pytest.param(b"\x2a\x00", id="empty inputs"),
        pytest.param(b"\x3a\x00", id="empty raw contents"),
        pytest.param(b"\x32\x00", id="empty outputs"),
        pytest.param(b"\x22\x00", id="empty parameters"),
        pytest.param(b"\x2a\x84\x80\x04" + b"\x1a\x80\x80\x04" + b"\x01" * 65536, id="packed shapes"),
    ],
)
def test_many_small_fields_are_refused_before_the_rest_is_looked_at(unit: bytes) -> None:
    invalid_end = b"\x07"
    content = unit * (2 * MAX_HEAD_BYTES // len(unit)) + invalid_end
    with pytest.raises(ValueError, match=f"over {MAX_HEAD_BYTES} bytes"):
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


def test_too_high_a_rank_or_too_large_a_head_is_not_written() -> None:
    with pytest.raises(ValueError, match="rank 33"):
        encode({"x": np.zeros((1,) * 33)})
    one = np.zeros((), np.int8)
    with pytest.raises(ValueError, match=f"over {MAX_HEAD_BYTES} bytes"):
        encode({"x" * MAX_HEAD_BYTES: one})
    with pytest.raises(ValueError, match=f"over {MAX_HEAD_BYTES} bytes"):
        encode({str(i): one for i in range(65536)})
    almost = {"x" * (MAX_HEAD_BYTES - 64): one}
    same(decode(encode(almost)), almost)


@pytest.mark.parametrize("n", [127, 128, 2**14 - 1, 2**14, 2**23])
def test_raw_contents_of_any_size_are_written_as_protobuf_writes_them(n: int) -> None:
    x = (np.arange(n) % 251).astype(np.uint8)
    content = encode({"x": x})
    assert ModelInferRequest.FromString(content).SerializeToString() == content
    same(decode(content), {"x": x})
