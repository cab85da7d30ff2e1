"""Requests changed as a fuzzer does, token by token and octet by octet, read by `parse_http_infer`.

Whatever comes, nothing but InvalidRequest leaves, soon; and whatever is read can be written again and is then
read as the same arrays. The suite takes a sample of it; `make fuzz SECONDS=600` goes on for as long as asked.
"""

from __future__ import annotations

import gc
import json
import re
import struct
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.core.errors import InvalidRequest
from gateway.protocol.contract import Contract
from gateway.protocol.infer_request import InferRequest, parse_header_length, parse_http_infer
from tests.support.wire_parts import (
    BINARY_ONLY,
    IMAGE,
    binary_request,
    contract_of,
    json_request,
    same_bits,
    spec_of,
)

SOON_S = 0.25
"""Of the processor. A request of these sizes takes less than a thousandth of a second."""

NUMBERS = contract_of(
    spec_of("FP32", (None, 2), "a", low=-1.0, high=1e6),
    spec_of("FP64", (None,), "b"),
    spec_of("INT64", (None, None), "c"),
    spec_of("UINT64", (None, 1), "d"),
    spec_of("INT8", (None, 2), "e", low=-3.0, high=100.0),
)
OTHERS = contract_of(
    spec_of("BYTES", (None, None), "a"),
    spec_of("BOOL", (None, 2), "b"),
    spec_of("FP16", (None, 2), "c"),
    spec_of("BF16", (None, 1), "d"),
)
TEXTS = contract_of(spec_of("BYTES", (None,)))
CONTRACTS = (NUMBERS, OTHERS, IMAGE, TEXTS)
WORDS = b"""
    -0 0 1 -1 1.0 1e2 1E+2 -1e-400 1e400 0.1e-1 01 +1 .5 1. 1e NaN Infinity -Infinity 0x10 1_0 true false null
    18446744073709551615 18446744073709551616 -9223372036854775808 -9223372036854775809 3.4028235677973366e38
    [] {} [[ ]] [ ] { } , : " \\ "" "\\u0000" "\\ud800" "\\udc00\\ud800" "\\ud83d\\ude00" "\\x"
    "inputs" "outputs" "data" "shape" "name" "datatype" "parameters" "binary_data_size" "fs_row_outcome" "y"
    "shared_memory_region" "classification" "FP32" "BYTES" "BF16"
"""
SPECIAL = [
    *WORDS.split(),
    b"9" * 400,
    b"-" + b"9" * 5000,
    b"0." + b"0" * 400 + b"1",
    b"[" * 2000,
    b"]" * 2000,
    b'{"a":' * 300,
    b"[" * 20 + b"]" * 20,
    b'"' + b"[" * 40 + b'"',
    "\u2028\u00a0\ufeff".encode(),
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b"\xc0\xaf",
    b"\xff",
    b"\0",
    b"\t\n\r ",
]
TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[-+.\w]+|\s+|.', re.DOTALL)


@dataclass
class Seen:
    """What came of the examples so far."""

    examples: int = 0
    read: int = 0
    slowest_s: float = 0.0


seen = Seen()


def fed(body: bytes, header_length: int | None, contract: Contract) -> InferRequest | None:
    """The request, if the parser reads it: soon, and so that it survives being written and read again."""
    took_s, got = timed(body, header_length, contract)
    assert took_s < SOON_S
    seen.examples += 1
    seen.read += got is not None
    seen.slowest_s = max(seen.slowest_s, took_s)
    if got is not None:
        comes_back(got, contract)
    return got


def timed(body: bytes, header_length: int | None, contract: Contract) -> tuple[float, InferRequest | None]:
    """How long the parser took, and what it read."""
    gc.disable()  # else the test's own garbage is collected meanwhile
    start_s = time.thread_time()
    try:
        got = parse_http_infer(body, header_length, contract)
    except InvalidRequest as refused:
        assert refused.problems
        assert all(problem.field and problem.what for problem in refused.problems)
        got = None
    finally:
        took_s = time.thread_time() - start_s
        gc.enable()
    return took_s, got


