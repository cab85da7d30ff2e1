"""The parser: its result does not depend on how bytes are cut, and no bytes make it fail."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.replies import reply_json
from gateway.listener.limits import Limits, RemoteProtocolError
from gateway.listener.messages import Admitted, Fault, Reply, Request
from gateway.listener.parser import Reader
from gateway.listener.states import DONE, EOF, REFUSED, SPOILED
from tests.support.raw_http import QUICK, chunked, get, post

NOW, LIMIT = reply_json(b"{}"), 1000


async def never_disconnects() -> None:
    raise AssertionError("not called")


def counts_no_connection(principal: str) -> bool:
    raise AssertionError("not called")


class FedReader:
    """A reader, and what came out of the bytes that it was fed."""

    def __init__(self, limits: Limits = QUICK) -> None:
        self.heads: list[Any] = []
        self.reader = Reader(
            self._admit, limits, "192.0.2.7", None, never_disconnects, counts_no_connection, lambda: 0.0
        )
        self.refused: Fault | None = None

    def _admit(self, request: Request) -> Admitted | Reply:
        headers = sorted(request.headers.items())
        self.heads.append((request.method, request.parts, headers, request.address))
        return NOW if "now" in request.parts else Admitted(LIMIT, lambda body: self._never())

    async def _never(self) -> Reply | None:
        raise AssertionError("not called")

    def feed(self, pieces: Sequence[bytes]) -> Any:
        for piece in pieces:
            if self.reader.state < DONE:
                try:
                    self.reader.feed(piece)
                except RemoteProtocolError as broken:
                    self.refused = broken.fault
        queue = [(request.body, request.head_only) for request in self.reader.queue]
        return self.heads, queue, self.reader.state, self.reader.keep_alive, self.refused


REQUESTS = st.sampled_from(
    [
        get("/now").encode(),
        get("/x/%20", "A: b", "a:c ").encode(),
        get("/x", "Connection: close").encode(),
        get("/x", version="1.0").encode(),
        get("/now").replace("GET", "HEAD").encode(),
        post("/x", b"0123456789"),
        post("/now", b"0123456789"),
        post("/x", b"x" * LIMIT, "Expect: 100-continue"),
        post("/x", b"x" * (LIMIT + 1)),
        chunked("/x", b"one", b"two", last=b"0\r\nX: y\r\n\r\n"),
        chunked("/x", b"x" * LIMIT, b"x"),
        b"\r\n\r\n",
        b"GET /x HTTP/1.1\r\nA : b\r\n\r\n",
        b"\xff",
    ]
)


def pieces_of(sent: bytes, cuts: Sequence[int]) -> list[bytes]:
    at = [0, *sorted(cut % (len(sent) + 1) for cut in cuts), len(sent)]
    return [sent[i:j] for i, j in pairwise(at) if i < j]


@given(st.lists(REQUESTS, min_size=1, max_size=5).map(b"".join), st.lists(st.integers(0, 5000), max_size=8))
def test_the_result_does_not_depend_on_where_the_bytes_are_cut(sent: bytes, cuts: list[int]) -> None:
    whole, cut, each = FedReader().feed([sent]), FedReader().feed(pieces_of(sent, cuts)), FedReader()
    assert cut == whole
    assert each.feed([sent[i : i + 1] for i in range(len(sent))]) == whole


@given(st.binary(max_size=300), REQUESTS, st.integers(0, 200))
def test_any_bytes_are_read_or_refused(noise: bytes, request_: bytes, at: int) -> None:
    for sent in (noise, request_[:at] + noise + request_[at:]):
        fed = FedReader()
        heads, queue, state, _, refused = fed.feed([sent])
        assert (state in (REFUSED, SPOILED)) is (refused is not None)
        assert state is not EOF
        assert len(queue) <= len(heads)
        assert all(len(body) <= LIMIT for body, _ in queue)


@pytest.mark.parametrize(
    "last",
    [
        get("/x", "Connection: close"),
        get("/x", version="1.0"),
        get("/x", "Connection: keep-alive", version="1.0"),
        get("/now", "Connection: close"),
    ],
)
def test_nothing_is_read_after_the_last_request_of_a_connection(last: str) -> None:
    for pieces in ([last + get("/x/more")], [last, get("/x/more")], [last + "\xff"]):
        fed = FedReader()
        heads, queue, state, keep_alive, refused = fed.feed([piece.encode("latin-1") for piece in pieces])
        assert (len(heads), len(queue), state, keep_alive, refused) == (1, 1, DONE, False, None)


def test_a_previous_body_does_not_count_to_the_size_of_a_head() -> None:
    fed = FedReader(Limits(head_bytes=200))
    half = get("/x").encode()[:10]
    heads, queue, *_, refused = fed.feed([post("/x", b"x" * 900) + half, get("/x").encode()[10:]])
    assert (len(heads), len(queue), refused) == (2, 2, None)
    assert fed.feed([half] * 30)[-1] is not None


def test_an_error_of_admit_is_raised_and_ends_the_reading() -> None:
    def broken(request: Request) -> Reply:
        raise RuntimeError("broken on purpose")

    reader = Reader(broken, QUICK, "", None, never_disconnects, counts_no_connection, lambda: 0.0)
    with pytest.raises(RuntimeError, match="broken on purpose"):
        reader.feed(get("/now").encode())
    assert reader.state is REFUSED


def test_a_closed_reader_releases_its_parser_and_its_queue() -> None:
    fed = FedReader()
    fed.feed([get("/now").encode()])
    fed.reader.close()
    assert fed.reader.state is DONE
    assert not fed.reader.queue
    assert fed.reader._parser is None


class TrackedBytes(bytearray):
    """Bytes whose end of life a weak reference can observe."""


@pytest.mark.parametrize(
    "cut",
    [b"\0" * 100, b"GET /" + b"x" * 20_000, post("/x", b"y" * 2 * LIMIT), chunked("/x", b"y" * 2 * LIMIT)],
    ids=["no request", "too long a head", "too long a body", "too long a body in chunks"],
)
def test_refused_bytes_are_freed_without_the_garbage_collector(cut: bytes) -> None:
    gc.collect()
    gc.disable()
    try:
        fed, sent = FedReader(), TrackedBytes(cut)
        gone, reader = weakref.ref(sent), fed.reader
        with pytest.raises(RemoteProtocolError):
            reader.feed(sent)  # type: ignore[arg-type]
        del sent
        reader.close()
        assert gone() is None
        assert not reader._body
        assert reader._request is None
    finally:
        gc.enable()
