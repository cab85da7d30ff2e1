"""What `check` says of inputs that graphs index with, and what `init` writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml

from fallbacks.onnx import OnnxModel
from gateway.deployment.deployment import Deployment
from gateway.deployment.index_ranges import range_warnings
from gateway.deployment.models import load_models
from tests.support.kinds import I64, info, initialised, model, node
from tests.support.typed_models import Array

P = [info("probabilities", 1, ["n", 2])]


def lookup() -> bytes:
    """Probabilities from a table of 40 rows, by one id a row."""
    table = np.random.default_rng(0).normal(0, 3, (40, 2)).astype(np.float32)
    nodes = [
        node("Squeeze", ["ids", "last"], ["flat"]),
        node("Gather", ["table", "flat"], ["z"]),
        node("Softmax", ["z"], ["probabilities"], axis=1),
    ]
    return model(nodes, [info("ids", I64, ["n", 1])], P, table=table, last=np.array([1]))


def rows(*values: int) -> dict[str, Array]:
    ids = np.resize(np.array(values), (1500, 1))
    return {"ids": ids, "y": np.arange(1500) % 2}


def warnings(folder: Path) -> list[str]:
    deployment = Deployment.read(folder)
    models = load_models(deployment, {})
    try:
        return list(range_warnings(deployment.policy, models))
    finally:
        for one in models.values():
            one.close()


def restate(folder: Path, **ids: object) -> None:
    path = folder / "gateway.yaml"
    policy = yaml.safe_load(path.read_text())
    policy["inputs"] = {"ids": ids} if ids else {}
    path.write_text(yaml.safe_dump(policy))


def test_init_writes_the_range_of_the_table_and_check_asks_for_one_that_is_not_stated(
    tmp_path: Path,
) -> None:
    folder = initialised(tmp_path, lookup(), None)
    assert Deployment.read(folder).policy.inputs["ids"].high == 39
    assert warnings(folder) == []
    for stated in ({}, {"low": 0}, {"low": 0, "high": 40}, {"low": -1, "high": 39}):
        restate(folder, **stated)
        [said] = warnings(folder)
        assert "`inputs: {ids: {low: 0, high: 39}}`" in said and "Gather" in said
    restate(folder, low=3, high=9)
    assert warnings(folder) == []


def test_init_states_no_range_that_its_own_rows_leave(tmp_path: Path) -> None:
    folder = initialised(tmp_path, lookup(), rows(0, 5, -1))
    assert "ids" not in Deployment.read(folder).policy.inputs


def test_a_model_names_its_inputs_as_the_deployment_does(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(lookup())
    one = OnnxModel.load(path, names={"codes": "ids"})
    one.close()
    assert list(one.index_uses) == ["codes"]
