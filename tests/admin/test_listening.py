"""Where the administration plane listens, and when it speaks TLS."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from gateway.replica import ListenAddress, Replica
from gateway.serving.repository import Repository
from tests.support.admin_world import BEARER, TOKEN, rewrite
from tests.support.certificates import certificate, trusting
from tests.support.deployments import letters, run
from tests.support.served import free_port


@asynccontextmanager
async def replica_of(folder: Path, admin_host: str) -> AsyncIterator[tuple[Replica, int]]:
    """A replica that listens, and the port of its administration."""
    address = ListenAddress("127.0.0.1", free_port(), free_port(), free_port(), admin_host)
    replica = Replica(Repository.open([folder]), address, TOKEN)
    await replica.start()
    try:
        yield replica, address.admin_port
    finally:
        await replica.stop()


async def status_over(scheme: str, port: int, trusted: ssl.SSLContext | bool = True) -> int:
    async with httpx.AsyncClient(verify=trusted, headers=BEARER) as client:
        return (await client.get(f"{scheme}://127.0.0.1:{port}/status")).status_code


def with_tls(tmp_path: Path) -> tuple[Path, Path]:
    """A deployment with TLS, and its certificate."""
    folder = letters(tmp_path)
    pem, key = certificate(folder / "tls")
    files = f"tls: {{certificate: tls/{pem.name}, key: tls/{key.name}}}"
    rewrite(folder, "serving: {anonymous: loopback", f"serving: {{anonymous: loopback, {files}")
    return folder, pem


def test_outside_loopback_it_speaks_tls_with_the_files_of_the_data_plane(tmp_path: Path) -> None:
    folder, pem = with_tls(tmp_path)

    async def main() -> None:
        async with replica_of(folder, "0.0.0.0") as (replica, port):
            assert await status_over("https", port, trusting(pem)) == 200
            with pytest.raises(httpx.TransportError):
                await status_over("http", port)
            peers = replica._plane.peers
            socket = replica.repository.run / f"{replica.repository.replica}.sock"
            reply = await peers._ask(socket, "GET", "/metrics", 5)
            assert reply is not None and reply.ok, "replicas reach each other over plain unix sockets"

    run(main)


def test_on_loopback_it_speaks_plain_text_with_or_without_tls_of_the_data_plane(tmp_path: Path) -> None:
    folder, _ = with_tls(tmp_path)

    async def main() -> None:
        async with replica_of(folder, "127.0.0.1") as (_, port):
            assert await status_over("http", port) == 200

    run(main)
