"""Ray Serve: placement, supervision, restart and scaling of replicas. The only importer of ray.

A replica is a Serve deployment whose one job is to run a `Replica` on its own event loop: it listens by
itself, and Serve's proxies are off. Ray restarts it when it exits or its canary row is not decided in time.

    serve run gateway.app:build folder=configs/fashion,configs/letters      # with Serve's own tools

This module must not postpone the evaluation of annotations: Serve reads the builder's at run time.
"""

import asyncio
import contextlib
import io
import logging
import os
import secrets
import signal
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

from gateway.addresses import is_loopback
from gateway.core.errors import Problems
from gateway.deployment.deployment import Deployment
from gateway.replica import ListenAddress, Replica, admin_token
from gateway.serving.agreement import read_deployment
from gateway.serving.expected_policy import expect
from gateway.serving.folders import deployment_folders, state_folder
from gateway.serving.lease import keep_lease
from gateway.serving.linked_folder import LinkedFolder
from gateway.serving.repository import Repository
from gateway.stop_signals import STOP_SIGNALS, raise_at_stop_signals, raise_if_stopped

if "ray" not in sys.modules:
    # Ray reads these when it is imported: only clients with the token, a secret of this cluster alone, may
    # use it, and usage is not reported. Under `serve run` Ray is imported first, and its operator's settings
    # apply.
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_urlsafe(32)
    # Else Ray replaces 127.0.0.1 by an address that others reach, and its processes listen on all interfaces.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Else replicas run at niceness 15, and every other process of the machine goes before their requests.
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from pydantic import BaseModel
from ray import serve

APP = "failsafe-gateway"
SESSIONS = "ray"
CONTROLLER, CONTROLLER_NAMESPACE = "SERVE_CONTROLLER_ACTOR", "serve"
"""Serve's controller, as `ray list actors` names it."""
HEALTH_EVERY_S, HEALTH_TIMEOUT_S = 2.0, 10.0
CLOSE_EVERY_S = 2.0
CLOSE_S = 15.0
"""The end of a replica beside draining and the last requests: clients that read slowly, telemetry."""
OBJECT_STORE_BYTES = 80 * 2**20
log = logging.getLogger(__name__)


class Options(BaseModel):
    """What `serve run gateway.app:build NAME=VALUE ...` takes; values arrive as text.

    folder: of a deployment, or of several: with commas between them, or one that has them as subfolders.
    state_dir: for what the replicas write, as of `gateway serve`.
    """

    folder: str
    state_dir: str = ""
    host: str = "127.0.0.1"
    port: int = 8080
    grpc_port: int = 8081
    admin_port: int = 8082
    admin_host: str = "127.0.0.1"
    replicas: int = 1


class GatewayReplica:
    """One replica under Ray's supervision."""

    def __init__(
        self, folders: list[str], state_dir: str, address: dict[str, Any], token: str, replicas: int
    ) -> None:
        if is_loopback(ray.util.get_node_ip_address()):  # type: ignore[no-untyped-call]
            _bind_calls_between_deployments_to_loopback()
        state = Path(state_dir) if state_dir else None
        repository = Repository.open([Path(one) for one in folders], state, replicas)
        self._replica = Replica(repository, ListenAddress(**address), token)
        self._started: asyncio.Task[None] | None = None
        self._lease: asyncio.Task[None] | None = None
        self._controller: Any = None

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Starts listening the first time; later a new `user_config` reads the folders again.

        Its `generation` is any number that differs from the last one; `policy` names what is expected to be
        in force then (`expected_policy.py`). Must not raise: what cannot be loaded leaves the old policy
        in force.
        """
        if self._started is None:
            self._started = asyncio.create_task(self._replica.start())
            await self._started
            self._lease = asyncio.create_task(self._keep_lease())
        else:
            await self._load_all(user_config)
        for what in expect(self._replica.repository, user_config):
            log.error("user_config of generation %s: %s", user_config.get("generation"), what)

    async def _load_all(self, user_config: dict[str, Any]) -> None:
        for name, done in (await self._replica.repository.load_all()).items():
            if isinstance(done, Problems):
                what = "reload of %s to generation %s failed; the old policy stays: %s"
                log.error(what, name, user_config.get("generation"), done)

    async def _keep_lease(self) -> None:
        """Stops the replica while Serve's controller does not answer it, if the policy says so."""
        repository = self._replica.repository

        def length_s() -> float:
            return repository.settings.policy.serving.controller_lease_s

        await keep_lease(self._ask_controller, length_s, repository.switch.hold)

    async def _ask_controller(self) -> None:
        """Returns once Serve's controller has answered. It is looked up when it is first asked."""
        if self._controller is None:
            find = partial(ray.get_actor, CONTROLLER, namespace=CONTROLLER_NAMESPACE)
            self._controller = await asyncio.to_thread(find)
        await self._controller.check_alive.remote()

    async def check_health(self) -> None:
        """Raises unless each ready gateway decides a canary row in time; Ray then replaces the replica."""
        if not await self._replica.repository.healthy():
            raise RuntimeError("the canary row was not decided in time")

    async def __call__(self) -> str:
        """The tags of the policies in force, for handles."""
        return ",".join(one.loaded.tag for one in self._replica.repository.gateways.values())

    async def __del__(self) -> None:
        """Serve's graceful shutdown; also of a replica that failed to start."""
        if (lease := getattr(self, "_lease", None)) is not None:
            lease.cancel()
        if hasattr(self, "_replica"):
            await self._replica.stop(self._replica.drain_s)


