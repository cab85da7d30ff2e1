"""The listener as an honest client sees it, on the loop of `--local` and on asyncio's own."""

from __future__ import annotations

import asyncio
import gc
import logging
from dataclasses import replace

import pytest
import uvloop

from gateway.listener.connection import Connection
from gateway.listener.messages import Request
from gateway.listener.parser import Reader
from tests.support.raw_http import BODY_LIMIT, LARGE, QUICK, Door, Run, Told, chunked, get, post, runner

LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    return runner(LOOPS[request.param])


# ---------------------------------------------------------------- one after another


def test_a_connection_serves_one_request_after_another(run: Run) -> None:
    async def main(door: Door, told: Told) -> None:
        wire = await door.connect()
        for i in range(100):
            got = await wire.ask(post(f"/echo/{i}", b"body %d" % i), "" if i % 2 else "\r\n")
            assert (got.status, got.json["body"], got.closes) == (200, f"body {i}", False)
            assert (await wire.ask(get("/now"))).json["parts"] == ["now"]
        assert len(door.server.connections) == 1

    run(main)


def test_requests_sent_ahead_are_answered_in_order_and_one_at_a_time(run: Run) -> None:
    async def main(door: Door, told: Told) -> None:
        wire = await door.connect()
        await wire.send(
            get("/slow/1"), get("/now/2"), post("/echo/3", b"three"), get("/nowhere"), get("/now/5")
        )
        assert await wire.silent(0.1), "a quick one overtook a slow one"
        assert told.begun == ["slow/1"]
        told.release.set()
        got = [await wire.reply() for _ in range(5)]
        assert [one.status for one in got] == [200, 200, 200, 404, 200]
        assert [one.json["parts"][-1] for one in got if one.status == 200] == ["1", "2", "3", "5"]

    run(main)


def test_what_is_sent_ahead_of_a_request_under_way_is_not_read_without_end(run: Run) -> None:
    async def main(door: Door, told: Told) -> None:
        wire = await door.connect()
        await wire.send(get("/slow"))
        body = b"x" * BODY_LIMIT
        for i in range(300):
            wire.writer.write(post(f"/echo/{i}", body))
        await asyncio.sleep(0.2)
        unsent = wire.writer.transport.get_write_buffer_size()
        assert unsent > 15 * 2**20, "the server took what it could not work on yet"
        await asyncio.sleep(0.3)  # longer than a head or a body may take: those who wait for us are not late
        told.release.set()
        for i in range(-1, 300):
            got = await wire.reply()
            assert (got.status, got.json["parts"][-1]) == (200, str(i) if i >= 0 else "slow")

    run(main)


def test_a_request_may_come_byte_by_byte_and_a_reply_is_the_same(run: Run) -> None:
    async def main(door: Door, told: Told) -> None:
        whole = await door.ask(post("/echo/a%20b?x=1", b"\x00\xff body", "X-A: 1"))
        for sent in (post("/echo/a%20b?x=1", b"\x00\xff body", "X-A: 1"),):
            wire = await door.connect()
            for i in range(len(sent)):
                await wire.send(sent[i : i + 1])
                await asyncio.sleep(0)
            assert (await wire.reply()).json == whole.json
        assert whole.json["parts"] == ["echo", "a b"]
        assert whole.json["body"] == "\x00\xff body"

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
def test_a_connection_ends_where_the_client_says_so_or_speaks_http_1_0(run: Run, request_: str) -> None:
    async def main(door: Door, told: Told) -> None:
        wire = await door.connect()
        assert (await wire.ask(request_)).closes
        assert await wire.ended()
        assert await door.forgotten()
        assert "echo/more" not in told.begun

    run(main, replace(QUICK, linger_s=30))


@pytest.mark.parametrize("paths", [["/slow/1"], ["/slow/1", "/now/2"], ["/slow/1", "/echo/2"], ["/now/1"]])
def test_who_has_sent_all_and_closes_that_half_still_gets_the_answers(run: Run, paths: list[str]) -> None:
    async def main(door: Door, told: Told) -> None:
        wire = await door.connect()
        await wire.send(*map(get, paths))
        wire.writer.write_eof()
        await asyncio.sleep(0.05)
        told.release.set()
        for path in paths:
            assert "/" + "/".join((await wire.reply()).json["parts"]) == path
        assert await wire.ended()

    run(main)


