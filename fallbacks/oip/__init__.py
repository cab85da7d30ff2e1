"""The Open Inference Protocol from its client's side: predictors over models in other servers.

May import `fallbacks.predictor` and `fallbacks.onnx`. Read `upstream.py` first. The gateway itself also uses
the messages (`open_inference_pb2`, `payload.py`) and the encodings (`values.py`, `wire_format.py`).
"""
