"""What answers a row: predictors, wrappers that make them resilient, and human review.

Predictors: `onnx` (a model in this process) and `oip/` (a model in another server). Wrappers: `breaker`,
`retry` and `hedge`, over any predictor, `roles`, which adds the probabilities that a model leaves out, and
`worker`, a thread for blocking calls. `review/` stores the rows that no model may answer.
Imports neither `gateway` nor `guards`. Read `predictor.py` first.
"""

import os

# onnxruntime reads this when it is imported, and only modules of this package import it. With telemetry on it
# resolves the address of a collector and keeps a queue of events that hold callers' values.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
