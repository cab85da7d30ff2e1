"""Missing values are data for the inputs that may have them, in every encoding, and for no other input."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from gateway.core.errors import ArtifactError, InvalidRequest
from gateway.protocol.contract import Contract, TensorSpec
from gateway.protocol.infer_request import parse_http_infer
from tests.support.wire_parts import Array, binary_request, contract_of, spec_of

NAN, INF = float("nan"), float("inf")


def taking_missing(datatype: str, **ranges: Any) -> TensorSpec:
    return spec_of(datatype, missing=True, **ranges)


def body(datatype: str, data: list[Any], **members: Any) -> bytes:
    tensor = {"name": "x", "datatype": datatype, "shape": [len(data) // 2, 2], "data": data}
    return json.dumps({"inputs": [tensor], **members}).encode()


def refusal(body: bytes, length: int | None, contract: Contract) -> list[str]:
    with pytest.raises(InvalidRequest) as refused:
        parse_http_infer(body, length, contract)
    return [str(problem) for problem in refused.value.problems]


def gaps(datatype: str) -> Array:
    return np.array([[1, NAN], [NAN, NAN]], spec_of(datatype).dtype)


@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
@pytest.mark.parametrize("data", [[1, None, None, None], [[1.0, None], [None, None]], [None] * 4])
@pytest.mark.parametrize("members", [{}, {"ignored": True}])
def test_null_in_json_is_a_missing_value(datatype: str, data: list[Any], members: dict[str, Any]) -> None:
    spec = taking_missing(datatype)
    tensor = {"name": "x", "datatype": datatype, "shape": [2, 2], "data": data}
    sent = json.dumps({"inputs": [tensor], **members}).encode()
    got = parse_http_infer(sent, None, contract_of(spec)).inputs["x"]
    wanted = np.array(data, spec.dtype).reshape(2, 2)
    assert got.dtype == spec.dtype
    np.testing.assert_array_equal(got, wanted)
    assert not got.flags.writeable


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64", "BF16"])
def test_nan_in_binary_is_a_missing_value(datatype: str) -> None:
    spec = taking_missing(datatype)
    got = parse_http_infer(*binary_request({spec: gaps(datatype)}), contract_of(spec)).inputs["x"]
    np.testing.assert_array_equal(got, gaps(datatype))


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64", "BF16"])
@pytest.mark.parametrize("worse", [INF, -INF])
def test_infinity_is_no_data_beside_a_missing_value(datatype: str, worse: float) -> None:
    spec = taking_missing(datatype)
    sent = np.array([[1, NAN], [NAN, worse]], spec.dtype)
    assert refusal(*binary_request({spec: sent}), contract_of(spec)) == [
        f"inputs[0].data: row 1: not a finite {datatype}"
    ]


def test_a_number_beyond_float32_is_no_data_beside_a_missing_value() -> None:
    contract = contract_of(taking_missing("FP32"))
    assert refusal(body("FP32", [None, 0, 1, 1e39]), None, contract) == [
        "inputs[0].data: row 1: not a finite FP32"
    ]


def test_values_beside_missing_ones_are_held_to_the_range() -> None:
    contract = contract_of(taking_missing("FP32", low=0, high=1))
    assert parse_http_infer(body("FP32", [None, 1]), None, contract).rows == 1
    assert refusal(body("FP32", [None, 1, 0, 1.5]), None, contract) == [
        "inputs[0].data: row 1: 1.5 is above 1"
    ]


@pytest.mark.parametrize("wrong", [True, "", [], {}])
def test_nothing_but_null_stands_for_a_missing_value(wrong: object) -> None:
    (what,) = refusal(body("FP32", [1, None, 2, wrong]), None, contract_of(taking_missing("FP32")))
    assert what.startswith("inputs[0].data: row 1: ")
    assert what.endswith(" is not a number")


def test_without_leave_a_missing_value_is_named_with_its_row() -> None:
    spec = spec_of("FP32")
    assert refusal(body("FP32", [1, 2, 3, None]), None, contract_of(spec)) == [
        "inputs[0].data: row 1: null is not a number"
    ]
    assert refusal(*binary_request({spec: gaps("FP32")}), contract_of(spec)) == [
        "inputs[0].data: row 0: not a finite FP32"
    ]


@pytest.mark.parametrize("datatype", ["BOOL", "INT64", "UINT8", "BYTES"])
def test_only_a_float_can_be_missing(datatype: str) -> None:
    with pytest.raises(ArtifactError, match=f"x: {datatype} has no NaN, so no value can be missing"):
        taking_missing(datatype)