def comes_back(got: InferRequest, contract: Contract) -> None:
    """Holds what was read to its contract, and to what is read of it when it is written again."""
    sent = {spec: got.inputs[spec.name] for spec in contract.inputs}
    for spec, array in sent.items():
        assert spec.fits(array)
        assert len(array) == got.rows <= contract.max_rows
        assert not array.flags.writeable
        assert spec.dtype.kind != "f" or np.isfinite(array).all()
    forms: list[tuple[bytes, int | None]] = [binary_request(sent)]
    if all(spec.datatype not in BINARY_ONLY for spec in sent) and texts(sent.values()):
        forms += [json_request(sent), json_request(sent, nested=True)]
    for body, header_length in forms:
        again = parse_http_infer(body, header_length, contract)
        assert all(same_bits(again.inputs[name], array) for name, array in got.inputs.items())


def texts(arrays: Any) -> bool:
    """Whether all elements of BYTES are UTF-8, as JSON needs them."""
    try:
        return all(value.decode() is not None for a in arrays if a.dtype == object for value in a.flat)
    except UnicodeDecodeError:
        return False


@st.composite
def valid(draw: st.DrawFn) -> tuple[Contract, bytes, int | None]:
    """A valid request to one of the contracts, each input of it in JSON or in binary, or all of it raw."""
    contract = draw(st.sampled_from(CONTRACTS))
    n, wide = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    entries, tail = [], b""
    for spec in contract.inputs:
        shape = (n, *(d or wide for d in spec.shape[1:]))
        if spec.dtype == object:
            text = draw(st.sampled_from(["", "ab", "\u00e9\u2603\U0001f600", '"[{\\', "\0"]))
            array = np.full(shape, text.encode(), object)
        else:
            array = np.full(shape, draw(st.integers(0, 1)), spec.dtype)
        binary = spec.datatype in BINARY_ONLY or draw(st.booleans())
        body, length = (binary_request if binary else json_request)({spec: array})
        entries += json.loads(body[:length])["inputs"]
        tail += body[length:] if length else b""
    if len(contract.inputs) == 1 and tail and draw(st.booleans()):
        return contract, tail, 0
    more = {
        "id": draw(st.sampled_from(["", "\u2028"])),
        "parameters": {"timeout": 1, "x": 2.5},
        "x": [[{"y": 0}]],
    }
    outputs = [{"name": s.name, "parameters": {"binary_data": True}} for s in contract.outputs]
    head = json.dumps({**more, "inputs": entries, "outputs": outputs}, ensure_ascii=False).encode()
    return contract, head + tail, len(head) if tail or draw(st.booleans()) else None


def mutated(draw: st.DrawFn, parts: list[bytes], other: Sequence[bytes]) -> list[bytes]:
    """The parts with a run of them replaced, removed, repeated, moved or put beside another."""
    at = draw(st.integers(0, len(parts) - 1)) if parts else 0
    to = min(len(parts), at + draw(st.sampled_from([1, 1, 1, 2, 5, 20])))
    match draw(st.sampled_from(["replace", "insert", "remove", "repeat", "move", "splice"])):
        case "replace":
            return [*parts[:at], draw(st.sampled_from(SPECIAL)), *parts[to:]]
        case "insert":
            return [*parts[:at], draw(st.sampled_from(SPECIAL)), *parts[at:]]
        case "remove":
            return [*parts[:at], *parts[to:]]
        case "repeat":
            times = draw(st.sampled_from([1, 1, 2, 100]))
            return [*parts[:at], *(parts[at:to] * times), *parts[at:]]
        case "move":
            rest = [*parts[:at], *parts[to:]]
            where = draw(st.integers(0, len(rest)))
            return [*rest[:where], *parts[at:to], *rest[where:]]
        case _:
            where = draw(st.integers(0, len(other)))
            return [*parts[:at], *other[where : where + 10], *parts[at:]]


