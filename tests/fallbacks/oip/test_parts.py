"""Addresses, tensors, descriptions and gRPC answers: what is read, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from fallbacks.oip.address import RemoteModel, UpstreamAddress
from fallbacks.oip.description import ModelDescription
from fallbacks.oip.errors import UnexpectedAnswer
from fallbacks.oip.grpc import decode_grpc_response
from fallbacks.oip.open_inference_pb2 import InferTensorContents, ModelInferResponse
from fallbacks.oip.tensors import (
    BINARY_ONLY,
    MAX_ANSWER_BYTES,
    UPSTREAM_DTYPES,
    UpstreamTensor,
    max_answer_bytes,
)

Output = ModelInferResponse.InferOutputTensor


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://triton:8000", "http://triton:8000"),
        ("http://triton/base/", "http://triton:80/base"),
        ("https://models.example", "https://models.example:443"),
        ("grpc://triton:8001", "grpc://triton:8001"),
        ("grpcs://[::1]:8001/", "grpcs://[::1]:8001"),
    ],
)
def test_an_address_is_a_scheme_a_host_and_a_port(url: str, shown: str) -> None:
    assert str(UpstreamAddress.parse(url)) == shown


SECRET = "hunter2"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("triton:8000", "must be http"),
        ("ftp://triton", "must be http"),
        ("http://", "must be http"),
        ("http://triton:many", "is not a URL"),
        ("http://[::1", "is not a URL"),
        (f"http://me:{SECRET}@triton", "token_env"),
        (f"grpc://{SECRET}@triton:8001", "token_env"),
        (f"http://triton?key={SECRET}", "no [?]"),
        (f"http://triton#{SECRET}", "no #|no [?]"),
        ("grpc://triton", "grpc://host:8001"),
        ("grpc://triton:8001/models", "grpc://host:8001"),
        ("http://tri ton", "characters"),
        ("http://triton\n:80", "characters"),
        ("http://trïton", "characters"),
    ],
)
def test_an_invalid_address_is_refused_without_repeating_its_secret(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        UpstreamAddress.parse(url)
    assert SECRET not in str(caught.value)


def test_model_names_are_escaped_in_the_path() -> None:
    remote = RemoteModel(UpstreamAddress.parse("http://triton/base"), "../a b?", "1/2", SECRET)
    assert remote.path == "/base/v2/models/..%2Fa%20b%3F/versions/1%2F2"
    assert SECRET not in repr(remote)


@given(st.data(), st.sampled_from(sorted(UPSTREAM_DTYPES)), array_shapes(min_dims=1, max_dims=3, max_side=4))
def test_every_number_survives_both_encodings(data: Any, datatype: str, shape: tuple[int, ...]) -> None:
    dtype = UPSTREAM_DTYPES[datatype]
    array = data.draw(arrays(dtype, shape, elements={"allow_nan": False} if dtype.kind == "f" else None))
    one = UpstreamTensor("x", datatype, (None, *shape[1:]))
    if datatype != "BF16":
        assert one.from_bytes(one.to_bytes(array), shape).tobytes() == array.tobytes()
    if datatype not in BINARY_ONLY:
        for message in (array.tolist(), array.reshape(-1).tolist()):
            assert np.array_equal(one.from_list(message, shape), array)


@given(arrays(np.float32, 5, elements={"allow_nan": False, "allow_infinity": False}))
def test_bf16_keeps_what_its_bits_can_hold(array: Any) -> None:
    one = UpstreamTensor("x", "BF16", (None,))
    once = one.from_bytes(one.to_bytes(array), (5,))
    finite = np.isfinite(once)  # the largest float32 round to infinity
    assert np.allclose(once[finite], array[finite], rtol=2**-8, atol=1e-38)
    assert one.from_bytes(one.to_bytes(once), (5,)).tobytes() == once.tobytes()


@pytest.mark.parametrize(
    ("datatype", "data"),
    [("UINT8", [256]), ("UINT8", [-1]), ("INT32", [1.0]), ("INT64", [True]), ("BOOL", [1]), ("FP32", ["1"])],
)
def test_no_number_is_converted_into_another(datatype: str, data: list[Any]) -> None:
    with pytest.raises(UnexpectedAnswer):
        UpstreamTensor("x", datatype, (None,)).from_list(data, (1,))


@pytest.mark.parametrize("shape", [[3, -2], [3, True], [3, 2.0], [3, "2"], [3, None], [3], []])
def test_a_size_that_is_left_open_must_be_one(shape: list[Any]) -> None:
    one = UpstreamTensor("y", "FP32", (None, None))
    assert one.checked_shape("FP32", [3, 2], 3) == (3, 2)
    with pytest.raises(UnexpectedAnswer):
        one.checked_shape("FP32", shape, 3)


def test_bytes_that_are_neither_true_nor_false_are_refused() -> None:
    with pytest.raises(UnexpectedAnswer, match="neither"):
        UpstreamTensor("x", "BOOL", (None,)).from_bytes(b"\x02", (1,))


def test_a_limit_covers_the_longest_numbers_that_json_writes() -> None:
    longest = len(str(-np.finfo(np.float64).tiny)) + len(", ")
    outputs = [UpstreamTensor("y", "FP64", (None, 10)), UpstreamTensor("z", "FP64", (None, 2, 3))]
    assert max_answer_bytes(outputs, 7) >= 7 * 16 * longest
    assert max_answer_bytes([UpstreamTensor("y", "FP64", (None, None))], 7) == MAX_ANSWER_BYTES


GOOD = ("x", "FP32", [-1, 2])


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        ([], [GOOD], "declares no inputs"),
        ([GOOD], [], "declares no inputs or no numeric outputs"),
        ([GOOD], [("label", "BYTES", [-1])], "no numeric outputs"),
        ([("x", "BYTES", [-1, 1])], [GOOD], "only numeric"),
        ([("x", None, [-1])], [GOOD], "only numeric"),
        ([("x", "FP32", [8, 2])], [GOOD], "first axis of 8"),
        ([("x", "FP32", [])], [GOOD], "has the shape"),
        ([("x", "FP32", [-1, 0])], [GOOD], "has the shape"),
        ([("x", "FP32", [-1, 2.0])], [GOOD], "has the shape"),
        ([("x", "FP32", [-1] * 9)], [GOOD], "has the shape"),
        ([(None, "FP32", [-1])], [GOOD], "has no name"),
        ([GOOD], [GOOD, GOOD], "a name twice"),
    ],
)
def test_a_description_that_cannot_be_used_is_refused(inputs: Any, outputs: Any, message: str) -> None:
    with pytest.raises(UnexpectedAnswer, match=message):
        ModelDescription.parse(inputs, outputs)


def test_outputs_of_text_are_left_out() -> None:
    described = ModelDescription.parse([GOOD], [("label", "BYTES", [-1, 1]), GOOD])
    assert [one.name for one in described.outputs] == ["x"]


LIKE = ModelDescription.parse([("x", "FP32", [-1, 2])], [("y", "FP32", [-1, 2]), ("k", "INT8", [-1])])
Y = np.arange(4, dtype=np.float32).reshape(2, 2)


def response(**changes: Any) -> ModelInferResponse:
    message: dict[str, Any] = {
        "id": "1",
        "outputs": [
            Output(name="k", datatype="INT8", shape=[2], contents=InferTensorContents(int_contents=[-1, 7])),
            Output(
                name="y",
                datatype="FP32",
                shape=[2, 2],
                contents=InferTensorContents(fp32_contents=Y.ravel().tolist()),
            ),
        ],
    }
    return ModelInferResponse(**(message | changes))


def bare(**changes: Any) -> list[Output]:
    return [
        Output(**({"name": "k", "datatype": "INT8", "shape": [2]} | changes)),
        Output(name="y", datatype="FP32", shape=[2, 2]),
    ]


RAW = [b"\xff\x07", Y.tobytes()]


@pytest.mark.parametrize(
    "answer",
    [
        response(),
        response(outputs=bare(), raw_output_contents=RAW),
        response(outputs=bare(shape=[2, 1]), raw_output_contents=RAW),  # as MLServer sends one value a row
    ],
)
def test_typed_and_raw_contents_are_the_same_answer(answer: ModelInferResponse) -> None:
    found = decode_grpc_response(answer, "1", LIKE, 2)
    assert found["y"].tobytes() == Y.tobytes() and found["k"].tolist() == [-1, 7]
    assert [array.dtype for array in (found["y"], found["k"])] == [np.dtype(np.float32), np.dtype(np.int8)]


@pytest.mark.parametrize(
    "answer",
    [
        response(id="2"),
        response(outputs=[]),
        response(outputs=bare()),
        response(outputs=bare(), raw_output_contents=RAW[:1]),
        response(outputs=bare(), raw_output_contents=RAW[::-1]),
        response(outputs=bare(datatype="UINT8"), raw_output_contents=RAW),
        response(outputs=bare(shape=[1, 2]), raw_output_contents=RAW),
        response(outputs=bare(name="y"), raw_output_contents=RAW),
        response(outputs=bare(shape=[3]), raw_output_contents=[b"\0\0\0", RAW[1]]),
        response(outputs=bare(contents=InferTensorContents(int_contents=[1, 300]))),
    ],
)
def test_an_unexpected_answer_over_grpc_is_an_error(answer: ModelInferResponse) -> None:
    with pytest.raises(UnexpectedAnswer):
        decode_grpc_response(answer, "1", LIKE, 2)


def test_half_precision_needs_raw_contents() -> None:
    like = ModelDescription.parse([GOOD], [("y", "FP16", [-1])])
    message = [
        Output(name="y", datatype="FP16", shape=[1], contents=InferTensorContents(bytes_contents=[b"\0<"]))
    ]
    raw = ModelInferResponse(
        outputs=[Output(name="y", datatype="FP16", shape=[1])], raw_output_contents=[b"\0<"]
    )
    assert decode_grpc_response(raw, "1", like, 1)["y"].tolist() == [1.0]
    with pytest.raises(UnexpectedAnswer, match="without raw"):
        decode_grpc_response(ModelInferResponse(outputs=message), "1", like, 1)