@pytest.mark.parametrize("sent", ["", "GE", "GET /now HTTP/1.1\r\nHo", post("/echo", b"half")[:-2]])
def test_who_hangs_up_in_the_middle_of_a_request_is_not_answered_and_disturbs_nobody(
    run: Run, sent: str | bytes
) -> None:
    async def main(door: Door, told: Told) -> None:
        for reset in (False, True):
            wire = await door.connect()
            await wire.send(sent)
            await asyncio.sleep(0.02)
            if reset:
                wire.reset()
            else:
                wire.writer.write_eof()
                assert await wire.ended()
        assert await door.forgotten()
        assert told.begun == []
        assert await door.well()

    run(main)


def test_who_hangs_up_while_it_is_answered_disturbs_nobody_and_the_work_is_finished(run: Run) -> None:
    async def main(door: Door, told: Told) -> None:
        for hang_up in ("close", "reset"):
            wire = await door.connect()
            await wire.send(get("/slow"), get("/echo/later"))
            await told.busy.wait()
            assert told.begun == ["slow"]
            wire.reset() if hang_up == "reset" else await wire.close()
            await asyncio.sleep(0.05)
            assert told.ended == []
            told.release.set()
            assert await door.forgotten()
            assert told.ended[0] == "slow"
            assert await door.well()
            told.begun, told.ended, told.release, told.busy = [], [], asyncio.Event(), asyncio.Event()

    run(main)


@pytest.mark.parametrize("how", ["close", "reset", "half"])
def test_a_handler_that_asks_learns_that_its_caller_has_gone(run: Run, how: str) -> None:
    async def main(door: Door, told: Told) -> None:
        wire = await door.connect()
        await wire.send(get("/wait"))
        assert await wire.silent(0.05)
        assert told.ended == []
        match how:
            case "close":
                await wire.close()
            case "reset":
                wire.reset()
            case "half":
                wire.writer.write_eof()
        assert await door.forgotten()
        assert told.ended == ["wait"]
        assert how != "half" or await wire.ended()

    run(main)


@pytest.mark.parametrize("how", ["reset", "half"])
def test_a_caller_that_went_before_anybody_asked_is_gone(run: Run, how: str) -> None:
    async def main(door: Door, told: Told) -> None:
        wire = await door.connect()
        await wire.send(get("/late"))
        await told.busy.wait()
        wire.reset() if how == "reset" else wire.writer.write_eof()
        await asyncio.sleep(0.05)
        told.release.set()
        assert await door.forgotten()
        assert told.ended == ["late"]

    run(main)


# ---------------------------------------------------------------- bodies


def test_a_body_in_chunks_is_one_body_and_trailers_are_nobodys(run: Run) -> None:
    async def main(door: Door, told: Told) -> None:
        wire = await door.connect()
        for trailer in (b"0\r\n\r\n", b"0;a=b\r\nX-Trailer: 1\r\nauthorization: x\r\n\r\n"):
            sent = chunked("/echo", b"one ", b"two ", b"x" * 5000, last=trailer)
            got = await wire.ask(sent.replace(b"\r\none ", b';name="value"\r\none '))
            assert got.json["body"] == "one two " + "x" * 5000
            assert set(got.json["headers"]) == {"host", "transfer-encoding"}
        assert (await wire.ask(get("/now"))).status == 200

    run(main)


def test_who_expects_a_go_ahead_gets_it_before_it_sends_and_not_if_it_is_refused(run: Run) -> None:
    async def main(door: Door, told: Told) -> None:
        wire = await door.connect()
        request = post("/echo", b"body", "Expect: 100-Continue")
        for _ in range(2):
            await wire.send(request[:-4])
            assert await wire.head() == (100, {})
            await wire.send(b"bo")
            assert await wire.silent(0.02), "once is enough"
            assert (await wire.ask(b"dy")).json["body"] == "body"
        assert (await wire.ask(request)).status == 200, "who does not wait for it is not told"
        await wire.send(post("/nowhere", b"body", "Expect: 100-continue")[:-4])
        got = await wire.reply()
        assert (got.status, got.closes) == (404, True)
        assert await wire.ended()

    run(main)


def test_a_go_ahead_keeps_its_place_behind_the_reply_to_what_was_asked_before(run: Run) -> None:
    async def main(door: Door, told: Told) -> None:
        wire = await door.connect()
        await wire.send(get("/slow"), post("/echo", b"body", "Expect: 100-continue")[:-4])
        assert await wire.silent(0.05)
        told.release.set()
        assert (await wire.reply()).json["parts"] == ["slow"]
        assert await wire.head() == (100, {})
        assert (await wire.ask(b"body")).json["body"] == "body"

    run(main)


