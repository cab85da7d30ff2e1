"""Tensors are read and written in either encoding without the change of a bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.decision import Decision, Served
from gateway.core.errors import InvalidRequest
from gateway.http.replies import reply_infer
from gateway.protocol.contract import RequestedOutput, TensorSpec
from gateway.protocol.disclosure import Full
from gateway.protocol.endings import Stamp
from gateway.protocol.infer_request import InferRequest, parse_http_infer
from gateway.protocol.tensors import to_binary
from tests.support.wire_parts import (
    BINARY_ONLY,
    DTYPES,
    Array,
    binary_request,
    contract_of,
    json_request,
    octets_of,
    same_bits,
    spec_of,
    tensors,
    tensors_of,
)

ALL = (*DTYPES, "BF16")
IN_JSON = tuple(d for d in DTYPES if d not in BINARY_ONLY)


@given(tensors(IN_JSON), st.booleans())
def test_a_tensor_sent_in_json_arrives_bit_for_bit(sent: tuple[TensorSpec, Array], nested: bool) -> None:
    spec, array = sent
    got = parse_http_infer(*json_request({spec: array}, nested), contract_of(spec))
    assert same_bits(got.inputs["x"], array)
    assert got.rows == len(array)


@given(tensors(ALL), st.integers(0, 8))
def test_a_tensor_sent_in_binary_arrives_bit_for_bit(sent: tuple[TensorSpec, Array], pad: int) -> None:
    spec, array = sent
    got = parse_http_infer(*binary_request({spec: array}, pad), contract_of(spec)).inputs["x"]
    assert same_bits(got, array)
    assert got.flags.c_contiguous
    assert got.flags.aligned
    assert not got.flags.writeable


@given(st.data(), st.integers(1, 4))
def test_several_tensors_of_one_request_arrive_each_in_its_encoding(data: st.DataObject, rows: int) -> None:
    sent = dict(data.draw(tensors(ALL, name, rows)) for name in ("a", "b", "c"))
    got = parse_http_infer(*binary_request(sent), contract_of(*reversed(sent)))
    assert list(got.inputs) == ["c", "b", "a"]
    assert all(same_bits(got.inputs[spec.name], array) for spec, array in sent.items())


@given(tensors(ALL), st.booleans())
def test_an_answer_is_sent_bit_for_bit(answer: tuple[TensorSpec, Array], binary: bool) -> None:
    spec, array = answer
    request = InferRequest(None, {}, len(array), (RequestedOutput("x", binary),))
    rows = [Decision("d", Served({"x": array[i : i + 1]}, "primary"), ()) for i in range(len(array))]
    stamp = Stamp("p@1#0", "enforce", "d")
    reply = reply_infer(contract_of(spec, outputs=[spec]), request, rows, stamp, tier=Full())
    assert reply.status == 200
    assert same_bits(tensors_of(reply)["x"], array)


def sent_in_json(array: Array) -> Array:
    spec = spec_of("FP32", (None, None))
    request = InferRequest(None, {}, 1, (RequestedOutput("x", False),))
    decision = Decision("d", Served({"x": array}, "primary"), ())
    reply = reply_infer(contract_of(spec, outputs=[spec]), request, [decision], Stamp("p", "enforce", "d"))
    return tensors_of(reply)["x"]


def test_float32_in_json_survives_in_every_binade() -> None:
    bits = np.arange(0, 0x7F800000, 8191, dtype=np.uint32)
    array = np.concatenate([bits, bits | 0x80000000]).view(np.float32).reshape(1, -1)
    assert same_bits(sent_in_json(array), array)


def test_the_one_float32_whose_shortest_digits_round_twice_survives_too() -> None:
    array = np.array([[0x15AE43FD, 0x95AE43FD, 0x3DCCCCCD]], np.uint32).view(np.float32)
    assert np.float32(float(str(array[0, 0]))) != array[0, 0]
    assert same_bits(sent_in_json(array), array)


def test_every_finite_bf16_pattern_comes_back_as_itself() -> None:
    bits = np.arange(65536, dtype=np.uint32).astype("<u2")
    exact = (bits.astype(np.uint32) << 16).view(np.float32)
    finite = exact[np.isfinite(exact)].reshape(1, -1)
    spec = spec_of("BF16", (None, None))
    got = parse_http_infer(*binary_request({spec: finite}), contract_of(spec)).inputs["x"]
    assert same_bits(got, finite)
    assert bytes(to_binary(spec, got)) == octets_of(spec, finite)


def test_a_float32_is_sent_as_the_nearest_bf16_and_nan_as_nan() -> None:
    spec = spec_of("BF16", (None,))
    #                 exact     below half  half, to even  half, to even  above     overflow    nan
    given_ = np.array(
        [0x3F800000, 0x3F807FFF, 0x3F808000, 0x3F818000, 0x3F808001, 0x7F7FFFFF, 0x7FFFFFFF], np.uint32
    )
    sent = np.frombuffer(to_binary(spec, given_.view(np.float32)), "<u2").tolist()
    assert sent == [0x3F80, 0x3F80, 0x3F80, 0x3F82, 0x3F81, 0x7F80, 0x7FC0]


def test_an_aligned_binary_tensor_shares_the_memory_of_the_request() -> None:
    spec, array = spec_of("FP64", (None, 100)), np.ones((1, 100))
    shared = []
    for pad in range(8):
        body, length = binary_request({spec: array}, pad)
        got = parse_http_infer(body, length, contract_of(spec)).inputs["x"]
        shared.append(np.shares_memory(got, np.frombuffer(body, np.uint8)))
    assert shared.count(True) == 1


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64", "BF16"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_float_that_is_not_finite_is_refused_in_binary_and_its_row_named(datatype: str, bad: float) -> None:
    spec = spec_of(datatype)
    array = np.ones((3, 2), spec.dtype)
    array[2, 1] = bad
    with pytest.raises(InvalidRequest, match=r"inputs\[0\]\.data: row 2: not a finite"):
        parse_http_infer(*binary_request({spec: array}), contract_of(spec))


def test_a_signalling_nan_is_refused_without_a_warning() -> None:
    spec = spec_of("FP32")
    array = np.array([[0x7F800001, 0]], np.uint32).view(np.float32)
    with pytest.raises(InvalidRequest, match="row 0: not a finite FP32"):
        parse_http_infer(*binary_request({spec: array}), contract_of(spec))


@pytest.mark.parametrize("datatype", ["INT8", "UINT16", "INT64", "FP16", "FP32", "FP64", "BF16"])
@pytest.mark.parametrize(("value", "inside"), [(20, True), (100, True), (19, False), (101, False)])
def test_a_range_is_inclusive_and_names_the_first_row_outside(
    datatype: str, value: int, inside: bool
) -> None:
    spec = spec_of(datatype, low=20, high=100)
    array = np.full((3, 2), 50, spec.dtype)
    array[1:] = value
    body = binary_request({spec: array})
    if inside:
        assert same_bits(parse_http_infer(*body, contract_of(spec)).inputs["x"], array)
    else:
        with pytest.raises(InvalidRequest, match=r"row 1: \d+(\.0)? is (below|above)"):
            parse_http_infer(*body, contract_of(spec))


def test_a_bound_is_compared_in_the_precision_of_the_tensor() -> None:
    spec = spec_of("FP32", high=0.1)  # float32(0.1) is a little more than 0.1
    assert (
        parse_http_infer(*json_request({spec: np.full((1, 2), 0.1, np.float32)}), contract_of(spec)).rows == 1
    )


def test_one_open_end_still_refuses_infinity() -> None:
    spec = spec_of("FP32", low=0.0)
    with pytest.raises(InvalidRequest, match="not a finite"):
        parse_http_infer(*binary_request({spec: np.full((1, 2), np.inf, np.float32)}), contract_of(spec))
