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
from dataclasses import dataclass
from pathlib import Path

from starlette.types import ASGIApp

from gateway.access.persons_file import MIN_TOKEN_BYTES, persons_secret, replica_token
from gateway.access.proxies import Proxies
from gateway.access.site import Site
from gateway.access.tls import load_tls
from gateway.addresses import is_loopback_host
from gateway.admin import handler as administration
from gateway.admin.app import admin_app
from gateway.admin.handler import AdminHandler
from gateway.airlock.process import stop_trials
from gateway.core.decision import Reason, Refused
from gateway.core.errors import PolicyError, Problem
from gateway.deployment.deployment import Deployment
from gateway.grpc.server import SUFFIX, GrpcListener
from gateway.http.handler import HttpHandler
from gateway.http.replies import reply_unanswered
from gateway.listener.limits import OTHER_FILES, Limits, connection_capacity
from gateway.listener.messages import Reply
from gateway.listener.server import Server
from gateway.listener.stalled import StalledListener
from gateway.policy.serving import Serving
from gateway.private_files import make_private_folder
from gateway.serving.data_plane import DataPlane
from gateway.serving.ids import Ids
from gateway.serving.loop_watch import LoopWatch
from gateway.serving.replicas import PeerReplicas
from gateway.serving.repository import Repository
from gateway.serving.unix_path import unix_address

LAST_REPLY_S = 2.0
"""How long after the last deadline a client may take to read its reply, at the end of a replica."""
BACKLOG = 2048
STALLED, STALLED_RETRY_S = "this replica is blocked and can decide nothing now: try again", 1.0
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
        secure = secure and not is_loopback_host(self.admin_host)
        return f"http{'s' * secure}://{_host_and_port(self.admin_host, self.admin_port)}"

    def host_and_port(self, port: int) -> str:
        """Host and port of the data plane as in a URL."""
        return _host_and_port(self.host, port)


