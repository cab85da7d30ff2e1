"""Ray Serve with an application that does nothing, `python ray_empty.py PORT`: what Ray itself costs."""

from __future__ import annotations

import os
import signal
import sys
import threading

# As the gateway's own Ray: or the two starts would not be of the same thing.
os.environ["RAY_AUTH_MODE"] = "token"
os.environ.setdefault("RAY_AUTH_TOKEN", os.urandom(16).hex())
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray import serve
from ray.serve.config import HTTPOptions


@serve.deployment
class Empty:
    """Answers at once."""

    async def __call__(self, request: object) -> str:
        return "{}"


def main() -> None:
    """Serves until SIGTERM."""
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    ray.init(
        _node_ip_address="127.0.0.1",
        include_dashboard=False,
        object_store_memory=80 * 2**20,
        log_to_driver=False,
        logging_level="ERROR",
    )
    serve.start(http_options=HTTPOptions(host="127.0.0.1", port=int(sys.argv[1])))
    serve.run(Empty.bind(), route_prefix="/")
    over.wait()
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
