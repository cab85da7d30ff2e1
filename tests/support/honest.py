"""Small deployments whose budget is stated in rows of honest callers, and honest callers of fresh rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from gateway.calibration.calibrate import calibrate
from gateway.core.batch import Batch
from gateway.core.budget import admit, settle
from gateway.core.decision import Decision
from gateway.core.pipeline import Pipeline
from gateway.deployment import compile as compiling
from gateway.deployment.artifacts import load_artifacts
from gateway.deployment.compile import Stores, compile_policy
from gateway.deployment.deployment import Deployment
from gateway.policy.kinds.information import InformationBudget
from tests.support.population import Population
from tests.support.populations import floats

ROWS, PER_S, THROTTLED = 40, 2.0, 0.02
HONEST: dict[str, Any] = {"rows": ROWS, "per_s": PER_S, "throttled": THROTTLED}
IN_BITS: dict[str, Any] = {"budget": {"per_s": 1.0, "burst": 1e6}}
"""The form with the prices that are only judgement."""


def policy_of(*, guards: int = 1, **budget: Any) -> dict[str, Any]:
    """One rung without a check, a budget, and an ood guard that refuses, or none. budget: its form."""
    found = [
        {"name": "extraction", "kind": "budget", "budget_s": 1.0, "on_error": "refuse", **budget},
        {
            "name": "ood", "kind": "ood", "detectors": ["raw", "rmd"], "cuts": {"refuse": "certified"},
            "budget_s": 5.0, "on_error": "refuse",
        },
    ]  # fmt: skip
    model = {"kind": "onnx", "path": "rung0.onnx"}
    return {
        "schema": 1, "name": "mine", "deadline_s": 60.0, "false_alarm_budget": 0.05, "answered_error": 0.5,
        "guards": found[: 1 + guards], "rungs": [{"name": "rung0", "model": model, "budget_s": 5.0}],
        "expose": ["probabilities"], "disclosure": {"exact": "full"},
        "serving": {"anonymous": "loopback", "max_batch_rows": 1024},
    }  # fmt: skip


def write_policy(folder: Path, **budget: Any) -> None:
    (folder / "gateway.yaml").write_text(yaml.safe_dump(policy_of(**budget), sort_keys=False))


def calibrated(folder: Path, population: Population | None = None, n: int = 1500, **budget: Any) -> Path:
    """A deployment over `floats`, or another population, calibrated on n rows."""
    folder.mkdir(exist_ok=True)
    write_policy(folder, **budget)
    data = (population or floats()).write(folder, np.random.default_rng(0), n)
    calibrate(Deployment.read(folder), data)
    return folder


@dataclass
class Served:
    """The pipeline of a deployment on a clock of its own, its budget and the decisions on fresh rows."""

    pipeline: Pipeline
    clock: SimpleNamespace
    y: Any
    decisions: list[Decision]
    tiers: dict[str, str] = field(default_factory=dict)

    @property
    def budget(self) -> InformationBudget:
        (stage,) = self.pipeline.budgets
        assert isinstance(stage.budget, InformationBudget)
        return stage.budget

    def send(self, who: str, rows: Sequence[int]) -> int:
        """Sends fresh rows in one request, whose decisions are known; returns how many are admitted."""
        n = len(rows)
        batch = Batch(tuple(map(str, rows)), (who,) * n, {"x": np.zeros((n, 1))}, (1e9,) * n)
        admission = admit(self.pipeline.budgets, batch, "p")
        refused = [None] * n if admission is None else admission.decisions
        decisions = [one or self.decisions[row] for one, row in zip(refused, rows, strict=True)]
        settle(batch, decisions)
        return sum(one is None for one in refused)

    def is_throttled(self, who: str, rows: Sequence[int]) -> bool:
        """A window: rows at once in requests of ten, and the others one by one at the rate."""
        self.clock.now += 1e6  # its bucket is full
        for first in range(0, ROWS, 10):
            if self.send(who, rows[first : first + 10]) < 10:
                return True
        for row in rows[ROWS:]:
            self.clock.now += 1 / PER_S
            if not self.send(who, [row]):
                return True
        return False


async def served(
    folder: Path, monkeypatch: pytest.MonkeyPatch, population: Population, n: int = 4000
) -> Served:
    """A deployment as it serves, and its decisions on n rows that calibration never saw."""
    clock = SimpleNamespace(now=0.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(compiling, "time", clock)
    deployment, tiers = Deployment.read(folder), dict[str, str]()
    artifacts = load_artifacts(deployment)
    stores = Stores(None, lambda principal: None, {}, lambda principal: tiers.get(principal, "anonymous"))
    pipeline = compile_policy(deployment.policy, artifacts, stores)
    x, y = population.draw(np.random.default_rng(1000), n)
    decisions: list[Decision] = []
    for first in range(0, n, 500):
        part = {name: array[first : first + 500] for name, array in x.items()}
        ids = tuple(f"r{first + i}" for i in range(500))
        decisions += await pipeline.decide(Batch(ids, ids, part, (1e12,) * 500))
    artifacts.close()
    return Served(pipeline, clock, y, decisions, tiers)
