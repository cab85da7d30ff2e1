"""One replica: a gateway and its listeners, the same with Ray and without.

Each replica listens on the data and administration ports itself, with SO_REUSEPORT, so that the kernel
spreads connections over the replicas of a node: no proxy, no hop, no single point of failure. A unix socket
beside them lets the replicas of a deployment answer one scrape or one page together.

At shutdown it stops accepting, finishes what is in flight, and only then goes.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import secrets
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import uvicorn

from gateway.admin import admin_app
from gateway.errors import PolicyError, Problem
from gateway.gateway import VAR, Gateway
from gateway.http import DataPlane
from gateway.policy import Policy, locate
from gateway.siblings import Siblings

GRACE_S = 5.0
BACKLOG = 2048
TOKEN = "GATEWAY_ADMIN_TOKEN"  # noqa: S105 (the name of an environment variable)
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen."""

    host: str = "127.0.0.1"
    port: int = 8080
    admin_port: int = 8082


class _Server(uvicorn.Server):
    """Leaves signals to whoever runs the replica."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Replica:
    """A gateway that listens. `start` returns when it accepts; `stop` when the last answer has left."""

    def __init__(self, gateway: Gateway, address: Address, token: str) -> None:
        self.gateway = gateway
        siblings = Siblings(gateway.folder / VAR / "run", gateway.replica, token)
        self._servers = [
            (
                _server(DataPlane(gateway, siblings), gateway.loaded.policy),
                [bind(address.host, address.port)],
            ),
            (
                _server(admin_app(gateway, token), None),
                [bind("127.0.0.1", address.admin_port), self._sibling()],
            ),
        ]
        self._tasks: list[asyncio.Task[None]] = []

    def _sibling(self) -> socket.socket:
        folder = self.gateway.folder / VAR / "run"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._socket_path = folder / f"{self.gateway.replica}.sock"
        own = socket.socket(socket.AF_UNIX)
        own.bind(str(self._socket_path))
        self._socket_path.chmod(0o600)
        return own

    async def start(self) -> None:
        """Listens and begins to answer on the running loop."""
        await self.gateway.healthy()  # so that the first caller does not pay for what runs for the first time
        leave_alone_what_is_loaded()
        self.gateway.start()
        self._tasks = [asyncio.create_task(server.serve(sockets)) for server, sockets in self._servers]
        while not all(server.started for server, _ in self._servers):
            for task in self._tasks:
                if task.done():
                    task.result()
                    raise RuntimeError("a listener ended before it started")
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        """Stops accepting, finishes what is in flight, writes what was recorded. Idempotent."""
        for server, _ in self._servers:
            server.should_exit = True
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._tasks:
            await self.gateway.close()
        self._tasks = []
        self._socket_path.unlink(missing_ok=True)


def _server(app: object, policy: Policy | None) -> _Server:
    proxies: Sequence[str] = policy.serving.trusted_proxies if policy else ()
    return _Server(
        uvicorn.Config(
            app,  # type: ignore[arg-type]
            http="httptools",
            loop="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            date_header=False,
            proxy_headers=bool(proxies),
            forwarded_allow_ips=list(proxies),
            backlog=BACKLOG,
            timeout_graceful_shutdown=int(GRACE_S),
        )
    )


def bind(host: str, port: int) -> socket.socket:
    """A listening socket that other replicas may share. Raises PolicyError naming the address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise PolicyError([Problem("", f"cannot listen on {host}:{port}: {error.strerror}")]) from error
    listening.listen(BACKLOG)
    listening.setblocking(False)
    return listening


def leave_alone_what_is_loaded() -> None:
    """Tells the garbage collector that modules, models and policy stay, and to look at the rest less often.

    They hold some 300,000 objects, which it would walk through every few hundred requests: a fifth of the
    gateway's time (bench/README.md). Requests make next to no cycles, so memory does not grow.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def refuse_used_ports(address: Address) -> None:
    """SO_REUSEPORT would let two deployments share a port unnoticed. Raises PolicyError naming the port."""
    for host, port in ((address.host, address.port), ("127.0.0.1", address.admin_port)):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                raise PolicyError(
                    [Problem("", f"cannot listen on {host}:{port}: {error.strerror}")]
                ) from error


def refuse_public_bind(folder: Path, policy: Policy, address: Address) -> None:
    """Outside loopback there must be a proxy that ends TLS. Raises PolicyError."""
    if address.host == "localhost" or ip_address(address.host).is_loopback or policy.serving.trusted_proxies:
        return
    what = f"{address.host} is not loopback: name the proxies that end TLS in serving.trusted_proxies"
    raise PolicyError([locate(folder, ("serving", "trusted_proxies"), what)])


def admin_token() -> str:
    """The administration token: from the environment, or a new one that later replicas inherit."""
    return os.environ.setdefault(TOKEN, secrets.token_urlsafe(24))
