"""Requests over HTTP as bytes."""

from __future__ import annotations

import json
from typing import Any

from bench.same_answers.exchange import ADMIN, COUNT_DELAY_S, HttpExchange
from bench.same_answers.sampled_deployment import InputRows, SampledDeployment

ADMIN_TOKEN = "token-of-same-answers"  # noqa: S105 (of scratch deployments)
ADA = "Authorization: Bearer <<key:ada>>"
OPERATOR = f"Authorization: Bearer {ADMIN_TOKEN}"
JSON = "Accept: application/json"
HTML = "Accept: text/html"


def request(
    method: str, target: str, *headers: str, body: bytes | None = None, version: str = "1.1"
) -> bytes:
    """A whole request; its length is stated where it has a body."""
    lines = [f"{method} {target} HTTP/{version}", "Host: 127.0.0.1", *headers]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1") + (body or b"")


def get(target: str, *headers: str) -> bytes:
    """A request that has no body."""
    return request("GET", target, *headers)


def json_tensor(deployment: SampledDeployment, rows: InputRows) -> dict[str, Any]:
    """Rows as the input of a request in JSON."""
    data = [float(value) for value in rows.ravel()]
    return {"name": deployment.input, "datatype": "FP32", "shape": list(rows.shape), "data": data}


def infer_document(deployment: SampledDeployment, rows: InputRows, **members: Any) -> dict[str, Any]:
    """A request in JSON, before it is written."""
    return {"inputs": [json_tensor(deployment, rows)], **members}


def post_infer(deployment: SampledDeployment, body: bytes, *headers: str, model: str = "") -> bytes:
    """A body sent to the model of a deployment."""
    return request("POST", f"/v2/models/{model or deployment.name}/infer", *headers, body=body)


def json_infer(deployment: SampledDeployment, rows: InputRows, *headers: str, **members: Any) -> bytes:
    """Rows in JSON."""
    return post_infer(deployment, json.dumps(infer_document(deployment, rows, **members)).encode(), *headers)


def binary_body(deployment: SampledDeployment, rows: InputRows, **members: Any) -> tuple[bytes, int]:
    """Rows in binary after the JSON that announces them, and the length of that JSON."""
    entry = json_tensor(deployment, rows) | {"parameters": {"binary_data_size": rows.nbytes}}
    del entry["data"]
    head = json.dumps({"inputs": [entry], **members}).encode()
    return head + rows.astype("<f4").tobytes(), len(head)


def binary_infer(deployment: SampledDeployment, rows: InputRows, *headers: str, **members: Any) -> bytes:
    """Rows in binary."""
    body, length = binary_body(deployment, rows, **members)
    return post_infer(deployment, body, f"Inference-Header-Content-Length: {length}", *headers)


def operate(method: str, target: str, *headers: str, **fields: Any) -> bytes:
    """A request of an operator with the administration token, and fields as JSON."""
    if method == "GET":
        return get(target, OPERATOR, *(headers or (JSON,)))
    body = json.dumps(fields).encode()
    return request(method, target, OPERATOR, JSON, "Content-Type: application/json", *headers, body=body)


def status_exchange(name: str, *headers: str, target: str = "/status") -> HttpExchange:
    """A request for counts, sent once every earlier exchange is counted."""
    return HttpExchange(name, (get(target, *headers),), ADMIN, pause_s=COUNT_DELAY_S)
