"""Models of several outputs, served: a reviewer names a class, and its caller gets that in each output."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.support.deployments import run
from tests.support.typed import POLICY, Sent, Typed, deployed, typed

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
Labels = Sequence[str]


def exported(classes: int | str) -> bytes:
    """A classifier as exporters write it: the label beside the probabilities, and a score [n, 1].

    classes: the size of the class axis as the file declares it, a number or a symbol; there are two.
    """
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node("Softmax", ["z"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0),
        helper.make_node("ReduceMax", ["probabilities"], ["score"], axes=[1], keepdims=1),
    ]
    outputs = [
        helper.make_tensor_value_info("label", INT64, ["n"]),
        helper.make_tensor_value_info("probabilities", FLOAT, ["n", classes]),
        helper.make_tensor_value_info("score", FLOAT, ["n", 1]),
    ]
    weights = numpy_helper.from_array(np.array([[-2.0, 2.0]], np.float32), "w")
    inputs = [helper.make_tensor_value_info("x", FLOAT, ["n", 1])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [weights])
    content: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()
    return content


def held_out() -> dict[str, Any]:
    """Rows that the model is sure of are right; of those at 0, where it cannot tell, every second is."""
    rng = np.random.default_rng(0)
    sure = rng.uniform(1, 3, 700) * rng.choice([-1, 1], 700)
    x = np.concatenate([sure, np.zeros(300)]).astype(np.float32)[:, None]
    y = np.where(x[:, 0] == 0, np.arange(1000) % 2, x[:, 0] > 0).astype(np.int64)
    return {"x": x, "y": y, "group": np.arange(1000)}


@asynccontextmanager
async def deferred(
    folder: Path, exposed: Labels, classes: int | str = 2, policy: str = POLICY
) -> AsyncIterator[tuple[Typed, str]]:
    """The served model, and where the caller of a row that it was not sure of finds the answer."""
    deployed(folder, exported(classes), exposed, held_out(), policy)
    async with typed(folder) as to:
        reply = await to.ask({"x": Sent("FP32", np.zeros((1, 1), np.float32), False)})
        assert reply.status == 422, reply.body
        yield to, reply.json["review_url"]


async def answer(to: Typed, **said: Any) -> tuple[int, dict[str, Any]]:
    """Claims the case and answers it; the status, and the claim."""
    claim: dict[str, Any] = (await to.admin.post("/review/claim", json={"reviewer": "grace"})).json()
    fields = {"fence": claim["fence"], "reviewer": "grace", **said}
    reply = await to.admin.post(f"/review/{claim['id']}/answer", json=fields)
    return reply.status_code, claim


async def outputs_at(to: Typed, url: str) -> dict[str, Any]:
    reply = (await to.ada.get(url)).json["answer"]
    return {one["name"]: one["data"] for one in reply.get("outputs", [])}


@pytest.mark.parametrize(
    "exposed", [["probabilities", "score"], ["label", "probabilities", "score"], ["label"]]
)
def test_the_classes_are_those_of_the_probabilities_whatever_is_exposed(
    tmp_path: Path, exposed: Labels
) -> None:
    async def main() -> None:
        policy = f"{POLICY}labels: [ham, spam]\n"
        async with deferred(tmp_path, exposed, 2, policy) as (to, url):
            status, claim = await answer(to, label="spam")
            assert (status, claim["labels"]) == (200, ["ham", "spam"])
            wanted = {"label": [1], "probabilities": [0, 1], "score": [None]}
            assert await outputs_at(to, url) == {name: wanted[name] for name in exposed}

    run(main)


def test_an_open_class_axis_has_the_classes_of_the_policy(tmp_path: Path) -> None:
    async def main() -> None:
        policy = f"{POLICY}labels: [ham, spam]\n"
        async with deferred(tmp_path, ["probabilities"], "k", policy) as (to, url):
            status, claim = await answer(to, label="spam")
            assert (status, claim["labels"]) == (200, ["ham", "spam"])
            assert await outputs_at(to, url) == {"probabilities": [0, 1]}

    run(main)


def test_none_of_these_is_the_label_that_the_policy_names(tmp_path: Path) -> None:
    async def main() -> None:
        store = 'store: "sqlite:///var/review.db"'
        policy = POLICY.replace(store, f"{store}, none_of_these: other") + "labels: [ham, other]\n"
        async with deferred(tmp_path, ["label", "probabilities"], 2, policy) as (to, url):
            status, claim = await answer(to, none=True)
            assert (status, claim["form"]) == (200, {"kind": "class", "none_of_these": "other"})
            assert await outputs_at(to, url) == {"label": [1], "probabilities": [0, 1]}

    run(main)


def test_where_no_output_could_hold_a_class_there_is_no_form(tmp_path: Path) -> None:
    async def main() -> None:
        async with deferred(tmp_path, ["score"]) as (to, url):
            status, claim = await answer(to, label=0)
            assert (status, claim["form"], claim["labels"]) == (422, {"kind": "none"}, [])
            fields = {"fence": claim["fence"], "reviewer": "grace", "unsure": True}
            assert (await to.admin.post(f"/review/{claim['id']}/answer", json=fields)).status_code == 200
            assert await outputs_at(to, url) == {}

    run(main)


def regressor() -> bytes:
    """value = 100 x, in float64 of one value a row."""
    nodes = [helper.make_node("Mul", ["x", "w"], ["value"])]
    weights = numpy_helper.from_array(np.array([[100.0]]), "w")
    inputs = [helper.make_tensor_value_info("x", TensorProto.DOUBLE, ["n", 1])]
    outputs = [helper.make_tensor_value_info("value", TensorProto.DOUBLE, ["n", 1])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [weights])
    content: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()
    return content


def test_of_a_regressor_a_number_is_typed_and_its_caller_gets_it(tmp_path: Path) -> None:
    confidence = "{name: confidence, kind: confidence, selective_error: 0.1, budget_s: 1, on_error: degrade}"
    width = (
        "{name: width, kind: interval, selective_error: 0.1, max_width: {relative: 0.5}, budget_s: 1, "
        "on_error: degrade}"
    )
    policy = POLICY.replace(confidence, width).replace("schema: 1\n", "schema: 1\ntask: regression\n")
    rng = np.random.default_rng(0)
    x = rng.uniform(2, 9, (1500, 1))
    held = {"x": x, "y": 100 * x[:, 0] + rng.normal(0, 20, 1500), "group": np.arange(1500)}
    deployed(tmp_path, regressor(), ["value", "lower", "upper"], held, policy)

    async def main() -> None:
        async with typed(tmp_path) as to:
            small = await to.ask({"x": Sent("FP64", np.full((1, 1), 0.25), False)})
            assert small.status == 422, "its interval is wider than half of it"
            status, claim = await answer(to, value="33,5")
            assert (status, claim["form"]["kind"], claim["labels"]) == (422, "number", [])
            assert (claim["form"]["low"], claim["form"]["high"]) == (held["y"].min(), held["y"].max())
            (view,) = claim["suggestion"]
            assert view["lower"] < view["value"] == 25.0 < view["upper"]
            fields = {"fence": claim["fence"], "reviewer": "grace", "value": 33.5}
            assert (await to.admin.post(f"/review/{claim['id']}/answer", json=fields)).status_code == 200
            got = await outputs_at(to, small.json["review_url"])
            assert got == {"value": [33.5], "lower": [33.5], "upper": [33.5]}

    run(main)
