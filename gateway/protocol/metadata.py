"""Metadata of the server and its model, health and statistics, with the member names of the protocol.

All functions return plain data: the JSON of an HTTP reply and, member by member, the message of a gRPC reply.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from gateway.protocol.contract import Contract, TensorSpec
from gateway.protocol.statistics import Statistics

NAME, VERSION = "failsafe-gateway", version("failsafe-gateway")
EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
)


def server() -> dict[str, Any]:
    """Of GET v2."""
    return {"name": NAME, "version": VERSION, "extensions": list(EXTENSIONS)}


def health(live: bool = True, ready: bool = True) -> dict[str, Any]:
    """Of GET v2/health/live and v2/health/ready: clients look for either member in either."""
    return {"live": live, "ready": ready}


def model(contract: Contract) -> dict[str, Any]:
    """Of GET v2/models/{m}. The first size is -1: any number of rows up to the limit.

    `parameters` is for HTTP alone: the message of gRPC has no member for it.
    """
    return {
        "name": contract.model,
        "versions": [contract.version],
        "platform": contract.platform,
        "parameters": {"withheld_rows": contract.withheld_rows},
        "inputs": [_tensor(spec) for spec in contract.inputs],
        "outputs": [_tensor(spec) for spec in contract.outputs],
    }


def model_ready(contract: Contract) -> dict[str, Any]:
    """Of GET v2/models/{m}/ready: the loaded model is always ready."""
    return {"name": contract.model, "ready": True}


def config(contract: Contract) -> dict[str, Any]:
    """Of GET v2/models/{m}/config, which perf_analyzer needs. Sizes are without the row."""
    return {
        "name": contract.model,
        "platform": contract.platform,
        "backend": contract.platform.partition("_")[0],
        "max_batch_size": contract.max_rows,
        "input": [_config(spec) for spec in contract.inputs],
        "output": [_config(spec) for spec in contract.outputs],
    }


def model_statistics(models: Sequence[tuple[Contract, Statistics]]) -> dict[str, Any]:
    """Of GET v2/models/{m}/stats, for this replica: counts of requests, and nanoseconds in all."""
    return {
        "model_stats": [
            {"name": contract.model, "version": contract.version, **statistics.as_dict()}
            for contract, statistics in models
        ]
    }


def index_entry(name: str, version: str, reason: str = "") -> dict[str, str]:
    """One model of POST v2/repository/index. reason: why it is not ready; without one it is."""
    state = "UNAVAILABLE" if reason else "READY"
    return {"name": name, "version": version, "state": state, "reason": reason}


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": spec.wire_shape}


def _config(spec: TensorSpec) -> dict[str, Any]:
    kind = "TYPE_STRING" if spec.datatype == "BYTES" else f"TYPE_{spec.datatype}"
    return {"name": spec.name, "data_type": kind, "dims": spec.wire_shape[1:]}
