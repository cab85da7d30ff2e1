"""BentoML: one service, one worker, without the access log that it writes by default.

Its adaptive batching was tried, along the request's `inputs`, the one argument that it may then have: it was
slower at 64 connections and at one.
"""

from __future__ import annotations

from typing import Any

import bentoml
import numpy as np
from onnx_session import open_session


@bentoml.service(workers=1, traffic={"timeout": 10}, logging={"access": {"enabled": False}})
class Onnx:
    """The model. Inference runs inline: it is far shorter than a hop to a thread is worth."""

    def __init__(self) -> None:
        self.session = open_session()

    @bentoml.api(route="/v2/models/fashion/infer")
    async def infer(self, inputs: list[Any]) -> dict[str, Any]:
        tensor = inputs[0]
        x = np.array(tensor["data"], np.float32).reshape(tensor["shape"])
        (y,) = self.session.run(["probabilities"], {tensor["name"]: x})
        output = {"name": "probabilities", "datatype": "FP32", "shape": y.shape, "data": y.ravel().tolist()}
        return {"model_name": "fashion", "outputs": [output]}