def test_a_client_of_http_1_0_is_told_nothing_that_it_does_not_know(run: Run) -> None:
    async def main(door: Door, told: Told) -> None:
        wire = await door.connect()
        request = post("/echo", b"body", "Expect: 100-continue").replace(b"HTTP/1.1", b"HTTP/1.0")
        await wire.send(request[:-4])
        assert await wire.silent(0.05)
        assert (await wire.ask(b"body")).json["body"] == "body"

    run(main)


def test_who_is_refused_hears_it_before_it_has_sent_its_body_and_can_read_it(run: Run) -> None:
    async def main(door: Door, told: Told) -> None:
        wire = await door.connect()
        await wire.send(post("/nowhere", b"x" * BODY_LIMIT)[: -BODY_LIMIT // 2])
        got = await wire.reply()
        assert (got.status, got.closes) == (404, True)
        for _ in range(20):  # it goes on sending, as many clients do; the reply must survive that
            await wire.send(b"x" * 1000)
        assert await wire.ended()
        assert await door.forgotten()

    run(main)


def test_who_is_refused_with_all_that_it_sent_keeps_its_connection(run: Run) -> None:
    async def main(door: Door, told: Told) -> None:
        wire = await door.connect()
        got = await wire.ask(post("/nowhere", b"all of it"))
        assert (got.status, got.closes) == (404, False)
        assert (await wire.ask(get("/now"))).status == 200

    run(main)


def test_a_body_that_nobody_asked_for_is_dropped(run: Run) -> None:
    async def main(door: Door, told: Told) -> None:
        wire = await door.connect()
        got = await wire.ask(post("/bodiless", b"x" * 2 * BODY_LIMIT))
        assert (got.status, got.json["body"]) == (200, "")
        wire = await door.connect()
        assert (await wire.ask(post("/bodiless", b"x"))).closes is False
        assert (await wire.ask(post("/now", b"x"))).closes is False
        assert (await wire.ask(chunked("/now", b"x" * 50))).closes is False

    run(main)


def test_who_hangs_up_once_it_has_read_why_is_waited_for_no_longer(run: Run) -> None:
    async def main(door: Door, told: Told) -> None:
        for path in ("/bodiless", "/nowhere"):
            wire = await door.connect()
            assert (await wire.ask(post(path, b"x" * 50_000)[:-1])).closes
            assert await wire.ended()
            assert len(door.server.connections) == 1
            await wire.close()
            assert await door.forgotten()

    run(main, replace(QUICK, linger_s=30))


def test_a_large_reply_arrives_whole(run: Run) -> None:
    async def main(door: Door, told: Told) -> None:
        wire = await door.connect()
        for _ in range(2):
            await wire.send(get("/large"), get("/now"))
            assert (await wire.reply()).body == b"x" * LARGE
            assert (await wire.reply()).json["parts"] == ["now"]

    run(main)


# ---------------------------------------------------------------- heads


def test_a_reply_to_head_has_the_headers_alone(run: Run) -> None:
    async def main(door: Door, told: Told) -> None:
        wire = await door.connect()
        for path in ("/now", "/echo", "/nowhere"):
            await wire.send(get(path).replace("GET", "HEAD"), get("/now/next"))
            got = await wire.reply(bare=True)
            assert int(got.headers["content-length"]) > 0
            assert (await wire.reply()).json["parts"] == ["now", "next"]

    run(main)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH", "PURGE", "PROPFIND"])
def test_every_method_is_the_handlers_to_judge(run: Run, method: str) -> None:
    async def main(door: Door, told: Told) -> None:
        assert (await door.ask(get("/now").replace("GET", method))).json["method"] == method

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
    async def main(door: Door, told: Told) -> None:
        for _ in range(2):
            assert (await door.ask(get(target))).json["parts"] == parts

    run(main)


@pytest.mark.parametrize("target", ["*", "/", "http://elsewhere", "/%00"])
def test_a_target_without_a_known_path_is_the_handlers_to_refuse(run: Run, target: str) -> None:
    async def main(door: Door, told: Told) -> None:
        assert (await door.ask(get(target))).status == 404

    run(main)


def test_names_of_headers_are_lower_case_and_repeated_ones_joined(run: Run) -> None:
    async def main(door: Door, told: Told) -> None:
        sent = get("/now", "PREFER: wait=1", "x-empty:", "Prefer:respond-async", "X-L: \xe9  ", "prefer: a")
        headers = (await door.ask(sent)).json["headers"]
        assert headers["prefer"] == "wait=1, respond-async, a"
        assert (headers["x-empty"], headers["x-l"]) == ("", "\xe9")

    run(main)


def test_the_address_is_the_other_end_of_the_connection(run: Run) -> None:
    async def main(door: Door, told: Told) -> None:
        got = await door.ask(get("/now", "X-Forwarded-For: 192.0.2.1"))
        assert got.json["address"] == "127.0.0.1"

    run(main)


# ---------------------------------------------------------------- defects


@pytest.mark.parametrize(("path", "closes"), [("/raise", False), ("/raise-at-once", True)])
def test_a_handler_that_breaks_is_a_503_in_json_a_line_in_the_log_and_no_more(
    run: Run, path: str, closes: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(door: Door, told: Told) -> None:
        wire = await door.connect()
        with caplog.at_level(logging.ERROR, "gateway.connection"):
            got = await wire.ask(post(path, b"body"))
        assert (got.status, got.closes) == (503, closes)
        assert "broken on purpose" not in got.body.decode()
        assert await (wire.ended() if closes else asyncio.sleep(0, True))
        assert await door.well()

    run(main)
    assert "defect" in caplog.text
    assert "broken on purpose" in caplog.text


def test_who_waits_for_work_that_is_cancelled_is_hung_up_on(run: Run) -> None:
    async def main(door: Door, told: Told) -> None:
        wire = await door.connect()
        await wire.send(get("/cancel"))
        assert await wire.ended()
        assert await door.forgotten()
        assert await door.well()

    run(main)


def test_a_connection_that_is_over_is_freed_without_the_collector(run: Run) -> None:
    """Which `gateway.replica` makes a rare guest."""

    async def main(door: Door, told: Told) -> None:
        gc.collect()
        gc.disable()
        for path in ("/now", "/echo", "/wait", "/nowhere", "/large"):
            wire = await door.connect()
            await wire.send(get(path))
            if path != "/wait":
                await wire.reply()
            wire.writer.write_eof()
            await wire.reader.read()
            await wire.close()
        door.wires.clear()
        assert await door.forgotten()
        await asyncio.sleep(0.01)
        assert [one for one in gc.get_objects() if isinstance(one, Connection | Reader | Request)] == []

    try:
        run(main)
    finally:
        gc.enable()


# ---------------------------------------------------------------- shutdown


def test_at_shutdown_what_is_under_way_is_finished_and_all_else_ends_at_once(run: Run) -> None:
    async def main(door: Door, told: Told) -> None:
        idle, used, half, busy, sending = [await door.connect() for _ in range(5)]
        await used.ask(get("/now"))
        await half.send("GET /now HT")
        await busy.send(get("/slow/1"), get("/now/2"))
        await sending.send(post("/echo", b"body")[:-2])
        await told.busy.wait()
        stopping = asyncio.create_task(door.server.stop(5.0))
        for wire in (idle, used, half):
            assert await wire.ended()
        with pytest.raises(ConnectionRefusedError):
            await door.connect()
        got = await sending.ask("dy")
        assert (got.json["body"], got.closes) == ("body", True)
        assert not stopping.done()
        told.release.set()
        got = await busy.reply()
        assert (got.json["parts"], got.closes) == (["slow", "1"], True)
        assert await busy.ended()
        await asyncio.wait_for(stopping, 1.0)
        assert door.server.connections == set()

    run(main)


def test_a_shutdown_waits_no_longer_than_it_is_given(run: Run) -> None:
    async def main(door: Door, told: Told) -> None:
        wire = await door.connect()
        await wire.send(get("/slow"))
        await told.busy.wait()
        async with asyncio.timeout(2):
            await door.server.stop(0.1)
        assert told.ended == ["slow"], "the work is cancelled, not forgotten"
        assert door.server.connections == set()
        assert await wire.ended()

    run(main)


def test_a_shutdown_does_not_wait_for_who_only_has_to_read_why_it_was_refused(run: Run) -> None:
    async def main(door: Door, told: Told) -> None:
        wire, other = await door.connect(), await door.connect()
        assert (await wire.ask(b"noise\r\n\r\n")).status == 400
        assert (await other.ask(post("/nowhere", b"body")[:-1])).status == 404
        async with asyncio.timeout(1):
            await door.server.stop(30)

    run(main, replace(QUICK, linger_s=30))


def test_a_shutdown_without_connections_and_a_second_one_return_at_once(run: Run) -> None:
    async def main(door: Door, told: Told) -> None:
        async with asyncio.timeout(1):
            await door.server.stop(5.0)
            await door.server.stop(5.0)

    run(main)
