"""Spans over OTLP, from a gateway to a collector: the caller's trace, the service's name, the end."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from gateway.telemetry.metrics import Telemetry
from tests.support.data_planes import plane_of
from tests.support.deployments import FULL_RATE, key_for, letters
from tests.telemetry.test_metrics import RECORD, collector

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def spans_of(received: list[tuple[str, bytes]]) -> list[tuple[Resource, Span]]:
    """Every span that the collector got, with its resource."""
    return [
        (part.resource, span)
        for path, body in received
        if path == "/v1/traces"
        for part in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in part.scope_spans
        for span in scope.spans
    ]


def spans_of_a_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, traceparent: str
) -> list[tuple[Resource, Span]]:
    """Of the one request with this header among those that a gateway answers."""
    folder = letters(tmp_path, FULL_RATE)
    with collector(monkeypatch) as received:
        with plane_of(folder, ada=key_for(folder, "ada")) as plane:

            async def main() -> str:
                reply = await plane.ada.infer(plane.good[:1], headers={"traceparent": traceparent})
                return reply.headers["x-failsafe-decision-id"]

            asked = str(plane.run(main))
        found = spans_of(received)
    roots = [
        span
        for _, span in found
        if any(kv.key == "gateway.decision_id" and kv.value.string_value == asked for kv in span.attributes)
    ]
    of = {span.trace_id for span in roots}
    return [(resource, span) for resource, span in found if span.trace_id in of]


def test_a_request_becomes_a_part_of_its_callers_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = spans_of_a_request(tmp_path, monkeypatch, f"00-{TRACE}-{PARENT}-01")
    (root,) = [span for _, span in found if span.name == "infer"]
    assert (root.trace_id.hex(), root.parent_span_id.hex()) == (TRACE, PARENT)
    assert root.kind == Span.SPAN_KIND_SERVER
    children = [span for _, span in found if span.parent_span_id == root.span_id]
    assert {"rate", "ood", "primary"} <= {span.name for span in children}


def test_a_request_whose_caller_is_not_sampled_is_not_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert spans_of_a_request(tmp_path, monkeypatch, f"00-{TRACE}-{PARENT}-00") == []


@pytest.mark.parametrize("header", ["", "00-zz-zz-01", f"00-{'0' * 32}-{PARENT}-01", "ff", "x" * 5000])
def test_a_header_that_names_no_trace_begins_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, header: str
) -> None:
    found = spans_of_a_request(tmp_path, monkeypatch, header)
    (root,) = [span for _, span in found if span.name == "infer"]
    assert root.parent_span_id == b""
    assert root.trace_id.hex() != TRACE


@pytest.mark.parametrize(("variable", "name"), [(None, "letters"), ("ocr-gateway", "ocr-gateway")])
def test_the_environment_names_the_service_before_the_deployment(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, name: str
) -> None:
    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
    if variable is not None:
        monkeypatch.setenv("OTEL_SERVICE_NAME", variable)
    with collector(monkeypatch) as received:
        telemetry = Telemetry("letters", "replica-1")
        telemetry.accept([RECORD])
        telemetry.close()
    names = {
        kv.value.string_value
        for resource, _ in spans_of(received)
        for kv in resource.attributes
        if kv.key == "service.name"
    }
    assert names == {name}


def test_a_collector_that_does_not_answer_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The exporters alone would wait for six seconds, one after the other."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "6")
    released = threading.Event()
    with collector(monkeypatch, before_reply=lambda: released.wait(60)):
        telemetry = Telemetry("letters", "replica-1")
        telemetry.accept([RECORD])

        async def close() -> None:
            async with asyncio.timeout(8):
                await asyncio.to_thread(telemetry.close)

        asyncio.run(close())
        released.set()
    assert "were not exported" in caplog.text
