"""The parser raises only InvalidRequest, which names the invalid field."""

from __future__ import annotations

import copy
import gzip
import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.errors import InvalidRequest
from gateway.protocol.contract import TensorSpec
from gateway.protocol.infer_request import InferRequest, parse_http_infer
from tests.support.wire_parts import (
    DTYPES,
    IMAGE,
    Array,
    binary_request,
    contract_of,
    json_request,
    spec_of,
    tensors,
)

GOOD: dict[str, Any] = {
    "id": "1",
    "parameters": {"timeout": 5, "priority": 1, "binary_data_output": False},
    "inputs": [
        {"name": "image", "datatype": "FP32", "shape": [2, 1, 2, 2], "data": [0, 0.5, 1, 0, 0, 0, 0, 0.25]}
    ],
    "outputs": [{"name": "p", "parameters": {"binary_data": False}}, {"name": "label"}],
}
HEADER = "Inference-Header-Content-Length"


def problems_of(body: bytes, header_length: int | None = None, contract: Any = IMAGE) -> dict[str, str]:
    """The problems by field, the request being refused."""
    with pytest.raises(InvalidRequest) as refused:
        parse_http_infer(body, header_length, contract)
    return {problem.field: str(problem) for problem in refused.value.problems}


def edited(edit: Callable[[dict[str, Any]], object]) -> bytes:
    document = copy.deepcopy(GOOD)
    edit(document)
    return json.dumps(document).encode()


def put(*path: str | int) -> Callable[..., Callable[[dict[str, Any]], None]]:
    def to(value: object) -> Callable[[dict[str, Any]], None]:
        def edit(document: Any) -> None:
            for key in path[:-1]:
                document = document[key]
            document[path[-1]] = value

        return edit

    return to


tensor, data, shape = put("inputs", 0), put("inputs", 0, "data"), put("inputs", 0, "shape")
parameters = put("inputs", 0, "parameters")
eight = [0.0] * 8