def _bind_calls_between_deployments_to_loopback() -> None:
    """Serve makes every replica listen on `[::]` for other deployments' calls, of which there are none here.

    No setting changes that in Ray 2.60. The replica looks the function up after its callable is made.
    """
    import ray.serve._private.replica as serve_replica

    add_port = serve_replica.add_port_to_grpc_server  # type: ignore[attr-defined]

    def add_port_on_loopback(server: Any, address: str) -> int:
        port: int = add_port(server, address.replace("[::]:", "127.0.0.1:"))  # type: ignore[no-untyped-call]
        return port

    serve_replica.add_port_to_grpc_server = add_port_on_loopback  # type: ignore[attr-defined]


def _start_no_dashboard() -> None:
    """Ray starts its dashboard's process even with `include_dashboard=False`, to report usage.

    Before it looks whether usage is reported it asks 169.254.169.254 and metadata.google.internal which cloud
    it is in, and it listens on four ports. No setting of Ray 2.60 changes that, and nothing here needs it.
    """
    from ray._private.node import Node

    Node.start_api_server = lambda self, **_: None  # type: ignore[method-assign]


def build(options: Options) -> serve.Application:
    """The application for `serve run`, `serve.run` and `serve deploy`.

    `serve deploy` with another `user_config` of the deployment `gateway` reloads at every replica in place.
    To run it again makes other replicas.
    """
    address = options.model_dump(include={"host", "port", "grpc_port", "admin_port", "admin_host"})
    folders = [str(one.resolve()) for one in deployment_folders(folders_of(options.folder))]
    state_dir = str(Path(options.state_dir).resolve()) if options.state_dir else ""
    deployment: serve.Deployment = serve.deployment(
        name="gateway",
        num_replicas=options.replicas,
        user_config={"generation": 0},
        health_check_period_s=HEALTH_EVERY_S,
        health_check_timeout_s=HEALTH_TIMEOUT_S,
        graceful_shutdown_timeout_s=_longest_stop_s(folders),
        graceful_shutdown_wait_loop_s=0.1,
        ray_actor_options={"num_cpus": 0},
    )(GatewayReplica)
    return deployment.bind(folders, state_dir, address, admin_token(), options.replicas)


def _longest_stop_s(folders: list[str]) -> float:
    """How long a replica may take to end, before Serve kills it. It is not read again at a reload."""
    read = [one for one in map(read_deployment, map(Path, folders)) if isinstance(one, Deployment)]
    drain_s = max((one.policy.serving.drain_s for one in read), default=0.0)
    return drain_s + max((one.policy.deadline_s for one in read), default=0.0) + CLOSE_S


def _state_of(options: Options) -> Path:
    """The folder for what belongs to the process: `--state-dir`, or `var` of the first deployment."""
    named = Path(options.state_dir) if options.state_dir else None
    return state_folder(deployment_folders(folders_of(options.folder)), named)


def folders_of(text: str) -> list[Path]:
    """The folders in a list with commas; a folder with a comma in its name can only be given alone."""
    return (
        [Path(text)] if Path(text).is_dir() else [Path(one.strip()) for one in text.split(",") if one.strip()]
    )


class Cluster:
    """A private single-node Ray for `gateway serve`: on loopback, with a token of its own.

    Its session (logs, sockets) lies in `ray/` of the folder for state. `stop` ends its processes and removes
    the session.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._session: LinkedFolder | None = None

    def start(self) -> None:
        """Returns when every replica listens: 6 to 15 s, nearly all Ray's. Raises what a replica raised."""
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        self._session = LinkedFolder.make(_state_of(self._options) / SESSIONS)
        os.umask(0o077)  # inherited by all that Ray starts: nothing but state is written from here on
        _start_no_dashboard()
        # No runtime_env: replicas have our environment anyway, and with one they could not be the processes
        # that Ray starts ahead of need (1.5 s from start to first answer).
        ray.init(
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _node_ip_address="127.0.0.1",
            _temp_dir=str(self._session.path),
        )
        raise_at_stop_signals()  # Ray has replaced the handler of SIGTERM
        self._session.close_to_others()  # Ray opens its folders to all users, whatever the umask
        quiet = {"log_level": "ERROR", "enable_access_log": False}
        serve.start(proxy_location="Disabled", logging_config=quiet)
        serve.run(build(self._options), name=APP, route_prefix=None, logging_config=quiet)
        raise_if_stopped()

    def wait_for_signal(self) -> None:
        """Returns at Ctrl-C or SIGTERM. Closes what new processes of Ray open to others meanwhile."""
        stopped = threading.Event()
        for number in STOP_SIGNALS:
            signal.signal(number, lambda *_: stopped.set())
        raise_if_stopped()
        while not stopped.wait(CLOSE_EVERY_S):
            if self._session is not None:
                self._session.close_to_others()
        raise_at_stop_signals()

    def stop(self) -> None:
        """Drains the replicas, then ends Ray and every process it started. Does nothing before `start`.

        A signal meanwhile ends the replicas at once.
        """
        if self._session is None:
            return
        with contextlib.redirect_stdout(io.StringIO()):  # Ray prints its normal shutdown as a failure
            with contextlib.suppress(KeyboardInterrupt):
                serve.shutdown()  # type: ignore[no-untyped-call]
            ray.shutdown()
        self._session.remove()
        self._session = None
