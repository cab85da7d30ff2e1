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
from tests.support.raw_http import (
    BODY_LIMIT,
    LARGE,
    QUICK,
    Run,
    RunningListener,
    ScriptedHandler,
    TlsContexts,
    chunked,
    get,
    post,
    runner,
)

T = TypeVar("T")
LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
FAST = replace(QUICK, handshake_s=0.3)
PATIENT = replace(QUICK, handshake_s=30, head_s=30, body_s=30, idle_s=30, stuck_s=30)
TLS_1_1 = b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03"


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> TlsContexts:
    pem, key = certificate(tmp_path_factory.mktemp("tls"))
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.minimum_version = ssl.TLSVersion.TLSv1_2
    ours.set_alpn_protocols(["http/1.1"])
    ours.load_cert_chain(pem, key)
    return ours, trusting(pem)


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest, contexts: TlsContexts) -> Run:
    return partial(runner(LOOPS[request.param]), tls=contexts)


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing that a client does is logged above DEBUG."""
    with caplog.at_level(logging.INFO):
        yield
    assert [one for one in caplog.records if one.levelno >= logging.INFO] == []


async def with_blocking_client(listener: RunningListener, client: Callable[[ssl.SSLSocket], T]) -> T:
    """Runs a client on a blocking socket: asyncio's drops what it has not read when the server closes."""
    trust = listener.trust
    assert trust is not None

    def run() -> T:
        with (
            socket.create_connection(listener.address[:2], timeout=5) as tcp_socket,
            trust.wrap_socket(
                tcp_socket, server_hostname="localhost", suppress_ragged_eofs=False
            ) as tls_socket,
        ):
            return client(tls_socket)

    return await asyncio.to_thread(run)


def read_to_end(tls_socket: ssl.SSLSocket, pause_s: float = 0.0) -> bytes:
    """All bytes until the server's close_notify; without that, an error."""
    got, pace = bytearray(), LARGE // 25
    while part := tls_socket.recv(65_536):
        got += part
        if pause_s and len(got) // pace != (len(got) - len(part)) // pace:
            time.sleep(pause_s)
    return bytes(got)


async def connect_without_tls(listener: RunningListener) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    connection = await listener.connect_by(None)
    return connection.reader, connection.writer


# ---------------------------------------------------------------- the same as without