MALFORMED: list[tuple[str, Callable[[dict[str, Any]], object], str, str]] = [
    ("id is a number", put("id")(7), "id", "must be a string"),
    ("id is an object", put("id")({}), "id", "must be a string"),
    ("parameters is a list", put("parameters")([]), "parameters", "must be an object"),
    ("timeout is text", put("parameters", "timeout")("5"), "parameters.timeout", "must be an integer"),
    ("timeout is a fraction", put("parameters", "timeout")(5.0), "parameters.timeout", "must be an integer"),
    ("timeout is true", put("parameters", "timeout")(True), "parameters.timeout", "must be an integer"),
    ("timeout is negative", put("parameters", "timeout")(-1), "parameters.timeout", "must not be negative"),
    ("priority is a list", put("parameters", "priority")([1]), "parameters.priority", "must be an integer"),
    (
        "binary_data_output is a number",
        put("parameters", "binary_data_output")(1),
        "parameters.binary_data_output",
        "must be true or false",
    ),
    ("no inputs", lambda d: d.pop("inputs"), "inputs", "'image' is missing"),
    ("inputs is null", put("inputs")(None), "inputs", "'image' is missing"),
    ("inputs is empty", put("inputs")([]), "inputs", "'image' is missing"),
    ("inputs is an object", put("inputs")({"image": 1}), "inputs", "missing"),
    ("an input is text", tensor("image"), "inputs[0]", "must be an object"),
    ("an input is null", tensor(None), "inputs[0]", "must be an object"),
    ("no name", lambda d: d["inputs"][0].pop("name"), "inputs[0].name", "must be a string"),
    ("name is a number", put("inputs", 0, "name")(3), "inputs[0].name", "must be a string"),
    ("unknown name", put("inputs", 0, "name")("imgae"), "inputs[0].name", "did you mean 'image'"),
    ("empty name", put("inputs", 0, "name")(""), "inputs[0].name", "the model has no ''"),
    (
        "duplicate name",
        lambda d: d["inputs"].append(d["inputs"][0]),
        "inputs[1].name",
        "'image' is listed twice",
    ),
    ("a hundred inputs", lambda d: d["inputs"].extend(d["inputs"] * 99), "inputs[16].name", "listed twice"),
    ("no datatype", lambda d: d["inputs"][0].pop("datatype"), "inputs[0].datatype", "must be FP32"),
    ("other datatype", put("inputs", 0, "datatype")("FP64"), "inputs[0].datatype", "must be FP32"),
    ("datatype is a list", put("inputs", 0, "datatype")(["FP32"]), "inputs[0].datatype", "must be FP32"),
    ("no shape", lambda d: d["inputs"][0].pop("shape"), "inputs[0].shape", "must be a list of integers"),
    ("shape is a number", shape(8), "inputs[0].shape", "must be a list of integers"),
    ("shape is empty", shape([]), "inputs[0].shape", "must be a list of integers"),
    ("shape holds text", shape(["2", 1, 2, 2]), "inputs[0].shape", "must be a list of integers"),
    ("shape holds a fraction", shape([2.0, 1, 2, 2]), "inputs[0].shape", "must be a list of integers"),
    ("shape holds true", shape([2, True, 2, 2]), "inputs[0].shape", "must be a list of integers"),
    ("shape holds null", shape([None, 1, 2, 2]), "inputs[0].shape", "must be a list of integers"),
    ("shape holds a list", shape([[2], 1, 2, 2]), "inputs[0].shape", "must be a list of integers"),
    ("rank too low", shape([2, 4]), "inputs[0].shape", "does not have the rank of [-1, 1, 2, 2]"),
    ("rank too high for any", shape([1] * 9), "inputs[0].shape", "rank 9; at most 8"),
    ("no rows", shape([0, 1, 2, 2]), "inputs[0].shape", "0 rows; from 1 to 8"),
    ("negative rows", shape([-1, 1, 2, 2]), "inputs[0].shape", "-1 rows; from 1 to 8"),
    ("too many rows", shape([9, 1, 2, 2]), "inputs[0].shape", "9 rows; from 1 to 8"),
    ("2^64 rows", shape([2**64 - 1, 1, 2, 2]), "inputs[0].shape", "rows; from 1 to 8"),
    ("other size", shape([2, 1, 2, 3]), "inputs[0].shape", "[2, 1, 2, 3] does not match [-1, 1, 2, 2]"),
    ("a product that wraps to the right size", shape([8, 2**62, 2, 2]), "inputs[0].shape", "does not match"),
    ("no data", lambda d: d["inputs"][0].pop("data"), "inputs[0].data", "is missing"),
    ("data is null", data(None), "inputs[0].data", "is missing"),
    ("data is a number", data(1.0), "inputs[0].data", "must be a list of 8 values"),
    ("data is text", data("00000000"), "inputs[0].data", "must be a list of 8 values"),
    ("data is an object", data({}), "inputs[0].data", "must be a list of 8 values"),
    ("data is empty", data([]), "inputs[0].data", "must be a list of 8 values"),
    ("one value short", data(eight[1:]), "inputs[0].data", "8 values, flat or nested as [2, 1, 2, 2]"),
    ("one value more", data([*eight, 0]), "inputs[0].data", "must be a list of 8 values"),
    ("nested but not as the shape", data([eight[:4], eight[:4]]), "inputs[0].data", "nested as [2, 1, 2, 2]"),
    (
        "nested too deep",
        data([[[[[0], [0]], [[0], [0]]]]] * 2),
        "inputs[0].data",
        "row 0: a list is not a number",
    ),
    ("ragged", data([[[[0, 0], [0]]], [[[0, 0], [0, 0]]]]), "inputs[0].data", "must be a list of 8 values"),
    ("flat, one nested", data([*eight[1:], [0]]), "inputs[0].data", "row 1: a list is not a number"),
    ("a null value", data([*eight[1:], None]), "inputs[0].data", "row 1: null is not a number"),
    ("a text value", data(["1.5", *eight[1:]]), "inputs[0].data", "row 0: a string is not a number"),
    ("a true value", data([*eight[1:], True]), "inputs[0].data", "row 1: true is not a number"),
    ("an object value", data([*eight[1:], {}]), "inputs[0].data", "row 1: an object is not a number"),
    ("above float32", data([*eight[1:], 1e39]), "inputs[0].data", "row 1: not a finite FP32"),
    ("below the range", data([-0.5, *eight[1:]]), "inputs[0].data", "row 0: -0.5 is below 0.0"),
    ("above the range", data([*eight[1:], 2]), "inputs[0].data", "row 1: 2.0 is above 1.0"),
    ("parameters of an input is text", parameters("a"), "inputs[0].parameters", "must be an object"),
    (
        "data and size",
        parameters({"binary_data_size": 0}),
        "inputs[0].data",
        "give either data or binary_data_size, not both",
    ),
    (
        "size without bytes",
        parameters({"binary_data_size": 32}),
        "inputs[0].parameters.binary_data_size",
        "announces 32 bytes, 0 follow",
    ),
    (
        "size is text",
        parameters({"binary_data_size": "32"}),
        "inputs[0].parameters.binary_data_size",
        "must be an integer",
    ),
    (
        "size is negative",
        parameters({"binary_data_size": -1}),
        "inputs[0].parameters.binary_data_size",
        "must not be negative",
    ),
    (
        "an input in shared memory",
        parameters({"shared_memory_region": "r"}),
        "inputs[0].parameters.shared_memory_region",
        "not supported",
    ),
    ("outputs is text", put("outputs")("p"), "outputs", "must be a list"),
    ("an output is text", put("outputs", 1)("p"), "outputs[1]", "must be an object"),
    ("an output without a name", put("outputs", 1)({}), "outputs[1].name", "must be a string"),
    ("unknown output", put("outputs", 1, "name")("labels"), "outputs[1].name", "did you mean 'label'"),
    (
        "an output that is not exposed",
        put("outputs", 1, "name")("features"),
        "outputs[1].name",
        "the model has no",
    ),
    ("duplicate output", put("outputs", 1, "name")("p"), "outputs[1].name", "'p' is listed twice"),
    (
        "parameters of an output is a list",
        put("outputs", 1, "parameters")([]),
        "outputs[1].parameters",
        "an object",
    ),
    (
        "binary_data is text",
        put("outputs", 0, "parameters", "binary_data")("true"),
        "outputs[0].parameters.binary_data",
        "must be true or false",
    ),
    (
        "classification of none",
        put("outputs", 0, "parameters", "classification")(0),
        "outputs[0].parameters.classification",
        "a count from 1",
    ),
    (
        "classification is true",
        put("outputs", 0, "parameters", "classification")(True),
        "outputs[0].parameters.classification",
        "must be an integer",
    ),
    (
        "classification of texts",
        put("outputs", 1)({"name": "fs_row_outcome", "parameters": {"classification": 1}}),
        "outputs[1].parameters.classification",
        "an output of numbers",
    ),
    (
        "an output in shared memory",
        put("outputs", 0, "parameters", "shared_memory_region")("r"),
        "outputs[0].parameters.shared_memory_region",
        "not supported",
    ),
]


