"""The Open Inference Protocol without a transport: contracts, tensors, requests, answers, endings, metadata.

May import `core`, and the tensor encodings that `fallbacks.oip` shares with it.
Read `contract.py` first, then `infer_request.py` and `endings.py`.
"""