def test_sequential_and_pipelined_requests(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect()
        for i in range(20):
            assert (await connection.request(post(f"/echo/{i}", b"body %d" % i))).json["body"] == f"body {i}"
        body = b"x" * BODY_LIMIT
        await connection.send(
            get("/slow/1"), get("/now/2"), post("/echo/3", body), get("/nowhere"), get("/now/5")
        )
        assert await connection.silent(0.1)
        handler.release.set()
        assert [(await connection.reply()).status for _ in range(5)] == [200, 200, 200, 404, 200]
        assert (await connection.request(chunked("/echo", b"one ", b"two"))).json["body"] == "one two"
        assert len(listener.server.connections) == 1

    run(main)


def test_a_request_sent_with_the_end_of_the_handshake_is_answered(run: Run) -> None:
    """As OpenSSL does over TLS 1.3: its Finished and the first request in one segment."""

    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        for _ in range(10):
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            assert listener.trust is not None
            client = listener.trust.wrap_bio(incoming, outgoing, server_hostname="localhost")
            reader, writer = await connect_without_tls(listener)
            for _ in range(10):
                try:
                    client.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    writer.write(outgoing.read())
                    incoming.write(await reader.read(65_536))
            client.write(get("/now/together").encode())
            writer.write(outgoing.read())
            got = b""
            while b"together" not in got:
                incoming.write(await reader.read(65_536))
                try:
                    got += client.read()
                except ssl.SSLWantReadError:
                    continue

    run(main)


def test_large_pipelined_replies_arrive_whole_before_the_close(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        def client(tls_socket: ssl.SSLSocket) -> int:
            tls_socket.sendall((get("/large") + get("/large") + get("/large", "Connection: close")).encode())
            time.sleep(0.1)
            return len(read_to_end(tls_socket))

        assert 3 * LARGE < await with_blocking_client(listener, client) < 3 * LARGE + 2000

    run(main, PATIENT)


def test_a_slowly_read_reply_arrives_whole(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        def client(tls_socket: ssl.SSLSocket) -> int:
            tls_socket.sendall(get("/large/1", "Connection: close").encode())
            return len(read_to_end(tls_socket, 0.02))

        start_s = time.perf_counter()
        assert LARGE < await with_blocking_client(listener, client) < LARGE + 1000
        assert time.perf_counter() - start_s > 2 * QUICK.stuck_s, "it was read too fast to show anything"

    run(main, replace(QUICK, linger_s=0.01))


def test_unread_replies_end_the_connection(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect(limit=1)
        await connection.send(*[get(f"/large/{i}") for i in range(9)])
        assert await listener.has_no_connections()
        assert len(handler.started) <= 3
        assert await listener.serves()

    run(main)


@pytest.mark.parametrize(
    ("sent", "status"),
    [(post("/nowhere", b"x" * BODY_LIMIT)[: -BODY_LIMIT // 2], 404), (b"noise\r\n\r\n" + b"x" * 50_000, 400)],
)
def test_a_refusal_in_the_middle_of_a_body_can_be_read(run: Run, sent: bytes, status: int) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        def client(tls_socket: ssl.SSLSocket) -> bytes:
            tls_socket.sendall(sent)
            for _ in range(20):  # like a client that reads the reply only after its body is sent
                time.sleep(0.005)
                tls_socket.sendall(b"x" * 1000)
            return read_to_end(tls_socket)

        got = await with_blocking_client(listener, client)
        assert got.startswith(b"HTTP/1.1 %d " % status)
        assert b"connection: close" in got
        assert b'"error"' in got
        assert await listener.has_no_connections()

    run(main, replace(QUICK, linger_s=2))


def test_lingering_ends_after_its_time(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect()
        assert (await connection.request(b"noise\r\n\r\n")).status == 400

        async def pour() -> None:
            while True:
                await connection.send(b"x" * 1000)
                await asyncio.sleep(0.01)

        pouring = asyncio.create_task(pour())
        assert await listener.has_no_connections()
        pouring.cancel()
        await asyncio.wait([pouring])

    run(main)


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_handler_can_wait_for_its_client_to_disconnect(run: Run, how: str) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect()
        await connection.send(get("/wait"))
        assert await connection.silent(0.05)
        connection.reset() if how == "reset" else await connection.close()
        assert await listener.has_no_connections()
        assert handler.finished == ["wait"]

    run(main)


def test_a_disconnect_during_an_answer_affects_no_other_client(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect()
        await connection.send(get("/slow"), get("/echo/later"))
        await handler.busy.wait()
        connection.writer.close()  # which waits for the close_notify of the server
        await asyncio.sleep(0.05)
        assert handler.finished == []
        handler.release.set()
        assert await listener.has_no_connections()
        assert handler.finished[0] == "slow"
        assert await listener.serves()

    run(main)


@pytest.mark.parametrize("sent", ["", "GET /now HTTP/1.1\r\nHo", post("/echo", b"half")[:-2]])
def test_a_slow_client_gets_a_408_and_an_idle_one_is_closed(run: Run, sent: str | bytes) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connection = await listener.connect()
        await connection.send(sent)
        if sent:
            assert (await connection.reply()).status == 408
        assert await connection.is_closed()
        assert await listener.has_no_connections()

    run(main)


def test_at_shutdown_requests_under_way_are_finished_and_idle_connections_close_at_once(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        idle, used, busy, sending = [await listener.connect() for _ in range(4)]
        reader, _ = await connect_without_tls(listener)  # in its handshake
        await used.request(get("/now"))
        await busy.send(get("/slow/1"), get("/now/2"))
        await sending.send(post("/echo", b"body")[:-2])
        await handler.busy.wait()
        stopping = asyncio.create_task(listener.server.stop(5.0))
        for connection in (idle, used):
            assert await connection.is_closed()
        assert await reader.read() == b""
        got = await sending.request("dy")
        assert (got.json["body"], got.closes) == ("body", True)
        handler.release.set()
        got = await busy.reply()
        assert (got.json["parts"], got.closes) == (["slow", "1"], True)
        assert await busy.is_closed()
        await asyncio.wait_for(stopping, 1.0)

    run(main, PATIENT)


def test_a_shutdown_does_not_wait_for_the_close_notify_of_a_client(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        connections = [await listener.connect() for _ in range(5)]
        for connection in connections:
            await connection.request(get("/now"))
            connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
        async with asyncio.timeout(1):
            await listener.server.stop(30)
        for connection in connections:
            connection.writer.transport.abort()

    run(main, PATIENT)


# ---------------------------------------------------------------- what only TLS can get wrong


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_and_1_3_are_accepted_and_http_1_1_is_negotiated(
    run: Run, version: ssl.TLSVersion, tmp_path: Path
) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        assert listener.trust is not None
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.minimum_version = context.maximum_version = version
        context.set_alpn_protocols(["h2", "http/1.1"])
        connection = await listener.connect_by(context)
        agreed = connection.writer.get_extra_info("ssl_object")
        assert (agreed.version(), agreed.selected_alpn_protocol()) == (
            version.name.replace("_", "."),
            "http/1.1",
        )
        assert (await connection.request(get("/now"))).status == 200

    run(main)


def test_older_versions_of_tls_are_refused(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.set_ciphers("ALL:@SECLEVEL=0")
            with pytest.warns(DeprecationWarning):
                context.minimum_version = context.maximum_version = version
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await listener.connect_by(context)
        assert await listener.has_no_connections()
        assert await listener.serves()

    run(main)


@pytest.mark.parametrize("sent", [b"", b"\x16", TLS_1_1[:-1], b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"])
def test_a_handshake_that_does_not_finish_ends_in_time(run: Run, sent: bytes) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        reader, writer = await connect_without_tls(listener)
        start_s = time.perf_counter()
        writer.write(sent)
        async with asyncio.timeout(3):
            await reader.read()
        assert 0.2 < time.perf_counter() - start_s < 2
        assert await listener.has_no_connections()
        assert await listener.serves()

    run(main, FAST)


@pytest.mark.parametrize(
    "sent",
    [get("/now").encode(), post("/echo", b"x" * 10_000), b"\n" * 5, bytes(range(256)) * 40, TLS_1_1 * 9],
)
def test_a_connection_without_tls_is_closed_at_once(run: Run, sent: bytes) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        reader, writer = await connect_without_tls(listener)
        writer.write(sent)
        async with asyncio.timeout(2):
            try:
                got = await reader.read()
            except ConnectionResetError:
                got = b""
        assert b"HTTP" not in got
        assert await listener.has_no_connections()
        assert await listener.serves()
        assert handler.started == ["echo"], "only the good request"

    run(main, PATIENT)


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_disconnect_during_the_handshake_affects_no_other_client(run: Run, how: str) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        for sent in (b"", TLS_1_1[:5]):
            connection = await listener.connect_by(None)
            await connection.send(sent)
            await asyncio.sleep(0.02)
            assert len(listener.server.connections) == 1
            connection.reset() if how == "reset" else await connection.close()
            assert await listener.has_no_connections()
        assert await listener.serves()

    run(main, PATIENT)


def test_a_connection_in_its_handshake_counts_and_is_replaced_like_an_idle_one(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        most = 0
        for _ in range(20):
            for _ in range(10):
                await connect_without_tls(listener)
                most = max(most, len(listener.server.connections))
            assert await listener.serves()
        assert most <= 2 * 5
        assert len(listener.server.connections) <= 5

    run(main, replace(PATIENT, connections=5))


def test_a_new_connection_gets_a_503_and_beyond_the_spare_ones_none(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        working = [await listener.connect() for _ in range(3)]
        for connection in working:
            await connection.send(get("/slow"))
        await asyncio.sleep(0.05)
        got = await listener.request(get("/now"))
        assert (got.status, got.closes) == (503, True)
        for _ in range(SPARE_CONNECTIONS + 20):
            await connect_without_tls(listener)
        await asyncio.sleep(0.05)
        assert len(listener.server.connections) <= 3 + SPARE_CONNECTIONS
        handler.release.set()
        assert [(await connection.reply()).status for connection in working] == [200] * 3
        assert await listener.serves()

    run(main, replace(PATIENT, connections=3))


def test_connections_of_one_caller_are_counted_as_without_tls(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        sent = get("/now", "X-Caller: ada")
        first = await listener.connect()
        assert (await first.request(sent)).status == 200
        assert (await listener.request(sent)).status == 429
        await first.close()
        assert await listener.has_no_connections()
        assert (await listener.request(sent)).status == 200

    run(main, replace(PATIENT, connections_per_caller=1))


def test_common_http_clients_are_served(run: Run) -> None:
    async def main(listener: RunningListener, handler: ScriptedHandler) -> None:
        assert listener.trust is not None
        host, port = listener.address[:2]
        async with httpx.AsyncClient(base_url=f"https://{host}:{port}", verify=listener.trust) as client:
            for i in range(5):
                assert (await client.post("/echo", content=b"%d" % i)).json()["body"] == str(i)
            replies = await asyncio.gather(*(client.get(f"/now/{i}") for i in range(20)))
            assert [one.json()["parts"][1] for one in replies] == [str(i) for i in range(20)]
            assert (await client.get("/nowhere")).status_code == 404
        with pytest.raises(httpx.ConnectError, match=r"(?i)certificate"):
            async with httpx.AsyncClient(verify=ssl.create_default_context()) as stranger:
                await stranger.get(f"https://{host}:{port}/now")

        def blocking(tls_socket: ssl.SSLSocket) -> bytes:
            tls_socket.sendall(get("/now", "Connection: close").encode())
            return read_to_end(tls_socket)

        assert b"HTTP/1.1 200" in await with_blocking_client(listener, blocking)

    run(main)