def test_the_request_that_the_table_breaks_is_valid() -> None:
    assert parse_http_infer(json.dumps(GOOD).encode(), None, IMAGE).rows == 2


@pytest.mark.parametrize(
    ("edit", "field", "what"), [row[1:] for row in MALFORMED], ids=[row[0] for row in MALFORMED]
)
def test_malformed_members_are_refused_by_name(
    edit: Callable[[dict[str, Any]], object], field: str, what: str
) -> None:
    problems = problems_of(edited(edit))
    assert what in problems[field]


@pytest.mark.parametrize(
    ("body", "header_length", "field"),
    [
        (b"", None, "body"),
        (b"{", None, "body"),
        (b"[]", None, "body"),
        (b"null", None, "body"),
        (b"\xff\xfe", None, "body"),
        (b'{"inputs": NaN}', None, "body"),
        (b'{"inputs": [Infinity]}', None, "body"),
        (b'{"inputs": 1e999}', None, "body"),
        (b'{"id": "\\ud800"}', None, "body"),
        (b"[" * 100_000, None, "body"),
        (b"{}", 3, HEADER),
        (b"{}", -1, HEADER),
        (b"{}", 1, "body"),
        (b"", 0, "body"),
        (bytes(15), 0, "body"),
        (bytes(17), 0, "body"),
        (bytes(16 * 9), 0, "body"),
    ],
)
def test_a_body_that_cannot_be_read_is_refused(body: bytes, header_length: int | None, field: str) -> None:
    assert list(problems_of(body, header_length)) == [field]


def test_an_empty_body_is_called_empty() -> None:
    assert problems_of(b"") == {"body": "body: must not be empty"}


def image(rows: int = 1) -> Array:
    return np.zeros((rows, 1, 2, 2), np.float32)


