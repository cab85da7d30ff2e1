"""Our own gateway, reached as Ray Serve serves by default: through its HTTP proxy, with its default settings.

The same data plane over the same gateway as `gateway serve`, but Serve's proxy listens and hands each
request on to the replica. What this costs is why the gateway's replicas listen by themselves.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

os.environ["RAY_AUTH_MODE"] = "token"
os.environ.setdefault("RAY_AUTH_TOKEN", os.urandom(16).hex())
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from asgi_handler import AsgiHandler
from onnx_session import folder
from ray import serve
from starlette.applications import Starlette

from gateway.access.site import Site
from gateway.http.handler import HttpHandler
from gateway.serving.data_plane import DataPlane
from gateway.serving.replicas import PeerReplicas
from gateway.serving.repository import Repository


def mounted() -> Starlette:
    """The data plane under Starlette, which gives it a start and an end on the replica's event loop."""
    repository = Repository.open([folder()])

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await repository.healthy()
        repository.start()
        yield
        await repository.close()

    app = Starlette(lifespan=lifespan)
    siblings = PeerReplicas(repository.run, repository.replica, "")
    app.mount("/", AsgiHandler(HttpHandler(DataPlane(repository, siblings), Site("127.0.0.1"))))
    return app


@serve.deployment(ray_actor_options={"num_cpus": 0})
@serve.ingress(mounted)
class Mounted:
    """Serve's own way to serve an ASGI application."""


def main() -> None:
    """Serves until SIGTERM, then ends Ray and all its processes."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    forwarded = {name: os.environ[name] for name in ("PEER_FOLDER", "OPENBLAS_NUM_THREADS", "PYTHONPATH")}
    try:
        ray.init(
            include_dashboard=False,
            object_store_memory=80 * 2**20,
            log_to_driver=False,
            _node_ip_address="127.0.0.1",
            runtime_env={"env_vars": forwarded},
        )
        serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PEER_PORT"])})
        serve.run(Mounted.bind())
        signal.pause()
    finally:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main()
