"""The listener and clients that keep its rules, on uvloop, which serves, and on asyncio's own loop."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
from dataclasses import replace

import pytest
import uvloop

from gateway.listener.connection import Connection
from gateway.listener.messages import Request
from gateway.listener.parser import Reader
from tests.support.raw_http import (
    BODY_LIMIT,
    LARGE,
    PACE_S,
    QUICK,
    SOON_S,
    Run,
    RunningListener,
    ScriptedHandler,
    chunked,
    get,
    post,
    runner,
)

LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    return runner(LOOPS[request.param])


# ---------------------------------------------------------------- one after another


def test_a_connection_serves_one_request_after_another(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect()
        for i in range(100):
            got = await connection.request(post(f"/echo/{i}", b"body %d" % i), "" if i % 2 else "\r\n")
            assert (got.status, got.json["body"], got.closes) == (200, f"body {i}", False)
            assert (await connection.request(get("/now"))).json["parts"] == ["now"]
        assert len(listener.server.connections) == 1

    run(main)


def test_pipelined_requests_are_answered_in_order_and_one_at_a_time(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect()
        await connection.send(
            get("/slow/1"), get("/now/2"), post("/echo/3", b"three"), get("/nowhere"), get("/now/5")
        )
        assert await connection.silent(0.1), "a later request was answered first"
        assert handler.started == ["slow/1"]
        handler.release.set()
        got = [await connection.reply() for _ in range(5)]
        assert [one.status for one in got] == [200, 200, 200, 404, 200]
        assert [one.json["parts"][-1] for one in got if one.status == 200] == ["1", "2", "3", "5"]

    run(main)


def test_reading_pauses_while_pipelined_requests_wait(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect()
        await connection.send(get("/slow"))
        body = b"x" * BODY_LIMIT
        for i in range(300):
            connection.writer.write(post(f"/echo/{i}", body))
        await asyncio.sleep(0.2)
        unsent = connection.writer.transport.get_write_buffer_size()
        assert unsent > 15 * 2**20, "the server read what it could not work on yet"
        await asyncio.sleep(0.3)  # longer than a head or a body may take: no deadline runs meanwhile
        handler.release.set()
        for i in range(-1, 300):
            got = await connection.reply()
            assert (got.status, got.json["parts"][-1]) == (200, str(i) if i >= 0 else "slow")

    run(main)


def test_a_request_sent_byte_by_byte_gets_the_same_reply(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        whole = await listener.request(post("/echo/a%20b?x=1", b"\x00\xff body", "X-A: 1"))
        for sent in (post("/echo/a%20b?x=1", b"\x00\xff body", "X-A: 1"),):
            connection = await listener.connect()
            for i in range(len(sent)):
                await connection.send(sent[i : i + 1])
                await asyncio.sleep(0)
            assert (await connection.reply()).json == whole.json
        assert whole.json["parts"] == ["echo", "a b"]
        assert whole.json["body"] == "\x00\xff body"

    run(main)


def test_paced_replies_lie_apart_on_one_connection_and_nothing_else_waits(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection, other = await listener.connect(), await listener.connect()
        assert (await connection.request(get("/paced/1"))).status == 200
        assert (await connection.request(get("/now"))).status == 200
        await connection.send(get("/paced/2"), get("/now/3"))
        assert await connection.silent(PACE_S / 2), "the second paced reply came at once"
        assert (await other.request(get("/paced/1"))).status == 200
        assert [(await connection.reply()).json["parts"] for _ in range(2)] == [["paced", "2"], ["now", "3"]]
        await connection.send(get("/paced/4"))
        await connection.close()
        await asyncio.sleep(2 * PACE_S)
        assert len(listener.server.connections) < 2

    run(main)


# ---------------------------------------------------------------- the end of a connection


@pytest.mark.parametrize(
    "request_",
    [
        get("/echo", "Connection: close"),
        get("/now", "Connection: Close"),
        get("/echo", version="1.0"),
        get("/now", "Connection: keep-alive", version="1.0"),
        get("/echo", "Connection: close") + get("/echo/more"),
        get("/nowhere", "connection: close"),
    ],
)
def test_a_connection_closes_on_connection_close_and_on_http_1_0(run: Run, request_: str) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect()
        assert (await connection.request(request_)).closes
        assert await connection.is_closed()
        assert await listener.has_no_connections()
        assert "echo/more" not in handler.started

    run(main, replace(QUICK, linger_s=30))


@pytest.mark.parametrize("paths", [["/slow/1"], ["/slow/1", "/now/2"], ["/slow/1", "/echo/2"], ["/now/1"]])
def test_a_client_that_half_closes_still_gets_its_replies(run: Run, paths: list[str]) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect()
        await connection.send(*map(get, paths))
        connection.writer.write_eof()
        await asyncio.sleep(0.05)
        handler.release.set()
        for path in paths:
            assert "/" + "/".join((await connection.reply()).json["parts"]) == path
        assert await connection.is_closed()

    run(main)


@pytest.mark.parametrize("sent", ["", "GE", "GET /now HTTP/1.1\r\nHo", post("/echo", b"half")[:-2]])
def test_a_disconnect_in_the_middle_of_a_request_affects_no_other_client(run: Run, sent: str | bytes) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        for reset in (False, True):
            connection = await listener.connect()
            await connection.send(sent)
            await asyncio.sleep(0.02)
            if reset:
                connection.reset()
            else:
                connection.writer.write_eof()
                assert await connection.is_closed()
        assert await listener.has_no_connections()
        assert handler.started == []
        assert await listener.serves()

    run(main)


def test_a_disconnect_during_an_answer_affects_no_other_client_and_the_work_is_finished(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        for hang_up in ("close", "reset"):
            connection = await listener.connect()
            await connection.send(get("/slow"), get("/echo/later"))
            await handler.busy.wait()
            assert handler.started == ["slow"]
            connection.reset() if hang_up == "reset" else await connection.close()
            await asyncio.sleep(0.05)
            assert handler.finished == []
            handler.release.set()
            assert await listener.has_no_connections()
            assert handler.finished[0] == "slow"
            assert await listener.serves()
            handler.started, handler.finished, handler.release, handler.busy = (
                [],
                [],
                asyncio.Event(),
                asyncio.Event(),
            )

    run(main)


@pytest.mark.parametrize("how", ["close", "reset", "half"])
def test_a_handler_can_wait_for_its_client_to_disconnect(run: Run, how: str) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect()
        await connection.send(get("/wait"))
        assert await connection.silent(0.05)
        assert handler.finished == []
        match how:
            case "close":
                await connection.close()
            case "reset":
                connection.reset()
            case "half":
                connection.writer.write_eof()
        assert await listener.has_no_connections()
        assert handler.finished == ["wait"]
        assert how != "half" or await connection.is_closed()

    run(main)


@pytest.mark.parametrize("how", ["reset", "half"])
def test_a_handler_learns_of_a_disconnect_that_came_before_it_waited(run: Run, how: str) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect()
        await connection.send(get("/late"))
        await handler.busy.wait()
        connection.reset() if how == "reset" else connection.writer.write_eof()
        await asyncio.sleep(0.05)
        handler.release.set()
        assert await listener.has_no_connections()
        assert handler.finished == ["late"]

    run(main)


# ---------------------------------------------------------------- bodies


def test_chunks_are_joined_to_one_body_and_trailers_are_dropped(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect()
        for trailer in (b"0\r\n\r\n", b"0;a=b\r\nX-Trailer: 1\r\nauthorization: x\r\n\r\n"):
            sent = chunked("/echo", b"one ", b"two ", b"x" * 5000, last=trailer)
            got = await connection.request(sent.replace(b"\r\none ", b';name="value"\r\none '))
            assert got.json["body"] == "one two " + "x" * 5000
            assert set(got.json["headers"]) == {"host", "transfer-encoding"}
        assert (await connection.request(get("/now"))).status == 200

    run(main)


def test_100_continue_is_sent_before_the_body_and_not_if_the_request_is_refused(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect()
        request = post("/echo", b"body", "Expect: 100-Continue")
        for _ in range(2):
            await connection.send(request[:-4])
            assert await connection.head() == (100, {})
            await connection.send(b"bo")
            assert await connection.silent(0.02), "it is sent once"
            assert (await connection.request(b"dy")).json["body"] == "body"
        assert (await connection.request(request)).status == 200, (
            "it is not sent where the body came with the head"
        )
        await connection.send(post("/nowhere", b"body", "Expect: 100-continue")[:-4])
        got = await connection.reply()
        assert (got.status, got.closes) == (404, True)
        assert await connection.is_closed()

    run(main)


def test_100_continue_follows_the_reply_to_the_request_before(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect()
        await connection.send(get("/slow"), post("/echo", b"body", "Expect: 100-continue")[:-4])
        assert await connection.silent(0.05)
        handler.release.set()
        assert (await connection.reply()).json["parts"] == ["slow"]
        assert await connection.head() == (100, {})
        assert (await connection.request(b"body")).json["body"] == "body"

    run(main)


def test_a_client_of_http_1_0_gets_no_100_continue(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect()
        request = post("/echo", b"body", "Expect: 100-continue").replace(b"HTTP/1.1", b"HTTP/1.0")
        await connection.send(request[:-4])
        assert await connection.silent(0.05)
        assert (await connection.request(b"body")).json["body"] == "body"

    run(main)


def test_a_refusal_in_the_middle_of_a_body_is_sent_at_once_and_can_be_read(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect()
        await connection.send(post("/nowhere", b"x" * BODY_LIMIT)[: -BODY_LIMIT // 2])
        got = await connection.reply()
        assert (got.status, got.closes) == (404, True)
        for _ in range(20):  # like a client that reads the reply only after its body is sent
            await connection.send(b"x" * 1000)
        assert await connection.is_closed()
        assert await listener.has_no_connections()

    run(main)


def test_a_refusal_after_the_whole_request_keeps_the_connection(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect()
        got = await connection.request(post("/nowhere", b"all of it"))
        assert (got.status, got.closes) == (404, False)
        assert (await connection.request(get("/now"))).status == 200

    run(main)


def test_an_unneeded_body_is_dropped(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect()
        got = await connection.request(post("/bodiless", b"x" * 2 * BODY_LIMIT))
        assert (got.status, got.json["body"]) == (200, "")
        connection = await listener.connect()
        assert (await connection.request(post("/bodiless", b"x"))).closes is False
        assert (await connection.request(post("/now", b"x"))).closes is False
        assert (await connection.request(chunked("/now", b"x" * 50))).closes is False

    run(main)


def test_lingering_ends_when_the_client_closes(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        for path in ("/bodiless", "/nowhere"):
            connection = await listener.connect()
            assert (await connection.request(post(path, b"x" * 50_000)[:-1])).closes
            assert await connection.is_closed()
            assert len(listener.server.connections) == 1
            await connection.close()
            assert await listener.has_no_connections()

    run(main, replace(QUICK, linger_s=30))


def test_a_large_reply_arrives_whole(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect()
        for _ in range(2):
            await connection.send(get("/large"), get("/now"))
            assert (await connection.reply()).body == b"x" * LARGE
            assert (await connection.reply()).json["parts"] == ["now"]

    run(main)


# ---------------------------------------------------------------- heads


def test_a_reply_to_head_has_the_headers_alone(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect()
        for path in ("/now", "/echo", "/nowhere"):
            await connection.send(get(path).replace("GET", "HEAD"), get("/now/next"))
            got = await connection.reply(head_only=True)
            assert int(got.headers["content-length"]) > 0
            assert (await connection.reply()).json["parts"] == ["now", "next"]

    run(main)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH", "PURGE", "PROPFIND"])
def test_every_method_is_passed_to_the_handler(run: Run, method: str) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        assert (await listener.request(get("/now").replace("GET", method))).json["method"] == method

    run(main)


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        ("/now", ["now"]),
        ("//now///x/", ["now", "x"]),
        ("/now/a%20b/%c3%a9?c=d/e#f", ["now", "a b", "é"]),
        ("/now/a%2Fb", ["now", "a", "b"]),
        ("/now/%zz/%", ["now", "%zz", "%"]),
        ("/now/" + "x" * 1000, ["now", "x" * 1000]),
        ("http://elsewhere:1/now/x", ["now", "x"]),
    ],
)
def test_the_path_is_decoded_and_cut_into_parts(run: Run, target: str, parts: list[str]) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        for _ in range(2):
            assert (await listener.request(get(target))).json["parts"] == parts

    run(main)


@pytest.mark.parametrize("target", ["*", "/", "http://elsewhere", "/%00"])
def test_a_target_without_a_known_path_is_passed_to_the_handler(run: Run, target: str) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        assert (await listener.request(get(target))).status == 404

    run(main)


def test_names_of_headers_are_lower_case_and_repeated_ones_joined(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        sent = get("/now", "PREFER: wait=1", "x-empty:", "Prefer:respond-async", "X-L: \xe9  ", "prefer: a")
        headers = (await listener.request(sent)).json["headers"]
        assert headers["prefer"] == "wait=1, respond-async, a"
        assert (headers["x-empty"], headers["x-l"]) == ("", "\xe9")

    run(main)


def test_the_address_is_that_of_the_peer(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        got = await listener.request(get("/now", "X-Forwarded-For: 192.0.2.1"))
        assert got.json["address"] == "127.0.0.1"

    run(main)


# ---------------------------------------------------------------- defects


@pytest.mark.parametrize(("path", "closes"), [("/raise", False), ("/raise-at-once", True)])
def test_a_handler_that_raises_gives_a_503_and_a_line_in_the_log(
    run: Run, path: str, closes: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect()
        with caplog.at_level(logging.ERROR, "gateway.connection"):
            got = await connection.request(post(path, b"body"))
        assert (got.status, got.closes) == (503, closes)
        assert "broken on purpose" not in got.body.decode()
        assert await (connection.is_closed() if closes else asyncio.sleep(0, True))
        assert await listener.serves()

    run(main)
    assert "defect" in caplog.text
    assert "broken on purpose" in caplog.text


def test_a_connection_whose_work_is_cancelled_is_closed(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect()
        await connection.send(get("/cancel"))
        assert await connection.is_closed()
        assert await listener.has_no_connections()
        assert await listener.serves()

    run(main)


def test_a_closed_connection_is_freed_without_the_garbage_collector(run: Run) -> None:
    """`gateway.replica` lets the collector run rarely."""

    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        gc.collect()
        gc.disable()
        for path in ("/now", "/echo", "/wait", "/nowhere", "/large"):
            connection = await listener.connect()
            await connection.send(get(path))
            if path != "/wait":
                await connection.reply()
            connection.writer.write_eof()
            await connection.reader.read()
            await connection.close()
        listener.connections.clear()
        assert await listener.has_no_connections()
        await asyncio.sleep(0.01)
        assert [one for one in gc.get_objects() if isinstance(one, Connection | Reader | Request)] == []

    try:
        run(main)
    finally:
        gc.enable()


# ---------------------------------------------------------------- shutdown


def test_at_shutdown_requests_under_way_are_finished_and_idle_connections_close_at_once(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        idle, used, half, busy, sending = [await listener.connect() for _ in range(5)]
        await used.request(get("/now"))
        await half.send("GET /now HT")
        await busy.send(get("/slow/1"), get("/now/2"))
        await sending.send(post("/echo", b"body")[:-2])
        await handler.busy.wait()
        stopping = asyncio.create_task(listener.server.stop(5.0))
        for connection in (idle, used, half):
            assert await connection.is_closed()
        with pytest.raises(ConnectionRefusedError):
            await listener.connect()
        got = await sending.request("dy")
        assert (got.json["body"], got.closes) == ("body", True)
        assert not stopping.done()
        handler.release.set()
        got = await busy.reply()
        assert (got.json["parts"], got.closes) == (["slow", "1"], True)
        assert await busy.is_closed()
        await asyncio.wait_for(stopping, 1.0)
        assert listener.server.connections == set()

    run(main)


def test_at_shutdown_what_came_on_connections_that_are_not_accepted_yet_is_answered(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        wires = [socket.create_connection(listener.address) for _ in range(5)]
        for wire in wires[:-1]:
            wire.sendall(get("/now").encode())
        await listener.server.stop(5.0)
        for wire in wires:
            wire.settimeout(SOON_S)
            with wire, wire.makefile("rb") as replies:
                got = replies.read()
            assert (b" 200 OK" in got and b"connection: close" in got) == (wire is not wires[-1])
        assert listener.server.connections == set()

    run(main)


def test_the_last_reply_of_a_server_that_drains_reaches_a_client_that_has_sent_more(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect()
        await connection.send(get("/slow"))
        for i in range(100):
            connection.writer.write(post(f"/echo/{i}", b"x" * BODY_LIMIT))
        await asyncio.sleep(0.2)
        listener.server.drain()
        handler.release.set()
        await asyncio.sleep(0.3)  # the client reads nothing meanwhile
        got = await connection.reply()
        assert (got.status, got.closes, got.json["parts"]) == (200, True, ["slow"])

    run(main)


def test_a_shutdown_waits_no_longer_than_its_grace_period(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect()
        await connection.send(get("/slow"))
        await handler.busy.wait()
        async with asyncio.timeout(2):
            await listener.server.stop(0.1)
        assert handler.finished == ["slow"], "the work is cancelled, not left running"
        assert listener.server.connections == set()
        assert await connection.is_closed()

    run(main)


def test_a_shutdown_does_not_wait_for_lingering_connections(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection, other = await listener.connect(), await listener.connect()
        assert (await connection.request(b"noise\r\n\r\n")).status == 400
        assert (await other.request(post("/nowhere", b"body")[:-1])).status == 404
        async with asyncio.timeout(1):
            await listener.server.stop(30)

    run(main, replace(QUICK, linger_s=30))


def test_a_shutdown_without_connections_and_a_second_one_return_at_once(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        async with asyncio.timeout(1):
            await listener.server.stop(5.0)
            await listener.server.stop(5.0)

    run(main)
