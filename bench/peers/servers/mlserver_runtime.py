"""MLServer with a custom runtime around onnxruntime, and the same with an outlier detector.

MLServer has no ONNX runtime of its own: a custom one is what its documentation asks for. `mlserver start`
finds these classes through `model-settings.json`.
"""

from __future__ import annotations

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from onnx_session import folder, open_session

STOPPED = 0.02


class Onnx(MLModel):
    """The model alone. It gives the outputs that are asked for; `probabilities` if none are named."""

    async def load(self) -> bool:
        self.session = open_session()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        tensor = payload.inputs[0]
        names = [output.name for output in payload.outputs or []] or ["probabilities"]
        found = self.session.run(names, {tensor.name: NumpyCodec.decode_input(tensor)})
        return self._answer(**dict(zip(names, found, strict=True)))

    def _answer(self, **outputs: np.ndarray) -> InferenceResponse:
        encoded = [NumpyCodec.encode_output(name, array) for name, array in outputs.items()]
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=encoded)


class OnnxWithDetector(Onnx):
    """The model and a Mahalanobis detector on its features: a flag beside each answer, as alibi-detect gives.

    Fitted at load on the deployment's samples, the threshold at the quantile that flags 2 % of them.
    """

    async def load(self) -> bool:
        await super().load()
        samples = np.load(folder() / "samples.npz")["image"].astype(np.float32) / 255
        (features,) = self.session.run(["features"], {"image": samples})
        self.mean = features.mean(axis=0)
        spread = np.cov(features, rowvar=False) + 1e-3 * np.eye(features.shape[1])
        self.whiten = np.linalg.cholesky(np.linalg.inv(spread)).astype(np.float32)
        self.threshold = np.quantile(self._scores(features), 1 - STOPPED)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        tensor = payload.inputs[0]
        x = NumpyCodec.decode_input(tensor)
        y, features = self.session.run(["probabilities", "features"], {tensor.name: x})
        flags = self._scores(features) > self.threshold
        return self._answer(probabilities=y, is_outlier=flags.astype(np.int64))

    def _scores(self, features: np.ndarray) -> np.ndarray:
        return np.square((features - self.mean) @ self.whiten).sum(axis=1)
