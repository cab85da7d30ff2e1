"""Schemathesis against a running gateway: every operation of the document, in every phase."""

from __future__ import annotations

import gzip
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import strategies as st
from schemathesis.engine import events, from_schema
from schemathesis.engine.recorder import ScenarioRecorder

from gateway.http.openapi import path_of
from gateway.http.route_table import ROUTES
from tests.support.deployments import FULL_RATE, edit, key_for
from tests.support.served import Served, clean_rows, copy_of, serving

CLOSED = ("serving: {anonymous: loopback}", "serving: {anonymous: nobody}")
OCTETS = "application/octet-stream"
JSON = "application/json"
INFER = ("POST /v2/models/{model}/infer", "POST /v2/models/{model}/versions/{version}/infer")
ANSWERED = ["200", "202", "422", "504"]
WIDE = 16
NOT_SUPPORTED = "(setting|logging|generate|stream|/{rest})$"


def settings(key: str, base_url: str) -> schemathesis.Config:
    """Every check; a 5xx only where the document gives it on purpose, and 204 to OPTIONS."""
    none, some = ["204", "4xx", "501"], ["2xx", "4xx", "501", "504"]
    return schemathesis.Config.from_dict(
        {
            "seed": 7,
            "base-url": base_url,
            "headers": {"Authorization": f"Bearer {key}"},
            "generation": {"max-examples": 8, "database": "none", "no-shrink": True},
            "phases": {"stateful": {"enabled": False}},
            "checks": {"not_a_server_error": {"expected-statuses": ["2xx", "4xx"]}},
            "operations": [
                {
                    "include-path-regex": "/infer$",
                    "generation": {"max-examples": 80},
                    "checks": {
                        "not_a_server_error": {"expected-statuses": some},
                        "positive_data_acceptance": {"expected-statuses": ANSWERED},
                    },
                },
                {
                    "include-path-regex": NOT_SUPPORTED,
                    "checks": {"not_a_server_error": {"expected-statuses": none}},
                },
            ],
        }
    )


def tied(case: schemathesis.Case[Any]) -> None:
    """Makes valid what a schema cannot say: rows that fit data, a header and a coding that fit the body."""
    case.headers.pop("Inference-Header-Content-Length", None)
    if case.media_type == OCTETS:
        case.headers["Inference-Header-Content-Length"] = "0"
        case.headers.pop("x-request-timeout-seconds", None)  # in JSON it stays, and mostly cannot be met
        case.body = coded(case.body, case.headers.get("Content-Encoding"))
        return
    case.headers.pop("Content-Encoding", None)
    case.body = body = whole(case.body)
    entry = body["inputs"][0]
    flat = not isinstance(entry["data"][0], list)
    rows = len(entry["data"]) // (WIDE if flat else 1)
    entry["data"] = entry["data"][: rows * WIDE] if flat else entry["data"]
    entry["shape"] = [rows, WIDE]


def coded(body: Any, coding: str | None) -> bytes:
    match coding:
        case "gzip":
            return gzip.compress(body)
        case "deflate":
            return zlib.compress(body)
    return bytes(body)


def whole(value: Any) -> Any:
    """The same with 5 for 5.0, which are one number to a schema."""
    if isinstance(value, dict):
        return {name: whole(member) for name, member in value.items()}
    if isinstance(value, list):
        return [whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**63 else value


@schemathesis.hook
def before_call(_: Any, case: schemathesis.Case[Any], __: dict[str, Any]) -> None:
    case.headers.pop("x-api-key", None)  # a second credential, which must be the same
    if case.meta and case.meta.generation.mode.is_positive and case.operation.path.endswith("/infer"):
        tied(case)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, str]]:
    folder = copy_of("letters", tmp_path_factory.mktemp("openapi"))
    edit(folder, FULL_RATE, CLOSED)
    key = key_for(folder, "ada")
    with serving(folder, "--local") as running:
        yield running, key


def scenarios(served: Served, key: str) -> Iterator[ScenarioRecorder]:
    """What was tried and what came of it, operation by operation and phase by phase."""
    schemathesis.openapi.media_type(OCTETS, st.integers(1, 3).map(lambda n: clean_rows(n).tobytes()))
    held = served.data.get("/openapi.json", headers={"x-api-key": key}).raise_for_status().json()
    schema = schemathesis.openapi.from_dict(held, config=settings(key, str(served.data.base_url)))
    for event in from_schema(schema).execute():
        assert not isinstance(event, (events.NonFatalError, events.FatalError)), event
        if isinstance(event, events.ScenarioFinished):
            yield event.recorder


def failures_of(recorder: ScenarioRecorder, case_id: str) -> Iterator[str]:
    """What a check objects to: the request, what was expected, and what came."""
    response = recorder.interactions[case_id].response
    for check in recorder.checks.get(case_id, []):
        if check.failure_info is not None:
            info = check.failure_info
            came = response and (response.status_code, response.text[:300])
            yield f"{recorder.label}: {check.name}: {info.failure}\n{info.code_sample}\n{came}"


def test_the_gateway_does_what_its_document_says(served: tuple[Served, str]) -> None:
    objections: list[str] = []
    ends: Counter[tuple[str, str | None, bool, int]] = Counter()
    for recorder in scenarios(*served):
        for case_id, node in recorder.cases.items():
            response, case = recorder.interactions[case_id].response, node.value
            assert response is not None, recorder.label
            positive = case.meta is not None and case.meta.generation.mode.is_positive
            ends[recorder.label, case.media_type, positive, response.status_code] += 1
            objections += failures_of(recorder, case_id)
    assert not objections, "\n\n".join(objections[:20])
    assert {label for label, *_ in ends} == {f"{route.method} {path_of(route)}" for route in ROUTES}
    for path in INFER:
        assert ends[path, JSON, True, 422] > 20  # what is drawn at random is no letter
        assert ends[path, JSON, False, 400] > 50
        assert ends[path, OCTETS, True, 200] + ends[path, OCTETS, False, 200] > 5
