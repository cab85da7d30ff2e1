"""A body that is parsed in another process gives the same request, or problems, as one parsed here."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given

from gateway.core.errors import InvalidRequest, Problem
from gateway.protocol import contract as contracts
from gateway.protocol.contract import MAX_TEXTS, Contract
from gateway.protocol.endings import Rejection
from gateway.protocol.infer_request import InferRequest, parse_http_infer
from gateway.protocol.parse_frames import (
    PREFIX,
    SLICE_ITEMS,
    contract_header,
    parsed_frame,
    read_contract,
    read_reply,
)
from gateway.protocol.rejected import RequestRejected
from tests.protocol.test_fuzz import broken, valid
from tests.support.wire_parts import binary_request, contract_of, json_request, same_bits, spec_of


def there_and_back(parse: Callable[[], InferRequest], contract: Contract) -> InferRequest:
    """What a gateway gets of a request that its parser process read, or raised."""
    sent = b"".join(parsed_frame(parse, lambda: 0.25))
    header_size, payload_size = PREFIX.unpack_from(sent)
    header = orjson.loads(sent[PREFIX.size : PREFIX.size + header_size])
    assert header["cpu_s"] == 0.25
    payload = np.frombuffer(sent[PREFIX.size + header_size :], np.uint8).copy()
    assert len(payload) == payload_size
    return asyncio.run(read_reply(header, payload.data, contract))


def result_of(parse: Callable[[], InferRequest]) -> InferRequest | tuple[Problem, ...]:
    try:
        return parse()
    except InvalidRequest as error:
        return error.problems


def same(body: bytes, length: int | None, contract: Contract) -> None:
    """Holds the two ways to each other."""
    again = read_contract(orjson.loads(orjson.dumps(contract_header(contract))))
    here = result_of(lambda: parse_http_infer(body, length, contract))
    there = result_of(lambda: there_and_back(lambda: parse_http_infer(body, length, again), contract))
    if not isinstance(here, InferRequest):
        assert there == here
        return
    assert isinstance(there, InferRequest)
    assert here._replace(inputs={}) == there._replace(inputs={})
    assert list(here.inputs) == list(there.inputs)
    for name, array in here.inputs.items():
        assert same_bits(there.inputs[name], array)
        assert there.inputs[name].dtype == array.dtype
        assert not there.inputs[name].flags.writeable
        assert there.inputs[name].flags.aligned


@given(valid())
def test_a_valid_body_gives_the_same_arrays(request_: tuple[Contract, bytes, int | None]) -> None:
    same(request_[1], request_[2], request_[0])


@given(broken())
def test_a_broken_body_gives_the_same_problems(request_: tuple[Contract, bytes, int | None]) -> None:
    same(request_[1], request_[2], request_[0])


@pytest.mark.parametrize("count", [1, SLICE_ITEMS - 1, SLICE_ITEMS, SLICE_ITEMS + 1, 3 * SLICE_ITEMS + 7])
def test_texts_come_back_over_the_ends_of_slices(count: int) -> None:
    texts = spec_of("BYTES", (None, None))
    array = np.empty((1, count), object)
    array[0] = [b"\xff" * (i % 5) + str(i).encode() for i in range(count)]
    same(*binary_request({texts: array}), contract_of(texts))


def test_a_rejection_comes_back_as_one() -> None:
    def parse() -> InferRequest:
        raise RequestRejected(Rejection.TOO_LARGE, "the body may have at most 7 bytes")

    with pytest.raises(RequestRejected) as caught:
        there_and_back(parse, contract_of(spec_of("FP32")))
    assert (caught.value.end, caught.value.error) == (
        Rejection.TOO_LARGE,
        "the body may have at most 7 bytes",
    )


def test_bounds_that_are_infinite_are_none() -> None:
    contract = contract_of(spec_of("FP32", low=-math.inf, high=1.0))
    again = read_contract(orjson.loads(orjson.dumps(contract_header(contract))))
    assert again.inputs[0].bounds == contract.inputs[0].bounds


# ---------------------------------------------------------------- how many values


def problems_of(body: bytes, contract: Contract) -> list[str]:
    found = result_of(lambda: parse_http_infer(body, None, contract))
    return [] if isinstance(found, InferRequest) else [problem.what for problem in found]


def document(data: bytes, shape: str = "[1,2]", **more: Any) -> bytes:
    extra = b"".join(b'"%b":%b,' % (name.encode(), value) for name, value in more.items())
    return b'{%b"inputs":[{"name":"x","datatype":"FP32","shape":%b,"data":%b}]}' % (
        extra,
        shape.encode(),
        data,
    )


@pytest.mark.parametrize("junk", [b"[],", b"{},", b"0,", b'"",', b"[0],", b'{"a":0},'])
def test_more_values_than_the_largest_batch_has_are_refused_before_they_are_parsed(junk: bytes) -> None:
    contract = contract_of(spec_of("FP32"))
    many = b"[" + junk * (2 * contract.max_json_values) + b"0]"
    (what,) = problems_of(document(b"[1,2]", z=many), contract)
    assert f"at most {contract.max_json_values} are taken" in what


def test_the_largest_batch_fits_flat_and_nested() -> None:
    shape = (None, 50, 40, 3, 1)
    contract = contract_of(spec := spec_of("FP32", shape))
    array = np.full((contract.max_rows, *shape[1:]), 0.5, np.float32)
    for nested in (False, True):
        body, _ = json_request({spec: array}, nested=nested)
        got = parse_http_infer(body, None, contract)
        assert same_bits(got.inputs["x"], array)


def test_the_number_of_values_of_an_open_shape_is_bounded_by_the_largest_body() -> None:
    assert contract_of(spec_of("FP32", (None, None))).max_json_values == contracts.MAX_JSON_VALUES


@pytest.mark.parametrize("text", [b",[{" * 50_000, b'\\",' * 50_000, b"\\\\" * 50_000, b'\\\\\\",' * 20_000])
def test_separators_in_texts_are_no_values(text: bytes) -> None:
    contract = contract_of(spec_of("FP32"))
    assert problems_of(document(b"[1,2]", z=b'"' + text + b'"'), contract) == []
    more = b'"' + text + b'",[' + b"0," * contract.max_json_values + b"0]"
    assert problems_of(document(b"[1,2]", z=b"[" + more + b"]"), contract)


def test_more_texts_than_are_taken_are_refused_where_the_shape_is_open_only() -> None:
    count = MAX_TEXTS + 8
    raw = b"\0\0\0\0" * count
    head = (
        b'{"inputs":[{"name":"x","datatype":"BYTES","shape":[8,%d],"parameters":{"binary_data_size":%d}}]}'
        % (count // 8, len(raw))
    )
    with pytest.raises(InvalidRequest, match=f"at most {MAX_TEXTS} are taken"):
        parse_http_infer(head + raw, len(head), contract_of(spec_of("BYTES", (None, None))))
    fixed = contract_of(spec_of("BYTES", (None, count // 8)))
    assert parse_http_infer(head + raw, len(head), fixed).rows == 8
