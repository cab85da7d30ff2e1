"""A running gateway, its model described for a client's script, and that script's own environment."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime

from bench.environment import python_of
from gateway.cli.samples import Rows, load_samples
from gateway.deployment.artifacts import load_artifacts
from gateway.deployment.deployment import Deployment
from tests.support.deployments import be_patient, edit, key_for
from tests.support.served import Served, copy_of, serving

STOCK = Path(__file__).parents[1] / "stock"
CLIENTS, REQUIREMENTS, ENVIRONMENTS = STOCK / "clients", STOCK / "requirements", STOCK / "var"
SCRIPT_WITHIN_S = 120
ROWS = 32
BASE_PATH = "/serving/models"
RATES = {"ada": 1e6, "sloth": 1 / 86_400}
"""Rows a second of the two callers: one is never too fast, one has a row a day."""


@dataclass(frozen=True)
class Case:
    """What a script says of one case."""

    name: str
    ok: bool
    detail: str


@contextmanager
def target(name: str, folder: Path, serving_more: str = "") -> Iterator[Path]:
    """A running copy of a deployment; gives the folder in which scripts find what they must know.

    serving_more: further fields of its policy's `serving`, each with a comma after it.
    """
    deployment = copy_of(name, folder)
    be_patient(deployment)
    edit(deployment, ("serving: {", f"serving: {{base_path: {BASE_PATH}, {serving_more}"))
    policy = Deployment.read(deployment).policy
    [input_name], [output_name] = policy.inputs, policy.expose
    keys = {who: key_for(deployment, who, "trusted", per_s) for who, per_s in RATES.items()}
    with serving(deployment, "--local") as served:
        artifacts = load_artifacts(Deployment.read(deployment))
        artifacts.close()
        samples = load_samples(deployment, artifacts.contract)
        clean, family = samples.clean[input_name], samples.families[min(samples.families)][input_name]
        rows, odd = _rows(served, clean, family, keys["ada"])
        expected = _truth(deployment / "primary.onnx", input_name, output_name, rows)
        np.savez(folder / "truth.npz", rows=rows, odd=odd, expected=expected)
        described = {
            "http": f"127.0.0.1:{served.data.base_url.port}",
            "grpc": served.grpc,
            "base_path": BASE_PATH,
            "model": policy.name,
            "version": policy.version,
            "input": input_name,
            "output": output_name,
            "labels": policy.labels,
            "most": policy.serving.max_batch_rows,
            "key": keys["ada"],
            "slow_key": keys["sloth"],
        }
        (folder / "target.json").write_text(json.dumps(described))
        yield folder


def _rows(served: Served, clean: Rows, family: Rows, key: str) -> tuple[Rows, Rows]:
    """Rows that the primary answers, and one that is deferred; each is a request of its own."""

    def ends(row: Rows, outcome: str) -> bool:
        raw = {"x-api-key": key, "inference-header-content-length": "0"}
        reply = served.data.post(f"/v2/models/{served.model}/infer", content=row.tobytes(), headers=raw)
        return reply.headers["x-failsafe-outcome"] == outcome

    good = [row for row in _alone(clean[: 2 * ROWS]) if ends(row, "served")][:ROWS]
    assert len(good) == ROWS
    return np.concatenate(good), next(row for row in _alone(family) if ends(row, "deferred"))


def _alone(rows: Rows) -> list[Rows]:
    return [rows[i : i + 1] for i in range(len(rows))]


def _truth(model: Path, input_name: str, output_name: str, rows: Rows) -> Rows:
    """What onnxruntime says of each row alone, without the gateway."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run([output_name], {input_name: row})[0] for row in _alone(rows)])


def client(environment: str) -> Path:
    """The interpreter of a client's environment, installed if need be."""
    return python_of(REQUIREMENTS / f"{environment}.txt", ENVIRONMENTS / environment)


def run(environment: str, script: str, *arguments: str) -> str:
    """What a script of `clients/` prints, run in its environment. Raises AssertionError if it fails."""
    command = [str(client(environment)), str(CLIENTS / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SCRIPT_WITHIN_S, check=False)
    assert done.returncode == 0, f"{script} ended with {done.returncode}:\n{done.stderr[-2000:]}"
    return done.stdout


def cases(environment: str, script: str, at: Path) -> list[Case]:
    """Every case of a script against the gateway that `at` describes."""
    return [Case(**json.loads(line)) for line in run(environment, script, str(at)).splitlines()]
