"""The process that serves: `python -m bench.faults.served FOLDER PORT GRPC_PORT ADMIN_PORT`.

It serves as `gateway serve --local` does. Commands are lines of JSON on its standard input, each answered by
a line on its standard output: `{"put": [PART, FAULT]}`, `{"heal": true}`, `{"records": true}` and
`{"clear": true}`, which empties the review store.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any, Final

import orjson

from bench.faults.inject import Injection
from bench.faults.process_faults import CLOCK
from bench.faults.review_faults import store_of
from gateway.local import serve_locally
from gateway.replica import ListenAddress, admin_token
from gateway.serving.repository import Repository

LINE_BYTES: Final = 2**20
CLEARED_AT_ONCE: Final = 200
_tasks: set[asyncio.Task[None]] = set()


def main(folder: Path, ports: list[int]) -> None:
    time.time = CLOCK
    port, grpc_port, admin_port = ports
    address = ListenAddress("127.0.0.1", port, grpc_port, admin_port)
    serve_locally([folder], None, address, admin_token(), _take_commands)


def _take_commands(repository: Repository) -> None:
    """Called once the gateway listens."""
    assert repository.only is not None
    injection = Injection(repository.only)
    _tasks.add(asyncio.get_running_loop().create_task(_obey(injection)))


async def _obey(injection: Injection) -> None:
    """Until the input ends."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(LINE_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print(orjson.dumps("ready").decode(), flush=True)
    while line := await reader.readline():
        done = await _carry_out(injection, orjson.loads(line))
        await asyncio.to_thread(print, orjson.dumps(done).decode(), flush=True)


async def _carry_out(injection: Injection, command: dict[str, Any]) -> Any:
    match command:
        case {"put": [str(part), str(fault)]}:
            await injection.put(part, fault)
        case {"heal": True}:
            await injection.heal()
        case {"records": True}:
            return injection.take_records()
        case {"clear": True}:
            await _clear(injection)
    return None


async def _clear(injection: Injection) -> None:
    """Takes every case out of the review store: those that other rows have joined once these are out."""
    store = store_of(injection.gateway)
    for _ in range(2):
        with store._reader.begin() as connection:
            found = connection.exec_driver_sql("SELECT id FROM members UNION ALL SELECT id FROM cases")
            ids = list(found.scalars())
        for at in range(0, len(ids), CLEARED_AT_ONCE):
            await store.withdraw(ids[at : at + CLEARED_AT_ONCE])


if __name__ == "__main__":
    main(Path(sys.argv[1]), list(map(int, sys.argv[2:])))
