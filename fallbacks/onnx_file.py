"""From a file to an onnxruntime session over exactly the bytes that were hashed.

The file is read once, and the session is made from those bytes. onnxruntime would also look for external
weights in the working directory, so it is given a folder that can hold none.
"""

from __future__ import annotations

import os
import stat
from typing import Final

import numpy as np
import onnxruntime

from fallbacks.predictor import ModelTensor

MAX_MODEL_BYTES: Final = 512 * 2**20
ONNX_DTYPES: Final = {
    "tensor(bool)": np.dtype(np.bool_),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(float)": np.dtype(np.float32),
    "tensor(double)": np.dtype(np.float64),
    "tensor(bfloat16)": np.dtype(np.float32),
    "tensor(string)": np.dtype(np.object_),
    **{f"tensor(int{bits})": np.dtype(f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"tensor(uint{bits})": np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64)},
}


def tensor_of(file: str, arg: onnxruntime.NodeArg) -> ModelTensor:
    """One input or output as onnxruntime declares it. Raises ValueError unless its batch is dynamic."""
    what = f"{file}: {arg.name!r}"
    if arg.type not in ONNX_DTYPES:
        raise ValueError(
            f"{what} is {arg.type}; export plain tensors of numbers or text (sklearn: zipmap=False)"
        )
    shape = tuple(dim if isinstance(dim, int) else None for dim in arg.shape)
    if not shape:
        raise ValueError(f"{what} is a scalar; give it a first axis, the batch")
    if shape[0] is not None:
        raise ValueError(
            f"{what} has a fixed batch of {shape[0]}; export its first axis as dynamic (dynamic_axes)"
        )
    return ModelTensor(arg.name, ONNX_DTYPES[arg.type], shape, arg.type == "tensor(bfloat16)")


def read_once(path: str | os.PathLike[str], limit: int = MAX_MODEL_BYTES) -> bytes:
    """The bytes of a regular file (or of a link to one), at most `limit` of them.

    Raises: ValueError (file, what is wrong, how to mend it).
    """
    name = os.fspath(path)
    try:
        # Without O_NONBLOCK, opening a named pipe would wait for a writer for ever.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ValueError(
            f"{name}: cannot be read ({error.strerror}); check the path and its owner"
        ) from error
    try:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            raise ValueError(f"{name}: not a regular file; give the path of one .onnx file")
        if about.st_size > limit:
            raise ValueError(
                f"{name}: {about.st_size} bytes, over the {limit} allowed; "
                "export a smaller model, or serve it elsewhere"
            )
        with open(handle, "rb", closefd=False) as file:
            content = file.read(about.st_size + 1)
    finally:
        os.close(handle)
    if len(content) != about.st_size:
        raise ValueError(
            f"{name}: changed while it was read; write it elsewhere first, then rename it into place"
        )
    return content


def open_session(file: str, content: bytes, threads: int) -> onnxruntime.InferenceSession:
    """A CPU session over these bytes and nothing else. Raises ValueError where onnxruntime refuses them."""
    try:
        return onnxruntime.InferenceSession(content, _options(threads), providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ValueError(
            f"{file}: onnxruntime {onnxruntime.__version__} cannot load it: {str(error).strip()}; "
            "export it again as one ONNX file with its weights inside"
        ) from error


def _options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3  # errors only
    # Spinning would save microseconds and occupy a core, which replicas share.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # The folder of external weights; the default is the working directory.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    return options
