"""A gateway and what is true of its model, told to a client's script in an environment of the client's own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from deployments import letters
from numpy.typing import NDArray
from served import Served, clean_rows, outlier_rows, serving

from bench.environment import python_of
from gateway.callers import add_key
from gateway.gateway import VAR
from gateway.policy import load_policy

HERE = Path(__file__).parent
CLIENTS, REQUIREMENTS, ENVIRONMENTS = HERE / "clients", HERE / "requirements", HERE / "var"
SCRIPT_WITHIN_S = 120
ROWS = 32
ONE_A_DAY = 1 / 86_400


@dataclass(frozen=True)
class Case:
    """What a script says of one case."""

    name: str
    ok: bool
    detail: str


@contextmanager
def target(folder: Path) -> Iterator[Path]:
    """A running copy of configs/letters; gives the folder in which scripts find what they must know."""
    deployment = letters(folder)
    keys = {
        name: add_key(deployment / VAR, name, tier="trusted", per_s=per_s, scopes=frozenset({"infer"}))
        for name, per_s in (("ada", 1e6), ("sloth", ONE_A_DAY))
    }
    with serving(deployment, "--local") as served:
        rows, odd = _rows(served, keys["ada"])
        np.savez(folder / "truth.npz", rows=rows, odd=odd, expected=_truth(deployment / "primary.onnx", rows))
        policy = load_policy(deployment)
        told = {
            "http": f"127.0.0.1:{served.data.base_url.port}",
            "grpc": "",
            "model": policy.name,
            "version": policy.version,
            "input": "attributes",
            "output": "probabilities",
            "labels": policy.labels,
            "most": policy.serving.max_batch_rows,
            "key": keys["ada"],
            "slow_key": keys["sloth"],
        }
        (folder / "target.json").write_text(json.dumps(told))
        yield folder


def _rows(served: Served, key: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Rows that the primary answers, and one that goes to a person; each is asked alone."""

    def ends(row: NDArray[Any]) -> str:
        return served.ask(row, **{"x-api-key": key}).headers["x-failsafe-outcome"]

    good = [row for i in range(4 * ROWS) if ends(row := clean_rows(4 * ROWS)[i : i + 1]) == "served"][:ROWS]
    odd = next(row for i in range(ROWS) if ends(row := outlier_rows(ROWS)[i : i + 1]) == "deferred")
    assert len(good) == ROWS
    return np.concatenate(good), odd


def _truth(model: Path, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """What onnxruntime says of each row alone, without the gateway."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    alone = [session.run(["probabilities"], {"attributes": rows[i : i + 1]})[0] for i in range(len(rows))]
    return np.concatenate(alone)


def client(environment: str) -> Path:
    """The interpreter of a client's environment, installed if need be."""
    return python_of(REQUIREMENTS / f"{environment}.txt", ENVIRONMENTS / environment)


def run(environment: str, script: str, *arguments: str) -> str:
    """What a script of `clients/` prints, run in its environment. Raises AssertionError if it fails."""
    command = [str(client(environment)), str(CLIENTS / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SCRIPT_WITHIN_S)
    assert done.returncode == 0, f"{script} ended with {done.returncode}:\n{done.stderr[-2000:]}"
    return done.stdout


def cases(environment: str, script: str, at: Path) -> list[Case]:
    """Every case of a script against the gateway that `at` describes."""
    return [Case(**json.loads(line)) for line in run(environment, script, str(at)).splitlines()]
