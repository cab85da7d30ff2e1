"""The body of an infer request: any inputs, as JSON or in binary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from gateway.core.decision import Tensors
from gateway.core.errors import InvalidRequest, Problem
from gateway.protocol.contract import TensorSpec
from gateway.protocol.tensors import to_binary, to_json

BINARY_ONLY = ("FP16", "BF16")


def infer_body(
    inputs: Sequence[TensorSpec], x: Tensors, more: dict[str, Any], *, binary: bool
) -> tuple[bytes, int | None]:
    """The body, and the size of its JSON if binary data follows.

    Args:    x: the rows, each input by name; more: what the document says beside its inputs.
    Raises:  InvalidRequest naming the input that JSON cannot hold.
    """
    entries: list[dict[str, Any]] = []
    tails: list[bytes | memoryview] = []
    for spec in inputs:
        array = x[spec.name]
        entry: dict[str, Any] = {"name": spec.name, "datatype": spec.datatype, "shape": array.shape}
        if binary:
            tails.append(raw := to_binary(spec, array))
            entry["parameters"] = {"binary_data_size": memoryview(raw).nbytes}
        else:
            entry["data"] = _in_json(spec, array)
        entries.append(entry)
    head = orjson.dumps({"inputs": entries, **more}, option=orjson.OPT_SERIALIZE_NUMPY)
    return b"".join((head, *tails)), len(head) if binary else None


def _in_json(spec: TensorSpec, array: Any) -> Any:
    if spec.datatype in BINARY_ONLY:
        raise InvalidRequest([Problem(spec.name, f"{spec.datatype} travels as binary only")])
    try:
        return to_json(spec, array)
    except InvalidRequest as error:
        what = "holds bytes that are not UTF-8 text, which travel as binary only"
        raise InvalidRequest([Problem(spec.name, what)]) from error
