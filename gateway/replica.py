"""One replica: the gateways of a process and their listeners, the same with Ray and without.

Each replica listens on the data and administration ports itself, with SO_REUSEPORT, so that the kernel
spreads connections over the replicas of a node: no proxy, no hop, no single point of failure. A unix socket
lets the replicas on a machine answer one scrape or one page together.

At shutdown it stops accepting, finishes the requests in flight, then exits.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import grpc
import uvicorn

from gateway.access.proxies import Proxies
from gateway.access.tls import Tls, load_tls
from gateway.admin.app import admin_app
from gateway.airlock.process import stop_trials
from gateway.core.errors import PolicyError, Problem
from gateway.deployment.deployment import Deployment
from gateway.grpc.server import GrpcHandler, grpc_server
from gateway.http.handler import HttpHandler
from gateway.listener.limits import Limits, connection_capacity
from gateway.listener.server import Server
from gateway.policy.serving import Serving
from gateway.serving.data_plane import DataPlane
from gateway.serving.replicas import PeerReplicas
from gateway.serving.repository import Repository
from gateway.serving.unix_path import unix_address

SHUTDOWN_GRACE_S = 5.0
BACKLOG = 2048
TOKEN_VARIABLE = "GATEWAY_ADMIN_TOKEN"  # noqa: S105 (the name of an environment variable)
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where to listen. admin_host: where the administration plane does."""

    host: str = "127.0.0.1"
    port: int = 8080
    grpc_port: int = 8081
    admin_port: int = 8082
    admin_host: str = "127.0.0.1"

    def url(self, *, secure: bool) -> str:
        """Where the data plane is reached; `secure`: whether over TLS."""
        return f"http{'s' * secure}://{self.host_and_port(self.port)}"

    def admin_url(self, *, secure: bool) -> str:
        """Where the administration plane is reached; secure: whether the process has files for TLS."""
        secure = secure and not _is_loopback(self.admin_host)
        return f"http{'s' * secure}://{_host_and_port(self.admin_host, self.admin_port)}"

    def host_and_port(self, port: int) -> str:
        """Host and port of the data plane as in a URL."""
        return _host_and_port(self.host, port)


