"""The Open Inference Protocol from its client's side: predictors over models in other servers.

May import `fallbacks.predictor` and `fallbacks.onnx`. Read `upstream.py` first. The gateway's endpoints use the
messages too (`open_inference_pb2`, `payload.py`), and the encodings (`values.py`, `wire_format.py`).
"""