def test_a_byte_too_many_is_refused() -> None:
    body, length = binary_request({IMAGE.inputs[0]: image()})
    assert problems_of(body + b"\0", length) == {"body": "body: 1 bytes after the data of the last input"}


def test_a_byte_too_few_is_refused() -> None:
    body, length = binary_request({IMAGE.inputs[0]: image()})
    assert list(problems_of(body[:-1], length)) == ["inputs[0].parameters.binary_data_size"]


def test_a_size_that_is_not_the_shapes_is_refused() -> None:
    body, length = binary_request({IMAGE.inputs[0]: image()})
    body = body.replace(b'"shape": [1,', b'"shape": [2,')
    assert problems_of(body, length) == {
        "inputs[0].data": "inputs[0].data: 16 bytes; FP32 [2, 1, 2, 2] takes 32"
    }


def test_inputs_of_different_row_counts_are_refused() -> None:
    a, b = spec_of("FP32", name="a"), spec_of("FP32", name="b")
    sent = {a: np.zeros((1, 2), np.float32), b: np.zeros((2, 2), np.float32)}
    for body, length in (json_request(sent), binary_request(sent)):
        assert list(problems_of(body, length, contract_of(a, b))) == ["inputs[1].shape"]


@pytest.mark.parametrize(
    "datatype", ["INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"]
)
def test_no_number_is_converted_to_an_integer_type(datatype: str) -> None:
    spec, info = spec_of(datatype), np.iinfo(DTYPES[datatype])
    for edge in (info.min, info.max):
        body, _ = json_request({spec: np.array([[0, edge]], object)})
        assert parse_http_infer(body, None, contract_of(spec)).inputs["x"].tolist() == [[0, edge]]
    wrong: list[object] = [info.min - 1, info.max + 1, 1.0, 0.5, True, None, "1"]
    for value in wrong:
        entry = {"name": "x", "datatype": datatype, "shape": [2, 2], "data": [info.min, info.max, 0, value]}
        problems = problems_of(json.dumps({"inputs": [entry]}).encode(), None, contract_of(spec))
        assert "row 1" in problems["inputs[0].data"]


@pytest.mark.parametrize("value", [0, 1, 0.0, "true", None])
def test_only_true_and_false_are_bools_in_json(value: object) -> None:
    entry = {"name": "x", "datatype": "BOOL", "shape": [1, 2], "data": [True, value]}
    body = json.dumps({"inputs": [entry]}).encode()
    assert "is not true or false" in problems_of(body, None, contract_of(spec_of("BOOL")))["inputs[0].data"]


def test_only_0_and_1_are_bools_in_binary() -> None:
    spec = spec_of("BOOL")
    body, length = binary_request({spec: np.ones((2, 2), bool)})
    problems = problems_of(body[:-1] + b"\x02", length, contract_of(spec))
    assert problems["inputs[0].data"] == "inputs[0].data: row 1: not a byte 0 or 1"


@pytest.mark.parametrize(
    "octets", [b"", b"\1\0\0", b"\1\0\0\0", b"\0\0\0\0", b"\0\0\0\0\2\0\0\0a", b"\xff" * 8, bytes(9)]
)
def test_bytes_elements_must_fill_their_data_exactly(octets: bytes) -> None:
    spec = spec_of("BYTES")
    entry = {
        "name": "x",
        "datatype": "BYTES",
        "shape": [1, 2],
        "parameters": {"binary_data_size": len(octets)},
    }
    head = json.dumps({"inputs": [entry]}).encode()
    assert list(problems_of(head + octets, len(head), contract_of(spec))) == ["inputs[0].data"]


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_half_precision_travels_in_binary_only(datatype: str) -> None:
    spec = spec_of(datatype)
    body, _ = json_request({spec: np.ones((1, 2), spec.dtype)})
    assert "binary only" in problems_of(body, None, contract_of(spec))["inputs[0].data"]


def test_a_raw_request_needs_one_input_of_a_fixed_shape() -> None:
    one, open_ = spec_of("FP32"), spec_of("FP32", (None, None))
    two = contract_of(spec_of("FP32", name="a"), spec_of("FP32", name="b"))
    assert "one input" in problems_of(bytes(8), 0, two)["body"]
    assert "fixed shape" in problems_of(bytes(8), 0, contract_of(open_))["body"]
    assert parse_http_infer(bytes(8), 0, contract_of(one)).rows == 1


