"""The proxy does to a connection what each mode says, and can be changed while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bench.faults.proxy import GARBAGE, FaultProxy, Mode

ANSWER = b"answer"


@asynccontextmanager
async def proxied() -> AsyncIterator[FaultProxy]:
    """In front of a server that answers whatever it gets."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(100):
            writer.write(ANSWER)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    proxy = FaultProxy("127.0.0.1", server.sockets[0].getsockname()[1])
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.close()
        server.close()


async def ask(proxy: FaultProxy, within_s: float = 30.0) -> bytes:
    """The first bytes of the answer to one question; empty for the end of the stream."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        writer.write(b"question")
        async with asyncio.timeout(within_s):
            return await reader.read(2000)
    finally:
        writer.transport.abort()


@pytest.mark.parametrize(
    ("mode", "answer"),
    [("pass", ANSWER), ("half-close", b""), ("garbage", GARBAGE), ("slow drip", ANSWER[:1])],
)
def test_answers_in_mode(mode: Mode, answer: bytes) -> None:
    async def main() -> bytes:
        async with proxied() as proxy:
            await proxy.use(mode)
            return await ask(proxy)

    assert asyncio.run(main()) == answer


@pytest.mark.parametrize("mode", ["black hole", "delay"])
def test_keeps_a_client_waiting_in_mode(mode: Mode) -> None:
    async def main() -> None:
        async with proxied() as proxy:
            await proxy.use(mode)
            await ask(proxy, 0.2)

    with pytest.raises(TimeoutError):
        asyncio.run(main())


@pytest.mark.parametrize(
    ("mode", "error"), [("reset", ConnectionResetError), ("down", ConnectionRefusedError)]
)
def test_ends_a_connection_in_mode(mode: Mode, error: type[Exception]) -> None:
    async def main() -> None:
        async with proxied() as proxy:
            await proxy.use(mode)
            await ask(proxy)

    with pytest.raises(error):
        asyncio.run(main())


def test_a_change_of_mode_ends_open_connections_and_keeps_the_port() -> None:
    async def main() -> None:
        async with proxied() as proxy:
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            writer.write(b"question")
            assert await reader.read(100) == ANSWER
            port = proxy.port
            await proxy.use("down")
            with pytest.raises(ConnectionResetError):
                await reader.read(100)
            await proxy.use("pass")
            assert proxy.port == port
            assert await ask(proxy) == ANSWER
            writer.close()

    asyncio.run(main())
