"""Offers to upgrade are ignored: the request is answered over HTTP/1.1, and its body is never a request."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from gateway.listener.states import DONE, IDLE, REFUSED, SPOILED
from tests.listener.test_parser import LIMIT, FedReader
from tests.support.raw_http import Run, RunningListener, ScriptedHandler, get, runner

OFFERS = {
    "h2c": "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
    "websocket": "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
    "TLS": "Connection: upgrade\r\nUpgrade: TLS/1.0\r\n",
    "two": "Connection: keep-alive, Upgrade\r\nUpgrade: h2c, foo/2\r\n",
}
HIDDEN = b"GET /now/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(params=[uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest) -> Run:
    return runner(request.param)


def offering(offer: str, path: str, body: bytes = b"", framing: str = "", version: str = "1.1") -> bytes:
    head = f"POST {path} HTTP/{version}\r\nHost: localhost\r\n{framing}{offer}\r\n"
    return head.encode() + body


def with_length(offer: str, path: str, body: bytes, *more: str) -> bytes:
    lines = "".join(f"{line}\r\n" for line in more)
    return offering(offer, path, body, f"Content-Length: {len(body)}\r\n{lines}")


def in_chunks(offer: str, path: str, body: bytes) -> bytes:
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\nX-Trailer: y\r\n\r\n"
    return offering(offer, path, chunks, "Transfer-Encoding: chunked\r\n")


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
@pytest.mark.parametrize("framed", [with_length, in_chunks])
def test_a_request_that_offers_to_upgrade_is_answered_with_its_body_and_the_connection_kept(
    run: Run, offer: str, framed: type
) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect()
        for body in (b"one", HIDDEN, b"x" * 5000):
            got = await connection.request(framed(offer, "/echo", body))
            assert (got.status, got.closes) == (200, False)
            assert got.json["body"].encode() == body
            assert (await connection.request(get("/now"))).json["parts"] == ["now"]
        assert handler.started == ["echo"] * 3

    run(main)


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
def test_a_request_without_a_body_that_offers_to_upgrade_is_answered(run: Run, offer: str) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect()
        await connection.send(
            f"GET /now HTTP/1.1\r\nHost: localhost\r\n{offer}\r\n",
            offering(offer, "/echo/empty", framing="Content-Length: 0\r\n"),
            f"HEAD /now HTTP/1.1\r\nHost: localhost\r\n{offer}\r\n",
            get("/now/last"),
        )
        assert (await connection.reply()).json["parts"] == ["now"]
        assert (await connection.reply()).json["body"] == ""
        assert (await connection.reply(head_only=True)).status == 200
        assert (await connection.reply()).json["parts"] == ["now", "last"]

    run(main)


def test_the_body_of_a_request_that_needs_none_is_dropped_and_not_read_as_a_request(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        for path in ("/now", "/nowhere", "/bodiless"):
            connection = await listener.connect()
            got = await connection.request(with_length(OFFERS["h2c"], path, HIDDEN))
            assert got.status == (404 if path == "/nowhere" else 200)
            assert "smuggled" not in got.body.decode()
            assert (await connection.request(get("/echo/next"))).json["parts"] == ["echo", "next"]
        assert handler.started == ["bodiless", "echo/next", "echo/next", "echo/next"] or (
            handler.started.count("echo/next") == 3
        )

    run(main)


def test_an_offer_may_wait_for_100_continue(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect()
        sent = with_length(OFFERS["h2c"], "/echo", b"body", "Expect: 100-continue")
        await connection.send(sent[:-4])
        assert (await connection.head())[0] == 100
        assert (await connection.request(b"body")).json["body"] == "body"

    run(main)


def test_an_offer_does_not_lift_a_limit_or_a_rule(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        h2c = OFFERS["h2c"]
        large, both = b"x" * 200_000, "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"
        for sent, status in (
            (with_length(h2c, "/echo", large), 413),
            (in_chunks(h2c, "/echo", b"x" * 20_000), 400),  # more chunks than are taken
            (offering(h2c, "/echo", b"zz\r\n", "Transfer-Encoding: chunked\r\n"), 400),
            (offering(h2c, "/echo", b"0\r\n\r\n", both), 400),
            (offering(h2c, "/echo", b"x", "Content-Length: 1\r\nContent-Length: 2\r\n"), 400),
            (offering(h2c, "/echo", b"0\r\n\r\n", "Transfer-Encoding: gzip, chunked\r\n"), 501),
            (offering(h2c, "/echo", b"hal", "Content-Length: 4\r\n"), 408),
        ):
            connection = await listener.connect()
            await connection.send(sent)
            got = await connection.reply()
            assert (got.status, got.closes) == (status, True)
        assert handler.started == []
        assert await listener.serves()

    run(main)


@pytest.mark.parametrize("last", ["Connection: close, Upgrade\r\nUpgrade: h2c\r\n", ""])
def test_the_last_request_of_a_connection_may_offer_too(run: Run, last: str) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect()
        offer, version = (last, "1.1") if last else (OFFERS["h2c"], "1.0")
        sent = offering(offer, "/echo", b"body", "Content-Length: 4\r\n", version)
        got = await connection.request(sent, get("/now/dropped"))
        assert (got.json["body"], got.closes) == ("body", True)
        assert await connection.is_closed()

    run(main)


REQUESTS = st.sampled_from(
    [
        with_length(OFFERS["h2c"], "/x", b"0123456789"),
        in_chunks(OFFERS["h2c"], "/x", b"0123456789"),
        with_length(OFFERS["websocket"], "/now", HIDDEN),
        in_chunks(OFFERS["h2c"], "/now", HIDDEN),
        with_length(OFFERS["h2c"], "/x", b""),
        offering(OFFERS["h2c"], "/x"),
        with_length(OFFERS["h2c"], "/x", b"x" * (LIMIT + 1)),
        with_length("", "/x", b"plain"),
        get("/x", "Connection: close").encode(),
    ]
)


@given(st.lists(REQUESTS, min_size=1, max_size=5).map(b"".join), st.lists(st.integers(0, 5000), max_size=8))
def test_the_result_does_not_depend_on_where_the_bytes_are_cut(sent: bytes, cuts: list[int]) -> None:
    at = [0, *sorted(cut % (len(sent) + 1) for cut in cuts), len(sent)]
    whole = FedReader().feed([sent])
    assert FedReader().feed([sent[i:j] for i, j in pairwise(at) if i < j]) == whole
    assert FedReader().feed([sent[i : i + 1] for i in range(len(sent))]) == whole
    heads, _, state, _, _ = whole
    assert all("smuggled" not in parts for _, parts, _, _ in heads)
    assert state in (IDLE, DONE, REFUSED, SPOILED)


@given(st.binary(max_size=300), REQUESTS, st.integers(0, 300))
def test_any_bytes_are_read_or_refused(noise: bytes, request_: bytes, at: int) -> None:
    fed = FedReader()
    heads, queue, state, _, refused = fed.feed([request_[:at] + noise + request_[at:]])
    assert (state in (REFUSED, SPOILED)) is (refused is not None)
    assert len(queue) <= len(heads)
    assert all(len(body) <= LIMIT for body, _ in queue)