@st.composite
def broken(draw: st.DrawFn) -> tuple[Contract, bytes, int | None]:
    """A valid request after a few mutations of its tokens, its octets and its header."""
    contract, body, length = draw(valid())
    head, tail = (body[:length], body[length:]) if length is not None else (body, b"")
    _, other, _ = draw(valid())
    tokens = TOKEN.findall(head)
    for _ in range(draw(st.integers(0, 3)) if head else 0):
        tokens = mutated(draw, tokens, TOKEN.findall(other))
    head = b"".join(tokens)
    octets = [tail[i : i + 1] for i in range(len(tail))]
    for _ in range(draw(st.integers(0, 1))):
        octets = mutated(draw, octets, [other[i : i + 1] for i in range(len(other))])
    whole = bytearray(head + b"".join(octets))
    for _ in range(draw(st.integers(0, 1)) if whole else 0):
        whole[draw(st.integers(0, len(whole) - 1))] ^= 1 << draw(st.integers(0, 7))
    if draw(st.sampled_from([False, False, False, True])):
        del whole[draw(st.integers(0, len(whole))) :]
    length_of_json = length if length is None else len(head)
    lengths = st.sampled_from(
        [
            length_of_json,
            length_of_json,
            length_of_json,
            length_of_json,
            length,
            None,
            0,
            len(whole),
            len(head) - 1,
            len(whole) + 1,
        ]
    )
    return contract, bytes(whole), draw(lengths)


@given(valid())
def test_fuzzing_starts_from_requests_that_are_read(request_: tuple[Contract, bytes, int | None]) -> None:
    contract, body, length = request_
    assert fed(body, length, contract) is not None


@given(broken())
def test_a_request_broken_token_by_token_is_refused_or_reads_back_the_same(
    request_: tuple[Contract, bytes, int | None],
) -> None:
    contract, body, length = request_
    fed(body, length, contract)


@given(valid(), st.data())
def test_of_members_that_stand_twice_the_last_one_counts(
    request_: tuple[Contract, bytes, int | None], data: st.DataObject
) -> None:
    contract, body, length = request_
    if length == 0:
        return
    head, tail = (body[:length], body[length:]) if length is not None else (body, b"")
    junk: st.SearchStrategy[Any] = st.sampled_from(
        [None, True, 0, -1, 2**70, "x", [], {}, [[[]]], {"a": {"b": 1}}]
    )
    doubled = written(json.loads(head), lambda: data.draw(junk) if data.draw(st.booleans()) else NOTHING)
    before = parse_http_infer(body, length, contract)
    after = fed(doubled + tail, length and len(doubled), contract)
    assert after is not None
    assert (after.id, after.rows, after.outputs) == (before.id, before.rows, before.outputs)
    assert all(same_bits(after.inputs[name], array) for name, array in before.inputs.items())


NOTHING = object()


def written(value: Any, junk: Any) -> bytes:
    """JSON in which any member may stand twice: with what `junk` gives first, and as it is last."""
    if isinstance(value, list):
        return b"[" + b",".join(written(item, junk) for item in value) + b"]"
    if not isinstance(value, dict):
        return json.dumps(value).encode()
    first = {key: made for key in value if (made := junk()) is not NOTHING}
    members = [*first.items(), *value.items()]
    return b"{" + b",".join(json.dumps(k).encode() + b":" + written(v, junk) for k, v in members) + b"}"


DIGITS = st.text("0123456789", min_size=1, max_size=25)
LITERALS = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["", "", "-"]),
    st.just("0") | DIGITS.map(lambda digits: digits.lstrip("0") or "0"),
    st.just("") | DIGITS.map(lambda digits: "." + digits),
    st.just("")
    | st.builds(
        "{}{}{}".format, st.sampled_from(["e", "E", "e+", "e-", "E-0"]), st.integers(0, 330), st.just("")
    ),
)


