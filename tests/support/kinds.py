"""Small models of many kinds, rows for them, and deployments made of both with `gateway init`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from gateway.calibration.calibrate import calibrate
from gateway.cli.check import checked
from gateway.core.errors import Problems
from gateway.deployment.deployment import Deployment
from gateway.scaffold.scaffold import scaffold
from gateway.scaffold.sources import Sources
from guards import arrays
from tests.support.deployments import be_patient, run
from tests.support.typed import Sent, Typed, as_numpy, typed
from tests.support.typed_models import DATATYPES, Array

F32, F64, I64, TEXT = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64, TensorProto.STRING
Shape = Sequence[int | str | None] | None
node = helper.make_node


def info(name: str, element: int, shape: Shape) -> ValueInfoProto:
    """One input or output; shape None: of unknown rank."""
    return helper.make_tensor_value_info(name, element, shape)


def model(
    nodes: Sequence[NodeProto],
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[ValueInfoProto],
    **weights: Any,
) -> bytes:
    """An ONNX file of opset 17, and of version 3 of the operators of classical models."""
    held = [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()]
    graph = helper.make_graph(list(nodes), "kind", list(inputs), list(outputs), held)
    versions = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    content: bytes = helper.make_model(graph, opset_imports=versions, ir_version=9).SerializeToString()
    return content


def centres(k: int, d: int = 4) -> Array:
    """float32[k, d]: where the rows of each class lie, far enough apart for few errors."""
    return np.random.default_rng(k).normal(0, 3, (k, d)).astype(np.float32)


def labelled(n: int, k: int = 2, d: int = 4) -> tuple[Array, Array]:
    """(float32[n, d], int64[n]): rows about their class's centre."""
    rng = np.random.default_rng(n)
    y = rng.integers(0, k, n)
    return (centres(k, d)[y] + rng.normal(0, 1, (n, d))).astype(np.float32), y


def nearest(
    k: int = 2,
    d: int = 4,
    *,
    columns: Sequence[str] = (),
    x: str = "x",
    p: str = "probabilities",
    extra: Sequence[NodeProto] = (),
    outputs: Sequence[ValueInfoProto] | None = None,
    shape: Shape = None,
    **weights: Any,
) -> bytes:
    """Probabilities by the distance to each centre of `labelled`.

    columns: inputs of one value a row, in the place of x; extra, outputs, weights: what else there is.
    """
    at = centres(k, d)
    joined = [node("Concat", list(columns), ["joined"], axis=1)] if columns else []
    nodes = [
        *joined,
        node("Gemm", ["joined" if columns else x, "centres", "offsets"], ["distances"]),
        node("Softmax", ["distances"], [p], axis=1),
        *extra,
    ]
    inputs = [info(one, F32, ["n", 1]) for one in columns] or [info(x, F32, shape or ["n", d])]
    given = [info(p, F32, ["n", k])] if outputs is None else outputs
    return model(nodes, inputs, given, centres=at.T, offsets=-(at**2).sum(1) / 2, **weights)


def begun(folder: Path, content: bytes, rows: Mapping[str, Array], fallback: bytes | None = None) -> Path:
    """A deployment in folder/typed by `gateway init --data`, with budgets for a busy machine, and calibrated."""
    made = initialised(folder, content, rows, fallback)
    calibrate(Deployment.read(made), folder / "rows.npz")
    return made


def initialised(
    folder: Path, content: bytes, rows: Mapping[str, Array] | None, fallback: bytes | None = None
) -> Path:
    """What `gateway init` writes, not calibrated. Rows None: without --data."""
    files = {"model.onnx": content} | ({} if fallback is None else {"smaller.onnx": fallback})
    for name, one in files.items():
        (folder / name).write_bytes(one)
    if rows is not None:
        arrays.save(folder / "rows.npz", {name: as_numpy(array) for name, array in rows.items()})
    sources = Sources(tuple(folder / name for name in files))
    scaffold(folder / "typed", sources, None if rows is None else folder / "rows.npz")
    be_patient(folder / "typed")
    return folder / "typed"


def sent(datatype: str, values: Any) -> Sent:
    """An input of a request, in binary where JSON has no form for it."""
    array = np.array(values, DATATYPES[datatype].dtype)
    return Sent(datatype, array, not DATATYPES[datatype].json)


def outcomes(folder: Path, *requests: Mapping[str, Sent]) -> list[tuple[int, str]]:
    """The status of each request, and its reason; `gateway check` must call ready what is served here."""
    checked(folder)

    async def main() -> list[tuple[int, str]]:
        async with typed(folder) as to:
            replies = [await to.ask(one) for one in requests]
            return [(one.status, one.headers["x-failsafe-reason"]) for one in replies]

    return run(main)


def ready_alike(folder: Path) -> bool:
    """Whether `gateway check` calls a folder ready, and a start serves it; both must agree."""

    async def main() -> None:
        async with typed(folder):
            pass

    found = []
    for start in (lambda: checked(folder), lambda: run(main)):
        try:
            start()
            found.append(True)
        except Problems:
            found.append(False)
    assert found[0] == found[1], "check and serve disagree"
    return found[0]


async def deferred_to(to: Typed, inputs: Mapping[str, Sent]) -> tuple[str, dict[str, Any]]:
    """Asks for a row that a person gets: where its answer will be, and the reviewer's claim."""
    reply = await to.ask(inputs)
    assert reply.status == 422, reply.body
    claim: dict[str, Any] = (await to.admin.post("/review/claim", json={"reviewer": "grace"})).json()
    return reply.json["review_url"], claim


async def said(to: Typed, claim: Mapping[str, Any], **answer: Any) -> int:
    """The status of a reviewer's answer."""
    fields = {"fence": claim["fence"], "reviewer": "grace", **answer}
    return (await to.admin.post(f"/review/{claim['id']}/answer", json=fields)).status_code


async def outputs_at(to: Typed, url: str) -> dict[str, Any]:
    """The outputs that a caller gets of a person's answer."""
    reply = (await to.ada.get(url)).json["answer"]
    return {one["name"]: one["data"] for one in reply["outputs"]}
