"""Rows as the bodies of infer requests."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

from gateway.cli.samples import Rows


def json_infer_body(name: str, rows: Rows) -> bytes:
    """All of it JSON."""
    tensor = _tensor(name, rows) | {"data": np.ascontiguousarray(rows).ravel()}
    return orjson.dumps({"inputs": [tensor]}, option=orjson.OPT_SERIALIZE_NUMPY)


def binary_infer_body(name: str, rows: Rows) -> tuple[int, bytes]:
    """The length of the JSON, and the JSON with the numbers after it; the answer is wanted in binary too."""
    tensor = _tensor(name, rows) | {"parameters": {"binary_data_size": rows.nbytes}}
    head = orjson.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}})
    return len(head), head + rows.tobytes()


def _tensor(name: str, rows: Rows) -> dict[str, Any]:
    return {"name": name, "datatype": "FP32", "shape": rows.shape}
