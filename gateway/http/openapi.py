"""The data plane's OpenAPI 3.1 document, made from its table of routes and the contract of the loaded model.

Routing uses the same table, so no route can be missing, and the statuses are those of `protocol/endings.py`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from gateway.core.decision import Reason
from gateway.http.routes import Route
from gateway.http.schemas import MAX_INTEGER, MODES, OUTCOMES, REASONS, Schema, ref, schemas
from gateway.protocol.contract import Contract
from gateway.protocol.endings import ANSWERED, LONGEST_RETRY_S, STATUSES, Cause, Deferral, Rejection
from gateway.protocol.infer_request import MAX_DEPTH
from gateway.protocol.metadata import NAME, VERSION

OCTETS, JSON = "application/octet-stream", "application/json"


class _Error(NamedTuple):
    """What the document says of one status. bodies: its schemas; headers: beside the x-failsafe ones."""

    description: str
    headers: tuple[str, ...] = ()
    bodies: tuple[str, ...] = ("Error",)


_ERRORS: dict[Cause, _Error] = {
    Deferral.ACCEPTED: _Error(
        "Deferred to a person, for those who sent Prefer: respond-async.",
        ("location", "preference-applied"),
        ("Deferred",),
    ),
    Rejection.INVALID: _Error("What the caller can mend: each field, and what is wrong with it."),
    Rejection.UNAUTHENTICATED: _Error("A valid key is needed.", ("www-authenticate",)),
    Rejection.FORBIDDEN: _Error(
        "The key does not allow that, or a browser sent it for a page of another site."
    ),
    Rejection.NOT_FOUND: _Error("There is nothing here, or it is another's."),
    Rejection.METHOD_NOT_ALLOWED: _Error(
        "A part of the path that is empty makes another path, which has other methods.", ("allow",)
    ),
    Rejection.TOO_SLOW: _Error("The request did not arrive in time."),
    Rejection.TOO_LARGE: _Error("The body is too large, after decoding too."),
    Rejection.UNSUPPORTED_MEDIA: _Error("The Content-Encoding or the Content-Type is not taken."),
    Rejection.UNEXPECTED: _Error("What the request expects cannot be met."),
    Rejection.MISDIRECTED: _Error("Host names no host of this gateway."),
    Reason.ABSTAINED: _Error(
        "Deferred to a person, or the gateway abstains from answering.", bodies=("Deferred", "Error")
    ),
    Reason.RATE_LIMITED: _Error("Too many requests, or connections, of this caller.", ("retry-after",)),
    Rejection.HEAD_TOO_LARGE: _Error("The headers are too large or too many."),
    Rejection.UNSUPPORTED: _Error("Not supported."),
    Reason.UNAVAILABLE: _Error("No answer is available now.", ("retry-after",)),
    Reason.DEADLINE: _Error("No answer before the deadline."),
}
"""By cause, in the order of their statuses. A deferral as an error shares the status of an abstention."""


def document(routes: Sequence[Route], contract: Contract, base: str, anonymous: bool) -> Schema:
    """The document. base: a prefix that paths may have; anonymous: whether a key may be absent.

    Cost: 1 ms.
    """
    paths: dict[str, Schema] = {}
    for route in routes:
        paths.setdefault(path_of(route), {})[route.method.lower()] = _operation(route, contract)
    no_key: list[Schema] = [{}] if anonymous else []
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"{NAME}: {contract.model}",
            "version": VERSION,
            "description": "The Open Inference Protocol. Every end is told in x-failsafe-* headers.",
        },
        "servers": [{"url": base or "/"}] + ([{"url": "/"}] if base else []),
        "security": [{"bearer": []}, {"key": []}, *no_key],
        "paths": paths,
        "components": {
            "schemas": schemas(contract),
            "headers": _headers(),
            "parameters": _request_headers(),
            "responses": {
                str(STATUSES[cause].http): _error_response(error) for cause, error in _ERRORS.items()
            },
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def path_of(route: Route) -> str:
    """The path of a route in the document, where `{rest*}` is an ordinary parameter."""
    return "/" + route.path.replace("*}", "}")


def _operation(route: Route, contract: Contract) -> Schema:
    operation: Schema = {
        "operationId": re.sub(r"\W+", "_", f"{route.method.lower()} {route.path}").strip("_"),
        "summary": route.summary,
        "parameters": [_path_parameter(name, route, contract) for name in route.parameters],
        "responses": _responses(route, contract),
    }
    if route.reply == "InferReply":
        operation["parameters"] += [
            {"$ref": f"#/components/parameters/{name}"} for name in _request_headers()
        ]
        operation["requestBody"] = _infer_body(contract)
    if route.reply == "RepositoryIndex":
        operation["requestBody"] = {"content": {JSON: {"schema": {}}}, "description": "Not looked at."}
    if route.scopes is None:
        operation["security"] = []
    return operation


def _responses(route: Route, contract: Contract) -> dict[str, Schema]:
    """The responses of one route by status."""
    statuses = sorted({STATUSES[cause].http for cause in route.all_causes})
    responses: dict[str, Schema] = {
        str(status): {"$ref": f"#/components/responses/{status}"} for status in statuses
    }
    if route.reply == "InferReply":
        responses[str(ANSWERED.http)] = _infer_response(contract)
    elif route.reply is not None:
        responses[str(ANSWERED.http)] = _response(route.reply)
    return responses


def _path_parameter(name: str, route: Route, contract: Contract) -> Schema:
    schema: Schema = {"type": "string", "minLength": 1}
    if route.path.startswith("v2/models/") and name in ("model", "version"):
        schema["enum"] = [contract.model if name == "model" else contract.version]
    descriptions = {"rest": "Any number of parts.", "id": "Of x-failsafe-decision-id, or of a review_url."}
    parameter: Schema = {"name": name, "in": "path", "required": True, "schema": schema}
    return parameter | ({"description": descriptions[name]} if name in descriptions else {})


def _infer_body(contract: Contract) -> Schema:
    """JSON alone, or binary; Inference-Header-Content-Length says which, not the Content-Type."""
    octets = {
        "schema": {"type": "string", "format": "binary", "maxLength": contract.body_limit_bytes},
    }
    content: Schema = {OCTETS: octets}
    if not {"FP16", "BF16"} & {spec.datatype for spec in contract.inputs}:
        content = {JSON: {"schema": ref("InferRequest")}, OCTETS: octets}
    text = f"""JSON alone without Inference-Header-Content-Length. With it, so many bytes of JSON, in which
