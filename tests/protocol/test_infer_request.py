"""Valid infer requests, in every form that real clients send."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import ArtifactError, InvalidRequest
from gateway.protocol import infer_request as wire
from gateway.protocol.contract import MAX_BODY_BYTES, Contract, RequestedOutput, TensorSpec
from gateway.protocol.infer_request import InferRequest, parse_header_length, parse_http_infer
from tests.support.wire_parts import (
    IMAGE,
    Array,
    binary_request,
    contract_of,
    json_request,
    same_bits,
    spec_of,
)

SPEC = IMAGE.inputs[0]
PICTURES: Array = np.linspace(0, 1, 8, dtype=np.float32).reshape(2, 1, 2, 2)


def parsed(**members: Any) -> InferRequest:
    return parse_http_infer(*json_request({SPEC: PICTURES}, **members), IMAGE)


@pytest.mark.parametrize("id_", ["", "42", "ünïcode \u2028"])
def test_an_id_is_kept_even_an_empty_one(id_: str) -> None:
    assert parsed(id=id_).id == id_


def test_without_an_id_none_is_invented() -> None:
    assert parsed().id is None


def test_null_counts_as_absent() -> None:
    got = parsed(id=None, parameters=None, outputs=None)
    assert (got.id, got.timeout_us, got.outputs) == (None, None, IMAGE.default_outputs[False])


def test_timeout_is_in_microseconds_and_zero_means_none() -> None:
    assert parsed(parameters={"timeout": 250_000, "priority": 3}).timeout_us == 250_000
    assert parsed(parameters={"timeout": 250_000, "priority": 3}).priority == 3
    assert parsed(parameters={"timeout": 0, "priority": 0}).timeout_us is None


def test_unknown_members_and_parameters_are_ignored() -> None:
    unknown = {"sequence_id": 7, "x": "y", "z": 2.5, "last": True, "content_type": None}
    assert parsed(parameters=unknown, model_name="other", extra=[[1], {"a": "]"}]).rows == 2


def test_without_outputs_every_exposed_output_is_replied_in_json() -> None:
    assert parsed().outputs == (RequestedOutput("p", False), RequestedOutput("label", False))
    assert parsed(outputs=[]).outputs == parsed().outputs


def test_binary_data_output_applies_to_all_and_binary_data_to_one() -> None:
    everything = parsed(parameters={"binary_data_output": True})
    assert [asked.binary for asked in everything.outputs] == [True, True]
    one = parsed(
        parameters={"binary_data_output": True},
        outputs=[{"name": "p", "parameters": {"binary_data": False}}, {"name": "label"}],
    )
    assert one.outputs == (RequestedOutput("p", False), RequestedOutput("label", True))


def test_outputs_keep_the_requested_order() -> None:
    assert [asked.name for asked in parsed(outputs=[{"name": "label"}, {"name": "p"}]).outputs] == [
        "label",
        "p",
    ]


def test_classification_is_a_count() -> None:
    got = parsed(outputs=[{"name": "p", "parameters": {"classification": 2}}])
    assert got.outputs == (RequestedOutput("p", False, 2),)


def test_asking_for_the_row_outcome_declares_that_partial_answers_are_fine() -> None:
    got = parsed(outputs=[{"name": "p"}, {"name": "fs_row_outcome"}])
    assert got.wants_row_outcome
    assert got.outputs[1] == RequestedOutput("fs_row_outcome", False)
    assert not parsed(outputs=[{"name": "p"}]).wants_row_outcome


def test_json_arrays_are_read_only_like_binary_ones() -> None:
    with pytest.raises(ValueError, match="read-only"):
        parsed().inputs["image"][0] = 0


def test_integers_are_numbers_to_a_float_tensor() -> None:
    body = json.dumps(
        {"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 1, 2, 2], "data": [0, 1, 0.5, 0]}]}
    )
    assert parse_http_infer(body.encode(), None, IMAGE).inputs["image"].ravel().tolist() == [0, 1, 0.5, 0]


def test_a_raw_request_is_one_tensor_and_wants_every_output_in_binary() -> None:
    got = parse_http_infer(PICTURES.tobytes(), 0, IMAGE)
    assert same_bits(got.inputs["image"], PICTURES)
    assert (got.id, got.rows, got.outputs) == (None, 2, IMAGE.default_outputs[True])


def test_a_raw_request_of_bytes_is_one_element() -> None:
    contract = contract_of(spec_of("BYTES", (None,)))
    assert parse_http_infer(b"a picture", 0, contract).inputs["x"].tolist() == [b"a picture"]


def test_the_header_may_cover_the_whole_body() -> None:
    body, _ = json_request({SPEC: PICTURES})
    assert parse_http_infer(body, len(body), IMAGE).rows == 2


def test_inputs_in_json_and_in_binary_mix() -> None:
    a, b, c = spec_of("INT32", name="a"), spec_of("FP64", name="b"), spec_of("UINT8", name="c")
    numbers = np.arange(4).reshape(2, 2)
    body, length = binary_request({a: numbers.astype("i4"), c: numbers.astype("u1")})
    document = json.loads(body[:length])
    document["inputs"].insert(1, {"name": "b", "datatype": "FP64", "shape": [2, 2], "data": [[0, 1], [2, 3]]})
    head = json.dumps(document).encode()
    got = parse_http_infer(head + body[length:], len(head), contract_of(a, b, c))
    assert all((array == numbers).all() for array in got.inputs.values())


def test_depth_counts_brackets_outside_of_strings_only() -> None:
    assert parsed(extra=[["[" * 99 + '\\"' + "{" * 99]]).rows == 2
    assert parsed(extra=json.loads("[" * 15 + "]" * 15)).rows == 2
    with pytest.raises(InvalidRequest, match="body: nested deeper than 16"):
        parsed(extra=json.loads("[" * 16 + "]" * 16))
    with pytest.raises(InvalidRequest, match="body: nested deeper than 16"):
        parsed(extra={"a": json.loads('{"a":' * 15 + "1" + "}" * 15)})


@pytest.mark.parametrize("value", [[], [1], {}, {"a": 1}, [[["x"]]]])
def test_a_nested_parameter_is_refused_wherever_it_stands(value: object) -> None:
    problem = r"parameters: 'n' is nested: it must be a string, a number, true or false"
    nested = {"priority": 1, "n": value, "more": value}
    with pytest.raises(InvalidRequest, match=f"^{problem}$"):
        parsed(parameters=nested)
    with pytest.raises(InvalidRequest, match=rf"^outputs\[0\]\.{problem}$"):
        parsed(outputs=[{"name": "p", "parameters": nested}])
    [entry] = json.loads(json_request({SPEC: PICTURES})[0])["inputs"]
    with pytest.raises(InvalidRequest, match=rf"^inputs\[0\]\.{problem}$"):
        parsed(inputs=[{**entry, "parameters": nested}])


@pytest.mark.parametrize(("value", "length"), [(None, None), ("0", 0), ("17", 17), ("9" * 18, 10**18 - 1)])
def test_the_header_is_a_number_of_bytes(value: str | None, length: int | None) -> None:
    assert parse_header_length(value) == length


@pytest.mark.parametrize("value", ["", " 1", "-1", "+1", "1_0", "1.0", "١", "0x10", "9" * 19])
def test_a_header_that_is_no_number_is_refused(value: str) -> None:
    with pytest.raises(InvalidRequest, match="Inference-Header-Content-Length"):
        parse_header_length(value)


def test_the_body_limit_fits_the_largest_valid_request() -> None:
    assert IMAGE.body_limit_bytes == 65536 + 32 * 8 * 4
    assert contract_of(spec_of("FP32", (None, 1000, 1000))).body_limit_bytes == MAX_BODY_BYTES
    assert contract_of(spec_of("FP32", (None, None))).body_limit_bytes == MAX_BODY_BYTES
    assert contract_of(spec_of("BYTES", (None, 1))).body_limit_bytes == MAX_BODY_BYTES


def test_the_narrowest_contract_and_the_highest_rank_are_fine() -> None:
    one = contract_of(spec_of("INT8", (None,) * 8, low=5, high=5), max_rows=1)
    array = np.full((1,) * 8, 5, np.int8)
    assert (
        parse_http_infer(*json_request({one.inputs[0]: array}, nested=True), one).inputs["x"].tolist()
        == array.tolist()
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"dtype": np.dtype(np.complex64)},
        {"dtype": np.dtype(">f4")},
        {"dtype": np.dtype(np.float64), "bf16": True},
        {"shape": ()},
        {"shape": (None,) * 9},
        {"shape": (None, 0)},
        {"low": 1.0, "high": 0.0},
        {"low": float("nan")},
        {"low": 1e39},
        {"dtype": np.dtype(np.object_), "low": 0.0},
        {"dtype": np.dtype(np.int8), "low": 128.0},
        {"dtype": np.dtype(np.int8), "low": 0.2, "high": 0.8},
    ],
)
def test_a_form_that_the_protocol_cannot_carry_is_refused_at_load(fields: dict[str, Any]) -> None:
    form: dict[str, Any] = {"name": "x", "dtype": np.dtype(np.float32), "shape": (None, 2), **fields}
    with pytest.raises(ArtifactError):
        TensorSpec(**form)


@pytest.mark.parametrize(
    "fields",
    [
        {"inputs": ()},
        {"outputs": ()},
        {"max_rows": 0},
        {"inputs": (SPEC, SPEC)},
        {"outputs": (spec_of("BYTES", (None,), "fs_row_outcome"),)},
    ],
)
def test_a_contract_without_distinct_names_is_refused_at_load(fields: dict[str, Any]) -> None:
    parts: dict[str, Any] = {
        "model": "m",
        "inputs": (SPEC,),
        "outputs": (SPEC,),
        "max_rows": 1,
        "version": "1",
    }
    with pytest.raises(ArtifactError):
        Contract(**(parts | fields))


@given(st.lists(st.sampled_from([b"tr", b"ue", b"fal", b"se", b"true", b"u", b"s", b"0.5,", b'"'])))
def test_booleans_are_found_anywhere_in_a_body(parts: list[bytes]) -> None:
    body = b"".join(parts)
    assert wire._may_hold_booleans(body) == (b"true" in body or b"false" in body)
