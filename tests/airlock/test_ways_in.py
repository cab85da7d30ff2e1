"""Every way in which the gateway opens a model passes the airlock: the same model is refused by all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gateway.calibration.calibrate import calibrate
from gateway.cli.check import checked
from gateway.cli.descriptions import describe
from gateway.core.errors import PolicyError
from gateway.deployment.artifacts import load_artifacts
from gateway.deployment.deployment import Deployment
from gateway.deployment.models import load_models
from gateway.scaffold.scaffold import scaffold
from gateway.scaffold.sources import Sources
from gateway.serving.repository import Repository
from tests.airlock.test_reload import loop_bomb
from tests.support.deployments import letters
from tests.support.hostile_models import FLOAT, constant, model, node, value
from tests.support.served import CONFIGS


def with_bomb(folder: Path) -> Path:
    (folder / "primary.onnx").write_bytes(loop_bomb().SerializeToString())
    return folder


def rows_of_letters(folder: Path) -> Path:
    with np.load(CONFIGS / "letters" / "letters.npz") as held:
        rows, labels = held["x"][-500:], [ord(letter) - ord("A") for letter in held["y"][-500:]]
    np.savez(folder / "rows.npz", x=rows.astype(np.float32), y=np.array(labels))
    return folder / "rows.npz"


WAYS_IN: dict[str, Callable[[Path], object]] = {
    "start": lambda folder: load_artifacts(Deployment.read(folder)),
    "start of several": lambda folder: Repository.open([folder]),
    "check": checked,
    "calibrate": lambda folder: calibrate(Deployment.read(folder), rows_of_letters(folder)),
    "inspect": lambda folder: describe(folder / "primary.onnx"),
    "init": lambda folder: scaffold(folder / "new", Sources((folder / "primary.onnx",)), None),
}


@pytest.mark.parametrize("way", WAYS_IN)
def test_a_loop_without_an_end_is_refused_by(tmp_path: Path, way: str) -> None:
    folder = with_bomb(letters(tmp_path))
    with pytest.raises(PolicyError, match="the operator Loop may run 4611686018427387904 times") as refused:
        WAYS_IN[way](folder)
    assert "primary.onnx" in str(refused.value)


def test_a_model_is_tried_with_the_batch_and_the_memory_of_the_policy(tmp_path: Path) -> None:
    """The same model is refused with large batches, and served with small ones or more memory."""
    folder = letters(tmp_path)
    shaped = [
        node("Shape", ["attributes"], ["shape"]),
        node("Mul", ["shape", "times"], ["sizes"]),
        node("Expand", ["one", "sizes"], ["many"]),
        node("ReduceSum", ["many"], ["s"], keepdims=0),
        node("MatMul", ["attributes", "to_logits"], ["z0"]),
        node("Mul", ["s", "nothing"], ["s0"]),
        node("Add", ["z0", "s0"], ["logits"]),
        node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    made = model(
        shaped,
        constant("times", np.array([1, 200_000], np.int64)),
        constant("one", np.float32(1)),
        constant("nothing", np.float32(0)),
        constant("to_logits", np.ones((16, 26), np.float32)),
        inputs=[value("attributes", FLOAT, ["n", 16])],
        outputs=[value("probabilities", FLOAT, ["n", 26])],
    )
    (folder / "fallback.onnx").write_bytes(made.SerializeToString())
    with pytest.raises(PolicyError, match="takes more than 256 MiB to open, or to answer 128 rows"):
        close_after_loading(with_serving(folder, "model_memory_mib: 256"))
    close_after_loading(with_serving(folder, "model_memory_mib: 256, max_batch_rows: 4"))
    close_after_loading(with_serving(folder, "model_memory_mib: 4096"))


def close_after_loading(deployment: Deployment) -> None:
    for loaded in load_models(deployment, {}).values():
        loaded.close()


def with_serving(folder: Path, settings: str) -> Deployment:
    text = (CONFIGS / "letters" / "gateway.yaml").read_text()
    assert "serving: {" in text
    (folder / "gateway.yaml").write_text(text.replace("serving: {", f"serving: {{{settings}, ", 1))
    return Deployment.read(folder)
