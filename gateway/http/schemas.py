"""JSON schemas of the requests and replies of the data plane, for one model's contract.

The parser checks two things that a schema cannot express: that `data` has as many values as its shape
multiplies to, and that 5.0 is no integer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from gateway.core.decision import OUTCOME_NAMES, Reason
from gateway.protocol.contract import ROW_OUTCOME, Contract, TensorSpec
from gateway.protocol.endings import Rejection

Schema: TypeAlias = dict[str, Any]

MAX_INTEGER = 2**64 - 1
"""A larger integer is parsed as a fraction."""
TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0, "maximum": MAX_INTEGER}
OUTCOMES = list(OUTCOME_NAMES.values())
REASONS = list(dict.fromkeys(str(reason) for reason in (*Reason, *Rejection)))
FLAT: Schema = {"additionalProperties": {"type": ["string", "number", "boolean", "null"]}}
"""Of the parameters of a request: a nested one is refused, also where its name is not known."""
MODES = ["enforce", "observe", "none"]
"""`none`: the request reached no model."""


def ref(name: str) -> Schema:
    """A reference to one of `schemas`."""
    return {"$ref": f"#/components/schemas/{name}"}


def schemas(contract: Contract) -> dict[str, Schema]:
    """Every schema by name. Cost: 0.1 ms."""
    return {
        "InferRequest": infer_request(contract),
        "InferReply": infer_reply(contract),
        "Parameters": _parameters(),
        "Error": _object(_error(), ["error", "parameters"]),
        "Deferred": _object({**_error(), "review_url": TEXT}, ["error", "review_url", "parameters"]),
        "Server": _object({"name": TEXT, "version": TEXT, "extensions": _list(TEXT)}),
        "Health": _object({"live": {"const": True}, "ready": {"type": "boolean"}}),
        "Model": _model(contract),
        "ModelReady": _object({"name": {"const": contract.model}, "ready": {"const": True}}),
        "ModelConfig": _config(contract),
        "Statistics": _object({"model_stats": _list(_statistics(contract))}),
        "RepositoryIndex": _list(_object({"name": TEXT, "version": TEXT, "state": TEXT, "reason": TEXT})),
        "Decision": _decision(),
        "Review": _review(),
    }


def infer_request(contract: Contract) -> Schema:
    """The JSON of a request without binary data. Inputs come in any order; unknown members are ignored."""
    entries = [_input(spec, contract.max_rows) for spec in contract.inputs]
    n = len(entries)
    inputs: Schema = {"type": "array", "minItems": n, "maxItems": n, "items": _one_of(entries)}
    if n > 1:
        inputs["allOf"] = [{"contains": {"properties": {"name": {"const": s.name}}}} for s in contract.inputs]
    requested = [_requested_output(spec) for spec in contract.outputs_by_name.values()]
    once = [
        {
            "contains": {"required": ["name"], "properties": {"name": {"const": name}}},
            "minContains": 0,
            "maxContains": 1,
        }
        for name in contract.outputs_by_name
    ]
    outputs = {
        "type": ["array", "null"],
        "maxItems": len(requested),
        "items": _one_of(requested),
        "allOf": once,
    }
    properties = {"timeout": _maybe(COUNT), "priority": _maybe(COUNT), "binary_data_output": _maybe_bool()}
    return {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": ["string", "null"], "description": "Echoed."},
            "parameters": {
                "type": ["object", "null"],
                "properties": properties,
                **FLAT,
                "description": "timeout: in microseconds, 0 for none; it can only shorten the policy's.",
            },
            "inputs": inputs,
            "outputs": outputs | {"description": "None: every output of the model."},
        },
        "examples": [{"inputs": [_example(spec) for spec in contract.inputs]}],
    }


def infer_reply(contract: Contract) -> Schema:
    """The JSON of an answer without binary data."""
    forms = [form for spec in contract.outputs for form in (_output(spec), _classified(spec))]
    properties = {
        "model_name": {"const": contract.model},
        "model_version": {"const": contract.version},
        "id": TEXT,
        "parameters": ref("Parameters"),
        "outputs": {"type": "array", "minItems": 1, "items": {"anyOf": [*forms, _row_outcome()]}},
    }
    return _object(properties, ["model_name", "model_version", "parameters", "outputs"])


def value_schema(spec: TensorSpec) -> Schema:
    """One value of a tensor in JSON, exactly as it is parsed.

    A number is compared with its range after it is rounded to the datatype, so it may be half a step outside.
    """
    match spec.dtype.kind:
        case "b":
            return {"type": "boolean"}
        case "O":
            return TEXT
        case "f":
            return {"type": "number", **_edges(spec)}
    whole = np.iinfo(spec.dtype)
    low, high = spec.bounds or (whole.min, whole.max)
    return {"type": "integer", "minimum": int(low), "maximum": int(high)}


def _edges(spec: TensorSpec) -> Schema:
    """The smallest and the largest double that are still parsed as a value in range."""
    assert spec.bounds is not None
    low, high = spec.bounds
    if spec.dtype == np.float64:
        return {"minimum": float(low), "maximum": float(high)}
    limits: Schema = {}
    with np.errstate(over="ignore"):
        for edge, way, inclusive, exclusive in (
            (low, -np.inf, "minimum", "exclusiveMinimum"),
            (high, np.inf, "maximum", "exclusiveMaximum"),
        ):
            step = np.float64(np.nextafter(edge, spec.dtype.type(way))) - np.float64(edge)
            if np.isinf(step):  # then it is as long as the step before
                step = np.float64(edge) - np.float64(np.nextafter(edge, spec.dtype.type(0)))
            middle = float(edge + step / 2)
            limits[inclusive if spec.dtype.type(middle) == edge else exclusive] = middle
    return limits


def _input(spec: TensorSpec, max_rows: int) -> Schema:
    """One input in JSON; datatypes that are binary only have none."""
    parameters: Schema = {"binary_data_size": {"type": "null"}, "shared_memory_region": False}
    properties: Schema = {
        "name": {"const": spec.name},
        "datatype": {"const": spec.datatype},
        "shape": _shape(spec, max_rows),
        "parameters": {"type": ["object", "null"], "properties": parameters, **FLAT},
        "data": False if spec.datatype in ("FP16", "BF16") else _data(spec, max_rows),
    }
    return {"type": "object", "required": ["name", "datatype", "shape", "data"], "properties": properties}


def _shape(spec: TensorSpec, max_rows: int, min_size: int = 1) -> Schema:
    rows: Schema = {"type": "integer", "minimum": 1, "maximum": max_rows}
    any_size: Schema = {"type": "integer", "minimum": min_size}
    sizes = [rows, *(any_size if size is None else {"const": size} for size in spec.shape[1:])]
    n = len(sizes)
    return {"type": "array", "minItems": n, "maxItems": n, "prefixItems": sizes, "items": False}


def _data(spec: TensorSpec, max_rows: int) -> Schema:
    """The values, flat or nested exactly as the shape."""
    sizes = spec.shape[1:]
    one = math.prod(size or 1 for size in sizes)
    flat: Schema = {"type": "array", "minItems": one, "items": value_schema(spec)}
    if None not in sizes:
        flat["maxItems"] = one * max_rows
    about = f"{spec.datatype}, as many as the shape multiplies to, row by row{_range(spec)}."
    if not sizes:
        return {**flat, "description": about}
    level = value_schema(spec)
    for size in reversed(sizes):
        bounds: Schema = {"minItems": size or 1} | ({"maxItems": size} if size else {})
        level = {"type": "array", **bounds, "items": level}
    nested = {"type": "array", "minItems": 1, "maxItems": max_rows, "items": level}
    return {"oneOf": [flat, nested], "description": about}


def _range(spec: TensorSpec) -> str:
    if spec.low is None and spec.high is None:
        return ""
    low, high = (-math.inf if spec.low is None else spec.low), (math.inf if spec.high is None else spec.high)
    return f", from {low} to {high} once rounded to {spec.datatype}"


def _requested_output(spec: TensorSpec) -> Schema:
    """One output that a request names. With `binary_data` the reply is binary, which has no schema."""
    parameters: Schema = {"binary_data": _maybe_bool(), "shared_memory_region": False}
    if spec.dtype.kind in "iuf":
        parameters["classification"] = _maybe({**COUNT, "minimum": 1})
    else:
        parameters["classification"] = {"type": "null"}
    properties = {
        "name": {"const": spec.name},
        "parameters": {"type": ["object", "null"], "properties": parameters, **FLAT},
    }
    return {"type": "object", "required": ["name"], "properties": properties}


def _output(spec: TensorSpec) -> Schema:
    """One output of an answer; null is a withheld value, which occurs only together with fs_row_outcome or
    fs_row_outcomes."""
    kinds = {"b": "boolean", "i": "integer", "u": "integer", "f": "number", "O": "string"}
    values = _list({"type": [kinds[spec.dtype.kind], "null"]})
    return _tensor(spec.name, spec.datatype, _shape(spec, MAX_INTEGER, min_size=0), values)


def _classified(spec: TensorSpec) -> Schema:
    """The largest values of each row as texts."""
    texts = {"type": ["string", "null"], "pattern": "^[^:]+:[0-9]+(:.*)?$"}
    shape = {"type": "array", "minItems": 2, "maxItems": 2, "items": COUNT}
    return _tensor(spec.name, "BYTES", shape, _list(texts))


def _row_outcome() -> Schema:
    shape = {"type": "array", "minItems": 1, "maxItems": 1, "items": COUNT}
    return _tensor(ROW_OUTCOME.name, "BYTES", shape, _list({"enum": OUTCOMES}))


def _tensor(name: str, datatype: str, shape: Schema, data: Schema) -> Schema:
    return _object({"name": {"const": name}, "datatype": {"const": datatype}, "shape": shape, "data": data})


def _example(spec: TensorSpec) -> Schema:
    """One row of the smallest valid size."""
    sizes = [1, *(size or 1 for size in spec.shape[1:])]
    value: Any = {"b": False, "O": "text"}.get(spec.dtype.kind)
    if value is None:
        value = np.clip(0, *spec.bounds).item() if spec.bounds else 0
    data = [value] * math.prod(sizes)
    return {"name": spec.name, "datatype": spec.datatype, "shape": sizes, "data": data}


def _parameters() -> Schema:
    """The parameters of every reply of inference and of every error."""
    required: Schema = {
        "fs_outcome": {"enum": OUTCOMES},
        "fs_reason": {"enum": REASONS},
        "fs_served_by": TEXT,
        "fs_policy": TEXT,
        "fs_mode": {"enum": MODES},
        "fs_decision_id": TEXT,
    }
    one = "|".join(OUTCOMES)
    each_row = {"type": "string", "pattern": f"^({one})(,({one}))*$"}
    return _object({**required, "fs_review_urls": TEXT, "fs_row_outcomes": each_row}, list(required))


def _error() -> Schema:
    return {"error": {"type": "string", "minLength": 1}, "id": TEXT, "parameters": ref("Parameters")}


def _model(contract: Contract) -> Schema:
    tensor = _object({"name": TEXT, "datatype": TEXT, "shape": _list({"type": "integer"})})
    properties = {"name": {"const": contract.model}, "versions": _list(TEXT), "platform": TEXT}
    properties["parameters"] = _object({"withheld_rows": {"const": contract.withheld_rows}})
    return _object({**properties, "inputs": _list(tensor), "outputs": _list(tensor)})


def _config(contract: Contract) -> Schema:
    tensor = _object({"name": TEXT, "data_type": TEXT, "dims": _list({"type": "integer"})})
    properties = {
        "name": {"const": contract.model},
        "platform": TEXT,
        "backend": TEXT,
        "max_batch_size": COUNT,
    }
    return _object({**properties, "input": _list(tensor), "output": _list(tensor)})


def _statistics(contract: Contract) -> Schema:
    duration = _object({"count": COUNT, "ns": COUNT})
    names = ("success", "fail", "queue", *(f"compute_{what}" for what in ("input", "infer", "output")))
    properties: Schema = {"name": {"const": contract.model}, "version": {"const": contract.version}}
    properties |= dict.fromkeys(("last_inference", "inference_count", "execution_count"), COUNT)
    properties["inference_stats"] = _object(dict.fromkeys((*names, "cache_hit", "cache_miss"), duration))
    return _object({**properties, "batch_stats": _list({})})


def _decision() -> Schema:
    """A decision; its rows have further members for a caller with the scope `explain`."""
    row: Schema = {"id": TEXT, "outcome": {"enum": OUTCOMES}, "reason": {"enum": REASONS}}
    rows = {
        "type": "object",
        "required": list(row),
        "properties": {**row, "by": {"type": ["string", "null"]}},
    }
    properties = {"id": TEXT, "received": {"type": "number"}, "policy": TEXT, "mode": TEXT}
    return _object({**properties, "rows": _list(rows)})


def _review() -> Schema:
    states = {"enum": ["waiting", "decided", "expired"]}
    answer = {"anyOf": [ref("InferReply"), ref("Error")]}
    properties = {"id": TEXT, "state": states, "expires": {"type": "number"}}
    return _object({**properties, "answer": answer}, list(properties))


def _object(properties: Schema, required: Sequence[str] | None = None) -> Schema:
    """An object with these members and no others."""
    names = list(properties if required is None else required)
    return {"type": "object", "required": names, "properties": properties, "additionalProperties": False}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _one_of(forms: Sequence[Schema]) -> Schema:
    return forms[0] if len(forms) == 1 else {"oneOf": list(forms)}


def _maybe(schema: Schema) -> Schema:
    return {**schema, "type": [schema["type"], "null"]}


def _maybe_bool() -> Schema:
    return {"type": ["boolean", "null"]}
