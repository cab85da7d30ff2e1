"""The gateway's messages are those that the stock clients were compiled with."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.support.stock import CLIENTS, run

pytestmark = pytest.mark.stock

OURS = "fallbacks.oip.open_inference_pb2"
TRITON = ("tritonclient.grpc.service_pb2", "tritonclient.grpc.model_config_pb2")
KSERVE = ("kserve.protocol.grpc.grpc_predict_v2_pb2",)
IN_PART = {"ModelConfig", "ModelInput", "ModelOutput", "ModelStatistics"}
"""Messages of which we write the part that is true of a gateway; the rest of Triton's is left out."""
TRITON_ALONE = (
    "ModelConfig", "ModelInput", "ModelOutput", "ModelStatistics", "Statistic", "InferStatistics",
    "InferBatch", "RepositoryIndex", "DataType",
)  # fmt: skip
FOUR_AND_FIVE = {"4": "double_param", "5": "uint64_param"}
"""What KServe's InferParameter lacks: we read them, and never write them."""


def ours() -> Any:
    command = [sys.executable, str(CLIENTS / "descriptors.py"), OURS]
    output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    return json.loads(output)


def theirs(environment: str, modules: tuple[str, ...]) -> Any:
    return json.loads(run(environment, "descriptors.py", *modules))


def test_every_message_is_tritons_field_by_field(subtests: pytest.Subtests) -> None:
    own, triton = ours(), theirs("triton", TRITON)
    assert "inference.ModelInferRequest" in own["messages"]
    for name, fields in own["messages"].items():
        with subtests.test(name):
            known = triton["messages"][name]
            whole = name.removeprefix("inference.") not in IN_PART
            assert fields == (known if whole else {number: known[number] for number in fields})
    assert own["enums"].items() <= triton["enums"].items()
    assert own["methods"].items() <= triton["methods"].items()


def test_every_message_that_kserve_knows_is_kserves_field_by_field(subtests: pytest.Subtests) -> None:
    own, kserve = ours(), theirs("kserve", KSERVE)
    for kind in ("messages", "methods", "enums"):
        for name, ours_ in own[kind].items():
            short = name.removeprefix("inference.").removeprefix("GRPCInferenceService.")
            with subtests.test(name):
                if short.startswith(TRITON_ALONE):
                    assert name not in kserve[kind]
                elif short == "InferParameter":
                    more = {number: ours_[number][0] for number in ours_.keys() - kserve[kind][name].keys()}
                    assert more == FOUR_AND_FIVE
                    assert kserve[kind][name].items() <= ours_.items()
                else:
                    assert ours_ == kserve[kind][name]
