"""Where the administration plane listens, when it speaks TLS, and that its limits are those of a listener."""

from __future__ import annotations

import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest

from gateway.access.site import Site
from gateway.admin import handler as administration
from gateway.admin.handler import AdminHandler
from gateway.admin.require_login import MAX_BODY_BYTES
from gateway.listener.limits import Limits
from gateway.replica import ListenAddress, Replica
from gateway.serving.repository import Repository
from tests.support.admin_world import BEARER, TOKEN, admin_world, deployment, rewrite
from tests.support.certificates import certificate, trusting
from tests.support.deployments import letters, run
from tests.support.raw_http import RawConnection, RunningListener, get, listening, post
from tests.support.served import copy_of, free_port, serving


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


# ---------------------------------------------------------------- as the listener serves it


@asynccontextmanager
async def letters_admin(
    tmp_path: Path, limits: Limits = administration.LIMITS
) -> AsyncIterator[RunningListener]:
    """The administration of one deployment on a listener."""
    async with admin_world(deployment(tmp_path)) as one:
        handler = AdminHandler(one.app, Site("127.0.0.1"), "http")
        async with listening(handler, limits) as listener:
            yield listener


BEARER_LINE = f"Authorization: Bearer {TOKEN}"


async def asked(
    listener: RunningListener, *parts: str | bytes, head_only: bool = False
) -> tuple[int, RawConnection]:
    connection = await listener.connect()
    await connection.send(*parts)
    return (await connection.head())[0], connection


def test_it_refuses_foreign_hosts_and_pages_of_other_sites(tmp_path: Path) -> None:
    async def main() -> None:
        async with letters_admin(tmp_path) as listener:
            for host, lines, status in (
                ("127.0.0.1:8082", [BEARER_LINE], 200),
                ("localhost:9999", [BEARER_LINE], 200),
                ("localhost", [BEARER_LINE, "Sec-Fetch-Site: none"], 200),
                ("rebind.evil.example", [BEARER_LINE], 421),
                ("rebind.evil.example", [], 421),
                ("localhost", [BEARER_LINE, "Sec-Fetch-Site: cross-site"], 403),
                ("localhost", [BEARER_LINE, "Origin: https://evil.example"], 403),
                ("localhost:8082", [BEARER_LINE, "Origin: http://localhost:8080"], 403),
            ):
                for path in ("/status", "/login", "/pages/style.css"):
                    head = [f"GET {path} HTTP/1.1", f"Host: {host}", *lines]
                    got, _ = await asked(listener, "".join(f"{line}\r\n" for line in head) + "\r\n")
                    assert got == status
            assert (await asked(listener, f"GET /status HTTP/1.1\r\n{BEARER_LINE}\r\n\r\n"))[0] == 400

    run(main)


@pytest.mark.parametrize(
    "path", ["/status", "/login", "/metrics", "/policy", "/nowhere", "/pages/style.css", "/"]
)
def test_head_is_answered_as_get_without_the_body_and_the_connection_kept(tmp_path: Path, path: str) -> None:
    async def main() -> None:
        async with letters_admin(tmp_path) as listener:
            connection = await listener.connect()
            sent = get(path, BEARER_LINE, "Accept: application/json")
            await connection.send(sent)
            status, headers = await connection.head()
            body = await connection.reader.readexactly(int(headers["content-length"]))
            await connection.send(sent.replace("GET", "HEAD"))
            head_status, head_headers = await connection.head()
            assert (head_status, head_headers.keys()) == (status, headers.keys())
            if path not in ("/status", "/metrics"):  # which tell the time
                assert int(head_headers["content-length"]) == len(body)
            await connection.send(get("/policy", BEARER_LINE))
            assert (await connection.head())[0] == 200

    run(main)


def test_paths_queries_and_bodies_arrive_as_they_were_sent(tmp_path: Path) -> None:
    async def main() -> None:
        async with letters_admin(tmp_path) as listener:
            form = f"token={quote(TOKEN)}&next=/policy".encode()
            kind = "Content-Type: application/x-www-form-urlencoded"
            connection = await listener.connect()
            await connection.send(post("/login", form, kind))
            status, headers = await connection.head()
            assert (status, headers["location"].endswith("/policy")) == (303, True)
            await connection.send(get("/status?format=json", BEARER_LINE, "Accept: text/html"))
            assert (await connection.head())[1]["content-type"] == "application/json"
            got, _ = await asked(
                listener, get("/models/a%2Fb/status", BEARER_LINE, "Accept: application/json")
            )
            assert got == 404
            got, _ = await asked(listener, get("http://localhost/policy?x=1", BEARER_LINE))
            assert got == 200

    run(main)


def test_a_body_that_is_too_large_or_too_slow_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with letters_admin(
            tmp_path, replace(administration.LIMITS, body_s=0.2, sweep_s=0.02)
        ) as listener:
            got, _ = await asked(listener, post("/login", b"x" * (MAX_BODY_BYTES + 1)))
            assert got == 413
            got, _ = await asked(listener, post("/login", b"token=")[:-2])
            assert got == 408

    run(main)


CROWD = administration.LIMITS.connections + administration.LIMITS.spare_connections


@pytest.mark.parametrize("sent", ["", "GET /status HT", post("/login", b"x" * 100)[:-50].decode()])
def test_connections_that_send_nothing_or_half_a_request_keep_no_operator_out(
    tmp_path: Path, sent: str
) -> None:
    async def main() -> None:
        async with letters_admin(tmp_path, replace(administration.LIMITS, sweep_s=0.05)) as listener:
            for _ in range(3 * CROWD):
                connection = await listener.connect()
                await connection.send(sent)
            assert len(listener.server.connections) <= CROWD
            got, _ = await asked(listener, get("/status", BEARER_LINE))
            assert got == 200

    run(main)


def test_idle_connections_to_administration_take_no_files_that_the_data_plane_needs(tmp_path: Path) -> None:
    """With as many as the soft limit of files allows, and many more connections to the administration."""
    folder = copy_of("letters", tmp_path)
    rows = np.load(folder / "samples.npz")["attributes"][:1]
    with few_files(1024), serving(folder, "--local") as served:
        admin = (served.admin.base_url.host, served.admin.base_url.port or 0)
        crowd = [socket.create_connection(admin, timeout=5) for _ in range(1500)]
        files = len(list(Path(f"/proc/{served.process.pid}/fd").iterdir()))
        assert files < 1024 - 500
        for _ in range(5):
            with httpx.Client(base_url=served.data.base_url, timeout=10) as fresh:
                assert fresh.get("/v2/health/ready").status_code == 200
            assert served.ask(rows).status_code in (200, 422)
        assert served.admin.get("/status").status_code == 200
        for one in crowd:
            one.close()


@contextmanager
def few_files(hard: int) -> Iterator[None]:
    """Processes that are started meanwhile may have so many open files, and cannot raise that."""
    with pytest.MonkeyPatch.context() as patch:
        start = subprocess.Popen

        def limited(command: list[str], **options: Any) -> subprocess.Popen[str]:
            return start(["prlimit", f"--nofile={hard}:{hard}", *command], **options)

        patch.setattr("tests.support.served.subprocess.Popen", limited)
        yield
