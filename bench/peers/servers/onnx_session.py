"""The one model that every server here runs, with the session options that the gateway gives it.

PEER_FOLDER is the deployment folder, PEER_THREADS how many threads one operator may use (default 1).
"""

from __future__ import annotations

import os
from pathlib import Path

import onnxruntime


def folder() -> Path:
    """The deployment folder."""
    return Path(os.environ["PEER_FOLDER"])


def open_session() -> onnxruntime.InferenceSession:
    """A CPU session that does not spin: servers share their cores with the load generator."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("PEER_THREADS", "1"))
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(
        folder() / "primary.onnx", options, providers=["CPUExecutionProvider"]
    )