def test_every_problem_is_named_and_not_only_the_first() -> None:
    a, b = spec_of("FP32", name="a"), spec_of("FP32", name="b")
    body = {
        "id": 1,
        "parameters": {"timeout": -1, "priority": "high"},
        "inputs": [
            {"name": "a", "datatype": "FP64", "shape": [0, 2], "parameters": {"binary_data_size": "8"}},
            {"name": "c", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]},
            {"name": "a"},
        ],
        "outputs": [{"name": "z"}, 5],
    }
    assert set(problems_of(json.dumps(body).encode(), None, contract_of(a, b))) == {
        "id",
        "parameters.timeout",
        "parameters.priority",
        "inputs[0].datatype",
        "inputs[0].shape",
        "inputs[0].parameters.binary_data_size",
        "inputs[1].name",
        "inputs[2].name",
        "inputs",
        "outputs[0].name",
        "outputs[1]",
    }


@pytest.mark.parametrize("datatype", ["FP64", "BYTES", "BOOL"])
def test_a_shape_allocates_nothing_that_the_body_does_not_hold(datatype: str) -> None:
    contract = contract_of(spec_of(datatype, (None, None, None)))
    entry: dict[str, Any] = {"name": "x", "datatype": datatype, "shape": [1, 2**40, 2**40]}
    for more in ({"data": [1, 2]}, {"parameters": {"binary_data_size": 4}}):
        head = json.dumps({"inputs": [entry | more]}).encode()
        tracemalloc.start()
        problems_of(head + bytes(4 * ("data" not in more)), len(head), contract)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1_000_000


def test_what_an_error_echoes_of_a_request_is_short() -> None:
    long = "x" * 1_000_000
    assert len(problems_of(edited(put("inputs", 0, "name")(long)))["inputs[0].name"]) < 200
    assert len(problems_of(edited(data([long] * 8)))["inputs[0].data"]) < 200


# --- fuzz -----------------------------------------------------------------------------------------

FUZZED = contract_of(
    spec_of("FP32", (None, None), "a", low=0.0),
    spec_of("INT8", (None, 2), "b"),
    spec_of("BYTES", (None,), "c"),
    spec_of("BOOL", (None, 1), "d"),
    outputs=[spec_of("FP32", name="y")],
)
WORDS = """
    id parameters inputs outputs name datatype shape data binary_data_size binary_data timeout classification
    shared_memory_region fs_row_outcome a b c d y FP32 BOOL
"""
words = st.sampled_from(WORDS.split())
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-3, 9)
    | st.sampled_from([2**31, 2**63, 2**64 - 1, -(2**63), 1e308, 1e-320, 0.5])
    | words
    | st.text(max_size=3)
)
values = st.recursive(
    scalars, lambda v: st.lists(v, max_size=4) | st.dictionaries(words, v, max_size=4), max_leaves=12
)


def only_invalid_requests(
    body: bytes, header_length: int | None, contract: Any = FUZZED
) -> InferRequest | None:
    try:
        return parse_http_infer(body, header_length, contract)
    except InvalidRequest as refused:
        assert refused.problems
        assert all(problem.field and problem.what for problem in refused.problems)
        return None


@st.composite
def valid(draw: st.DrawFn) -> tuple[dict[str, Any], bytes]:
    """A valid request to FUZZED, in any mix of encodings, as a document and its binary tail."""
    n = draw(st.integers(1, 3))
    arrays: dict[TensorSpec, Array] = {
        FUZZED.inputs[0]: np.ones((n, 2), np.float32),
        FUZZED.inputs[1]: np.ones((n, 2), np.int8),
        FUZZED.inputs[2]: np.array([b"ab"] * n, object),
        FUZZED.inputs[3]: np.ones((n, 1), bool),
    }
    entries, tail = [], b""
    for spec, array in arrays.items():
        body, length = (binary_request if draw(st.booleans()) else json_request)({spec: array})
        entries += json.loads(body[:length])["inputs"]
        tail += body[length:] if length else b""
    outputs = [
        {"name": "y", "parameters": {"binary_data": True, "classification": 1}},
        {"name": "fs_row_outcome"},
    ]
    return {"id": "", "parameters": {"timeout": 1}, "inputs": entries, "outputs": outputs}, tail


def spots(value: object) -> list[tuple[Any, Any]]:
    """Every place in a document that can hold something else: its container and key."""
    items: Any = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    return [spot for key, member in items for spot in ((value, key), *spots(member))]