@given(st.sampled_from(["FP32", "FP64", "INT8", "UINT8", "INT32", "INT64", "UINT64"]), LITERALS)
@example("INT64", "-0")
@example("UINT64", "18446744073709551615")
@example("UINT64", "18446744073709551616")
@example("INT64", "-9223372036854775809")
@example("INT8", "1e1")
@example("FP32", "3.4028235677973365e38")
@example("FP32", "3.4028235677973366e38")
@example("FP64", "1.7976931348623159e308")
def test_a_number_is_read_exactly_as_arithmetic_says_or_refused(datatype: str, literal: str) -> None:
    spec = spec_of(datatype, (None,))
    entry = f'"name":"x","datatype":"{datatype}","shape":[1],"data":[{literal}]'
    body = f'{{"inputs":[{{{entry}}}]}}'
    got = fed(body.encode(), None, contract_of(spec))
    value = Fraction(literal)
    if spec.dtype.kind in "iu":
        whole = np.iinfo(spec.dtype)
        fits = not set(literal) & set(".eE") and whole.min <= value <= whole.max
        assert (got is not None) == fits
        assert got is None or int(got.inputs["x"][0]) == value
        return
    nearest = (
        0.0 if literal == "-0" else float(literal)
    )  # without a point it is an integer, which has no sign
    with np.errstate(over="ignore"):
        wanted = np.array([nearest], spec.dtype)
    assert (got is not None) == bool(np.isfinite(wanted[0]))
    assert got is None or same_bits(got.inputs["x"], wanted)


@given(st.text(max_size=30) | st.integers(-5, 10**25).map(str))
@example("\u00b2")
@example("\u0661")
@example("9" * 5000)
@example("1_0")
@example(" 1")
def test_a_header_length_is_digits_or_refused(value: str) -> None:
    try:
        assert parse_header_length(value) == int(value)
        assert re.fullmatch("[0-9]{1,18}", value)
    except InvalidRequest:
        assert not re.fullmatch("[0-9]{1,18}", value)


@given(st.lists(st.binary(max_size=6), min_size=1, max_size=9), st.integers(-3, 3))
def test_bytes_elements_of_wrong_lengths_are_refused_or_read_back_the_same(
    items: list[bytes], off: int
) -> None:
    octets = b"".join(
        struct.pack("<I", max(0, len(item) + off * (i == 0))) + item for i, item in enumerate(items)
    )
    entry = {
        "name": "x",
        "datatype": "BYTES",
        "shape": [len(items)],
        "parameters": {"binary_data_size": len(octets)},
    }
    head = json.dumps({"inputs": [entry]}).encode()
    got = fed(head + octets, len(head), TEXTS)
    if off == 0:
        assert (got is not None) == (len(items) <= TEXTS.max_rows)
        assert got is None or got.inputs["x"].tolist() == items


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":', b'"\\', b'[""', b"-"])
def test_a_body_of_eight_mebibytes_of_one_token_is_refused_soon(opening: bytes) -> None:
    body = (opening * (8 * 2**20 // len(opening)))[: 8 * 2**20]
    for sent in (body, b'{"inputs":' + body):
        assert fed(sent, None, IMAGE) is None


FUZZ = (
    test_a_request_broken_token_by_token_is_refused_or_reads_back_the_same,
    test_of_members_that_stand_twice_the_last_one_counts,
    test_a_number_is_read_exactly_as_arithmetic_says_or_refused,
    test_bytes_elements_of_wrong_lengths_are_refused_or_read_back_the_same,
)


def main(seconds: float) -> None:
    """Runs every target in turn, with other examples each time, for so long. A failure ends it."""
    until_s = time.monotonic() + seconds
    many = settings(max_examples=1500, deadline=None, database=None)
    targets, rounds = [many(target) for target in FUZZ], 0
    while time.monotonic() < until_s:
        for target in targets:
            target()
        rounds += 1
        summary = (
            f"{rounds} rounds, {seen.examples} requests, {seen.read} read, slowest {seen.slowest_s:.4f} s\n"
        )
        sys.stdout.write(summary)
        sys.stdout.flush()


if __name__ == "__main__":
    main(float(sys.argv[1]))
