"""The OpenAPI document of several models: each has its paths and schemas under its own name."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from gateway.http.openapi import document
from gateway.http.routes import Route
from gateway.http.schemas import Schema
from gateway.protocol.contract import Contract

MODEL_PATH = "/v2/models/{model}"
SCHEMAS = "#/components/schemas/"


def document_of_several(
    routes: Sequence[Route], contracts: Sequence[Contract], base: str, anonymous: bool
) -> Schema:
    """The document. base: a prefix that paths may have; anonymous: whether a key may be absent.

    Cost: 2 ms a model.
    """
    parts = [_named(document(routes, contract, base, anonymous), contract.model) for contract in contracts]
    whole = parts[0]
    schemas: Schema = {}
    paths = {path: what for path, what in whole["paths"].items() if not path.startswith(MODEL_PATH)}
    for part, contract in zip(parts, contracts, strict=True):
        schemas |= part["components"]["schemas"]
        for path, operations in part["paths"].items():
            if path.startswith(MODEL_PATH):
                paths[path.replace("{model}", contract.model)] = _of_model(operations, contract.model)
    names = ", ".join(contract.model for contract in contracts)
    whole["info"]["title"] = whole["info"]["title"].partition(":")[0] + f": {names}"
    whole["components"]["schemas"] = schemas
    whole["paths"] = paths
    _answers(paths, "/v2/models/stats")["schema"] = {"type": "object", "required": ["model_stats"]}
    of_each = [{"$ref": f"{SCHEMAS}{contract.model}.Review"} for contract in contracts]
    _answers(paths, "/reviews/{id}")["schema"] = {"anyOf": of_each}
    return whole


def _named(part: Schema, model: str) -> Schema:
    """A model's own document, with the model's name before that of every schema."""
    text = orjson.dumps(part).decode().replace(f'"{SCHEMAS}', f'"{SCHEMAS}{model}.')
    named: Schema = orjson.loads(text)
    schemas = named["components"]["schemas"]
    named["components"]["schemas"] = {f"{model}.{name}": schema for name, schema in schemas.items()}
    return named


def _of_model(operations: Schema, model: str) -> Schema:
    """The operations of a path in which the model's name stands for its parameter."""
    return {
        method: operation
        | {
            "operationId": f"{model}_{operation['operationId']}",
            "parameters": [one for one in operation["parameters"] if one.get("name") != "model"],
        }
        for method, operation in operations.items()
    }


def _answers(paths: Schema, path: str) -> Schema:
    """What the 200 of a path holds."""
    content: Schema = paths[path]["get"]["responses"]["200"]["content"]["application/json"]
    return content
