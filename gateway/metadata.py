"""What the gateway says of itself: server, health and model metadata of the Open Inference Protocol."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from gateway.contract import Contract, TensorSpec

EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
)
PLATFORM = "onnxruntime_onnx"


def render_server(name: str, version: str, extensions: Sequence[str] = EXTENSIONS) -> bytes:
    """The body of GET v2."""
    return orjson.dumps({"name": name, "version": version, "extensions": list(extensions)})


def render_health(live: bool, ready: bool) -> bytes:
    """The body of GET v2/health/live and v2/health/ready: clients look for either member in either."""
    return orjson.dumps({"live": live, "ready": ready})


def render_model(contract: Contract, platform: str = PLATFORM) -> bytes:
    """The body of GET v2/models/{m}. The first size is -1: any number of rows up to the limit."""
    return orjson.dumps(
        {
            "name": contract.model,
            "versions": [contract.version],
            "platform": platform,
            "inputs": [_tensor(spec) for spec in contract.inputs],
            "outputs": [_tensor(spec) for spec in contract.outputs],
        }
    )


def render_model_ready(contract: Contract, ready: bool) -> bytes:
    """The body of GET v2/models/{m}/ready."""
    return orjson.dumps({"name": contract.model, "ready": ready})


def render_config(contract: Contract, platform: str = PLATFORM) -> bytes:
    """The body of GET v2/models/{m}/config, which perf_analyzer needs. Sizes are without the row."""
    return orjson.dumps(
        {
            "name": contract.model,
            "platform": platform,
            "backend": platform.partition("_")[0],
            "max_batch_size": contract.max_rows,
            "input": [_config(spec) for spec in contract.inputs],
            "output": [_config(spec) for spec in contract.outputs],
        }
    )


def _tensor(spec: TensorSpec) -> dict[str, object]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": spec.wire_shape}


def _config(spec: TensorSpec) -> dict[str, object]:
    kind = "TYPE_STRING" if spec.datatype == "BYTES" else f"TYPE_{spec.datatype}"
    return {"name": spec.name, "data_type": kind, "dims": spec.wire_shape[1:]}
