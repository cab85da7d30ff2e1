"""Metadata of server and model, with the member names that clients read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fallbacks.oip.description import ModelDescription
from fallbacks.oip.stored_upstream import StoredUpstream
from fallbacks.onnx import OnnxModel
from fallbacks.predictor import ModelTensor
from gateway.deployment.contract import contract_of as deployed_contract
from gateway.deployment.deployment import Deployment
from gateway.deployment.models import load_models
from gateway.protocol import metadata
from tests.support.deployments import clean_rows, letters
from tests.support.wire_parts import contract_of, spec_of

CONTRACT = contract_of(
    spec_of("FP32", (None, 1, 28, 28), "image"),
    spec_of("BF16", (None, None), "mask"),
    outputs=[spec_of("BYTES", (None,), "label")],
)


def test_the_server_names_its_version_and_extensions() -> None:
    server = metadata.server()
    assert server["name"] == "failsafe-gateway"
    assert server["version"].count(".") == 2
    assert "binary_tensor_data" in server["extensions"]
    assert not any("shared_memory" in extension for extension in server["extensions"])


def test_health_says_live_and_ready_in_either_place() -> None:
    assert metadata.health(live=True, ready=False) == {"live": True, "ready": False}
    assert metadata.model_ready(CONTRACT) == {"name": "m", "ready": True}


def test_a_model_shows_datatypes_and_an_open_row() -> None:
    assert metadata.model(CONTRACT) == {
        "name": "m",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "parameters": {"withheld_rows": "refuse_request"},
        "inputs": [
            {"name": "image", "datatype": "FP32", "shape": [-1, 1, 28, 28]},
            {"name": "mask", "datatype": "BF16", "shape": [-1, -1]},
        ],
        "outputs": [{"name": "label", "datatype": "BYTES", "shape": [-1]}],
    }


def test_a_model_says_what_it_does_with_withheld_rows() -> None:
    marking = replace(CONTRACT, withheld_rows="mark")
    assert metadata.model(marking)["parameters"] == {"withheld_rows": "mark"}


def test_a_config_has_what_perf_analyzer_reads() -> None:
    assert metadata.config(CONTRACT) == {
        "name": "m",
        "platform": "onnxruntime_onnx",
        "backend": "onnxruntime",
        "max_batch_size": 8,
        "input": [
            {"name": "image", "data_type": "TYPE_FP32", "dims": [1, 28, 28]},
            {"name": "mask", "data_type": "TYPE_BF16", "dims": [-1]},
        ],
        "output": [{"name": "label", "data_type": "TYPE_STRING", "dims": []}],
    }


LOCAL = "model: {kind: onnx, path: primary.onnx}"
UPSTREAM = 'model: {kind: oip, url: "http://127.0.0.1:9", model: letters}'


def recorded(path: Path) -> StoredUpstream:
    """What calibration would keep of a server that has this model."""
    model = OnnxModel.load(path)

    def declared(specs: tuple[ModelTensor, ...]) -> list[tuple[str, str, list[int]]]:
        return [(one.name, "FP32", [-1 if size is None else size for size in one.shape]) for one in specs]

    try:
        probes = {"attributes": clean_rows(4)}
        description = ModelDescription.parse(declared(model.inputs), declared(model.outputs))
        return StoredUpstream(description, probes, model.run(probes), {})
    finally:
        model.close()


@pytest.mark.parametrize(
    ("model", "platform", "backend"),
    [(LOCAL, "onnxruntime_onnx", "onnxruntime"), (UPSTREAM, "oip_upstream", "oip")],
    ids=["onnx", "upstream"],
)
def test_the_platform_is_that_of_the_first_rung(
    tmp_path: Path, model: str, platform: str, backend: str
) -> None:
    folder = letters(tmp_path, (LOCAL, model))
    deployment = Deployment.read(folder)
    models = load_models(deployment, {"primary": recorded(folder / "primary.onnx")})
    try:
        contract = deployed_contract(deployment, models)
    finally:
        for one in models.values():
            one.close()
    assert metadata.model(contract)["platform"] == platform
    config = metadata.config(contract)
    assert (config["platform"], config["backend"]) == (platform, backend)
