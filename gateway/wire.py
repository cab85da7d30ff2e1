"""The Open Inference Protocol over HTTP: an infer request read strictly, its response written exactly.

Pure functions from bytes to values and back. What a caller got wrong is collected, every part that can be
judged, and raised once as `InvalidRequest`, each problem with the field and the rule. Nothing else is
raised, whatever the bytes: every type is looked at before it is used.

    {"id", "parameters", "inputs": [{"name", "datatype", "shape", "parameters", "data"}], "outputs": [...]}
    └─────────────── Inference-Header-Content-Length ───────────────┘ binary data, in the order of inputs

Without the header the whole body is JSON. At 0 (a raw request) it is the data of a one-input model.
Unknown members and parameters are ignored, and a null is as good as an absent member.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
import orjson

from gateway.contract import ROW_OUTCOME, Array, Contract, RequestedOutput, Shape, TensorSpec, read_shape
from gateway.errors import InvalidRequest, Problem
from gateway.tensors import Mask, classify, from_binary, from_json, to_binary, to_json

__all__ = [
    "ROW_OUTCOME",
    "Contract",
    "InferRequest",
    "RequestedOutput",
    "TensorSpec",
    "parse_header_length",
    "parse_infer",
    "render_infer",
]

HEADER = "Inference-Header-Content-Length"
MAX_DEPTH = 16
SPARE_ENTRIES = 16  # how many entries beyond the contract's are still named in problems
SHARED_MEMORY = "shared_memory_region"

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"')
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[{]}"))


@dataclass(frozen=True, slots=True, eq=False)
class InferRequest:
    """One valid request: `inputs` have exactly the contract's dtypes and `rows` rows each, and are read-only."""

    id: str | None
    inputs: Mapping[str, Array]
    rows: int
    outputs: tuple[RequestedOutput, ...]
    timeout_us: int | None = None
    priority: int | None = None
    wants_row_outcome: bool = False


def parse_header_length(value: str | None) -> int | None:
    """The Inference-Header-Content-Length header, if there is one."""
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) <= 18):
        raise InvalidRequest([Problem(HEADER, "must be a number of bytes")])
    return int(value)


def parse_infer(body: bytes, header_length: int | None, contract: Contract) -> InferRequest:
    """The request in `body`.

    Raises:  InvalidRequest, and nothing else.
    Cost:    FP32[1,1,28,28]: see tests/gateway/test_wire_speed.py.
    """
    if header_length == 0:
        return _parse_raw(body, contract)
    document, tail = _split(body, header_length)
    problems: list[Problem] = []
    identity = _optional(document, "id", str, "id", "a string", problems)
    parameters = _parameters(document, "", problems)
    timeout_us = _optional(parameters, "timeout", int, "parameters.timeout", "an integer", problems)
    priority = _optional(parameters, "priority", int, "parameters.priority", "an integer", problems)
    binary = _flag(parameters, "binary_data_output", "", problems)
    inputs = _inputs(document.get("inputs"), tail, contract, problems)
    outputs = _outputs(document.get("outputs"), bool(binary), contract, problems)
    if problems:
        raise InvalidRequest(problems)
    return InferRequest(
        id=identity,
        inputs=inputs,
        rows=len(next(iter(inputs.values()))),
        outputs=outputs,
        timeout_us=timeout_us or None,
        priority=priority or None,
        wants_row_outcome=any(asked.name == ROW_OUTCOME.name for asked in outputs),
    )
