"""The limits of the listener: a request that breaks one gets a 4xx and the connection closes."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest
import uvloop

from gateway.listener.connection import DROPPED_BYTES
from tests.support.raw_http import (
    BODY_LIMIT,
    LARGE,
    QUICK,
    RawConnection,
    RawReply,
    Run,
    RunningListener,
    ScriptedHandler,
    chunked,
    get,
    post,
    runner,
)

LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
PATIENT = replace(QUICK, head_s=30, body_s=30, idle_s=30, stuck_s=30)


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    return runner(LOOPS[request.param])


async def refused(listener: RunningListener, connection: RawConnection, status: int) -> RawReply:
    """The reply that ends a connection, after which the listener serves as before."""
    got = await connection.reply()
    assert (got.status, got.closes) == (status, True)
    assert await connection.is_closed()
    assert await listener.has_no_connections()
    assert await listener.serves()
    return got


async def trickle(connection: RawConnection, sent: str | bytes, every_s: float = 0.02) -> None:
    """Sends byte by byte until the other end closes."""
    for i in range(len(sent)):
        try:
            await connection.send(sent[i : i + 1])
        except OSError:
            return
        await asyncio.sleep(every_s)


# ---------------------------------------------------------------- time


@pytest.mark.parametrize(
    "sent",
    [
        "G",
        "GET /now HTTP/1.1\r\nHost: localhost\r\n",
        "\r\n\r\nGET /now HTTP/1.1\r\n",
        get("/now") + "GET /now HTTP/1.1\r\nHo",
    ],
    ids=["a letter", "no end", "empty lines before", "after a good one"],
)
def test_a_head_that_does_not_arrive_in_time_is_a_408(run: Run, sent: str) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect()
        start_s = time.perf_counter()
        await connection.send(sent)
        if sent.startswith("GET /now HTTP/1.1\r\nHost: localhost\r\n\r\n"):
            assert (await connection.reply()).status == 200
        got = await refused(listener, connection, 408)
        assert 0.15 < time.perf_counter() - start_s < 1.0
        assert "headers" in got.json["error"]
        assert got.headers["x-failsafe-reason"] == "too_slow"

    run(main)


def test_a_head_sent_byte_by_byte_gets_no_more_time(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect()
        dripping = asyncio.create_task(trickle(connection, get("/now", "X-A: " + "a" * 1000)))
        start_s = time.perf_counter()
        assert (await connection.reply()).status == 408
        assert time.perf_counter() - start_s < 1.5
        dripping.cancel()
        assert await listener.serves()

    run(main)


@pytest.mark.parametrize(
    "sent",
    [
        post("/echo", b"body")[:-1],
        chunked("/echo", b"body", last=b""),
        chunked("/echo", b"body", last=b"0\r\nX-Tra"),
        post("/echo", b"first") + post("/echo", b"body")[:-1],
    ],
    ids=["a byte is missing", "a chunk is missing", "half a trailer", "after a good one"],
)
def test_a_body_that_does_not_arrive_in_time_is_a_408(run: Run, sent: bytes) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect()
        await connection.send(sent)
        if b"first" in sent:
            assert (await connection.reply()).json["body"] == "first"
        assert "body" in (await refused(listener, connection, 408)).json["error"]

    run(main)


def test_a_body_sent_byte_by_byte_gets_no_more_time(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect()
        await connection.send(post("/echo", b"b" * 1000)[:-1000])
        dripping = asyncio.create_task(trickle(connection, "b" * 1000))
        start_s = time.perf_counter()
        assert (await connection.reply()).status == 408
        assert time.perf_counter() - start_s < 1.5
        dripping.cancel()
        assert await listener.serves()

    run(main)


def test_deadlines_are_per_request_not_per_connection(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect()
        text = get("/now") * 20
        for at in range(0, len(text), 10):  # cut anywhere but between two requests
            await connection.send(text[at : at + 10])
            await asyncio.sleep(0.01)
        for _ in range(20):
            assert (await connection.reply()).status == 200

    run(main)


@pytest.mark.parametrize("before", ["", get("/now"), "\r\n" * 40])
def test_an_idle_connection_is_closed_without_a_reply(run: Run, before: str) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect()
        await connection.send(before)
        if "GET" in before:
            await connection.reply()
        start_s = time.perf_counter()
        assert await connection.is_closed()
        assert 0.4 < time.perf_counter() - start_s < 1.5
        assert await listener.has_no_connections()

    run(main)


def test_a_request_under_way_has_no_deadline_of_the_listener(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect()
        await connection.send(get("/slow"), get("/now"), "GET /now")
        await asyncio.sleep(1.0)
        handler.release.set()
        assert [(await connection.reply()).status for _ in range(2)] == [200, 200]
        await connection.send(" HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await connection.reply()).status == 200

    run(main)


# ---------------------------------------------------------------- the size of a head

FILL = 16 * 1024 - len("/now") - len("Host: localhost\r\n") - len("X-A: \r\n")


def test_a_head_may_have_16_kib_in_all_and_not_a_byte_more(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        assert (await listener.request(get("/now", "X-A: " + "a" * FILL))).status == 200
        for head in (get("/now", "X-A: " + "a" * (FILL + 1)), get("/now/a", "X-A: " + "a" * FILL)):
            connection = await listener.connect()
            await connection.send(head)
            got = await refused(listener, connection, 431)
            assert got.headers["x-failsafe-reason"] == "head_too_large"

    run(main)


def test_64_headers_are_accepted_and_65_are_not(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        assert (await listener.request(get("/now", *(f"X-{i}: a" for i in range(63))))).status == 200
        for names in ([f"X-{i}" for i in range(64)], ["X-Same"] * 64):
            connection = await listener.connect()
            await connection.send(get("/now", *(f"{name}: a" for name in names)))
            assert "64 headers" in (await refused(listener, connection, 431)).json["error"]

    run(main)


@pytest.mark.parametrize(
    "sent",
    [
        get("/now", "X-A: " + "a" * 200_000),
        get("/now", *(f"X-{i}: {'a' * 10_000}" for i in range(20))),
        get("/now", "X" * 200_000 + ": a"),
        get("/" + "a" * 200_000),
        "GET /now HTTP/1.1\r\nX-A: " + "a" * 200_000,
        "GET /now HTTP/1.1\r\n" + "X" * 200_000,
        "GET /" + "a" * 200_000,
    ],
    ids=["a value", "many values", "a name", "a target", "an open value", "an open name", "an open target"],
)
@pytest.mark.parametrize("piece", [2**20, 5000])
def test_200_kb_of_head_are_a_431(run: Run, sent: str, piece: int) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect()
        for at in range(0, len(sent), piece):
            await connection.send(sent[at : at + piece])
            await asyncio.sleep(0)
        await refused(listener, connection, 431)

    run(main, replace(PATIENT, linger_s=0.3))


def test_trailers_count_as_headers_do(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        few = b"0\r\n" + b"".join(b"X-%d: a\r\n" % i for i in range(62)) + b"\r\n"
        assert (await listener.request(chunked("/echo", b"body", last=few))).status == 200
        for trailers, status in (
            (b"X: a\r\n" * 63, 431),
            (b"X: " + b"a" * 16_500 + b"\r\n", 431),
            (b"X: " + b"a" * 200_000, 400),
        ):
            connection = await listener.connect()
            await connection.send(chunked("/echo", b"body", last=b"0\r\n" + trailers), b"a")
            await asyncio.sleep(0.02)
            await connection.send(b"a")
            got = await connection.reply()
            assert (got.status, got.closes) == (status, True)
            assert await connection.is_closed()
        assert handler.started == ["echo"]
        assert await listener.serves()

    run(main, PATIENT)


# ---------------------------------------------------------------- the size of a body


def test_a_chunked_body_over_the_limit_is_a_413_at_once(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        exact = await listener.request(chunked("/echo", b"x" * BODY_LIMIT))
        assert len(exact.json["body"]) == BODY_LIMIT
        for chunks in ([b"x" * BODY_LIMIT, b"x"], [b"x" * (BODY_LIMIT + 1)]):
            connection = await listener.connect()
            await connection.send(chunked("/echo", *chunks, last=b""))
            got = await refused(listener, connection, 413)
            assert str(BODY_LIMIT) in got.json["error"]
        assert handler.started == ["echo", "echo", "echo"], (
            "only the one at the limit and the good ones after"
        )

    run(main)


def head_of(*headers: str) -> bytes:
    return (
        "POST /echo HTTP/1.1\r\nHost: localhost\r\n" + "".join(f"{h}\r\n" for h in headers) + "\r\n"
    ).encode("latin-1")


CHUNKED = head_of("Transfer-Encoding: chunked")
ABUSE: dict[str, tuple[bytes, int]] = {
    "a size that is none": (CHUNKED + b"zz\r\nxx\r\n0\r\n\r\n", 400),
    "a negative size": (CHUNKED + b"-1\r\nx\r\n0\r\n\r\n", 400),
    "an empty size": (CHUNKED + b"\r\nx\r\n0\r\n\r\n", 400),
    "a size in another notation": (CHUNKED + b"0x1\r\nx\r\n0\r\n\r\n", 400),
    "a size beyond 64 bits": (CHUNKED + b"1" * 17 + b"\r\nx\r\n", 400),
    "a size of all bits": (CHUNKED + b"f" * 16 + b"\r\n" + b"x" * 150_000, 413),
    "more data than the size": (CHUNKED + b"1\r\nxx\r\n0\r\n\r\n", 400),
    "no end of line": (CHUNKED + b"1\nx\n0\n\n", 400),
    "space before the size": (CHUNKED + b" 1\r\nx\r\n0\r\n\r\n", 400),
    "space after the size": (CHUNKED + b"1 \r\nx\r\n0\r\n\r\n", 400),
    "an endless extension": (CHUNKED + b"1;a=" + b"b" * 300_000, 400),
    "extensions for ever": (CHUNKED + (b"1;a=" + b"b" * 5000 + b"\r\nx\r\n") * 60, 400),
    "too many chunks": (CHUNKED + b"1\r\nx\r\n" * 20_000, 400),
    "two lengths": (head_of("Content-Length: 1", "Content-Length: 1") + b"x", 400),
    "two lengths that differ": (head_of("Content-Length: 1", "Content-Length: 2") + b"x", 400),
    "a list of lengths": (head_of("Content-Length: 1, 1") + b"x", 400),
    "a negative length": (head_of("Content-Length: -1") + b"x", 400),
    "a length with a sign": (head_of("Content-Length: +1") + b"x", 400),
    "a length in another notation": (head_of("Content-Length: 0x1") + b"x", 400),
    "an empty length": (head_of("Content-Length:") + b"x", 400),
    "a length beyond 64 bits": (head_of("Content-Length: " + "9" * 30) + b"x", 400),
    "length and chunks": (head_of("Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n", 400),
    "chunks and length": (head_of("Transfer-Encoding: chunked", "Content-Length: 5") + b"0\r\n\r\n", 400),
    "chunked twice": (head_of("Transfer-Encoding: chunked, chunked") + b"0\r\n\r\n", 400),
    "chunked in two headers": (CHUNKED.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n"), 400),
    "gzip in transit": (head_of("Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n", 501),
    "chunked before gzip": (head_of("Transfer-Encoding: chunked, gzip") + b"0\r\n\r\n", 400),
    "an unknown coding": (head_of("Transfer-Encoding: xchunked") + b"0\r\n\r\n", 501),
    "identity in transit": (head_of("Transfer-Encoding: identity") + b"0\r\n\r\n", 501),
    "chunks before they were invented": (CHUNKED.replace(b"HTTP/1.1", b"HTTP/1.0") + b"0\r\n\r\n", 400),
    "another expectation": (head_of("Expect: 200-ok", "Content-Length: 1"), 417),
    "no host": (b"GET /now HTTP/1.1\r\n\r\n", 400),
    "no host, with another header": (b"GET /now HTTP/1.1\r\nConnection: keep-alive\r\n\r\n", 400),
    "a tunnel": (b"CONNECT elsewhere:443 HTTP/1.1\r\nHost: localhost\r\n\r\n", 501),
    "HTTP/2 by its preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(50), 400),
    "HTTP/0.9": (b"GET /now\r\n\r\n", 400),
    "HTTP/2 without its preface": (b"GET /now HTTP/2.0\r\nConnection: keep-alive\r\n\r\n", 400),
    "a version of the future": (b"GET /now HTTP/7.7\r\n\r\n", 400),
    "an unknown method": (b"FOO /now HTTP/1.1\r\n\r\n", 400),
    "a method in small letters": (b"get /now HTTP/1.1\r\n\r\n", 400),
    "a folded header": (head_of("X-A: 1", " 2"), 400),
    "a space before the colon": (head_of("X-A : 1"), 400),
    "a header without a name": (head_of(": 1"), 400),
    "a header without a colon": (head_of("X-A"), 400),
    "NUL in a value": (head_of("X-A: \0"), 400),
    "a bare CR in a value": (head_of("X-A: a\rb"), 400),
    "a path beyond ASCII": (b"GET /\xc3\xa9 HTTP/1.1\r\n\r\n", 400),
    "a target without a path": (b"GET now HTTP/1.1\r\n\r\n", 400),
    "nothing but noise": (bytes(range(256)) * 4, 400),
}


@pytest.mark.parametrize(("sent", "status"), ABUSE.values(), ids=ABUSE)
def test_invalid_or_unsupported_http_is_refused_before_the_handler(
    run: Run, sent: bytes, status: int
) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect()
        await connection.send(sent)
        got = await connection.reply()
        assert (got.status, got.closes) == (status, True)
        assert await connection.is_closed()
        assert handler.started == [], "it reached the handler"
        assert await listener.serves()

    run(main, replace(PATIENT, linger_s=0.3))


@pytest.mark.parametrize(
    "sent",
    [
        head_of("Transfer-Encoding: CHUNKED") + b"4\r\nbody\r\n0\r\n\r\n",
        head_of("Transfer-Encoding: chunked ") + b"4\r\nbody\r\n0\r\n\r\n",
        head_of("Content-Length: 4 ") + b"body",
        head_of("Upgrade: websocket", "Content-Length: 4") + b"body",
        head_of("Connection: keep-alive, x", "Content-Length: 0004") + b"body",
        CHUNKED + b"0004\r\nbody\r\n000\r\n\r\n",
    ],
)
def test_valid_but_unusual_http_is_served(run: Run, sent: bytes) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect()
        got = await connection.request(sent)
        assert (got.json["body"], got.closes) == ("body", False)
        assert (await connection.request(get("/now"))).status == 200

    run(main)


def test_a_request_hidden_in_a_body_is_not_answered(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect()
        hidden = get("/echo/hidden").encode()
        assert (await connection.request(post("/echo/outer", hidden))).json["body"] == hidden.decode()
        await connection.send(post("/nowhere", hidden * 9)[:-10])
        assert (await connection.reply()).status == 404
        assert await connection.is_closed()
        assert handler.started == ["echo/outer"]

    run(main)


# ---------------------------------------------------------------- too much at once


def test_too_many_pipelined_requests_are_answered_up_to_the_limit_then_refused(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect()
        await connection.send(get("/now") * 1000)
        got = [await connection.reply() for _ in range(QUICK.pipelined + 1)]
        assert [one.status for one in got] == [200] * QUICK.pipelined + [400]
        assert got[-1].closes
        assert await connection.is_closed()
        assert await listener.serves()

    run(main)


def test_an_unread_reply_delays_the_next_and_then_ends_the_connection(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect(limit=1)
        start_s = time.perf_counter()
        await connection.send(get("/large/1"), get("/large/2"))
        assert await listener.has_no_connections()
        assert 0.15 < time.perf_counter() - start_s < 2.0
        assert handler.started == ["large/1"]
        assert await listener.serves()

    run(main)


def test_a_slowly_read_reply_arrives_whole(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect(limit=1024)
        await connection.send(get("/large/1", "Connection: close"))
        await connection.head()
        await asyncio.sleep(0.1)
        got = 0
        start_s = time.perf_counter()
        while part := await connection.reader.read(LARGE // 25):
            got += len(part)
            await asyncio.sleep(0.02)
        assert got == LARGE
        assert time.perf_counter() - start_s > 2 * QUICK.stuck_s, "it was read too fast to show anything"

    run(main, replace(QUICK, linger_s=0.01))


def test_lingering_ends_after_its_time(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect()
        start_s = time.perf_counter()
        await connection.send(b"noise\r\n\r\n")
        assert (await connection.reply()).status == 400
        pouring = asyncio.create_task(trickle(connection, b"x" * 1000, 0.01))
        assert await listener.has_no_connections()
        assert 0.2 < time.perf_counter() - start_s < 1.5
        pouring.cancel()

    run(main)


def test_many_slow_clients_do_not_delay_others(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connections = [await listener.connect() for _ in range(200)]
        for connection in connections:
            await connection.send("GET /now HTTP/1.1\r\nX-A: a")
        for _ in range(10):
            assert await listener.serves()
        assert [(await connection.reply()).status for connection in connections] == [408] * 200

    run(main, replace(QUICK, head_s=0.5))


def test_a_client_that_goes_on_sending_after_its_last_reply_is_cut_off(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect()
        await connection.send("POST /now HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n")
        assert (await connection.reply()).status == 200
        sent, piece = 0, b"x" * 2**20
        with pytest.raises(ConnectionError):
            while sent < 200 * 2**20:
                connection.writer.write(piece)
                await connection.writer.drain()
                sent += len(piece)
        assert DROPPED_BYTES / 2 < sent < DROPPED_BYTES + 32 * 2**20

    run(main)
