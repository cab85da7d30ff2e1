"""A hostile model offered at reload: the old pipeline goes on answering, and a signal to stop is heard."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto

from tests.support.hostile_models import (
    FLOAT,
    LOOP_CONSTANTS,
    adding_body,
    constant,
    model,
    node,
    value,
)
from tests.support.served import Served, clean_rows, copy_of, serving

FEATURES, CLASSES, WIDTH = 16, 26, 96


def letters_model(nodes: list[NodeProto], *constants: TensorProto) -> ModelProto:
    """A classifier of letters that adds the scalar `s`, which `nodes` make, to its logits."""
    random = np.random.default_rng(0)
    head = [
        node("MatMul", ["attributes", "to_features"], ["features"]),
        node("MatMul", ["features", "to_logits"], ["z0"]),
        node("Add", ["z0", "s"], ["logits"]),
        node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    outputs = [("probabilities", CLASSES), ("logits", CLASSES), ("features", WIDTH)]
    return model(
        [*nodes, *head],
        constant("to_features", random.normal(size=(FEATURES, WIDTH)).astype(np.float32)),
        constant("to_logits", random.normal(size=(WIDTH, CLASSES)).astype(np.float32)),
        *constants,
        inputs=[value("attributes", FLOAT, ["n", FEATURES])],
        outputs=[value(name, FLOAT, ["n", size]) for name, size in outputs],
    )


def loop_bomb() -> ModelProto:
    """Runs for ever while onnxruntime opens it, since the loop depends on no input."""
    loop = node("Loop", ["rounds", "true", "zero"], ["s"], body=adding_body())
    return letters_model([loop], constant("rounds", np.int64(2**62)), *LOOP_CONSTANTS)


def slow() -> ModelProto:
    """Computes for minutes: each of a hundred thousand rounds sums a million numbers."""
    more = [node("Expand", ["i", "million"], ["many"]), node("ReduceSum", ["many"], ["sum"], keepdims=0)]
    loop = node("Loop", ["rounds", "true", "zero"], ["s"], body=adding_body(more))
    loop.attribute[0].g.node[1].input[1] = "sum_float"
    added = loop.attribute[0].g.node.pop(1)
    loop.attribute[0].g.node.extend([node("Cast", ["sum"], ["sum_float"], to=FLOAT), added])
    sizes = [constant("rounds", np.int64(100_000)), constant("million", np.array([1_000_000], np.int64))]
    return letters_model([loop], *sizes, *LOOP_CONSTANTS)


def offer(served: Served, made: ModelProto, results: list[httpx.Response]) -> threading.Thread:
    """Puts the model into the folder, and asks for a reload in a thread."""
    (served.folder / "primary.onnx").write_bytes(made.SerializeToString())

    def reload() -> None:
        try:
            results.append(served.admin.post("/policy/reload", timeout=240))
        except httpx.TransportError:
            pass  # the gateway has ended

    thread = threading.Thread(target=reload)
    thread.start()
    return thread


@pytest.mark.parametrize(("made", "told"), [(loop_bomb, "Loop may run"), (slow, "computes longer than")])
def test_the_old_model_answers_while_a_hostile_one_is_tried(
    tmp_path: Path, made: Callable[[], ModelProto], told: str
) -> None:
    with serving(copy_of("letters", tmp_path), "--local") as served:
        rows, results = clean_rows(4), list[httpx.Response]()
        before = served.ask(rows)
        thread = offer(served, made(), results)
        answers = []
        while thread.is_alive():
            answers.append(served.ask(rows))
            thread.join(0.05)
        answers.append(served.ask(rows))
        assert {one.status_code for one in answers} == {200}
        assert {one.json()["model_version"] for one in answers} == {before.json()["model_version"]}
        assert results[0].status_code == 409
        assert told in results[0].text


def test_a_signal_to_stop_is_heard_while_a_model_is_tried(tmp_path: Path) -> None:
    with serving(copy_of("letters", tmp_path), "--local") as served:
        results = list[httpx.Response]()
        thread = offer(served, slow(), results)
        thread.join(1.0)
        served.process.send_signal(signal.SIGTERM)
        served.process.wait(120)
        thread.join(30)
        assert served.process.returncode == 0
        assert not thread.is_alive()
        assert not any("computes longer" in one.text for one in results), "the trial was not waited for"
