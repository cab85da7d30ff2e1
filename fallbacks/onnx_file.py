"""From a file to an onnxruntime session over exactly the bytes that were hashed.

The file is read once, and the session is made from those bytes. onnxruntime would also look for external
weights in the working directory, so it is given a folder that can hold none.
"""

from __future__ import annotations

import os
from typing import Final

import onnxruntime

from fallbacks.onnx_errors import explain
from fallbacks.regular_file import read_regular

MAX_MODEL_BYTES: Final = 512 * 2**20


def read_once(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a model file, at most 512 MiB. Raises ValueError (file, what is wrong, how to mend it)."""
    return read_regular(path, MAX_MODEL_BYTES, "export a smaller model, or serve it elsewhere")


def open_session(file: str, content: bytes, threads: int) -> onnxruntime.InferenceSession:
    """A CPU session over these bytes and nothing else. Raises ValueError where onnxruntime refuses them."""
    try:
        return onnxruntime.InferenceSession(
            content, _options(threads), providers=["CPUExecutionProvider"], enable_fallback=0
        )
    except Exception as error:
        raise ValueError(f"{file}: {explain(str(error))}") from error


def _options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4  # its errors are raised; they need not be on stderr as well
    # Spinning would save microseconds and occupy a core, which replicas share.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # The folder of external weights; the default is the working directory.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    return options
