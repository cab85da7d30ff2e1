"""A population of numbers with errors of known kinds, small regressors of it, and what a gateway answers.

    y = x . (3, -2, 1) + 10 + |x[0]| noise: the spread of a row follows from its first column.

The first rung knows every weight, the second only the first two, so its errors are larger.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from gateway.calibration.calibrate import calibrate
from gateway.core.batch import Batch
from gateway.core.deadline import now_s
from gateway.core.decision import Decision, Degraded, Served, Tensors
from gateway.deployment.certificate import Certificate
from gateway.deployment.deployment import Deployment
from gateway.serving.gateway import Gateway
from tests.support import onnx_bytes as onnx
from tests.support.deployments import Raises, opened, swap

Array = NDArray[Any]
WEIGHTS = np.array([3.0, -2.0, 1.0])
BASE = 10.0
BATCH_ROWS, DUE_S = 1024, 50.0


def drawn(rng: np.random.Generator, n: int, noise: float = 1.0) -> tuple[Array, Array]:
    """float32[n, 3] and float64[n], the true values."""
    x = rng.normal(size=(n, 3)).astype(np.float32)
    return x, x @ WEIGHTS + BASE + noise * np.abs(x[:, 0]) * rng.normal(size=n)


def regressor(
    known: int = 3, *, dtype: Any = np.float32, column: bool = True, quantiles: bool = False
) -> bytes:
    """A model that knows the first weights.

    column: whether `value` is [n, 1], else [n]; quantiles: whether it gives `lower` and `upper` itself, with
    the right spread and far too near.
    """
    weights = (WEIGHTS * (np.arange(3) < known))[:, None].astype(dtype)
    shape: onnx.Shape = ("n", 1) if column else ("n",)
    kind = onnx.ELEMENTS[np.dtype(dtype)]
    nodes = [
        onnx.node("Cast", ["x"], ["wide"], to=kind),
        onnx.node("MatMul", ["wide", "w"], ["linear"]),
        onnx.node("Add", ["linear", "base"], ["column"]),
        onnx.node("Identity" if column else "Squeeze", ["column"] + ["last"] * (not column), ["value"]),
    ]
    names = ["value"]
    if quantiles:
        nodes += [
            onnx.node("MatMul", ["wide", "first"], ["one"]),
            onnx.node("Abs", ["one"], ["spread"]),
            onnx.node("Mul", ["spread", "near"], ["reach"]),
            onnx.node("Sub", ["value", "reach"], ["lower"]),
            onnx.node("Add", ["value", "reach"], ["upper"]),
        ]
        names += ["lower", "upper"]
    constants = {
        "w": weights,
        "base": np.array([BASE], dtype),
        "first": np.eye(3, 1).astype(dtype),
        "near": np.array([0.3], dtype),
        "last": np.array([1]),
    }
    return onnx.model(
        nodes,
        inputs=[onnx.value("x", np.float32, ("n", 3))],
        outputs=[onnx.value(name, dtype, shape) for name in names],
        weights=[onnx.tensor(name, array) for name, array in constants.items()],
    )


def interval(**changes: Any) -> dict[str, Any]:
    """A check. changes: fields instead of the usual ones."""
    known = {"kind": "interval", "selective_error": 0.1, "budget_s": 5.0, "on_error": "degrade"}
    return known | changes


def policy_of(checks: list[dict[str, Any] | None], **changes: Any) -> dict[str, Any]:
    """checks: of each rung, None for a rung without one. changes: fields instead of the usual ones."""
    rungs = [
        {"name": f"rung{i}", "model": {"kind": "onnx", "path": f"rung{i}.onnx"}, "budget_s": 5.0}
        | ({} if check is None else {"checks": [{"name": f"check{i}"} | check]})
        for i, check in enumerate(checks)
    ]
    return {
        "schema": 1,
        "name": "numbers",
        "task": "regression",
        "deadline_s": 60.0,
        "false_alarm_budget": 0.05,
        "answered_error": 0.2,
        "guards": [],
        "rungs": rungs,
        "expose": ["value"],
        "serving": {"anonymous": "loopback", "max_batch_rows": BATCH_ROWS},
    } | changes


def written(
    folder: Path,
    policy: Mapping[str, Any],
    models: list[bytes],
    seed: int = 0,
    n: int = 1500,
    **columns: Array,
) -> Path:
    """Writes policy, models and rows, and names the file of rows. columns: arrays instead of drawn ones."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gateway.yaml").write_text(yaml.safe_dump(dict(policy), sort_keys=False))
    for i, content in enumerate(models):
        (folder / f"rung{i}.onnx").write_bytes(content)
    x, y = drawn(np.random.default_rng(seed), n)
    held: dict[str, Any] = {"x": x, "y": y} | columns
    np.savez(folder / "held.npz", **held)
    return folder / "held.npz"


def calibrated(
    folder: Path, policy: Mapping[str, Any], models: list[bytes], seed: int = 0, n: int = 1500
) -> Certificate:
    """The certificate of such a deployment."""
    data = written(folder, policy, models, seed, n)
    return calibrate(Deployment.read(folder), data)


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What the rows got. by: the rung that answered, -1 for none; the rest: float64[n], NaN without one."""

    by: Array
    value: Array
    lower: Array
    upper: Array

    def outside(self, y: Array) -> Array:
        """bool[answered]: whether the true value lies outside the interval."""
        of = self.by >= 0
        return np.asarray((y[of] < self.lower[of]) | (y[of] > self.upper[of]))


def served(folder: Path, x: Array, *, gone: int = 0, batch_rows: int = BATCH_ROWS) -> Answers:
    """What a gateway over the folder answers while its first `gone` rungs fail."""

    async def run() -> Answers:
        async with opened(folder) as gateway:
            for depth in range(gone):
                swap(gateway, Raises(), depth)
            return await _decided(gateway, x, batch_rows)

    return asyncio.run(run())


async def _decided(gateway: Gateway, x: Array, batch_rows: int) -> Answers:
    found: list[Decision] = []
    for at in range(0, len(x), batch_rows):
        part = x[at : at + batch_rows]
        ids = tuple(f"{at + i}" for i in range(len(part)))
        batch = Batch(ids, ("t",) * len(ids), {"x": part}, (now_s() + DUE_S,) * len(ids))
        found += await gateway.decide(batch)
    depth_of = {rung.name: depth for depth, rung in enumerate(gateway.loaded.policy.rungs)}
    rows = [_row(decision, depth_of) for decision in found]
    return Answers(*(np.array(column) for column in zip(*rows, strict=True)))


def _row(decision: Decision, depth_of: Mapping[str, int]) -> tuple[int, float, float, float]:
    match decision.outcome:
        case Served(output, by) | Degraded(output, by):
            return depth_of[by], _one(output, "value"), _one(output, "lower"), _one(output, "upper")
        case _:
            return -1, np.nan, np.nan, np.nan


def _one(output: Tensors, name: str) -> float:
    return float(output[name].reshape(-1)[0]) if name in output else float("nan")
