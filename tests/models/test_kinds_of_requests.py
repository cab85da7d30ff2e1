"""Kinds of requests that callers can mend: they are told so, and no reviewer gets them."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from gateway.calibration.calibrate import calibrate
from gateway.deployment.deployment import Deployment
from tests.support.deployments import run
from tests.support.kinds import (
    F32,
    I64,
    TEXT,
    begun,
    info,
    initialised,
    labelled,
    model,
    nearest,
    node,
    outcomes,
)
from tests.support.mixed_models import UNSEEN, mixed, of
from tests.support.typed import INFER, Sent, typed
from tests.support.typed_models import texts


def test_bytes_that_are_no_utf8_are_the_callers_to_mend(tmp_path: Path) -> None:
    content, held, datatypes = mixed("tnt")
    folder = begun(tmp_path, content, held)
    good = of(0, held, datatypes)

    async def main() -> None:
        async with typed(folder) as to:
            for name, index in (("t0", 0), ("t2", 2)):
                for raw in ("niño".encode("latin-1"), b"\xff\xfe", b"\xed\xa0\x80"):
                    bad = {**good, name: Sent("BYTES", texts(raw).reshape(1, 1), True)}
                    reply = await to.ask(bad)
                    assert reply.status == 400
                    assert reply.json["error"] == f"inputs[{index}].data: row 0: not UTF-8 text"
            body = (
                b'{"inputs": [{"name": "t0", "datatype": "BYTES", "shape": [1, 1], "data": ["\\ud800"]},'
                b'{"name": "n1", "datatype": "FP32", "shape": [1, 1], "data": [0]},'
                b'{"name": "t2", "datatype": "BYTES", "shape": [1, 1], "data": ["red"]}]}'
            )
            reply = await to.ada.request("POST", INFER, body)
            assert (reply.status, "surrogate" in reply.json["error"]) == (400, True)
            assert not any((await to.review.store.counts()).by_state.values())

    run(main)


def test_a_binary_body_without_the_length_of_its_head_says_which_header_is_missing(tmp_path: Path) -> None:
    folder = begun(tmp_path, nearest(), dict(zip("xy", labelled(1200), strict=True)))

    async def main() -> None:
        async with typed(folder) as to:
            entry = {"name": "x", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": 16}}
            head = json.dumps({"inputs": [entry]}).encode()
            for tail in (struct.pack("<4f", 1, 2, 3, 4), b"\xff" * 16):
                reply = await to.ada.request("POST", INFER, head + tail)
                assert reply.status == 400
                assert "Inference-Header-Content-Length" in reply.json["error"]

    run(main)


REFUSED: dict[str, Any] = {
    "a category": (
        TEXT,
        ["Bergen", "Oslo"],
        [
            node(
                "OneHotEncoder",
                ["code"],
                ["hot"],
                domain="ai.onnx.ml",
                cats_strings=["Bergen", "Oslo"],
                zeros=0,
            )
        ],
        UNSEEN,
    ),
    "an index": (
        I64,
        [0, 1],
        [node("Gather", ["one hot", "code"], ["hot"], axis=0)],
        np.array([[9]]),
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_rows_that_the_model_itself_refuses_take_it_from_no_other_caller(tmp_path: Path, kind: str) -> None:
    element, values, encoder, strange = REFUSED[kind]
    nodes = [
        *encoder,
        node("Reshape", ["hot", "sizes"], ["flat"]),
        node("MatMul", ["flat", "w"], ["z"]),
        node("Softmax", ["z"], ["probabilities"], axis=1),
    ]
    eye = np.eye(2, dtype=np.float32)
    weights = {"sizes": [-1, 2], "w": 6 * eye, "one hot": eye}
    outputs = [info("probabilities", F32, ["n", 2])]
    content = model(nodes, [info("code", element, ["n", 1])], outputs, **weights)
    y = np.random.default_rng(0).integers(0, 2, 1200)
    held = {"code": np.array(values)[y], "y": y, "group": np.arange(1200)}
    folder = initialised(tmp_path, content, held)
    policy = yaml.safe_load((folder / "gateway.yaml").read_text())
    policy["guards"] = [one for one in policy["guards"] if one["kind"] == "rate"]
    (folder / "gateway.yaml").write_text(yaml.safe_dump(policy))
    calibrate(Deployment.read(folder), tmp_path / "rows.npz")
    datatype = "BYTES" if element == TEXT else "INT64"
    good = of(0, held, {"code": datatype})
    ends = outcomes(folder, *[{"code": Sent(datatype, strange, False)}] * 8, good)
    assert ends == [(400, "invalid")] * 8 + [(200, "ok")]
