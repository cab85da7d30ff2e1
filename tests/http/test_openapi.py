"""The OpenAPI document: complete, well formed, and as strict as the parser."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import jsonschema_rs
import numpy as np
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

from gateway.core.errors import InvalidRequest
from gateway.deployment.contract import contract_of as contract_of_models
from gateway.deployment.deployment import Deployment
from gateway.deployment.models import load_models
from gateway.http import openapi
from gateway.http.openapi import path_of
from gateway.http.route_table import ROUTES
from gateway.http.routes import EVERY_ROUTE
from gateway.http.schemas import infer_request, value_schema
from gateway.protocol.contract import Contract
from gateway.protocol.endings import STATUSES
from gateway.protocol.infer_request import parse_http_infer
from tests.protocol.test_malformed import GOOD, MALFORMED, edited
from tests.support.served import CONFIGS
from tests.support.wire_parts import IMAGE, contract_of, spec_of

MIXED = contract_of(
    spec_of("BYTES", (None,), "a"),
    spec_of("BOOL", (None, None, 2), "b"),
    spec_of("UINT8", (None, 3), "c", low=1.0, high=9.0),
    outputs=[spec_of("FP32", (None, 3), "p"), spec_of("BOOL", (None, None), "q")],
)
HALVES = contract_of(spec_of("BF16", (None, 2)))
GAPS = {
    "timeout is a fraction",  # 5.0 is an integer to a schema
    "shape holds a fraction",
    "one value short",  # a schema cannot multiply
    "one value more",
}


def document(contract: Contract, base: str = "", anonymous: bool = False) -> dict[str, Any]:
    """The document as a client has it."""
    held: dict[str, Any] = json.loads(json.dumps(openapi.document(ROUTES, contract, base, anonymous)))
    return held


def valid(schema: dict[str, Any]) -> Callable[[Any], bool]:
    return jsonschema_rs.Draft202012Validator(schema).is_valid


def read(body: bytes, contract: Contract) -> bool:
    try:
        parse_http_infer(body, None, contract)
    except InvalidRequest:
        return False
    return True


def objects_in(of: Any) -> Any:
    """Every object in a document."""
    if isinstance(of, dict):
        yield of
    for item in of.values() if isinstance(of, dict) else of if isinstance(of, list) else ():
        yield from objects_in(item)


def test_the_document_has_exactly_the_routes() -> None:
    paths = document(IMAGE)["paths"]
    operations = [(method.upper(), path) for path, item in paths.items() for method in item]
    assert sorted(operations) == sorted((route.method, path_of(route)) for route in ROUTES)


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("letters", "ba864f0adb7906a359b34b7ca0614885f817fde4f0eb7c1fc4c935751ef5210e"),
        ("fashion", "e70df35ca1ba71d64c24228eb86ed8deddbd5d8aceda8b5d6a10c27351d8e7c2"),
    ],
)
def test_the_documents_of_the_committed_deployments_are_those_of_release_0_1_0_and_the_reason_stopped(
    name: str, digest: str
) -> None:
    """Byte for byte. A change of the document that is intended changes the digest here as well."""
    deployment = Deployment.read(CONFIGS / name)
    models = load_models(deployment, {})
    try:
        contract = contract_of_models(deployment, models)
    finally:
        for model in models.values():
            model.close()
    made = orjson.dumps(openapi.document(ROUTES, contract, "", anonymous=True))
    assert hashlib.sha256(made).hexdigest() == digest


def test_every_status_that_a_route_can_have_is_described() -> None:
    described = document(IMAGE)["components"]["responses"]
    for route in ROUTES:
        assert {str(STATUSES[cause].http) for cause in route.all_causes} <= described.keys()
    assert list(described) == sorted({str(status.http) for status in STATUSES.values()})


@pytest.mark.parametrize("contract", [IMAGE, MIXED, HALVES], ids=["image", "mixed", "halves"])
def test_the_document_is_valid_openapi_3_1(contract: Contract) -> None:
    made = document(contract, "/models", anonymous=True)
    OPENAPI_31_VALIDATOR.validate(made)
    for schema in made["components"]["schemas"].values():
        jsonschema_rs.meta.validate(schema)
    for one in objects_in(made):
        if isinstance(one.get("$ref"), str):
            target: Any = made
            for part in one["$ref"].removeprefix("#/").split("/"):
                target = target[part]
    names = [one["operationId"] for item in made["paths"].values() for one in item.values()]
    assert len(set(names)) == len(names)
    assert [server["url"] for server in made["servers"]] == ["/models", "/"]


def test_every_part_of_a_path_is_a_parameter_of_it() -> None:
    for path, item in document(IMAGE)["paths"].items():
        for operation in item.values():
            named = {one["name"] for one in operation["parameters"] if one.get("in") == "path"}
            assert named == {part[1:-1] for part in path.split("/") if part.startswith("{")}


def test_the_document_requires_a_key_where_the_route_does() -> None:
    made = document(IMAGE)
    for route in ROUTES:
        operation = made["paths"][path_of(route)][route.method.lower()]
        is_open = route.scopes is None
        assert operation.get("security", made["security"]) == (
            [] if is_open else [{"bearer": []}, {"key": []}]
        )
        assert ({"401", "429"} & operation["responses"].keys()) == (set() if is_open else {"401", "429"})
        assert {str(STATUSES[cause].http) for cause in EVERY_ROUTE} <= operation["responses"].keys()


def test_with_anonymous_callers_the_document_allows_no_key() -> None:
    assert {} in document(IMAGE, anonymous=True)["security"]
    assert {} not in document(IMAGE)["security"]


def test_members_have_the_names_of_the_protocol() -> None:
    schemas = document(IMAGE)["components"]["schemas"]
    names = {name: set(schema.get("properties", ())) for name, schema in schemas.items()}
    tensor = schemas["InferRequest"]["properties"]["inputs"]["items"]["properties"]
    output = schemas["InferReply"]["properties"]["outputs"]["items"]["anyOf"][0]["properties"]
    assert names["Server"] == {"name", "version", "extensions"}
    assert names["Health"] == {"live", "ready"}
    assert names["Model"] == {"name", "versions", "platform", "parameters", "inputs", "outputs"}
    assert names["InferRequest"] == {"id", "parameters", "inputs", "outputs"}
    assert names["InferReply"] == {"model_name", "model_version", "id", "parameters", "outputs"}
    assert set(tensor) == {"name", "shape", "datatype", "parameters", "data"}
    assert set(output) == {"name", "shape", "datatype", "data"}
    assert names["Error"] == {"error", "id", "parameters"}


@pytest.mark.parametrize("contract", [IMAGE, MIXED], ids=["image", "mixed"])
def test_the_example_is_valid_and_is_parsed(contract: Contract) -> None:
    schema = infer_request(contract)
    for shown in schema["examples"]:
        assert valid(schema)(shown)
        assert read(json.dumps(shown).encode(), contract)


def test_a_model_that_takes_binary_only_has_no_json_form() -> None:
    body = document(HALVES)["paths"]["/v2/models/{model}/infer"]["post"]["requestBody"]
    assert list(body["content"]) == ["application/octet-stream"]


def test_a_good_request_is_valid_flat_and_nested() -> None:
    nested = json.loads(json.dumps(GOOD))
    nested["inputs"][0]["data"] = np.zeros((2, 1, 2, 2)).tolist()
    for sent in (GOOD, nested):
        assert valid(infer_request(IMAGE))(sent)
        assert read(json.dumps(sent).encode(), IMAGE)


@pytest.mark.parametrize(("name", "edit"), [row[:2] for row in MALFORMED], ids=[row[0] for row in MALFORMED])
def test_a_request_that_the_parser_refuses_is_not_valid(
    name: str, edit: Callable[[dict[str, Any]], object]
) -> None:
    assert valid(infer_request(IMAGE))(json.loads(edited(edit))) == (name in GAPS)


ANY_NUMBER = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**65), 2**65)
SPECS = [
    *(spec_of(name, (None,)) for name in ("FP32", "FP64", "INT8", "INT64", "UINT64", "BOOL", "BYTES")),
    spec_of("FP32", (None,), low=0.0, high=15.0),
    spec_of("FP32", (None,), low=0.1, high=0.3),
    spec_of("FP64", (None,), low=-0.1, high=0.1),
    spec_of("INT32", (None,), low=-1.5, high=2.5),
]


@given(
    st.sampled_from(SPECS),
    ANY_NUMBER
    | st.floats(-1e-44, 15.1)
    | st.floats(0.09, 0.31)
    | st.booleans()
    | st.text(max_size=2)
    | st.none(),
)
@example(SPECS[7], 15.000000476837158)
@example(SPECS[7], 15.00000047683716)
@example(SPECS[7], -7e-46)
@example(SPECS[7], -7.1e-46)
@example(SPECS[0], 3.4028235677973366e38)
@example(SPECS[0], 3.4028235677973362e38)
@example(SPECS[4], 2**64)
def test_a_value_is_valid_exactly_where_it_is_parsed(spec: Any, value: Any) -> None:
    if spec.dtype.kind in "iu" and isinstance(value, float):
        return  # 5.0 is an integer to a schema
    entry = {"name": "x", "datatype": spec.datatype, "shape": [1], "data": [value]}
    body = json.dumps({"inputs": [entry]}).encode()
    assert valid(value_schema(spec))(value) == read(body, contract_of(spec))