def _host_and_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Replica:
    """Gateways that listen. `start` returns when it accepts; `stop` when the last answer has left.

    Outside loopback the administration plane speaks TLS where the data plane does; on loopback, plain text.
    """

    def __init__(self, repository: Repository, address: ListenAddress, token: str) -> None:
        self.repository = repository
        own_token = replica_token(persons_secret(repository.state))
        peers = PeerReplicas(repository.run, repository.replica, own_token)
        settings = repository.settings
        refuse_public_bind(settings, address)
        self._plane, self._address = DataPlane(repository, peers), address
        self._tls = load_tls(settings)
        trusted = settings.policy.serving.trusted_proxies
        self._proxies = Proxies(trusted) if trusted else None
        self._capacity = connection_capacity(
            settings.policy.serving.max_connections, OTHER_FILES + administration.FILES
        )
        self._data = self._http_server(settings.policy.serving)
        self._data_socket = bind(address.host, address.port)
        context = None if self._tls is None else self._tls.context
        stalled = StalledListener(self._data_socket, self._refuse_stalled, context)
        self._watch, self._stalled_ids = LoopWatch(repository.stalls, stalled.answer_next), Ids()
        self._grpc: GrpcListener | None = None
        app = admin_app(repository, token)
        self._admins = [
            (self._admin_server(app), bind(address.admin_host, address.admin_port, administration.BACKLOG)),
            (self._replica_server(app), self._bind_replica_socket()),
        ]
        self._started = False

    def _bind_replica_socket(self) -> socket.socket:
        self._socket_path = self.repository.run / f"{self.repository.replica}.sock"
        return bind_unix(self._socket_path)

    async def start(self) -> None:
        """Listens and begins to answer on the running loop."""
        await self.repository.healthy()  # runs all code once, so that the first request is not slower
        freeze_loaded_objects()
        self._started = True
        self.repository.start()
        for server, own in self._admins:
            await server.start(own, administration.BACKLOG)
        # What was stopped since the files were read. `gateway stop` finds this replica by its socket, or has
        # written its file before that was there.
        await self.repository.switch.look()
        self._grpc = self._grpc_listener(self.repository.settings.policy.serving)
        await self._grpc.start(bind(self._address.host, self._address.grpc_port), BACKLOG)
        # Last: a client that finds it ready finds every port open.
        await self._data.start(self._data_socket, BACKLOG)
        self._watch.start()

    def _refuse_stalled(self) -> Reply:
        """The reply to one that connects while the event loop is blocked. Of the thread that watches it."""
        stamp = self._plane.stamp(self._stalled_ids.new())
        return reply_unanswered(Refused(Reason.UNAVAILABLE, STALLED_RETRY_S), stamp, error=STALLED)

    def _limits(self, serving: Serving) -> Limits:
        """Of each port of the data plane."""
        return Limits(
            connections=self._capacity,
            connections_per_address=max(1, self._capacity * 3 // 4),
            connections_per_caller=serving.max_connections_per_caller,
        )

    def _http_server(self, serving: Serving) -> Server:
        handler = HttpHandler(self._plane, self._site(self._address.host))
        context = None if self._tls is None else self._tls.context
        return Server(handler, self._limits(serving), self._proxies, context)

    def _site(self, bound: str, *, shared: bool = True) -> Site:
        """The hosts of a listener, and the origins that may use it if it is `shared` with web pages."""
        serving = self.repository.settings.policy.serving
        names = (*serving.hosts, *(self._tls.names if self._tls else ()))
        return Site(bound, names, serving.cors if shared else ())

    def _admin_server(self, app: ASGIApp) -> Server:
        """The listener of administration."""
        host = self._address.admin_host
        tls = None if is_loopback_host(host) or self._tls is None else self._tls.context
        handler = AdminHandler(app, self._site(host, shared=False), "http" if tls is None else "https")
        return Server(handler, administration.LIMITS, self._proxies, tls)

    def _replica_server(self, app: ASGIApp) -> Server:
        """The same for the other replicas of this machine."""
        return Server(AdminHandler(app, None, "http"), administration.UNIX_LIMITS)

    def _grpc_listener(self, serving: Serving) -> GrpcListener:
        """Made on the loop that serves, to which grpc binds it."""
        return GrpcListener(
            self._plane,
            self.repository.run / f"{self.repository.replica}{SUFFIX}",
            self._limits(serving),
            site=self._site(self._address.host),
            max_calls=2 * serving.max_in_flight,
            proxies=self._proxies,
            tls=self._tls,
        )

    @property
    def drain_s(self) -> float:
        """How long the policy in force lets load balancers notice that this replica is about to end."""
        return self.repository.settings.policy.serving.drain_s

    async def stop(self, drain_s: float = 0.0) -> None:
        """Ends in order, and returns when the last answer has left. Idempotent.

        For `drain_s` seconds it says that it is not ready, and still accepts and answers; each reply ends its
        connection. Then it stops accepting, tells those that wait for a reviewer where to ask later, finishes
        what is in flight, by the longest deadline, and writes buffered records.
        """
        stop_trials()  # a reload that is trying a model gives up
        if self._started:
            self._started = False
            self._plane.draining = True
            self._data.drain()
            await asyncio.sleep(drain_s)
            self._watch.stop()
            self.repository.end_waits()
            grace_s = self.repository.longest_deadline_s + LAST_REPLY_S
            stopping = [one.stop(grace_s) for one in (self._data, *(one for one, _ in self._admins))]
            if self._grpc is not None:
                stopping.append(self._grpc.stop(grace_s))
            await asyncio.gather(*stopping)
            self._plane.close()
            await self.repository.close()
        self._socket_path.unlink(missing_ok=True)


def bind(host: str, port: int, backlog: int = BACKLOG) -> socket.socket:
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
    listening.listen(backlog)
    listening.setblocking(False)
    return listening


def bind_unix(path: Path) -> socket.socket:
    """A unix socket for its owner alone, in a folder that is made if missing. Raises PolicyError."""
    own = socket.socket(socket.AF_UNIX)
    try:
        make_private_folder(path.parent)
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
    """Outside loopback there must be TLS, our own or that of a proxy. Raises PolicyError."""
    serving = deployment.policy.serving
    if serving.tls or serving.trusted_proxies:
        return
    for host in (address.host, address.admin_host):
        if not is_loopback_host(host):
            what = f"{host} is not loopback: name the files for TLS here"
            what += ", or in serving.trusted_proxies the proxies that end it"
            raise PolicyError([deployment.problem(("serving", "tls"), what)])


def shown_token() -> str:
    """What is printed of the administration token: one that this call makes, or where the one given is.

    A token from the environment is never printed: it may be read in logs. Raises as `admin_token`.
    """
    given = TOKEN_VARIABLE in os.environ
    token = admin_token()
    return f"that of {TOKEN_VARIABLE}" if given else token


def admin_token() -> str:
    """The administration token: from the environment, or a new one that later replicas inherit.

    Raises:  PolicyError for one that is too short to be secret, or that no client could send: empty, or with
             blanks, line ends or characters beyond ASCII.
    """
    token = os.environ.setdefault(TOKEN_VARIABLE, secrets.token_urlsafe(24))
    if not token:
        what = "is empty: set it to a secret text, or unset it and a random one is printed at start"
        raise PolicyError([Problem(TOKEN_VARIABLE, what)])
    if not (token.isascii() and token.isprintable()) or " " in token:
        what = "holds a blank, a line end or a character beyond ASCII, which no client can send as a token"
        raise PolicyError([Problem(TOKEN_VARIABLE, what)])
    if len(token) < MIN_TOKEN_BYTES:
        what = f"has {len(token)} characters and could be guessed: {MIN_TOKEN_BYTES} are the least; unset it"
        raise PolicyError([Problem(TOKEN_VARIABLE, f"{what} and a random one is printed at start")])
    return token
