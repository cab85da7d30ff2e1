"""Fallbacks answer: models, the wrappers that make them resilient, and the queue to a person.

A predictor returns tensors and does not know why it was asked. Nothing here knows the gateway.
"""

import os

# onnxruntime reads this when it is imported, and only modules of this package import it. With telemetry on
# it looks up a collector and keeps a queue of events, with callers' values in them.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