@given(valid())
def test_fuzzing_starts_from_valid_requests(request_: tuple[dict[str, Any], bytes]) -> None:
    head = json.dumps(request_[0]).encode()
    assert parse_http_infer(head + request_[1], len(head), FUZZED).wants_row_outcome


@given(valid(), st.data())
def test_a_valid_request_with_anything_anywhere_is_refused_or_read(
    request_: tuple[dict[str, Any], bytes], data: st.DataObject
) -> None:
    document, tail = request_
    for _ in range(data.draw(st.integers(1, 3))):
        owner, key = data.draw(st.sampled_from(spots(document) or [({}, "")]))
        if data.draw(st.booleans()):
            owner[key] = data.draw(values)
        elif isinstance(owner, dict):
            owner.pop(key, None)
        else:
            owner.insert(key, data.draw(values))
    head = json.dumps(document).encode()
    got = only_invalid_requests(head + tail, len(head) if tail else None)
    if got is not None:
        held = [(got.inputs[spec.name].dtype, len(got.inputs[spec.name])) for spec in FUZZED.inputs]
        assert held == [(spec.dtype, got.rows) for spec in FUZZED.inputs]


@given(values, st.none() | st.integers(-5, 300))
def test_any_json_is_refused_or_read(value: object, header_length: int | None) -> None:
    only_invalid_requests(json.dumps(value).encode(), header_length)


@given(st.binary(max_size=200), st.none() | st.integers(-5, 250))
@example(b"\x00" * 64, 0)
def test_any_bytes_are_refused_or_read(body: bytes, header_length: int | None) -> None:
    only_invalid_requests(body, header_length)
    only_invalid_requests(body, header_length, IMAGE)


@given(valid(), st.binary(max_size=40), st.integers(-20, 20), st.integers(0, 400), st.integers(0, 255))
def test_a_request_cut_shifted_or_flipped_is_refused_or_read(
    request_: tuple[dict[str, Any], bytes], tail: bytes, shift: int, at: int, octet: int
) -> None:
    head = json.dumps(request_[0]).encode()
    body = bytearray(head + request_[1] + tail)
    body[at % len(body)] = octet
    only_invalid_requests(bytes(body), len(head) + shift)
    only_invalid_requests(bytes(body[:at]), None)


@given(tensors([*DTYPES, "BF16"]), st.binary(max_size=64))
def test_any_bytes_as_the_data_of_any_datatype_are_refused_or_read(
    sent: tuple[TensorSpec, Array], octets: bytes
) -> None:
    spec, array = sent
    only_invalid_requests(octets, 0, contract_of(spec))
    body, length = binary_request({spec: array})
    only_invalid_requests(body[: -len(octets) or None] + octets, length, contract_of(spec))


X = spec_of("FP32", (None, 2))
BINARY, JSON_BYTES = binary_request({X: np.array([[1, -4.25]], np.float32)})


@pytest.mark.parametrize(
    ("body", "header_length", "field", "what"),
    [
        (BINARY, None, HEADER, "is missing: the body has binary data, and this header says where it begins"),
        (BINARY, JSON_BYTES + 8, "body", f" is not UTF-8 (the JSON has {JSON_BYTES + 8} bytes by {HEADER})"),
        (BINARY, JSON_BYTES - 1, "body", f" (the JSON has {JSON_BYTES - 1} bytes by {HEADER})"),
        (b"\0\0\x80\x3f", None, "body", f"not JSON: byte 2 (0x80) is not UTF-8; binary data needs {HEADER}"),
        (b'{"id": "d\xe9j"}', None, "body", "not JSON: byte 9 (0xe9) is not UTF-8; binary data needs"),
        (gzip.compress(BINARY), None, "body", "not JSON: it is gzip, which needs Content-Encoding: gzip"),
        (b'{"inputs": [{"data": [NaN]}]}', None, "body", "; JSON has no NaN and no Infinity"),
        (b'{"inputs": [{"data": [-Infinity]}]}', None, "body", "; JSON has no NaN and no Infinity"),
    ],
)
def test_what_is_not_json_is_named_by_what_it_is(
    body: bytes, header_length: int | None, field: str, what: str
) -> None:
    found = problems_of(body, header_length, contract_of(X))
    assert list(found) == [field]
    assert what in found[field]
