"""Bytes that are not UTF-8 text are the caller's to mend, where every model of a deployment needs text."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.core.errors import InvalidRequest
from gateway.protocol.infer_request import parse_http_infer
from tests.support.wire_parts import Array, binary_request, contract_of, spec_of

NO_TEXT = (b"\xff", b"\xc3", b"\xed\xa0\x80", b"ab\xe2\x82", b"\xc0\x80", "déjà".encode("latin-1"))


def two_a_row(*items: bytes) -> Array:
    return np.array([*items, None], object)[:-1].reshape(-1, 2)


@pytest.mark.parametrize("broken", NO_TEXT)
def test_the_first_row_that_is_no_text_is_named(broken: bytes) -> None:
    spec = spec_of("BYTES", utf8=True)
    sent = two_a_row(b"", "jä\0".encode(), b"no", broken, broken, b"")
    with pytest.raises(InvalidRequest) as refused:
        parse_http_infer(*binary_request({spec: sent}), contract_of(spec))
    assert [str(problem) for problem in refused.value.problems] == ["inputs[0].data: row 1: not UTF-8 text"]


def test_a_raw_request_that_is_no_text_is_named() -> None:
    with pytest.raises(InvalidRequest, match="body: row 0: not UTF-8 text"):
        parse_http_infer(b"d\xe9j\xe0", 0, contract_of(spec_of("BYTES", (None,), utf8=True)))


def test_text_arrives_as_it_was_sent() -> None:
    spec, sent = spec_of("BYTES", utf8=True), two_a_row(b"", "jä\0".encode(), "🙂".encode(), b"a\0")
    got = parse_http_infer(*binary_request({spec: sent}), contract_of(spec)).inputs["x"]
    assert got.tolist() == sent.tolist()


@pytest.mark.parametrize("broken", NO_TEXT)
def test_any_bytes_are_taken_where_a_model_may_take_them(broken: bytes) -> None:
    spec, sent = spec_of("BYTES"), two_a_row(broken, b"")
    got = parse_http_infer(*binary_request({spec: sent}), contract_of(spec)).inputs["x"]
    assert got.tolist() == sent.tolist()
