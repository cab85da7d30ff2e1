"""The listener over TLS: the same as without, and what only TLS can get wrong."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import httpx
import pytest
import uvloop

from gateway.listener.limits import SPARE_CONNECTIONS
from tests.support.certificates import certificate, trusting
from tests.support.raw_http import BODY_LIMIT, LARGE, QUICK, Door, Pair, Run, Told, chunked, get, post, runner

T = TypeVar("T")
LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
FAST = replace(QUICK, handshake_s=0.3)
PATIENT = replace(QUICK, handshake_s=30, head_s=30, body_s=30, idle_s=30, stuck_s=30)
TLS_1_1 = b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    pem, key = certificate(tmp_path_factory.mktemp("tls"))
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.minimum_version = ssl.TLSVersion.TLSv1_2
    ours.set_alpn_protocols(["http/1.1"])
    ours.load_cert_chain(pem, key)
    return ours, trusting(pem)


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest, pair: Pair) -> Run:
    return partial(runner(LOOPS[request.param]), tls=pair)


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing that a client does is worth a line in the log."""
    with caplog.at_level(logging.INFO):
        yield
    assert [one for one in caplog.records if one.levelno >= logging.INFO] == []


async def by_socket(door: Door, client: Callable[[ssl.SSLSocket], T]) -> T:
    """What a client comes to that does its own reading: asyncio's drops what it has not read at the end."""
    trust = door.trust
    assert trust is not None

    def run() -> T:
        with (
            socket.create_connection(door.address[:2], timeout=5) as below,
            trust.wrap_socket(below, server_hostname="localhost", suppress_ragged_eofs=False) as above,
        ):
            return client(above)

    return await asyncio.to_thread(run)


def all_of(above: ssl.SSLSocket, pause_s: float = 0.0) -> bytes:
    """All that comes until the server says farewell; without that, an error."""
    got, pace = bytearray(), LARGE // 25
    while part := above.recv(65_536):
        got += part
        if pause_s and len(got) // pace != (len(got) - len(part)) // pace:
            time.sleep(pause_s)
    return bytes(got)


async def plain(door: Door) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    wire = await door.connect_by(None)
    return wire.reader, wire.writer


# ---------------------------------------------------------------- the same as without


def test_requests_one_after_another_and_sent_ahead(run: Run) -> None:
    async def main(door: Door, told: Told) -> None:
        wire = await door.connect()
        for i in range(20):
            assert (await wire.ask(post(f"/echo/{i}", b"body %d" % i))).json["body"] == f"body {i}"
        body = b"x" * BODY_LIMIT
        await wire.send(get("/slow/1"), get("/now/2"), post("/echo/3", body), get("/nowhere"), get("/now/5"))
        assert await wire.silent(0.1)
        told.release.set()
        assert [(await wire.reply()).status for _ in range(5)] == [200, 200, 200, 404, 200]
        assert (await wire.ask(chunked("/echo", b"one ", b"two"))).json["body"] == "one two"
        assert len(door.server.connections) == 1

    run(main)


def test_what_a_client_sends_with_the_end_of_its_handshake_is_not_lost(run: Run) -> None:
    """As OpenSSL does over TLS 1.3: its Finished and the first request in one segment."""

    async def main(door: Door, told: Told) -> None:
        for _ in range(10):
            below, above = ssl.MemoryBIO(), ssl.MemoryBIO()
            assert door.trust is not None
            client = door.trust.wrap_bio(below, above, server_hostname="localhost")
            reader, writer = await plain(door)
            for _ in range(10):
                try:
                    client.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    writer.write(above.read())
                    below.write(await reader.read(65_536))
            client.write(get("/now/together").encode())
            writer.write(above.read())
            got = b""
            while b"together" not in got:
                below.write(await reader.read(65_536))
                try:
                    got += client.read()
                except ssl.SSLWantReadError:
                    continue

    run(main)


def test_a_large_reply_arrives_whole_and_so_do_those_behind_it_before_the_end(run: Run) -> None:
    async def main(door: Door, told: Told) -> None:
        def client(above: ssl.SSLSocket) -> int:
            above.sendall((get("/large") + get("/large") + get("/large", "Connection: close")).encode())
            time.sleep(0.1)
            return len(all_of(above))

        assert 3 * LARGE < await by_socket(door, client) < 3 * LARGE + 2000

    run(main, PATIENT)


def test_a_reply_that_is_taken_slowly_is_taken_whole(run: Run) -> None:
    async def main(door: Door, told: Told) -> None:
        def client(above: ssl.SSLSocket) -> int:
            above.sendall(get("/large/1", "Connection: close").encode())
            return len(all_of(above, 0.02))

        start_s = time.perf_counter()
        assert LARGE < await by_socket(door, client) < LARGE + 1000
        assert time.perf_counter() - start_s > 2 * QUICK.stuck_s, "it was taken too fast to tell"

    run(main, replace(QUICK, linger_s=0.01))


