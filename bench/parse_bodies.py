"""The worst bodies that a contract lets in, and deployments with the widest: rows of any length."""

from __future__ import annotations

import gzip
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from fallbacks.oip import open_inference_pb2 as pb
from gateway.calibration.calibrate import calibrate
from gateway.deployment.deployment import Deployment
from gateway.protocol.contract import MAX_BODY_BYTES, MAX_TEXTS

NUMBERS, TEXTS = "numbers", "texts"
CALIBRATION_ROWS = 600
POLICY = """\
schema: 1
name: {name}
deadline_s: 20
false_alarm_budget: 0.05
answered_error: 0.1
guards:
  - {{name: rate, kind: rate, per_s: 1000000, burst: 1000000, budget_s: 1, on_error: allow}}
rungs:
  - name: primary
    model: {{kind: onnx, path: model.onnx}}
    budget_s: 5
    checks: [{{name: sure, kind: confidence, selective_error: 0.1, budget_s: 1, on_error: degrade}}]
expose: [probabilities]
"""
GZIP = (("content-encoding", "gzip"),)
ROOM = MAX_BODY_BYTES - 1000
GRPC_ROOM = 4 * 2**20 - 1000
"""Of typed contents, which may have half as many bytes as a message."""


@dataclass(frozen=True, slots=True)
class WorstBody:
    """A body as it is sent. grpc: as a message; else by HTTP, with these headers."""

    name: str
    model: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    grpc: bool = False


def deploy(folder: Path, name: str) -> Path:
    """A calibrated deployment of a model that reads the first value of rows of any length."""
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(_model(TensorProto.FLOAT if name == NUMBERS else TensorProto.STRING))
    (folder / "gateway.yaml").write_text(POLICY.format(name=name), encoding="utf-8")
    y = np.arange(CALIBRATION_ROWS) % 2
    x = np.stack([y, y, y], 1).astype(np.float32)
    rows = x if name == NUMBERS else np.where(x > 0, "yes", "no")
    np.savez(folder / "rows.npz", x=rows, y=y.astype(np.int64), group=np.arange(len(y)))
    calibrate(Deployment.read(folder), folder / "rows.npz")
    return folder


def _model(element: int) -> bytes:
    """p1 is the first number, or 1 where the first text is `yes`."""
    value = helper.make_tensor_value_info
    known: dict[str, Any] = {"keys_strings": ["yes"], "values_floats": [1.0], "default_float": 0.0}
    nodes = [helper.make_node("Gather", ["x", "first"], ["value"], axis=1)]
    if element == TensorProto.STRING:
        nodes.append(helper.make_node("LabelEncoder", ["value"], ["p1"], domain="ai.onnx.ml", **known))
    else:
        nodes.append(helper.make_node("Clip", ["value", "zero", "one"], ["p1"]))
    nodes += [
        helper.make_node("Sub", ["one", "p1"], ["p0"]),
        helper.make_node("Concat", ["p0", "p1"], ["probabilities"], axis=1),
    ]
    held = [
        numpy_helper.from_array(np.zeros(1, np.int64), "first"),
        numpy_helper.from_array(np.array(0, np.float32), "zero"),
        numpy_helper.from_array(np.array(1, np.float32), "one"),
    ]
    graph = helper.make_graph(
        nodes, "worst", [value("x", element, ["n", "m"])],
        [value("probabilities", TensorProto.FLOAT, ["n", 2])], held,
    )  # fmt: skip
    versions = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=versions, ir_version=9).SerializeToString()


def good_body() -> bytes:
    """A row of three numbers."""
    return _json(3, b"1", b"0", b"0")


def worst_bodies() -> list[WorstBody]:
    """Valid and invalid ones, over HTTP and gRPC."""
    ones = ROOM // 2
    most = _json(ones, *[b"1"] * ones)
    nested = _json(ROOM // 4, *[b"[1]"] * (ROOM // 4))
    unread = b'{"inputs":[],"z":[' + b",".join([b"{}"] * (ROOM // 3)) + b"]}"
    digits = _json(ROOM // 303, b"1", *[b"0." + b"7" * 300] * (ROOM // 303 - 1))
    zeros = _json(2**19, *[b"0"] * 2**19)
    return [
        WorstBody("JSON with most numbers", NUMBERS, most),
        WorstBody("JSON that ends too soon", NUMBERS, most[:-3]),
        WorstBody("JSON of long numbers", NUMBERS, digits),
        WorstBody("nested lists", NUMBERS, nested),
        WorstBody("ignored empty objects", NUMBERS, unread),
        WorstBody("gzip of 1 MiB", NUMBERS, gzip.compress(zeros, 9), GZIP),
        WorstBody("gzip of 8 MiB", NUMBERS, gzip.compress(most, 9), GZIP),
        _binary_texts(MAX_TEXTS),
        WorstBody("small and invalid", NUMBERS, b"{}"),
        WorstBody("32 KiB and invalid", NUMBERS, b'{"inputs":[],"z":[' + b"[]," * 10_000 + b"0]}"),
        WorstBody("gRPC typed integers", NUMBERS, _message("int_contents", [1] * GRPC_ROOM), grpc=True),
        WorstBody("gRPC typed texts", TEXTS, _message("bytes_contents", [b""] * MAX_TEXTS), grpc=True),
    ]  # fmt: skip


def _json(columns: int, *values: bytes) -> bytes:
    head = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,%d],"data":[' % columns
    return head + b",".join(values) + b"]}]}"


def _binary_texts(count: int) -> WorstBody:
    head = (
        b'{"inputs":[{"name":"x","datatype":"BYTES","shape":[1,%d],"parameters":{"binary_data_size":%d}}]}'
        % (count, 4 * count)
    )
    body = head + struct.pack("<I", 0) * count
    headers = (("inference-header-content-length", str(len(head))),)
    return WorstBody("binary, empty texts", TEXTS, body, headers)


def _message(member: str, values: list[int] | list[bytes]) -> bytes:
    texts = member == "bytes_contents"
    message = pb.ModelInferRequest(model_name=TEXTS if texts else NUMBERS)
    tensor = message.inputs.add(name="x", datatype="BYTES" if texts else "FP32", shape=[1, len(values)])
    getattr(tensor.contents, member).extend(values)
    return message.SerializeToString()
