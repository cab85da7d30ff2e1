"""One HTTP connection: every form of a reply that a server may send, whole or in pieces, is read alike."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import pytest
import uvloop

from bench.client import ClientConnection, Origin, Response, parse_plain_reply, send_once

T = TypeVar("T")
REQUEST = b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\n{}"
JUDGED = b"X-Failsafe-Outcome: served\r\nx-failsafe-reason:ok\r\nInference-Header-Content-Length: 3\r\n"
PLAIN = b"HTTP/1.1 200 OK\r\n" + JUDGED + b"Content-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\n" + JUDGED + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
)
CLOSING = PLAIN.replace(b"Content-Length: 5", b"Content-Length: 5\r\nConnection: Close")
OLD = PLAIN.replace(b"HTTP/1.1", b"HTTP/1.0")
UNFRAMED = b"HTTP/1.1 200 OK\r\n" + JUDGED + b"\r\nhello"
EXPECTED = Response(200, "served", "ok", b"hello", 3)


async def _ask(origin: Origin) -> Response:
    return await send_once(origin, REQUEST)


async def _stays_open(origin: Origin) -> bool:
    """Whether the connection may carry another request after the first answer."""
    connection, heard = ClientConnection(origin), _Recorder()
    connection.send(REQUEST, heard, 0.0, 0.0)
    await heard.answer
    stays = not connection.closed
    connection.close()
    return stays


class _Recorder:
    def __init__(self) -> None:
        self.answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()

    def answered(self, connection: ClientConnection, answer: Response) -> None:
        self.answer.set_result(answer)

    def failed(self, connection: ClientConnection, kind: str) -> None:
        raise AssertionError(kind)


def _response(pieces: Sequence[bytes], hang_up: bool = False) -> Response:
    """What a client makes of these pieces, sent one after the other."""
    return _sent(pieces, _ask, hang_up)


def _sent(pieces: Sequence[bytes], exchange: Callable[[Origin], Awaitable[T]], hang_up: bool = False) -> T:

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0.005)
        if not hang_up:
            await reader.read()
        writer.close()
        over.set()

    async def once() -> T:
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        async with server:
            origin = Origin("127.0.0.1", server.sockets[0].getsockname()[1], tls=False)
            async with asyncio.timeout(10):
                try:
                    return await exchange(origin)
                finally:
                    await over.wait()
                    await asyncio.sleep(0.01)  # uvloop closes in its next round

    over = asyncio.Event()
    return uvloop.run(once())


def test_a_plain_reply_in_one_read_needs_no_parser() -> None:
    assert parse_plain_reply(PLAIN) == EXPECTED


@pytest.mark.parametrize(
    "reply",
    [CHUNKED, CLOSING, OLD, UNFRAMED, PLAIN[:-1], PLAIN + b"x", PLAIN[:40], b"no HTTP at all\r\n\r\n"],
)
def test_no_other_reply_passes_for_a_plain_one(reply: bytes) -> None:
    assert parse_plain_reply(reply) is None


@pytest.mark.parametrize("reply", [PLAIN, CHUNKED, CLOSING, OLD])
@pytest.mark.parametrize("cuts", [(), (9,), (60, 61), (-3,)])
def test_every_form_of_a_reply_is_read_alike_in_any_pieces(reply: bytes, cuts: tuple[int, ...]) -> None:
    edges = [0, *(cut % len(reply) for cut in cuts), len(reply)]
    assert _response([reply[a:b] for a, b in itertools.pairwise(edges)]) == EXPECTED


@pytest.mark.parametrize(("reply", "stays"), [(PLAIN, True), (CHUNKED, True), (CLOSING, False), (OLD, False)])
@pytest.mark.parametrize("cuts", [(), (9,), (-5,)])
def test_a_connection_is_used_again_unless_the_reply_ends_it(
    reply: bytes, stays: bool, cuts: tuple[int, ...]
) -> None:
    """Else a server that sends head and body apart would pay for a new connection, and others would not."""
    edges = [0, *(cut % len(reply) for cut in cuts), len(reply)]
    assert _sent([reply[a:b] for a, b in itertools.pairwise(edges)], _stays_open) is stays


def test_a_reply_without_length_ends_with_its_connection() -> None:
    assert _response([UNFRAMED[:-2], UNFRAMED[-2:]], hang_up=True) == EXPECTED


@pytest.mark.parametrize(
    ("reply", "kind"),
    [(b"", "closed before"), (PLAIN[:-1], "closed before"), (b"no HTTP at all\r\n\r\n", "not HTTP")],
)
def test_half_a_reply_or_none_is_a_connection_error(reply: bytes, kind: str) -> None:
    with pytest.raises(ConnectionError, match=kind):
        _response([reply], hang_up=True)


def test_unsolicited_bytes_close_the_connection() -> None:
    """Else they would pass for the answer to the next request."""
    connection = ClientConnection(Origin("127.0.0.1", 1, tls=False))
    connection.data_received(PLAIN)
    assert connection.closed
