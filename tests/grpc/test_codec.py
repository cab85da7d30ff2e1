"""The protocol's messages: read as strictly as JSON, to the same arrays, in bounded memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallbacks.oip import open_inference_pb2 as pb
from gateway.core.errors import InvalidRequest
from gateway.grpc.bounds import MAX_FIELDS, MAX_OTHER_BYTES, MAX_TYPED_BYTES, check_memory
from gateway.grpc.codec import CONTENTS, parse_grpc_infer, read_message, render_grpc_infer
from gateway.protocol.answers import Answer
from gateway.protocol.contract import Contract, TensorSpec
from gateway.protocol.endings import Ending, Stamp
from gateway.protocol.infer_request import InferRequest, parse_http_infer
from tests.support.wire_parts import (
    DTYPES,
    IMAGE,
    Array,
    binary_array,
    binary_request,
    contract_of,
    json_request,
    octets_of,
    same_bits,
    spec_of,
    tensors,
)

ANY = (*DTYPES, "BF16")
FLOATS = ("FP16", "FP32", "FP64", "BF16")
STAMP = Stamp("m@1#0", "enforce", "d1")


def grpc_request(sent: Mapping[TensorSpec, Array], raw: bool) -> Any:
    message = pb.ModelInferRequest(model_name="m")
    for spec, array in sent.items():
        tensor = message.inputs.add(name=spec.name, datatype=spec.datatype, shape=array.shape)
        if raw:
            message.raw_input_contents.append(octets_of(spec, array))
        else:
            getattr(tensor.contents, CONTENTS[spec.datatype]).extend(array.ravel().tolist())
    return message


def parsed(message: Any, contract: Contract) -> InferRequest:
    return parse_grpc_infer(read_message(message.SerializeToString()), contract)


@given(sent=tensors(ANY))
def test_the_same_tensor_is_the_same_array_by_every_way_that_can_carry_it(
    sent: tuple[TensorSpec, Array],
) -> None:
    spec, array = sent
    contract = contract_of(spec)
    ways = [
        parse_http_infer(*binary_request({spec: array}), contract),
        parsed(grpc_request(dict([sent]), True), contract),
    ]
    if spec.datatype in CONTENTS:
        ways.append(parse_http_infer(*json_request({spec: array}), contract))
        ways.append(parsed(grpc_request(dict([sent]), False), contract))
    for request in ways:
        assert same_bits(request.inputs[spec.name], array)
        assert not request.inputs[spec.name].flags.writeable
        assert request.rows == len(array)


@pytest.mark.parametrize(
    ("datatype", "raw"), [("FP32", False), ("FP64", False), *((d, True) for d in FLOATS)]
)
def test_nan_is_a_missing_value_for_an_input_that_may_have_them_and_for_no_other(
    datatype: str, raw: bool
) -> None:
    spec = spec_of(datatype, missing=True)
    sent = np.array([[1, np.nan], [np.nan, np.nan]], spec.dtype)
    got = parsed(grpc_request({spec: sent}, raw), contract_of(spec)).inputs["x"]
    np.testing.assert_array_equal(got, sent)
    with pytest.raises(InvalidRequest, match=f"row 0: not a finite {datatype}"):
        parsed(grpc_request({spec: sent}, raw), contract_of(spec_of(datatype)))
    sent[1, 1] = np.inf
    with pytest.raises(InvalidRequest, match=f"row 1: not a finite {datatype}"):
        parsed(grpc_request({spec: sent}, raw), contract_of(spec))


@pytest.mark.parametrize(("raw", "field"), [(True, "raw"), (False, "contents.bytes_contents")])
def test_bytes_that_are_no_text_are_named_where_every_model_needs_text(raw: bool, field: str) -> None:
    spec, sent = spec_of("BYTES", (None,), utf8=True), np.array([b"ab", b"d\xe9j\xe0"], object)
    with pytest.raises(InvalidRequest) as refused:
        parsed(grpc_request({spec: sent}, raw), contract_of(spec))
    assert [str(p) for p in refused.value.problems] == [f"inputs[0].{field}: row 1: not UTF-8 text"]
    any_bytes = contract_of(spec_of("BYTES", (None,)))
    assert parsed(grpc_request({spec: sent}, raw), any_bytes).inputs["x"].tolist() == sent.tolist()


@given(sent=tensors(ANY), raw=st.booleans())
def test_every_tensor_is_sent_unchanged(sent: tuple[TensorSpec, Array], raw: bool) -> None:
    spec, array = sent
    taken = spec_of("FP32", name="i")
    contract = contract_of(taken, outputs=[spec])
    request = InferRequest("7", {}, len(array), contract.default_outputs[raw])
    answer = Answer({spec.name: array}, None, Ending("served", "ok", "m"))
    response = pb.ModelInferResponse.FromString(
        render_grpc_infer(contract, request, answer, STAMP).SerializeToString()
    )
    assert (response.model_name, response.id, response.outputs[0].datatype) == ("m", "7", spec.datatype)
    assert list(response.outputs[0].shape) == list(array.shape)
    if raw or spec.datatype not in CONTENTS:
        got = binary_array(spec.datatype, response.raw_output_contents[0])
    else:
        held = list(getattr(response.outputs[0].contents, CONTENTS[spec.datatype]))
        got = np.array([*held, None], object)[:-1].astype(array.dtype)
    assert same_bits(got.reshape(array.shape), array)


def test_texts_of_a_model_are_sent_as_bytes_in_either_form() -> None:
    """onnxruntime gives texts as str, which protobuf would not take."""
    spec = spec_of("BYTES", (None,), "y")
    contract = contract_of(spec_of("FP32"), outputs=[spec])
    for raw in (True, False):
        request = InferRequest(None, {}, 1, contract.default_outputs[raw])
        answer = Answer({"y": np.array(["é"], object)}, None, Ending("served", "ok", "m"))
        response = render_grpc_infer(contract, request, answer, STAMP)
        held = response.raw_output_contents or response.outputs[0].contents.bytes_contents
        assert held == [b"\x02\0\0\0\xc3\xa9" if raw else b"\xc3\xa9"]


# ---------------------------------------------------------------- what can be wrong


def good(raw: bool = True) -> Any:
    (spec,) = IMAGE.inputs
    return grpc_request({spec: np.zeros((2, 1, 2, 2), np.float32)}, raw)


def problems_of(message: Any, contract: Contract = IMAGE) -> dict[str, str]:
    with pytest.raises(InvalidRequest) as refused:
        parsed(message, contract)
    return {problem.field: problem.what + problem.nearest for problem in refused.value.problems}


def shape(*sizes: int) -> Callable[[Any], None]:
    def edit(message: Any) -> None:
        message.inputs[0].ClearField("shape")
        message.inputs[0].shape.extend(sizes)

    return edit


def parameter(owner: str, name: str, kind: str, value: Any) -> Callable[[Any], None]:
    def edit(message: Any) -> None:
        holder = message if owner == "" else getattr(message, owner)[0]
        setattr(holder.parameters[name], kind, value)

    return edit


def _asks(name: str) -> Callable[[Any], object]:
    return lambda m: m.outputs.add(name=name)


WRONG: list[tuple[bool, Callable[[Any], object], str, str]] = [
    (True, lambda m: m.raw_input_contents.pop(), "inputs[0].contents.fp32_contents", "0 values"),
    (True, lambda m: m.raw_input_contents.append(b""), "raw_input_contents", "has 2 parts for 1 inputs"),
    (True, lambda m: m.inputs.add(), "raw_input_contents", "has 1 parts for 2 inputs"),
    (True, lambda m: m.inputs[0].contents.SetInParent(), "inputs[0].contents", "not both"),
    (
        False,
        lambda m: m.inputs[0].contents.fp64_contents.append(1),
        "inputs[0].contents",
        "fp32_contents only",
    ),
    (
        False,
        lambda m: m.inputs[0].contents.fp32_contents.pop(),
        "inputs[0].contents.fp32_contents",
        "7 values",
    ),
    (
        False,
        lambda m: m.inputs[0].contents.fp32_contents.append(1),
        "inputs[0].contents.fp32_contents",
        "9 values",
    ),
    (True, lambda m: m.raw_input_contents.__setitem__(0, b"123"), "inputs[0].raw", "3 bytes; FP32"),
    (True, shape(), "inputs[0].shape", "must be a list of integers"),
    (True, shape(*[1] * 9), "inputs[0].shape", "has rank 9; at most 8"),
    (True, shape(-1, 1, 2, 2), "inputs[0].shape", "-1 rows; from 1 to 8"),
    (True, shape(2**63 - 1, 1, 2, 2), "inputs[0].shape", "rows; from 1 to 8"),
    (True, shape(8, 2**62, 2, 2), "inputs[0].shape", "does not match"),
    (True, lambda m: setattr(m.inputs[0], "datatype", "FP64"), "inputs[0].datatype", "must be FP32"),
    (True, lambda m: setattr(m.inputs[0], "name", "imgae"), "inputs[0].name", "image"),
    (True, lambda m: m.inputs.append(m.inputs[0]), "inputs[1].name", "'image' is listed twice"),
    (True, lambda m: m.ClearField("inputs"), "inputs", "'image' is missing"),
    (True, _asks("lable"), "outputs[0].name", "label"),
    (True, lambda m: (_asks("p")(m), _asks("p")(m)), "outputs[1].name", "listed twice"),
    (
        True,
        parameter("inputs", "shared_memory_region", "string_param", "r"),
        "inputs[0].parameters.shared_memory_region",
        "shared memory is not supported",
    ),
    (True, parameter("", "timeout", "string_param", "5"), "parameters.timeout", "must be an integer"),
    (True, parameter("", "timeout", "double_param", 5.0), "parameters.timeout", "must be an integer"),
    (True, parameter("", "timeout", "bool_param", True), "parameters.timeout", "must be an integer"),
    (True, parameter("", "priority", "int64_param", -1), "parameters.priority", "must not be negative"),
]


@pytest.mark.parametrize(("raw", "edit", "field", "rule"), WRONG)
def test_each_problem_names_the_field_and_the_rule(
    raw: bool, edit: Callable[[Any], object], field: str, rule: str
) -> None:
    message = good(raw)
    edit(message)
    assert rule in problems_of(message)[field]


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_a_datatype_without_typed_contents_is_named(datatype: str) -> None:
    message = pb.ModelInferRequest()
    message.inputs.add(name="x", datatype=datatype, shape=[1, 2]).contents.fp32_contents.extend([1, 2])
    what = problems_of(message, contract_of(spec_of(datatype)))["inputs[0].contents"]
    assert what == f"{datatype} travels in raw_input_contents only"


@pytest.mark.parametrize(("datatype", "value"), [("INT8", 128), ("INT16", -(2**15) - 1), ("UINT8", 256)])
def test_a_number_outside_its_datatype_has_the_error_text_of_json(datatype: str, value: int) -> None:
    spec = spec_of(datatype)
    contract = contract_of(spec)
    sent = {spec: np.array([[0, 0], [0, value]], np.int64)}
    text = problems_of(grpc_request(sent, False), contract)[f"inputs[0].contents.{CONTENTS[datatype]}"]
    with pytest.raises(InvalidRequest) as refused:
        parse_http_infer(*json_request(sent), contract)
    assert text == refused.value.problems[0].what
    assert text.startswith(f"row 1: {value} is not {datatype}")


@pytest.mark.parametrize("kind", ["int64_param", "uint64_param"])
def test_numbers_among_parameters_may_be_of_either_kind(kind: str) -> None:
    message = good()
    setattr(message.parameters["timeout"], kind, 7)
    setattr(message.parameters["priority"], kind, 2)
    message.parameters["nothing"].SetInParent()
    request = parsed(message, IMAGE)
    assert (request.timeout_us, request.priority) == (7, 2)


@pytest.mark.parametrize(("count", "valid"), [(0, False), (2, True), (99, True)])
def test_classification_needs_a_count_from_1(count: int, valid: bool) -> None:
    message = good()
    message.outputs.add(name="p").parameters["classification"].int64_param = count
    if valid:
        assert parsed(message, IMAGE).outputs[0].classification == count
    else:
        assert "count from 1" in problems_of(message)["outputs[0].parameters.classification"]


# ---------------------------------------------------------------- whatever arrives


def lengthed(number: int, content: bytes) -> bytes:
    size, head = len(content), bytes([number << 3 | 2])
    while size > 127:
        head, size = head + bytes([size & 127 | 128]), size >> 7
    return head + bytes([size]) + content


pieces = st.recursive(
    st.binary(max_size=20),
    lambda inner: st.lists(
        st.builds(lengthed, st.integers(1, 9), inner) | st.binary(max_size=3), max_size=6
    ).map(b"".join),
    max_leaves=20,
)


@given(raw=st.binary(max_size=200) | pieces, padding=st.sampled_from([0, MAX_OTHER_BYTES]))
def test_any_bytes_are_a_request_or_invalid_and_nothing_else(raw: bytes, padding: int) -> None:
    raw = lengthed(7, bytes(padding)) * bool(padding) + raw
    try:
        assert isinstance(parse_grpc_infer(read_message(raw), IMAGE), InferRequest)
    except InvalidRequest as error:
        assert error.problems


N = 4 * 2**20
COSTLY = {
    "empty inputs": b"\x2a\x00" * N,
    "empty outputs": b"\x32\x00" * N,
    "empty parameters": b"\x22\x00" * N,
    "empty parts": b"\x3a\x00" * N,
    "parameters of an input": lengthed(5, b"\x22\x00" * (N - 8)),
    "shape of an input": lengthed(5, lengthed(3, bytes(2 * N - 16))),
    "contents again and again": lengthed(5, b"\x2a\x00" * (N - 8)),
    "empty texts": lengthed(5, lengthed(5, b"\x42\x00" * (N - 8))),
    "small integers": lengthed(5, lengthed(5, lengthed(3, bytes(2 * N - 20)))),
}


@pytest.mark.parametrize("raw", COSTLY.values(), ids=COSTLY)
def test_a_message_that_would_take_far_more_memory_than_its_bytes_is_refused_at_once(raw: bytes) -> None:
    start_s = time.perf_counter()
    with pytest.raises(InvalidRequest, match=r"at most \d+ bytes"):
        read_message(raw)
    assert time.perf_counter() - start_s < 0.1


def test_data_up_to_the_limits_is_taken() -> None:
    raw = lengthed(7, bytes(8 * 2**20 - 100))
    typed = lengthed(5, lengthed(5, lengthed(1, bytes(MAX_TYPED_BYTES - 10))))
    many = lengthed(5, lengthed(5, b"")) * (MAX_FIELDS // 4)
    for message in (raw, typed, many + raw, b""):
        check_memory(message)
    with pytest.raises(InvalidRequest, match="use raw_input_contents"):
        check_memory(lengthed(5, lengthed(5, bytes(MAX_TYPED_BYTES + 1))))
