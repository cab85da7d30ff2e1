"""The requests that every server is sent: the same rows in the same form."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.client import Origin
from bench.peers.load_cases import LoadCase
from bench.peers.verify import OUTPUT
from bench.requests import RequestMix, Target, render_requests
from fallbacks.onnx import OnnxModel
from gateway.deployment.deployment import Deployment
from gateway.protocol.contract import Contract, TensorSpec

MODEL_FILE = "primary.onnx"


@dataclass(frozen=True, slots=True)
class Bodies:
    """The rows of one deployment. outliers: the share of requests made of them. key: the caller's."""

    folder: Path
    outliers: float
    key: str

    def requests(self, origin: Origin, case: LoadCase) -> list[bytes]:
        """Whole HTTP requests, which differ between two servers in the port of their Host header alone."""
        model = OnnxModel.load(self.folder / MODEL_FILE)
        model.close()
        inputs = tuple(TensorSpec(one.name, one.dtype, one.shape, bf16=one.bf16) for one in model.inputs)
        output = TensorSpec(OUTPUT, np.dtype(np.float32), (None, None))
        policy = Deployment.read(self.folder).policy
        contract = Contract(policy.name, inputs, (output,), policy.serving.max_batch_rows, policy.version)
        target = Target(origin, f"/v2/models/{policy.name}", contract, self.key)
        return render_requests(target, self.folder, RequestMix(case.rows, self.outliers, case.binary))