def test_replies_that_nobody_takes_end_the_connection(run: Run) -> None:
    async def main(door: Door, told: Told) -> None:
        wire = await door.connect(limit=1)
        await wire.send(*[get(f"/large/{i}") for i in range(9)])
        assert await door.forgotten()
        assert len(told.begun) <= 3
        assert await door.well()

    run(main)


@pytest.mark.parametrize(
    ("sent", "status"),
    [(post("/nowhere", b"x" * BODY_LIMIT)[: -BODY_LIMIT // 2], 404), (b"noise\r\n\r\n" + b"x" * 50_000, 400)],
)
def test_who_is_refused_in_the_middle_of_its_body_can_read_why(run: Run, sent: bytes, status: int) -> None:
    async def main(door: Door, told: Told) -> None:
        def client(above: ssl.SSLSocket) -> bytes:
            above.sendall(sent)
            for _ in range(20):  # it goes on sending, as many clients do; the reply must survive that
                time.sleep(0.005)
                above.sendall(b"x" * 1000)
            return all_of(above)

        got = await by_socket(door, client)
        assert got.startswith(b"HTTP/1.1 %d " % status)
        assert b"connection: close" in got
        assert b'"error"' in got
        assert await door.forgotten()

    run(main, replace(QUICK, linger_s=2))


def test_who_is_refused_and_does_not_hang_up_is_cut_off(run: Run) -> None:
    async def main(door: Door, told: Told) -> None:
        wire = await door.connect()
        assert (await wire.ask(b"noise\r\n\r\n")).status == 400

        async def pour() -> None:
            while True:
                await wire.send(b"x" * 1000)
                await asyncio.sleep(0.01)

        pouring = asyncio.create_task(pour())
        assert await door.forgotten()
        pouring.cancel()
        await asyncio.wait([pouring])

    run(main)


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_handler_that_asks_learns_that_its_caller_has_gone(run: Run, how: str) -> None:
    async def main(door: Door, told: Told) -> None:
        wire = await door.connect()
        await wire.send(get("/wait"))
        assert await wire.silent(0.05)
        wire.reset() if how == "reset" else await wire.close()
        assert await door.forgotten()
        assert told.ended == ["wait"]

    run(main)


def test_who_hangs_up_while_it_is_answered_disturbs_nobody(run: Run) -> None:
    async def main(door: Door, told: Told) -> None:
        wire = await door.connect()
        await wire.send(get("/slow"), get("/echo/later"))
        await told.busy.wait()
        wire.writer.close()  # which would wait for our farewell
        await asyncio.sleep(0.05)
        assert told.ended == []
        told.release.set()
        assert await door.forgotten()
        assert told.ended[0] == "slow"
        assert await door.well()

    run(main)


@pytest.mark.parametrize("sent", ["", "GET /now HTTP/1.1\r\nHo", post("/echo", b"half")[:-2]])
def test_who_is_too_slow_is_told_or_hung_up_on(run: Run, sent: str | bytes) -> None:
    async def main(door: Door, told: Told) -> None:
        wire = await door.connect()
        await wire.send(sent)
        if sent:
            assert (await wire.reply()).status == 408
        assert await wire.ended()
        assert await door.forgotten()

    run(main)


def test_at_shutdown_what_is_under_way_is_finished_and_all_else_ends_at_once(run: Run) -> None:
    async def main(door: Door, told: Told) -> None:
        idle, used, busy, sending = [await door.connect() for _ in range(4)]
        reader, _ = await plain(door)  # still shaking hands
        await used.ask(get("/now"))
        await busy.send(get("/slow/1"), get("/now/2"))
        await sending.send(post("/echo", b"body")[:-2])
        await told.busy.wait()
        stopping = asyncio.create_task(door.server.stop(5.0))
        for wire in (idle, used):
            assert await wire.ended()
        assert await reader.read() == b""
        got = await sending.ask("dy")
        assert (got.json["body"], got.closes) == ("body", True)
        told.release.set()
        got = await busy.reply()
        assert (got.json["parts"], got.closes) == (["slow", "1"], True)
        assert await busy.ended()
        await asyncio.wait_for(stopping, 1.0)

    run(main, PATIENT)


def test_a_shutdown_does_not_wait_for_the_farewell_of_who_does_not_read(run: Run) -> None:
    async def main(door: Door, told: Told) -> None:
        wires = [await door.connect() for _ in range(5)]
        for wire in wires:
            await wire.ask(get("/now"))
            wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        async with asyncio.timeout(1):
            await door.server.stop(30)
        for wire in wires:
            wire.writer.transport.abort()

    run(main, PATIENT)


# ---------------------------------------------------------------- what only TLS can get wrong


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_and_1_3_are_spoken_and_http_1_1_is_agreed_on(
    run: Run, version: ssl.TLSVersion, tmp_path: Path
) -> None:
    async def main(door: Door, told: Told) -> None:
        assert door.trust is not None
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.minimum_version = context.maximum_version = version
        context.set_alpn_protocols(["h2", "http/1.1"])
        wire = await door.connect_by(context)
        agreed = wire.writer.get_extra_info("ssl_object")
        assert (agreed.version(), agreed.selected_alpn_protocol()) == (
            version.name.replace("_", "."),
            "http/1.1",
        )
        assert (await wire.ask(get("/now"))).status == 200

    run(main)


def test_older_versions_are_refused(run: Run) -> None:
    async def main(door: Door, told: Told) -> None:
        for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.set_ciphers("ALL:@SECLEVEL=0")
            with pytest.warns(DeprecationWarning):
                context.minimum_version = context.maximum_version = version
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await door.connect_by(context)
        assert await door.forgotten()
        assert await door.well()

    run(main)


@pytest.mark.parametrize("sent", [b"", b"\x16", TLS_1_1[:-1], b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"])
def test_a_handshake_that_does_not_come_ends_in_time(run: Run, sent: bytes) -> None:
    async def main(door: Door, told: Told) -> None:
        reader, writer = await plain(door)
        start_s = time.perf_counter()
        writer.write(sent)
        async with asyncio.timeout(3):
            await reader.read()
        assert 0.2 < time.perf_counter() - start_s < 2
        assert await door.forgotten()
        assert await door.well()

    run(main, FAST)


@pytest.mark.parametrize(
    "sent",
    [get("/now").encode(), post("/echo", b"x" * 10_000), b"\n" * 5, bytes(range(256)) * 40, TLS_1_1 * 9],
)
def test_what_is_not_tls_ends_at_once(run: Run, sent: bytes) -> None:
    async def main(door: Door, told: Told) -> None:
        reader, writer = await plain(door)
        writer.write(sent)
        async with asyncio.timeout(2):
            try:
                got = await reader.read()
            except ConnectionResetError:
                got = b""
        assert b"HTTP" not in got
        assert await door.forgotten()
        assert await door.well()
        assert told.begun == ["echo"], "only the good one's"

    run(main, PATIENT)


@pytest.mark.parametrize("how", ["close", "reset"])
def test_who_hangs_up_during_the_handshake_disturbs_nobody(run: Run, how: str) -> None:
    async def main(door: Door, told: Told) -> None:
        for sent in (b"", TLS_1_1[:5]):
            wire = await door.connect_by(None)
            await wire.send(sent)
            await asyncio.sleep(0.02)
            assert len(door.server.connections) == 1
            wire.reset() if how == "reset" else await wire.close()
            assert await door.forgotten()
        assert await door.well()

    run(main, PATIENT)


def test_who_only_shakes_hands_counts_and_gives_way(run: Run) -> None:
    async def main(door: Door, told: Told) -> None:
        most = 0
        for _ in range(20):
            for _ in range(10):
                await plain(door)
                most = max(most, len(door.server.connections))
            assert await door.well()
        assert most <= 2 * 5
        assert len(door.server.connections) <= 5

    run(main, replace(PATIENT, connections=5))


def test_where_all_are_at_work_the_newcomer_is_told_and_too_many_are_not(run: Run) -> None:
    async def main(door: Door, told: Told) -> None:
        working = [await door.connect() for _ in range(3)]
        for wire in working:
            await wire.send(get("/slow"))
        await asyncio.sleep(0.05)
        got = await door.ask(get("/now"))
        assert (got.status, got.closes) == (503, True)
        for _ in range(SPARE_CONNECTIONS + 20):
            await plain(door)
        await asyncio.sleep(0.05)
        assert len(door.server.connections) <= 3 + SPARE_CONNECTIONS
        told.release.set()
        assert [(await wire.reply()).status for wire in working] == [200] * 3
        assert await door.well()

    run(main, replace(PATIENT, connections=3))


def test_connections_of_one_caller_are_counted_as_without_tls(run: Run) -> None:
    async def main(door: Door, told: Told) -> None:
        sent = get("/now", "X-Caller: ada")
        first = await door.connect()
        assert (await first.ask(sent)).status == 200
        assert (await door.ask(sent)).status == 429
        await first.close()
        assert await door.forgotten()
        assert (await door.ask(sent)).status == 200

    run(main, replace(PATIENT, connections_per_caller=1))


def test_ordinary_clients_are_served(run: Run) -> None:
    async def main(door: Door, told: Told) -> None:
        assert door.trust is not None
        host, port = door.address[:2]
        async with httpx.AsyncClient(base_url=f"https://{host}:{port}", verify=door.trust) as client:
            for i in range(5):
                assert (await client.post("/echo", content=b"%d" % i)).json()["body"] == str(i)
            replies = await asyncio.gather(*(client.get(f"/now/{i}") for i in range(20)))
            assert [one.json()["parts"][1] for one in replies] == [str(i) for i in range(20)]
            assert (await client.get("/nowhere")).status_code == 404
        with pytest.raises(httpx.ConnectError, match=r"(?i)certificate"):
            async with httpx.AsyncClient(verify=ssl.create_default_context()) as stranger:
                await stranger.get(f"https://{host}:{port}/now")

        def old_fashioned(above: ssl.SSLSocket) -> bytes:
            above.sendall(get("/now", "Connection: close").encode())
            return all_of(above)

        assert b"HTTP/1.1 200" in await by_socket(door, old_fashioned)

    run(main)
