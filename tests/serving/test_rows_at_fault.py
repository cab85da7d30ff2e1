"""A row that a real model cannot take is its caller's to correct: no circuit, no review, no log of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from onnx import TensorProto, helper

from fallbacks.breaker import BreakerState
from fallbacks.review.cases import CaseState
from gateway.calibration.calibrate import calibrate
from gateway.deployment.deployment import Deployment
from tests.support.deployments import run
from tests.support.kinds import F32, I64, TEXT, info, initialised, model, node, sent
from tests.support.typed import Sent, Typed, typed
from tests.support.typed_models import Array

RNG = np.random.default_rng(5)
TABLE = RNG.normal(0, 3, (40, 8)).astype(np.float32)
CLASSES = RNG.normal(0, 3, (8, 2)).astype(np.float32)
IDS = RNG.integers(0, 40, (1500, 6))
CANARY = 73190246
"""A value of bad rows that must stand in no log."""


@dataclass(frozen=True)
class Kind:
    """A model, rows that it answers with their classes, and a row that an operator of it refuses."""

    content: bytes
    rows: Mapping[str, Array]
    good: Mapping[str, Sent]
    bad: Mapping[str, Sent]


def _classified(z: str, *nodes: Any) -> list[Any]:
    return [
        *nodes,
        node("MatMul", [z, "classes"], ["logit"]),
        node("Softmax", ["logit"], ["probabilities"], axis=1),
    ]


P = [info("probabilities", F32, ["n", 2])]


def lookup(operator: str = "Gather") -> Kind:
    """An embedding of six ids, at least one of them beyond the table."""
    nodes = _classified(
        "mean",
        node(operator, ["table", "ids"], ["e"]),
        node("ReduceMean", ["e"], ["mean"], axes=[1], keepdims=0),
    )
    content = model(nodes, [info("ids", I64, ["n", 6])], P, table=TABLE, classes=CLASSES)
    y = (TABLE[IDS].mean(1) @ CLASSES).argmax(1)
    bad = [[CANARY, *IDS[0, 1:]]]
    return Kind(content, {"ids": IDS, "y": y}, {"ids": sent("INT64", IDS[:1])}, {"ids": sent("INT64", bad)})


def lengths() -> Kind:
    """Two sequences that must be equally long."""
    x = RNG.normal(0, 3, (1500, 8)).astype(np.float32)
    nodes = _classified("sum", node("Add", ["a", "b"], ["ab"]), node("Reshape", ["ab", "eight"], ["sum"]))
    inputs = [info(name, F32, ["n", f"{name}_length"]) for name in ("a", "b")]
    content = model(nodes, inputs, P, classes=CLASSES, eight=np.array([-1, 8]))
    rows = {"a": x, "b": x, "y": (2 * x @ CLASSES).argmax(1)}
    bad = {"a": sent("FP32", x[:1]), "b": sent("FP32", [[CANARY] * 5])}
    return Kind(content, rows, {name: sent("FP32", x[:1]) for name in ("a", "b")}, bad)


def numbers_as_text() -> Kind:
    """A text that must be a number: onnxruntime reports another as RUNTIME_EXCEPTION."""
    x = RNG.integers(-9, 9, (1500, 8))
    texts = np.array([[str(value) for value in row] for row in x])
    nodes = _classified("z", node("Cast", ["text"], ["z"], to=F32))
    content = model(nodes, [info("text", TEXT, ["n", 8])], P, classes=CLASSES)
    y = (x.astype(np.float32) @ CLASSES).argmax(1)
    encoded = np.vectorize(str.encode, otypes=[object])(texts)
    bad = np.array([[f"no{CANARY}".encode()] * 8], object)
    good = {"text": Sent("BYTES", encoded[:1], False)}
    return Kind(content, {"text": encoded, "y": y}, good, {"text": Sent("BYTES", bad, False)})


KINDS = {"index": lookup, "lengths": lengths, "text": numbers_as_text}


@pytest.mark.parametrize("kind", KINDS)
def test_bad_rows_of_one_caller_are_its_own_fault_and_change_nothing_for_another(
    tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    made = KINDS[kind]()
    folder = deployed(tmp_path, made.content, made.rows)

    async def main() -> None:
        async with typed(folder) as to:
            assert await ends(to, made.good) == [(200, "ok")]
            assert await ends(to, *[made.bad] * 12) == [(400, "invalid")] * 12
            assert await ends(to, made.good) == [(200, "ok")], "at once after"
            [primary] = to.gateway.loaded.breakers.values()
            assert primary.state is BreakerState.CLOSED
            assert (await to.review.store.counts()).by_state[CaseState.OPEN] == 0
            findings = (await to.admin.get("/status")).text + (await to.admin.get("/metrics")).text
            assert str(CANARY) not in findings

    run(main)
    said = capfd.readouterr()
    assert str(CANARY) not in said.out + said.err
    logs = [path for path in (folder / "var").rglob("*") if path.is_file()]
    assert any(path.suffix == ".jsonl" for path in logs)
    assert not [path for path in logs if str(CANARY).encode() in path.read_bytes()]


async def ends(to: Typed, *requests: Mapping[str, Sent]) -> list[tuple[int, str]]:
    """The status and reason of each request."""
    replies = [await to.ask(one) for one in requests]
    return [(one.status, one.headers["x-failsafe-reason"]) for one in replies]


def test_a_bad_row_in_a_batch_is_withheld_alone_and_the_others_keep_their_numbers(tmp_path: Path) -> None:
    made = lookup()
    folder = deployed(tmp_path, made.content, made.rows)
    mixed = {"ids": sent("INT64", np.concatenate([IDS[:2], made.bad["ids"].array, IDS[2:4]]))}
    marked = [{"name": "probabilities"}, {"name": "fs_row_outcome"}]

    async def main() -> None:
        async with typed(folder) as to:
            assert await ends(to, mixed) == [(400, "invalid")], "the request has its worst row's end"
            reply = await to.ask(mixed, outputs=marked)
            assert reply.status == 200
            p, outcomes = (output["data"] for output in reply.json["outputs"])
            assert outcomes == ["served", "served", "refused", "served", "served"]
            alone = (await to.ask({"ids": sent("INT64", IDS[:4])})).json["outputs"][0]["data"]
            assert [*p[:4], *p[6:]] == pytest.approx(alone, abs=1e-6)
            assert p[4:6] == [None, None]

    run(main)


def test_a_model_that_fails_for_every_row_opens_its_circuit_for_its_only_caller(tmp_path: Path) -> None:
    made = lookup()
    folder = deployed(tmp_path, made.content, made.rows)

    class Corrupt:
        """A session that fails at every run, as one whose memory is damaged."""

        def run(self, names: Any, feed: Any, options: Any) -> Any:
            raise RuntimeError(f"bad state near {CANARY}")

    async def main() -> None:
        async with typed(folder) as to:
            onnx = to.gateway.loaded.artifacts.models["primary"]
            onnx._session = Corrupt()  # type: ignore[attr-defined]
            found = await ends(to, *[made.good] * 6)
            assert {reason for _, reason in found} == {"unavailable"}, "no row is called invalid"
            [primary] = to.gateway.loaded.breakers.values()
            assert primary.state is BreakerState.OPEN

    run(main)


def test_slow_rows_of_one_caller_open_no_circuit(tmp_path: Path) -> None:
    """A row whose loop takes longer than the budget is cut off; the next caller is served."""
    x = RNG.normal(0, 3, (1500, 8)).astype(np.float32)
    rows = {"x": x, "turns": np.ones((1500, 1), np.int64), "y": (x @ CLASSES).argmax(1)}
    folder = deployed(tmp_path, slow_model(), rows, budget_s=0.2)
    good, slow = ({"x": sent("FP32", x[:1]), "turns": sent("INT64", [[turns]])} for turns in (1, 10**12))

    async def main() -> None:
        async with typed(folder) as to:
            assert await ends(to, good) == [(200, "ok")]
            [primary] = to.gateway.loaded.breakers.values()
            for _ in range(7):
                assert (await to.ask(slow)).status != 200
                assert primary.state is BreakerState.CLOSED
                assert await served_within(to, good, 5.0), "once the run that was cut off has ended"
            for _ in range(7):
                await to.ask(slow)
            await asyncio.sleep(0.3)
            assert primary.state is BreakerState.CLOSED, "nor when no row of another caller lies between"

    run(main)


async def served_within(to: Typed, inputs: Mapping[str, Sent], limit_s: float) -> bool:
    """Whether a row is served before `limit_s`, asked again and again."""
    async with asyncio.timeout(limit_s):
        return await anext(one async for one in _statuses(to, inputs) if one == 200) == 200


async def _statuses(to: Typed, inputs: Mapping[str, Sent]) -> AsyncIterator[int]:
    while True:
        yield (await to.ask(inputs)).status


def slow_model() -> bytes:
    """Probabilities of `x`, after as many turns of a loop as the row of `turns` says that has most.

    At most 100,000, as the airlock demands: a second or so.
    """
    body = helper.make_graph(
        [node("Less", ["turn", "most"], ["still_on"]), node("Abs", ["v"], ["next_v"])],
        "body",
        [info("turn", I64, []), info("on", TensorProto.BOOL, []), info("v", F32, [1])],
        [info("still_on", TensorProto.BOOL, []), info("next_v", F32, [1])],
    )
    nodes = [
        node("ReduceMax", ["turns"], ["most"], keepdims=0),
        node("Loop", ["limit", "", "zero"], ["v"], body=body),
        node("Add", ["x", "v"], ["xv"]),
    ]
    inputs = [info("x", F32, ["n", 8]), info("turns", I64, ["n", 1])]
    limit = np.array(100_000, np.int64)
    return model(
        _classified("xv", *nodes), inputs, P, classes=CLASSES, zero=np.zeros(1, np.float32), limit=limit
    )


def deployed(folder: Path, content: bytes, rows: Mapping[str, Array], budget_s: float = 2.0) -> Path:
    """A calibrated deployment whose policy states no range, so that the model meets any value."""
    made = initialised(folder, content, rows)
    path = made / "gateway.yaml"
    policy = yaml.safe_load(path.read_text())
    policy.pop("inputs", None)
    policy["rungs"][0]["budget_s"] = budget_s
    path.write_text(yaml.safe_dump(policy))
    calibrate(Deployment.read(made), folder / "rows.npz")
    return made
