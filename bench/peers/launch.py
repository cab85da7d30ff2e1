"""How each server is started, as its own documentation recommends, and as it was fastest here.

MLServer: parallel workers off, which are on by default; its CPU a request was 1.7 times as much with one.
MLServer and LitServe: adaptive batching for many callers, none for a single caller, which would only wait for
the batch to fill. BentoML: no adaptive batching, which was slower in both.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.peers.environment import SERVERS, own_python, python_of_peer
from bench.peers.load_cases import BARE, GATEWAY
from bench.peers.process import free_port

MODEL_NAME = "fashion"
MAX_BATCH, BATCH_WAIT_S = 32, 0.002


@dataclass(frozen=True, slots=True)
class ServerPlacement:
    """Where a server runs: its interpreter, its copy of the deployment, a folder of its own, its port.

    concurrent: there are many connections, so that batches fill.
    """

    python: Path
    deployment: Path
    work: Path
    port: int
    concurrent: bool

    def tool(self, name: str) -> str:
        """A command that a package installed beside the interpreter."""
        return str(self.python.parent / name)


@dataclass(frozen=True, slots=True)
class ComparedServer:
    """One row of the comparison.

    environment: the requirements it is installed from; None: it runs in our own. binary: whether it takes
    the binary tensor extension. ours: whether it states the outcome of each request. threads: of onnxruntime
    for one operator.
    """

    name: str
    command: Callable[[ServerPlacement], list[str]]
    environment: str | None = None
    binary: bool = False
    ours: bool = False
    threads: int = 1

    def python(self) -> Path:
        return own_python() if self.environment is None else python_of_peer(self.environment)

    def variables(self, placement: ServerPlacement) -> dict[str, str]:
        """What its script reads, and no more threads than ours."""
        return {
            "PEER_FOLDER": str(placement.deployment),
            "PEER_PORT": str(placement.port),
            "PEER_THREADS": str(self.threads),
            "PEER_BATCH": str(MAX_BATCH if placement.concurrent else 1),
            "PYTHONPATH": str(SERVERS),
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
            "BENTOML_HOME": str(placement.work),
            "BENTOML_DO_NOT_TRACK": "true",
        }


def _gateway(placement: ServerPlacement) -> list[str]:
    ports = ["--port", str(placement.port), "--grpc-port", str(free_port()), "--admin-port", str(free_port())]
    return [str(placement.python), "-m", "gateway", "serve", str(placement.deployment), "--local", *ports]


def _script(name: str) -> Callable[[ServerPlacement], list[str]]:
    return lambda placement: [str(placement.python), str(SERVERS / name)]


def _mlserver(runtime: str) -> Callable[[ServerPlacement], list[str]]:
    def command(placement: ServerPlacement) -> list[str]:
        concurrent = (
            {"max_batch_size": MAX_BATCH, "max_batch_time": BATCH_WAIT_S} if placement.concurrent else {}
        )
        folder = placement.work / MODEL_NAME
        return start_mlserver(
            placement.python, folder, runtime, {"name": MODEL_NAME, **concurrent}, placement.port, free_port()
        )

    return command


def start_mlserver(
    python: Path, folder: Path, runtime: str, model: Mapping[str, Any], port: int, grpc_port: int
) -> list[str]:
    """Writes MLServer's settings for one model into a new folder; the command that serves it on loopback."""
    folder.mkdir()
    settings = {**model, "implementation": f"mlserver_runtime.{runtime}"}
    ports = {"http_port": port, "grpc_port": grpc_port, "metrics_port": free_port()}
    server = {"debug": False, "host": "127.0.0.1", "parallel_workers": 0, **ports}
    (folder / "model-settings.json").write_text(json.dumps(settings), encoding="utf-8")
    (folder / "settings.json").write_text(json.dumps(server), encoding="utf-8")
    return [str(python.parent / "mlserver"), "start", str(folder)]


def _bentoml(placement: ServerPlacement) -> list[str]:
    where = ["--host", "127.0.0.1", "--port", str(placement.port), "--working-dir", str(SERVERS)]
    return [placement.tool("bentoml"), "serve", *where, "bentoml_service:Onnx"]


SERVERS_BY_NAME = {
    server.name: server
    for server in (
        ComparedServer(GATEWAY, _gateway, binary=True, ours=True),
        ComparedServer(BARE, _script("bare.py"), binary=True),
        ComparedServer("bare_2_threads", _script("bare.py"), binary=True, threads=2),
        ComparedServer("ray_proxy", _script("ray_proxy.py"), binary=True, ours=True),
        ComparedServer("mlserver", _mlserver("Onnx"), "mlserver"),
        ComparedServer("mlserver_detector", _mlserver("OnnxWithDetector"), "mlserver"),
        ComparedServer("litserve", _script("litserve_api.py"), "litserve"),
        ComparedServer("bentoml", _bentoml, "bentoml"),
    )
}
PEERS = tuple(name for name in SERVERS_BY_NAME if name != GATEWAY)
