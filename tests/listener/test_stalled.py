"""Connections to a listening socket whose event loop is blocked: each gets a refusal and ends."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvloop

from gateway.listener.messages import Reply
from gateway.listener.stalled import StalledListener, last_reply
from tests.support.certificates import certificate, trusting

REFUSAL = Reply(503, b"content-type: application/json\r\n", b'{"error": "blocked"}')
GET = b"GET /v2/health/ready HTTP/1.1\r\nhost: localhost\r\n\r\n"
LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


def bound() -> socket.socket:
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    return listening


@contextmanager
def answering(tls: ssl.SSLContext | None = None) -> Iterator[tuple[str, int]]:
    """A socket that no event loop accepts on, answered by a thread."""
    over = threading.Event()
    with bound() as listening:
        stalled = StalledListener(listening, lambda: REFUSAL, tls)

        def answer() -> None:
            while not over.is_set():
                stalled.answer_next(0.02)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield listening.getsockname()
        finally:
            over.set()
            thread.join()


def exchange(address: tuple[str, int], *parts: bytes) -> bytes:
    """All that comes back for these bytes, until the other end closes."""
    with socket.create_connection(address, timeout=20) as client:
        for part in parts:
            client.sendall(part)
            time.sleep(0.05)
        return received(client)


def received(client: socket.socket) -> bytes:
    found = b""
    while more := client.recv(65536):
        found += more
    return found


@pytest.mark.parametrize(
    "parts",
    [
        (GET,),
        (GET[:20], GET[20:]),
        (b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 200000\r\n\r\n", b"x" * 200_000),
    ],
)
def test_a_client_gets_the_refusal_and_the_end_of_its_connection(parts: tuple[bytes, ...]) -> None:
    with answering() as address:
        assert exchange(address, *parts) == last_reply(REFUSAL, head_only=False)


def test_a_head_request_gets_no_body() -> None:
    with answering() as address:
        reply = exchange(address, GET.replace(b"GET", b"HEAD"))
    assert reply.endswith(b"connection: close\r\n\r\n")
    assert b"content-length: %d\r\n" % len(REFUSAL.body) in reply


def test_clients_that_send_nothing_do_not_keep_others_from_an_answer() -> None:
    with answering() as address:
        silent = [socket.create_connection(address, timeout=20) for _ in range(100)]
        try:
            assert exchange(address, GET).startswith(b"HTTP/1.1 503 ")
            assert [received(one) for one in silent] == [b""] * len(silent), "each is ended"
        finally:
            for one in silent:
                one.close()


def test_over_tls_the_refusal_is_sent_over_tls(tmp_path: Path) -> None:
    pem, key = certificate(tmp_path)
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(pem, key)
    with (
        answering(ours) as address,
        socket.create_connection(address, timeout=20) as plain,
        trusting(pem).wrap_socket(plain, server_hostname="localhost") as client,
    ):
        client.sendall(GET)
        assert client.recv(65536) == last_reply(REFUSAL, head_only=False)


def test_a_client_that_speaks_no_tls_is_ended(tmp_path: Path) -> None:
    pem, key = certificate(tmp_path)
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(pem, key)
    with answering(ours) as address, socket.create_connection(address, timeout=20) as client:
        client.sendall(GET)
        assert b"HTTP" not in _ended(client)


def _ended(client: socket.socket) -> bytes:
    try:
        return received(client)
    except ConnectionResetError:
        return b""


@pytest.mark.parametrize("new_loop", LOOPS.values(), ids=LOOPS)
def test_a_loop_and_a_thread_that_accept_on_one_socket_answer_each_connection_once(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def main() -> list[bytes]:
        loop, over = asyncio.get_running_loop(), threading.Event()
        listening = bound()
        stalled = StalledListener(listening, lambda: REFUSAL)

        async def of_the_loop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"loop")
            await writer.drain()
            writer.close()

        def answer() -> None:
            while not over.is_set():
                stalled.answer_next(0.01)

        server = await asyncio.start_server(of_the_loop, sock=listening)
        address = listening.getsockname()
        answered = loop.run_in_executor(None, answer)

        async def ask() -> bytes:
            reader, writer = await asyncio.open_connection(*address)
            writer.write(GET)
            found = await reader.read()
            writer.close()
            return found

        replies = [reply for _ in range(20) for reply in await asyncio.gather(*(ask() for _ in range(20)))]
        over.set()
        await answered
        server.close()
        await server.wait_closed()
        return replies

    with asyncio.Runner(loop_factory=new_loop) as runner:
        replies = runner.run(main())
    assert len(replies) == 400
    assert set(replies) == {b"loop", last_reply(REFUSAL, head_only=False)}, "both have accepted some"


def test_a_closed_socket_raises_nothing() -> None:
    listening = bound()
    stalled = StalledListener(listening, lambda: REFUSAL)
    listening.close()
    stalled.answer_next(0.01)
