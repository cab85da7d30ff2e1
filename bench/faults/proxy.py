"""A TCP proxy in front of one server whose way of forwarding can be changed while it runs.

| mode | a new connection, and one that is open |
|---|---|
| pass | is forwarded |
| down | is refused: nothing listens; open ones are reset |
| black hole | is accepted, and nothing is forwarded or answered |
| reset | is reset as soon as something was sent |
| half-close | gets the end of the stream instead of an answer, and stays open for sending |
| slow drip | gets a byte of the answer every 50 ms |
| garbage | gets bytes that are no HTTP |
| delay | gets its answer 2 s later |
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Final, Literal, get_args

Mode = Literal["pass", "down", "black hole", "reset", "half-close", "slow drip", "garbage", "delay"]
MODES: Final[tuple[Mode, ...]] = get_args(Mode)
PART_BYTES: Final = 65_536
DRIP_S: Final = 0.05
DELAY_S: Final = 2.0
GARBAGE: Final = bytes(range(256)) * 4
LINGER_NOT: Final = struct.pack("ii", 1, 0)
"""Closes a socket by a reset."""


class FaultProxy:
    """Listens on a port of loopback from `start` to `close`. mode: set it by `use`."""

    def __init__(self, host: str, port: int) -> None:
        """host, port: of the server behind."""
        self.behind = host, port
        self._listening: asyncio.Server | None = None
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self.mode: Mode = "pass"
        self.port = 0

    async def start(self) -> None:
        self._listening = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = int(self._listening.sockets[0].getsockname()[1])

    async def use(self, mode: Mode) -> None:
        """From now on forwards in this mode. Every open connection is reset, so that none has another."""
        self.mode = mode
        await self._reset_all()
        if mode == "down" and self._listening is not None:
            self._listening.close()
            self._listening = None
        elif mode != "down" and self._listening is None:
            await self.start()

    async def close(self) -> None:
        """Ends every connection, and listens no more."""
        await self.use("down")

    async def _reset_all(self) -> None:
        tasks = list(self._open)
        for task, writer in list(self._open.items()):
            _reset(writer)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = writer
        try:
            await self._forward(reader, writer)
        except (OSError, asyncio.CancelledError):  # its end is no error of the proxy
            pass
        finally:
            del self._open[task]
            writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mode = self.mode
        if mode in ("black hole", "reset", "half-close", "garbage"):
            while await reader.read(PART_BYTES):
                if mode == "reset":
                    return _reset(writer)
                if mode == "half-close":
                    writer.write_eof()
                elif mode == "garbage":
                    writer.write(GARBAGE)
            return None
        far_reader, far_writer = await asyncio.open_connection(*self.behind)
        there = asyncio.create_task(_copy(reader, far_writer))
        try:
            return await self._answer(mode, far_reader, writer)
        finally:
            there.cancel()
            far_writer.transport.abort()

    async def _answer(self, mode: Mode, far: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while part := await far.read(PART_BYTES):
            if mode == "slow drip":
                for at in range(len(part)):
                    writer.write(part[at : at + 1])
                    await writer.drain()
                    await asyncio.sleep(DRIP_S)
                continue
            if mode == "delay":
                await asyncio.sleep(DELAY_S)
            writer.write(part)
            await writer.drain()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while part := await reader.read(PART_BYTES):
        writer.write(part)
        await writer.drain()
    writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    own = writer.get_extra_info("socket")
    if own is not None and own.fileno() >= 0:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
    writer.transport.abort()
