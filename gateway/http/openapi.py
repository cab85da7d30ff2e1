"""The data plane's OpenAPI 3.1 document, made from its table of routes and the contract of the loaded model.

The table is what is served, so no route can be missing; a route that nothing is said of here is refused when
the table is described, which is when the program starts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from gateway.http.routes import Route
from gateway.http.schemas import MOST, OUTCOMES, REASONS, Schema, ref, schemas
from gateway.protocol.contract import Contract
from gateway.protocol.infer_request import MAX_DEPTH
from gateway.protocol.metadata import NAME, VERSION

OCTETS, JSON = "application/octet-stream", "application/json"
_VERSION = "/versions/{version}"
_PART = re.compile(r"\{(\w+)\*?\}")
ALWAYS = (400, 408, 417, 431, 501)
"""Any request may end so, whatever its path: no HTTP/1.1, too slow, or expecting what is not served."""


class About(NamedTuple):
    """What is said of a route. reply: the schema of its 200; statuses: how else it ends, beside the usual."""

    summary: str
    reply: str | None = None
    statuses: tuple[int, ...] = ()


_NOT_SUPPORTED = About("Not supported: always 501")
_ABOUT: dict[tuple[str, str], About] = {
    ("GET", "v2"): About("The server and its extensions", "Server"),
    ("GET", "v2/health/live"): About("Whether the server lives", "Health"),
    ("GET", "v2/health/ready"): About("Whether the server is ready", "Health"),
    ("GET", "openapi.json"): About("This document"),
    ("GET", "v2/models/stats"): About("How much this replica has done", "Statistics"),
    ("GET", "v2/models/{model}"): About("What the model takes and gives", "Model", (404,)),
    ("GET", "v2/models/{model}/ready"): About("Whether the model is ready", "ModelReady", (404,)),
    ("GET", "v2/models/{model}/config"): About("The model's configuration", "ModelConfig", (404,)),
    ("GET", "v2/models/{model}/stats"): About("How much this replica has done", "Statistics", (404,)),
    ("POST", "v2/models/{model}/infer"): About(
        "Infer: answered, degraded to a fallback, deferred to a person, or refused",
        "InferReply",
        (202, 404, 413, 422, 503, 504),
    ),
    ("POST", "v2/repository/index"): About("Which models there are", "RepositoryIndex", (413,)),
    ("POST", "v2/repository/models/{model}/load"): About("For administrators alone, elsewhere: always 403"),
    ("POST", "v2/repository/models/{model}/unload"): About("For administrators alone, elsewhere: always 403"),
    ("GET", "decisions/{id}"): About("How a request of the caller's own ended", "Decision", (404,)),
    ("GET", "reviews/{id}"): About("How a deferred row of the caller's own stands", "Review", (404, 503)),
    **{
        (method, f"v2/{rest}"): _NOT_SUPPORTED
        for method in ("GET", "POST")
        for rest in (
            "models/{model}/trace/setting",
            "models/{model}/generate",
            "models/{model}/generate_stream",
            "models/{model}/infer_stream",
            "logging",
            "trace/setting",
            "systemsharedmemory/{rest*}",
            "cudasharedmemory/{rest*}",
        )
    },
}
_ENDS = {
    202: "Deferred to a person, for those who sent Prefer: respond-async.",
    400: "What the caller can mend: each field, and what is wrong with it.",
    401: "A valid key is needed.",
    403: "The key does not allow that.",
    404: "There is nothing here, or it is another's.",
    405: "A part of the path that is empty makes another path, which has other methods.",
    408: "The request did not arrive in time.",
    413: "The body is too large, after decoding too.",
    417: "What the request expects cannot be met.",
    422: "Deferred to a person, or the gateway abstains from answering.",
    429: "Too many requests, or connections, of this caller.",
    431: "The headers are too large or too many.",
    501: "Not supported.",
    503: "No answer is available now.",
    504: "No answer before the deadline.",
}


def described(routes: Sequence[Route]) -> Callable[[Contract, str, bool], Schema]:
    """What makes the document of these routes. Raises ValueError if nothing is said of one of them."""
    told = {(route.method, route.path.replace(_VERSION, "")) for route in routes}
    if told != _ABOUT.keys():
        raise ValueError(f"gateway/openapi.py and the routes differ in {sorted(told ^ _ABOUT.keys())}")
    return lambda contract, base, anonymous: document(routes, contract, base, anonymous)


def document(routes: Sequence[Route], contract: Contract, base: str, anonymous: bool) -> Schema:
    """The document. base: what may stand before a path; anonymous: whether a key may be absent.

    Cost: 1 ms.
    """
    paths: dict[str, Schema] = {}
    for route in routes:
        paths.setdefault(path_of(route), {})[route.method.lower()] = _operation(route, contract)
    open_to_all: list[Schema] = [{}] if anonymous else []
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"{NAME}: {contract.model}",
            "version": VERSION,
            "description": "The Open Inference Protocol. Every end is told in x-failsafe-* headers.",
        },
        "servers": [{"url": base or "/"}] + ([{"url": "/"}] if base else []),
        "security": [{"bearer": []}, {"key": []}, *open_to_all],
        "paths": paths,
        "components": {
            "schemas": schemas(contract),
            "headers": _headers(),
            "parameters": _request_headers(),
            "responses": {str(status): _end(status) for status in _ENDS},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def path_of(route: Route) -> str:
    """A route's path as the document has it: `{rest*}` is a parameter like any other."""
    return "/" + route.path.replace("*}", "}")


