"""Ray Serve: placement, supervision, restart and scaling of replicas. The only importer of ray.

A replica is a Serve deployment whose one job is to run a `Replica` on its own event loop: it listens by
itself, and Serve's proxies are off. Ray restarts it when it dies or when its canary row goes undecided.

    serve run gateway.app:build folder=configs/fashion          # on a cluster, with Serve's own tools

This module must not postpone the evaluation of annotations: Serve reads the builder's at run time.
"""

import asyncio
import contextlib
import io
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from gateway.core.errors import GatewayError
from gateway.replica import ListenAddress, Replica, admin_token
from gateway.serving.gateway import Gateway

if "ray" not in sys.modules:
    # Ray reads these when it is imported: only holders of the token may join or drive our own cluster, and
    # usage is not reported. Under `serve run` Ray is imported first, and its operator's settings apply.
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ.setdefault("RAY_AUTH_TOKEN", admin_token())
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from pydantic import BaseModel
from ray import serve

APP = "failsafe-gateway"
HEALTH_EVERY_S, HEALTH_TIMEOUT_S = 2.0, 10.0
OBJECT_STORE_BYTES = 80 * 2**20
log = logging.getLogger(__name__)


class Options(BaseModel):
    """What `serve run gateway.app:build NAME=VALUE ...` takes; values arrive as text."""

    folder: str
    host: str = "127.0.0.1"
    port: int = 8080
    grpc_port: int = 8081
    admin_port: int = 8082
    replicas: int = 1


class GatewayReplica:
    """One replica under Ray's supervision."""

    def __init__(self, folder: str, address: dict[str, Any], token: str) -> None:
        self._replica = Replica(Gateway.open(Path(folder)), ListenAddress(**address), token)
        self._started: asyncio.Task[None] | None = None

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Starts listening the first time; later a new `generation` reads the folder again.

        Must be quick and must not raise: a policy that does not compile leaves the old one in place.
        """
        if self._started is None:
            self._started = asyncio.create_task(self._replica.start())
            await self._started
            return
        try:
            self._replica.gateway.reload()
        except GatewayError:
            log.exception(
                "reload to generation %s failed; the old policy stays", user_config.get("generation")
            )

    async def check_health(self) -> None:
        """Raises unless a canary row is decided in time; Ray then replaces the replica."""
        if not await self._replica.gateway.healthy():
            raise RuntimeError("the canary row was not decided in time")

    async def __call__(self) -> str:
        """The tag of the policy in force, for handles."""
        return self._replica.gateway.loaded.tag

    async def __del__(self) -> None:
        """Serve's graceful shutdown; also of a replica that could not begin."""
        if hasattr(self, "_replica"):
            await self._replica.stop()


def build(options: Options) -> serve.Application:
    """The application for `serve run` and `serve.run`."""
    address = options.model_dump(include={"host", "port", "grpc_port", "admin_port"})
    deployment: serve.Deployment = serve.deployment(
        name="gateway",
        num_replicas=options.replicas,
        user_config={"generation": 0},
        health_check_period_s=HEALTH_EVERY_S,
        health_check_timeout_s=HEALTH_TIMEOUT_S,
        graceful_shutdown_timeout_s=15,
        graceful_shutdown_wait_loop_s=0.1,
        ray_actor_options={"num_cpus": 0},
    )(GatewayReplica)
    return deployment.bind(str(Path(options.folder).resolve()), address, admin_token())


class Cluster:
    """A private single-node Ray for `gateway serve`: on loopback, with a token, nothing left behind."""

    def __init__(self, options: Options) -> None:
        self._options = options

    def start(self) -> None:
        """Returns when every replica listens: 6 to 15 s, nearly all Ray's. Raises what a replica raised."""
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        # No runtime_env: replicas have our environment anyway, and with one they could not be the processes
        # that Ray starts ahead of need (1.5 s from start to first answer).
        ray.init(
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _node_ip_address="127.0.0.1",
        )
        quiet = {"log_level": "ERROR", "enable_access_log": False}
        serve.start(proxy_location="Disabled", logging_config=quiet)
        serve.run(build(self._options), name=APP, route_prefix=None, logging_config=quiet)

    def stop(self) -> None:
        """Drains the replicas, then ends Ray and every process it started."""
        with contextlib.redirect_stdout(io.StringIO()):  # Ray prints its own orderly end as a failure
            serve.shutdown()  # type: ignore[no-untyped-call]
            ray.shutdown()


def wait_for_signal() -> None:
    """Returns at Ctrl-C or SIGTERM."""
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    over.wait()