def _host_and_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _AdminServer(uvicorn.Server):
    """Leaves signals to the process that runs the replica."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Replica:
    """Gateways that listen. `start` returns when it accepts; `stop` when the last answer has left.

    Outside loopback the administration plane speaks TLS where the data plane does; on loopback, plain text.
    """

    def __init__(self, repository: Repository, address: ListenAddress, token: str) -> None:
        self.repository = repository
        peers = PeerReplicas(repository.run, repository.replica, token)
        settings = repository.settings
        refuse_public_bind(settings, address)
        self._plane, self._address = DataPlane(repository, peers), address
        self._tls = load_tls(settings)
        trusted = settings.policy.serving.trusted_proxies
        self._proxies = Proxies(trusted) if trusted else None
        self._data = self._http_server(settings.policy.serving)
        self._data_socket = bind(address.host, address.port)
        self._grpc: grpc.aio.Server | None = None
        app = admin_app(repository, token)
        admin_tls = None if _is_loopback(address.admin_host) else self._tls
        self._admins = [
            (_admin_server(app, admin_tls), bind(address.admin_host, address.admin_port)),
            (_admin_server(app, None), self._bind_replica_socket()),
        ]
        self._admin_tasks: list[asyncio.Task[None]] = []

    def _bind_replica_socket(self) -> socket.socket:
        self._socket_path = self.repository.run / f"{self.repository.replica}.sock"
        return bind_unix(self._socket_path)

    async def start(self) -> None:
        """Listens and begins to answer on the running loop."""
        await self.repository.healthy()  # runs all code once, so that the first request is not slower
        freeze_loaded_objects()
        self.repository.start()
        self._admin_tasks = [asyncio.create_task(server.serve([own])) for server, own in self._admins]
        while not all(server.started for server, _ in self._admins):
            for task in self._admin_tasks:
                if task.done():
                    task.result()
                    raise RuntimeError("a listener ended before it started")
            await asyncio.sleep(0.005)
        self._grpc = self._grpc_server(self.repository.settings.policy.serving)
        await self._grpc.start()
        # Last: a client that finds it ready finds every port open.
        await self._data.start(self._data_socket, BACKLOG)

    def _http_server(self, serving: Serving) -> Server:
        limits = Limits(
            connections=serving.max_connections, connections_per_caller=serving.max_connections_per_caller
        )
        context = None if self._tls is None else self._tls.context
        return Server(HttpHandler(self._plane), limits, self._proxies, context)

    def _grpc_server(self, serving: Serving) -> grpc.aio.Server:
        """Made on the loop that serves, to which grpc binds it. Raises PolicyError naming the address."""
        address = self._address.host_and_port(self._address.grpc_port)
        handler = GrpcHandler(self._plane, self._proxies)
        capacity = connection_capacity(serving.max_connections)
        try:
            return grpc_server(handler, address, capacity, 2 * serving.max_in_flight, self._tls)
        except RuntimeError as error:
            raise PolicyError([Problem("", f"cannot listen on {address}: {error}")]) from error

    async def stop(self) -> None:
        """Stops accepting, finishes requests in flight, writes buffered records. Idempotent."""
        stop_trials()  # a reload that is trying a model gives up
        for server, _ in self._admins:
            server.should_exit = True
        if self._grpc is not None:
            await asyncio.gather(self._grpc.stop(SHUTDOWN_GRACE_S), self._data.stop(SHUTDOWN_GRACE_S))
        if self._admin_tasks:
            await asyncio.gather(*self._admin_tasks, return_exceptions=True)
            await self.repository.close()
        self._admin_tasks = []
        self._socket_path.unlink(missing_ok=True)


def _admin_server(app: object, tls: Tls | None) -> _AdminServer:
    config = uvicorn.Config(
        app,  # type: ignore[arg-type]
        http="httptools",
        loop="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=int(SHUTDOWN_GRACE_S),
    )
    config.load()
    config.ssl = None if tls is None else tls.context
    return _AdminServer(config)


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


def bind_unix(path: Path) -> socket.socket:
    """A unix socket for its owner alone, in a folder that is made if missing. Raises PolicyError."""
    own = socket.socket(socket.AF_UNIX)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with unix_address(path) as address:
            own.bind(address)
        path.chmod(0o600)
    except OSError as error:
        own.close()
        what = f"cannot be made: {error.strerror or error}; a running gateway writes to this folder"
        raise PolicyError([Problem("", what, str(path))]) from error
    return own


def freeze_loaded_objects() -> None:
    """Excludes modules, models and policy from garbage collection, and makes it less frequent.

    They have about 300,000 objects, whose collection every few hundred requests took a fifth of the gateway's
    time (bench/README.md). Requests create almost no reference cycles, so memory does not grow.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def refuse_used_ports(address: ListenAddress) -> None:
    """SO_REUSEPORT would let two listeners share a port unnoticed. Raises PolicyError naming the port."""
    ports = [address.port, address.grpc_port, address.admin_port]
    if repeated := sorted({port for port in ports if ports.count(port) > 1}):
        what = f"port {repeated[0]} is given twice: HTTP, gRPC and administration need one each"
        raise PolicyError([Problem("", what)])
    data = [(address.host, port) for port in (address.port, address.grpc_port)]
    for host, port in (*data, (address.admin_host, address.admin_port)):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                raise PolicyError(
                    [Problem("", f"cannot listen on {host}:{port}: {error.strerror}")]
                ) from error


def refuse_public_bind(deployment: Deployment, address: ListenAddress) -> None:
    """Outside loopback there must be TLS, our own or that of a proxy. Raises PolicyError.

    Of names only `localhost` counts as loopback, since a resolver decides about others.
    """
    serving = deployment.policy.serving
    if serving.tls or serving.trusted_proxies:
        return
    for host in (address.host, address.admin_host):
        if not _is_loopback(host):
            what = f"{host} is not loopback: name the files for TLS here"
            what += ", or in serving.trusted_proxies the proxies that end it"
            raise PolicyError([deployment.problem(("serving", "tls"), what)])


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def admin_token() -> str:
    """The administration token: from the environment, or a new one that later replicas inherit.

    Raises:  PolicyError for one that no client could send: empty, or with blanks, line ends or beyond ASCII.
    """
    token = os.environ.setdefault(TOKEN_VARIABLE, secrets.token_urlsafe(24))
    if not token:
        what = "is empty: set it to a secret text, or unset it and a random one is printed at start"
        raise PolicyError([Problem(TOKEN_VARIABLE, what)])
    if not (token.isascii() and token.isprintable()) or " " in token:
        what = "holds a blank, a line end or a character beyond ASCII, which no client can send as a token"
        raise PolicyError([Problem(TOKEN_VARIABLE, what)])
    return token
