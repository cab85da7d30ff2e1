"""The callers of `bench.parse_load`: a steady one with small rows, and four connections with a worst body.

`python -m bench.parse_callers` is the latter, in a process of its own.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import sys
import time
from collections import Counter
from dataclasses import dataclass

import grpc
import numpy as np

from bench.parse_bodies import WorstBody

CONNECTIONS = 4
METHOD = "/inference.GRPCInferenceService/ModelInfer"


@dataclass(frozen=True, slots=True)
class Address:
    """Where the gateway listens, on loopback."""

    port: int
    grpc_port: int


@dataclass(frozen=True, slots=True)
class Attack:
    """What the four connections send, with which key, and for how long."""

    address: Address
    worst: WorstBody
    key: str
    seconds: float


class HttpConnection:
    """One connection of HTTP/1.1 that sends the same request again and again."""

    def __init__(self, port: int, model: str, body: bytes, headers: dict[str, str]) -> None:
        lines = [f"POST /v2/models/{model}/infer HTTP/1.1", "host: 127.0.0.1", f"content-length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self._port, self._request = port, "\r\n".join([*lines, "", ""]).encode() + body
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self) -> int:
        """The status of one more request."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(self._request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0])
        await reader.readexactly(length)
        if b"connection: close" in head:
            writer.close()
            self._streams = None
        return int(head[9:12])


async def closed_loop(connections: list[HttpConnection], seconds: float) -> float:
    """Requests a second that the gateway answers on these connections."""
    until_s, done = time.monotonic() + seconds, 0

    async def repeat(one: HttpConnection) -> None:
        nonlocal done
        while time.monotonic() < until_s:
            done += await one.send() == 200

    await asyncio.gather(*map(repeat, connections))
    return done / seconds


async def steady(connections: list[HttpConnection], per_s: float, seconds: float) -> list[float]:
    """Seconds that each request took from the moment at which it was due: an open loop."""
    took_s: list[float] = []
    free: asyncio.Queue[HttpConnection] = asyncio.Queue()
    for one in connections:
        free.put_nowait(one)

    async def ask(due_s: float) -> None:
        one = await free.get()
        if await one.send() != 200:
            took_s.append(float("inf"))
        took_s.append(time.perf_counter() - due_s)
        free.put_nowait(one)

    begun_s = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for i in range(int(per_s * seconds)):
            due_s = begun_s + i / per_s
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            group.create_task(ask(due_s))
    return took_s


def percentiles_ms(took_s: list[float]) -> tuple[float, float]:
    """The median and the 99th percentile, in milliseconds."""
    p50, p99 = np.percentile(took_s, [50, 99]) * 1e3
    return float(p50), float(p99)


async def attack(one: Attack) -> Counter[str]:
    """How the requests of four connections ended."""
    ends: Counter[str] = Counter()
    until_s = time.monotonic() + one.seconds

    async def over_http() -> None:
        headers = dict(one.worst.headers) | {"x-api-key": one.key}
        connection = HttpConnection(one.address.port, one.worst.model, one.worst.body, headers)
        while time.monotonic() < until_s:
            ends[str(await connection.send())] += 1

    async def over_grpc() -> None:
        own = [("grpc.use_local_subchannel_pool", 1)]
        target = f"127.0.0.1:{one.address.grpc_port}"
        async with grpc.aio.insecure_channel(target, own, compression=grpc.Compression.Gzip) as channel:
            call = channel.unary_unary(METHOD)
            while time.monotonic() < until_s:
                try:
                    await call(one.worst.body, metadata=(("x-api-key", one.key),))
                    ends["OK"] += 1
                except grpc.aio.AioRpcError as error:
                    ends[error.code().name] += 1

    await asyncio.gather(*((over_grpc if one.worst.grpc else over_http)() for _ in range(CONNECTIONS)))
    return ends


if __name__ == "__main__":
    os.nice(10)  # as if it ran on another machine
    sent = pickle.load(sys.stdin.buffer)  # noqa: S301 (from `bench.parse_load`)
    print(dict(asyncio.run(attack(sent))))