inputs say `parameters.binary_data_size` instead of `data`; then their bytes in their order: little-endian,
BYTES as a 4-byte length and so many bytes. At 0, nothing but the bytes of the only input. Any
Content-Type but text/plain and multipart/form-data is taken, and none.
At most {contract.body_limit_bytes} bytes once decoded, nested at most {MAX_DEPTH} deep."""
    return {"required": True, "description": text, "content": content}


def _request_headers() -> dict[str, Schema]:
    """The headers of a request for inference, by the name of their component."""

    def header(name: str, schema: Schema, description: str) -> Schema:
        return {"name": name, "in": "header", "required": False, "schema": schema, "description": description}

    length = {"type": "integer", "minimum": 0, "maximum": 10**18 - 1}
    codings = {"type": "string", "enum": ["identity", "gzip", "deflate"]}
    return {
        "HeaderLength": header("Inference-Header-Content-Length", length, "Bytes of JSON, once decoded."),
        "ContentEncoding": header("Content-Encoding", codings, "Of the body."),
        "AcceptEncoding": header(
            "Accept-Encoding", {"type": "string"}, "gzip or deflate, for large answers."
        ),
        "Prefer": header(
            "Prefer", {"type": "string"}, "respond-async: a deferral is a 202; wait=N: N seconds, at most 30."
        ),
        "Timeout": header(
            "x-request-timeout-seconds",
            {"type": "number", "exclusiveMinimum": 0},
            "It can only shorten the policy's deadline.",
        ),
    }


def _headers() -> dict[str, Schema]:
    """The headers of replies."""
    text: Schema = {"type": "string", "minLength": 1}
    headers = {
        "x-failsafe-outcome": {"type": "string", "enum": OUTCOMES},
        "x-failsafe-reason": {"type": "string", "enum": REASONS},
        "x-failsafe-served-by": text,
        "x-failsafe-policy": text,
        "x-failsafe-mode": {"type": "string", "enum": MODES},
        "x-failsafe-decision-id": text,
        "retry-after": {"type": "integer", "minimum": 1, "maximum": LONGEST_RETRY_S},
        "allow": text,
        "www-authenticate": {"type": "string", "const": "Bearer"},
        "location": text,
        "preference-applied": {"type": "string", "const": "respond-async"},
    }
    return {name: {"required": True, "schema": schema} for name, schema in headers.items()}


def _header_refs(*more: str) -> Schema:
    """References to the x-failsafe headers, and to more."""
    names = [name for name in _headers() if name.startswith("x-failsafe-")] + list(more)
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _error_response(error: _Error) -> Schema:
    bodies = [ref(name) for name in error.bodies]
    return {
        "description": error.description,
        "headers": _header_refs(*error.headers),
        "content": {JSON: {"schema": bodies[0] if len(bodies) == 1 else {"oneOf": bodies}}},
    }


def _response(reply: str) -> Schema:
    """A 200 with a document: of a schema, or of OpenAPI itself."""
    schema = {"type": "object", "required": ["openapi", "paths"]} if reply == "OpenApi" else ref(reply)
    return {"description": "What is asked for.", "content": {JSON: {"schema": schema}}}


def _infer_response(contract: Contract) -> Schema:
    length = {"type": "integer", "minimum": 1, "maximum": MAX_INTEGER}
    headers: dict[str, Any] = {
        **_header_refs(),
        "inference-header-content-length": {
            "schema": length,
            "description": "Bytes of JSON, if binary follows.",
        },
        "content-encoding": {"schema": {"type": "string", "enum": ["gzip", "deflate"]}},
        "vary": {"schema": {"type": "string", "const": "accept-encoding"}},
    }
    octets = {"schema": {"type": "string", "format": "binary"}}
    description = (
        "Answered, by the model or by what x-failsafe-served-by names; binary if an output was asked so."
    )
    return {
        "description": description,
        "headers": headers,
        "content": {JSON: {"schema": ref("InferReply")}, OCTETS: octets},
        "links": {
            "decision": {
                "operationId": "get_decisions_id",
                "parameters": {"id": "$response.header.x-failsafe-decision-id"},
            }
        },
    }
