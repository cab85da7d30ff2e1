"""Nothing malformed gets a 5xx from the data plane."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.data_planes import (
    INFER,
    X16,
    PlaneFixture,
    request_of,
    whole_plane,
)
from tests.support.raw_http import QUICK


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlaneFixture]:
    with whole_plane(tmp_path_factory, QUICK) as made:  # a body that is shorter than announced is waited for
        yield made


REQUEST = {
    "id": "a",
    "parameters": {"timeout": 9_000_000, "priority": 1, "binary_data_output": False},
    "inputs": [
        {"name": "attributes", "datatype": "FP32", "shape": [1, 16], "parameters": {}, "data": X16},
    ],
    "outputs": [{"name": "probabilities", "parameters": {"binary_data": False, "classification": 3}}],
}
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=5),
    st.just([]),
    st.just({}),
    st.lists(st.integers(-2, 20), max_size=4),
)


def positions(of: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The position of every value in a document, as keys and indices."""
    yield at
    for key, value in of.items() if isinstance(of, dict) else enumerate(of) if isinstance(of, list) else ():
        yield from positions(value, (*at, key))


def put(of: Any, at: tuple[Any, ...], value: Any) -> Any:
    """A copy of a document with one place replaced."""
    if not at:
        return value
    copy = dict(of) if isinstance(of, dict) else list(of)
    copy[at[0]] = put(of[at[0]], at[1:], value)
    return copy


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A valid request with some positions replaced, or some bytes changed, or cut, or neither."""
    document: Any = REQUEST
    for _ in range(draw(st.integers(0, 2))):
        document = put(document, draw(st.sampled_from(list(positions(document)))), draw(VALUES))
    body = bytearray(json.dumps(document).encode())
    for _ in range(draw(st.integers(0, 2))):
        if body:
            body[draw(st.integers(0, len(body) - 1))] = draw(st.integers(0, 255))
    if draw(st.booleans()):
        return bytes(body)
    return bytes(body[: draw(st.integers(0, len(body)))]) + draw(st.binary(max_size=20))


LATIN = st.text(st.characters(max_codepoint=255), max_size=12)
NAMES = st.sampled_from(
    [
        "inference-header-content-length",
        "content-length",
        "content-type",
        "prefer",
        "x-request-timeout-seconds",
        "transfer-encoding",
        "accept-encoding",
        "host",
        "cookie",
    ]
)
NUMBERS = st.integers(-5, 700).map(str) | st.sampled_from(
    ["\u00b2", "1e9", "nan", "inf", "9" * 30, "0x1", "1_0"]
)
PREFERS = st.sampled_from(
    ["respond-async", "wait=0", "wait=\u00b2", "wait=x", "wait", ";;", "wait=,respond-async"]
)
PATHS = st.sampled_from(
    [
        INFER,
        INFER,
        INFER,
        "/v2/models/letters/versions/1/infer",
        "/v2//models/letters/infer/",
        "/v2",
        "/decisions/x",
        "/reviews/x",
    ]
) | st.text(max_size=20).map(lambda text: "/v2/models/" + text)


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    bodies(),
    st.lists(st.tuples(NAMES, LATIN | NUMBERS | PREFERS), max_size=3),
    PATHS,
    st.sampled_from(["POST", "POST", "POST", "GET", "PUT", "HEAD", "OPTIONS"]),
)
@example(json.dumps(REQUEST).encode(), [("prefer", "wait=\u00b2")], INFER, "POST")
@example(json.dumps(REQUEST).encode(), [("content-length", "\u00b2")], INFER, "POST")
@example(json.dumps(REQUEST).encode(), [("content-length", "700")], INFER, "POST")
@example(json.dumps(REQUEST).encode(), [("content-length", "7")], INFER, "POST")
@example(json.dumps(REQUEST).encode(), [("transfer-encoding", "x\r\nx: y")], INFER, "POST")
def test_nothing_malformed_ever_gets_a_5xx(
    plane: PlaneFixture, body: bytes, headers: list[tuple[str, str]], path: str, method: str
) -> None:
    sent = [(name, value) for name, value in headers if not (name == "prefer" and waits(value))]

    async def main() -> None:
        reply = await plane.ada.request(method, path, body, sent)
        if reply.status < 500:
            return
        names = {name for name, _ in sent}
        if reply.outcome == (501, "refused", "unsupported"):
            assert "transfer-encoding" in names, "only a coding that is not served is unsupported"
        else:
            assert reply.outcome == (504, "refused", "deadline")
            assert b"timeout" in body or "x-request-timeout-seconds" in names

    plane.run(main)


def waits(prefer: str) -> bool:
    """Whether a preference would make the test itself wait."""
    return any(
        part.strip().startswith("wait=") and any(c in "123456789" for c in part) for part in prefer.split(",")
    )


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=80), st.integers(-3, 300), st.integers(0, 90))
def test_no_binary_request_ever_gets_a_5xx(plane: PlaneFixture, noise: bytes, length: int, cut: int) -> None:
    async def main() -> None:
        body, _ = request_of(plane.good[:1], binary=True)
        for sent in (body[: len(body) - cut] + noise, noise, noise + body):
            reply = await plane.ada.post(sent, {"inference-header-content-length": str(length)})
            assert reply.status < 500

    plane.run(main)
