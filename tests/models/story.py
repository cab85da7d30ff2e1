"""What a user does with a model: commands in a terminal, then tritonclient; and what came of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from tests.support.deployments import key_for
from tests.support.served import Served
from tests.support.stock import client

ASK = Path(__file__).parent / "clients" / "ask.py"
COMMAND_WITHIN_S = 120
NOT_INPUTS = {"y", "expected", "what"}
Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    text: str


def gateway(*arguments: str | Path) -> Said:
    """`python -m gateway ARGUMENTS`, wide enough that no line of its tables is cut."""
    command = [sys.executable, "-m", "gateway", *map(str, arguments)]
    env = os.environ | {"COLUMNS": "200", "NO_COLOR": "1"}
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=COMMAND_WITHIN_S, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    return Said(done.returncode, done.stdout + done.stderr)


@dataclass(frozen=True)
class Reply:
    """What tritonclient made of one row."""

    status: int
    message: str
    outputs: Mapping[str, Any]

    def tensor(self, name: str) -> NDArray[Any]:
        return np.asarray(self.outputs[name])


def caller(folder: Path) -> str:
    """A key, made before the gateway starts, of a caller who sees all digits and is never too fast."""
    return key_for(folder, "ada", "trusted", 1e6, "infer", "metadata")


def ask(served: Served, model: str, key: str, rows: Path) -> list[Reply]:
    """Every row of an .npz through tritonclient, one a request."""
    address = f"127.0.0.1:{served.data.base_url.port}"
    names = list(inputs_of(rows))
    command = [str(client("triton")), str(ASK), address, model, key, str(rows), *names]
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_WITHIN_S, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [Reply(**json.loads(line)) for line in done.stdout.splitlines()]


def first_rows(path: Path, n: int, to: Path) -> Path:
    """The first n rows of an .npz as one of their own."""
    with np.load(path) as held:
        np.savez(to, **{name: held[name][:n] for name in held.files})
    return to


def inputs_of(rows: Path) -> Columns:
    """The model's inputs in an .npz."""
    with np.load(rows) as held:
        return {name: held[name] for name in held.files if name not in NOT_INPUTS}


def own_answers(model: Path, rows: Path, output: str) -> list[NDArray[Any]]:
    """What onnxruntime says of each row alone; classes of a ZipMap in the order of its keys."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        loadable(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    columns = {
        name: column.astype(object) if column.dtype.kind == "U" else column
        for name, column in inputs_of(rows).items()
    }
    n = len(next(iter(columns.values())))
    found = [session.run([output], {k: v[i : i + 1] for k, v in columns.items()})[0] for i in range(n)]
    return [
        np.array([list(one[0].values())], np.float32) if isinstance(one, list) else np.asarray(one)
        for one in found
    ]


def loadable(path: Path) -> onnx.ModelProto:
    """The model as this machine can load it: text models of skl2onnx ask for the locale en_US."""
    model = onnx.load(path)
    for node in model.graph.node:
        if node.op_type == "StringNormalizer":
            node.attribute.append(onnx.helper.make_attribute("locale", "C"))
    return model
