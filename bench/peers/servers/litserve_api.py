"""LitServe: one worker, the queue and the dynamic batching that its documentation recommends for throughput.

PEER_BATCH says how many requests share a pass; 1: none do.
"""

from __future__ import annotations

import os

import litserve
import numpy as np
from onnx_session import open_session

BATCH_WAIT_S = 0.005


class Onnx(litserve.LitAPI):
    """Decode, batch, predict, unbatch, encode: LitServe calls them in its worker process."""

    def setup(self, device):
        self.session = open_session()

    def decode_request(self, request):
        tensor = request["inputs"][0]
        return np.array(tensor["data"], np.float32).reshape(tensor["shape"])

    def batch(self, inputs):
        self.sizes = [len(x) for x in inputs]
        return np.concatenate(inputs)

    def predict(self, x):
        return self.session.run(["probabilities"], {"image": x})[0]

    def unbatch(self, output):
        return np.split(output, np.cumsum(self.sizes)[:-1])

    def encode_response(self, output):
        y = {"name": "probabilities", "datatype": "FP32", "shape": list(output.shape)}
        return {"model_name": "fashion", "outputs": [y | {"data": output.ravel().tolist()}]}


if __name__ == "__main__":
    batch = int(os.environ["PEER_BATCH"])
    api = Onnx(
        max_batch_size=batch,
        batch_timeout=BATCH_WAIT_S if batch > 1 else 0.0,
        api_path="/v2/models/fashion/infer",
    )
    server = litserve.LitServer(api, accelerator="cpu", fast_queue=True)
    server.run(
        host="127.0.0.1",
        port=int(os.environ["PEER_PORT"]),
        log_level="warning",
        access_log=False,
        generate_client_file=False,
    )
