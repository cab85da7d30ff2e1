"""The requests that every server is sent: the same rows in the same form."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.client import Origin
from bench.peers.load_cases import LoadCase
from bench.peers.verify import OUTPUT
from bench.requests import RequestMix, Target, render_requests
from fallbacks.onnx import OnnxModel
from gateway.deployment.deployment import Deployment

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
        (source,) = model.inputs
        sizes = tuple(size or 1 for size in source.shape[1:])
        name = Deployment.read(self.folder).policy.name
        target = Target(origin, f"/v2/models/{name}", name, source.name, sizes, (OUTPUT,), self.key)
        return render_requests(target, self.folder, RequestMix(case.rows, self.outliers, case.binary))
