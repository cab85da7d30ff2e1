"""A real MLServer in a process and an environment of its own, over a model of the test."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from bench.peers.environment import SERVERS, python_of_peer
from bench.peers.launch import start_mlserver
from bench.peers.process import free_port, running, stop
from fallbacks.onnx import OnnxModel
from fallbacks.predictor import ModelTensor

MODEL = "capitals"
UP_WITHIN_S = 60.0
DATATYPES = {"<f4": "FP32", "<i8": "INT64"}
CORES = frozenset(os.sched_getaffinity(0))


@dataclass(frozen=True)
class MLServer:
    """One that answers, and how to take it away."""

    process: subprocess.Popen[bytes]
    port: int
    grpc_port: int

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def grpc(self) -> str:
        return f"grpc://127.0.0.1:{self.grpc_port}"

    def kill(self) -> None:
        """Ends it at once, as a crash would."""
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        """It keeps its connections and answers nothing."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)


@contextmanager
def mlserver(
    folder: Path, work: Path, *, port: int | None = None, grpc_port: int | None = None
) -> Iterator[MLServer]:
    """MLServer over `primary.onnx` of a deployment, with every input and output declared."""
    python = python_of_peer("mlserver")
    ports = port or free_port(), grpc_port or free_port()
    model = OnnxModel.load(folder / "primary.onnx")
    model.close()
    settings = {
        "name": MODEL,
        "inputs": [declared(spec) for spec in model.inputs],
        "outputs": [declared(spec) for spec in model.outputs],
    }
    work.mkdir()
    command = start_mlserver(python, work / "model", "Onnx", settings, *ports)
    log = work / "log"
    with running(command, {"PEER_FOLDER": str(folder), "PYTHONPATH": str(SERVERS)}, CORES, log) as process:
        server = MLServer(process, *ports)
        _wait_until_up(server, log)
        try:
            yield server
        finally:
            server.thaw()
            stop(process)


def declared(spec: ModelTensor) -> dict[str, object]:
    """How `model-settings.json` declares a tensor; MLServer's codec sends one value a row as [n, 1]."""
    shape = [-1 if size is None else size for size in (*spec.shape, 1)[: max(2, len(spec.shape))]]
    return {"name": spec.name, "datatype": DATATYPES[spec.dtype.str], "shape": shape}


def _wait_until_up(server: MLServer, log: Path) -> None:
    until_s = time.monotonic() + UP_WITHIN_S
    while time.monotonic() < until_s:
        if server.process.poll() is not None:
            raise RuntimeError(f"MLServer ended with {server.process.returncode}:\n{log.read_text()}")
        try:
            if httpx.get(f"{server.http}/v2/models/{MODEL}/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise TimeoutError(f"MLServer was not up within {UP_WITHIN_S} s:\n{log.read_text()}")