def _operation(route: Route, contract: Contract) -> Schema:
    about = _ABOUT[route.method, route.path.replace(_VERSION, "")]
    infers = about.reply == "InferReply"
    names = _PART.findall(route.path)
    statuses = {*ALWAYS, *about.statuses}
    statuses |= {401, 403, 429} if route.needs is not None else set()
    statuses |= {405} if names else set()
    responses = {str(status): {"$ref": f"#/components/responses/{status}"} for status in sorted(statuses)}
    if route.path == "openapi.json" or about.reply is not None:
        responses["200"] = _answer(contract) if infers else _told(about.reply)
    told: Schema = {
        "operationId": re.sub(r"\W+", "_", f"{route.method.lower()} {route.path}").strip("_"),
        "summary": about.summary,
        "parameters": [_path_parameter(name, route, contract) for name in names],
        "responses": responses,
    }
    if infers:
        told["parameters"] += [{"$ref": f"#/components/parameters/{name}"} for name in _request_headers()]
        told["requestBody"] = _infer_body(contract)
    if about.reply == "RepositoryIndex":
        told["requestBody"] = {"content": {JSON: {"schema": {}}}, "description": "Not looked at."}
    if route.needs is None:
        told["security"] = []
    return told


def _path_parameter(name: str, route: Route, contract: Contract) -> Schema:
    schema: Schema = {"type": "string", "minLength": 1}
    if route.path.startswith("v2/models/") and name in ("model", "version"):
        schema["enum"] = [contract.model if name == "model" else contract.version]
    about = {"rest": "Any number of parts.", "id": "Of x-failsafe-decision-id, or of a review_url."}
    told: Schema = {"name": name, "in": "path", "required": True, "schema": schema}
    return told | ({"description": about[name]} if name in about else {})


def _infer_body(contract: Contract) -> Schema:
    """JSON alone, or binary, which is told by Inference-Header-Content-Length and not by the Content-Type."""
    octets = {
        "schema": {"type": "string", "format": "binary", "maxLength": contract.body_limit_bytes},
    }
    content: Schema = {OCTETS: octets}
    if not {"FP16", "BF16"} & {spec.datatype for spec in contract.inputs}:
        content = {JSON: {"schema": ref("InferRequest")}, OCTETS: octets}
    about = f"""JSON alone without Inference-Header-Content-Length. With it, so many bytes of JSON, in which
inputs say `parameters.binary_data_size` instead of `data`; then their bytes in their order: little-endian,
BYTES as a 4-byte length and so many bytes. At 0, nothing but the bytes of the only input. The Content-Type is
not looked at. At most {contract.body_limit_bytes} bytes once decoded, nested at most {MAX_DEPTH} deep."""
    return {"required": True, "description": about, "content": content}


def _request_headers() -> dict[str, Schema]:
    """What a request for inference may say in its headers, by the name of the component."""

    def header(name: str, schema: Schema, about: str) -> Schema:
        return {"name": name, "in": "header", "required": False, "schema": schema, "description": about}

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
    told = {
        "x-failsafe-outcome": {"type": "string", "enum": OUTCOMES},
        "x-failsafe-reason": {"type": "string", "enum": REASONS},
        "x-failsafe-served-by": text,
        "x-failsafe-policy": text,
        "x-failsafe-mode": {"type": "string", "enum": ["enforce", "observe"]},
        "x-failsafe-decision-id": text,
        "retry-after": {"type": "integer", "minimum": 1, "maximum": 86_400},
        "allow": text,
        "www-authenticate": {"type": "string", "const": "Bearer"},
        "location": text,
        "preference-applied": {"type": "string", "const": "respond-async"},
    }
    return {name: {"required": True, "schema": schema} for name, schema in told.items()}


def _with_headers(status: int) -> Schema:
    more = {
        202: ("location", "preference-applied"),
        401: ("www-authenticate",),
        405: ("allow",),
        429: ("retry-after",),
        503: ("retry-after",),
    }
    names = [name for name in _headers() if name.startswith("x-failsafe-")] + list(more.get(status, ()))
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _end(status: int) -> Schema:
    body = ref("Error")
    if status == 202:
        body = ref("Deferred")
    elif status == 422:
        body = {"oneOf": [ref("Deferred"), ref("Error")]}
    return {
        "description": _ENDS[status],
        "headers": _with_headers(status),
        "content": {JSON: {"schema": body}},
    }


def _told(reply: str | None) -> Schema:
    schema = {"type": "object", "required": ["openapi", "paths"]} if reply is None else ref(reply)
    return {"description": "What is asked for.", "content": {JSON: {"schema": schema}}}


def _answer(contract: Contract) -> Schema:
    length = {"type": "integer", "minimum": 1, "maximum": MOST}
    headers: dict[str, Any] = {
        **_with_headers(200),
        "inference-header-content-length": {
            "schema": length,
            "description": "Bytes of JSON, if binary follows.",
        },
        "content-encoding": {"schema": {"type": "string", "enum": ["gzip", "deflate"]}},
        "vary": {"schema": {"type": "string", "const": "accept-encoding"}},
    }
    octets = {"schema": {"type": "string", "format": "binary"}}
    about = "Answered, by the model or by what x-failsafe-served-by names; binary if an output was asked so."
    return {
        "description": about,
        "headers": headers,
        "content": {JSON: {"schema": ref("InferReply")}, OCTETS: octets},
        "links": {
            "decision": {
                "operationId": "get_decisions_id",
                "parameters": {"id": "$response.header.x-failsafe-decision-id"},
            }
        },
    }
