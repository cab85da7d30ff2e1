"""Metrics and spans of finished records: right, bounded, and free of what no caller may learn."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import numpy as np
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_CUMULATIVE as CUMULATIVE,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_DELTA as DELTA,
)
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from gateway.core.assessment import Assessment, Trail
from gateway.core.decision import (
    Decision,
    Deferred,
    Degraded,
    Finding,
    Outcome,
    Reason,
    Refused,
    Served,
    Verdict,
)
from gateway.telemetry.histogram import BUCKETS_S
from gateway.telemetry.metrics import Telemetry
from gateway.telemetry.prometheus import SCOPE_LABELS
from gateway.telemetry.spans import outcome_labels
from tests.support.deployments import record_of

SCORE = 5.4321
OUTPUT = {"probabilities": np.array([[0.25, 0.75]], np.float32)}
FINDINGS = (
    Finding("rate", 0.25, Verdict.ALLOW, True, 0.001),
    Finding("ood", SCORE, Verdict.DEFER, True, 0.002, form="input_only"),
    Finding("primary", None, Verdict.DEGRADE, True, 0.004, error="primary: no answer in 0.004 s"),
)
OUTCOMES: list[Outcome] = [
    Served(OUTPUT, "primary"),
    Degraded(OUTPUT, "small", Reason.UNAVAILABLE),
    Deferred("d", Reason.ABSTAINED),
    Refused(Reason.RATE_LIMITED, 2.0),
]
TRAIL: Trail = [
    (
        np.arange(len(OUTCOMES)),
        Assessment(
            stage=found.stage,
            scores=np.full(len(OUTCOMES), np.nan if found.score is None else found.score),
            verdicts=np.full(len(OUTCOMES), found.verdict, np.int8),
            all_allowed=found.verdict is Verdict.ALLOW,
            enforced=True,
            elapsed_s=found.elapsed_s,
            errors=dict.fromkeys(range(len(OUTCOMES)), found.error) if found.error else {},
        ),
    )
    for found in FINDINGS
]
RECORD = record_of(
    *(Decision(f"d.{i}", outcome, FINDINGS) for i, outcome in enumerate(OUTCOMES)), who="principal-7"
)


@pytest.fixture(autouse=True)
def no_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    made = Telemetry("letters", "replica-1")
    yield made
    made.close()


def families(telemetry: Telemetry) -> dict[str, Metric]:
    """The metrics as Prometheus reads them."""
    return {family.name: family for family in text_string_to_metric_families(telemetry.prometheus().decode())}


def counts(family: Metric, *names: str) -> dict[tuple[str, ...], float]:
    """Totals by the given labels; every sample must also have its replica and its model."""
    assert {sample.labels["model"] for sample in family.samples} == {"letters"}
    assert {sample.labels["replica"] for sample in family.samples} == {"replica-1"}
    return {
        tuple(sample.labels[name] for name in names): sample.value
        for sample in family.samples
        if sample.name.endswith("_total")
    }


def test_rows_are_counted_by_how_they_ended(telemetry: Telemetry) -> None:
    telemetry.accept([RECORD, RECORD])
    found = counts(families(telemetry)["gateway_rows"], "outcome", "served_by", "reason")
    assert found == {
        ("served", "primary", "ok"): 2,
        ("degraded", "small", "unavailable"): 2,
        ("deferred", "", "abstained"): 2,
        ("refused", "", "rate_limited"): 2,
    }


def test_stages_are_counted_by_verdict_and_errors_by_stage(telemetry: Telemetry) -> None:
    telemetry.add_pass(TRAIL)
    telemetry.accept([RECORD])
    found = families(telemetry)
    assert counts(found["gateway_stage_rows"], "stage", "verdict") == {
        ("rate", "allow"): 4,
        ("ood", "defer"): 4,
        ("primary", "degrade"): 4,
    }
    assert counts(found["gateway_stage_errors"], "stage") == {("primary",): 4}


def test_times_are_histograms_in_seconds(telemetry: Telemetry) -> None:
    telemetry.add_pass(TRAIL)
    telemetry.accept([RECORD])
    found = families(telemetry)
    request = {sample.name: sample.value for sample in found["gateway_request_seconds"].samples}
    assert request["gateway_request_seconds_count"] == 1
    assert request["gateway_request_seconds_sum"] == pytest.approx(0.0125)
    stages = {
        sample.labels["stage"]: sample.value
        for sample in found["gateway_stage_seconds"].samples
        if sample.name.endswith("_sum")
    }
    assert stages == pytest.approx({"rate": 0.001, "ood": 0.002, "primary": 0.004})
    bounds = [
        float(sample.labels["le"])
        for sample in found["gateway_request_seconds"].samples
        if sample.name.endswith("_bucket")
    ]
    assert bounds == sorted(bounds)
    assert bounds[0] <= 0.0001
    assert bounds[-1] == float("inf")


def test_counts_go_on_from_call_to_call(telemetry: Telemetry) -> None:
    for _ in range(3):
        telemetry.accept([RECORD])
    telemetry.accept([])
    found = counts(families(telemetry)["gateway_rows"], "outcome")
    assert found == {("served",): 3, ("degraded",): 3, ("deferred",): 3, ("refused",): 3}


def test_a_scrape_changes_nothing(telemetry: Telemetry) -> None:
    telemetry.add_pass(TRAIL)
    telemetry.accept([RECORD])
    assert telemetry.prometheus() == telemetry.prometheus()


def test_nothing_is_lost_or_counted_twice_under_constant_scrapes(telemetry: Telemetry) -> None:
    """An exporter collects in a thread of its own."""
    over = threading.Event()

    def scrape() -> None:
        while not over.is_set():
            telemetry.prometheus()

    scraping = threading.Thread(target=scrape)
    scraping.start()
    for _ in range(300):
        telemetry.add_pass(TRAIL)
        telemetry.accept([RECORD] * 5)
    over.set()
    scraping.join()
    found = families(telemetry)
    assert set(counts(found["gateway_rows"], "outcome").values()) == {1500}
    assert set(counts(found["gateway_stage_rows"], "stage").values()) == {1200}
    samples = [*found["gateway_request_seconds"].samples, *found["gateway_stage_seconds"].samples]
    counted = {(s.name, s.labels.get("stage")): s.value for s in samples if s.name.endswith("_count")}
    assert counted.pop(("gateway_request_seconds_count", None)) == 1500
    assert set(counted.values()) == {300}


def test_a_time_stands_in_its_bucket_and_in_every_larger_one(telemetry: Telemetry) -> None:
    times_s = [0.0, *BUCKETS_S, 0.003, 7.0]
    telemetry.accept([RECORD._replace(elapsed_s=one) for one in times_s])
    buckets = {
        float(sample.labels["le"]): sample.value
        for sample in families(telemetry)["gateway_request_seconds"].samples
        if sample.name.endswith("_bucket")
    }
    assert buckets == {le: sum(one <= le for one in times_s) for le in (*BUCKETS_S, float("inf"))}


def test_the_text_is_one_that_prometheus_reads_even_before_the_first_record(telemetry: Telemetry) -> None:
    assert families(telemetry) == {}
    telemetry.accept([RECORD])
    for family in families(telemetry).values():
        assert family.name.startswith("gateway_")
        assert family.documentation
        for sample in family.samples:
            assert re.fullmatch(r"[a-z_]+", sample.name)


def test_neither_scores_nor_callers_nor_ids_nor_errors_are_in_the_metrics(telemetry: Telemetry) -> None:
    telemetry.add_pass(TRAIL)
    telemetry.accept([RECORD])
    text = telemetry.prometheus().decode()
    for secret in (str(SCORE), "principal-7", "d.0", "no answer in", "letters@1#0"):
        assert secret not in text
    names = {name for family in families(telemetry).values() for s in family.samples for name in s.labels}
    ours = {name for name in names if not name.startswith("otel_scope_")}
    assert ours == {"model", "replica", "outcome", "served_by", "reason", "stage", "verdict", "le"}


def test_labels_do_not_grow_with_traffic(telemetry: Telemetry) -> None:
    telemetry.add_pass(TRAIL)
    telemetry.accept([RECORD])
    before = telemetry.prometheus().count(b"\n")
    for _ in range(500):
        telemetry.add_pass(TRAIL)
    telemetry.accept([record_of(*RECORD.decisions, name=f"d{i}", who=f"caller-{i}") for i in range(500)])
    assert telemetry.prometheus().count(b"\n") == before


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_labels_are_the_outcome_the_rung_and_the_coarse_reason(outcome: Outcome) -> None:
    name, by, reason = outcome_labels(outcome)
    assert name == type(outcome).__name__.lower()
    assert by == getattr(outcome, "by", "")
    assert reason in {"ok", "abstained", "rate_limited", "unavailable", "deadline"}


def spans_of(*decisions: Decision) -> dict[str, ReadableSpan]:
    """The finished spans of one record, by name."""
    exporter = InMemorySpanExporter()
    telemetry = Telemetry("letters", "replica-1", exporter)
    telemetry.accept([record_of(*decisions)])
    telemetry.close()
    spans = exporter.get_finished_spans()
    assert len({span.name for span in spans}) == len(spans)
    return {span.name: span for span in spans}


def attributes(span: ReadableSpan) -> dict[str, Any]:
    assert span.attributes is not None
    return dict(span.attributes)


def test_a_request_is_a_span_with_one_child_a_stage() -> None:
    spans = spans_of(*RECORD.decisions[:1])
    assert set(spans) == {"infer", "rate", "ood", "primary"}
    root = spans["infer"]
    assert root.parent is None
    for name in ("rate", "ood", "primary"):
        parent = spans[name].parent
        assert parent is not None
        assert root.context is not None
        assert parent.span_id == root.context.span_id


def test_the_request_span_has_the_outcome_of_the_worst_row() -> None:
    assert attributes(spans_of(*RECORD.decisions)["infer"]) == {
        "gateway.decision_id": "d",
        "gateway.policy": "letters@1#0",
        "gateway.outcome": "refused",
        "gateway.reason": "rate_limited",
        "gateway.served_by": "",
        "gateway.rows": "4",
    }


def test_a_stage_span_has_its_verdict_its_form_and_its_error() -> None:
    spans = spans_of(*RECORD.decisions[:1])
    assert attributes(spans["rate"]) == {
        "gateway.verdict": "allow",
        "gateway.enforced": True,
        "gateway.form": "full",
    }
    assert attributes(spans["ood"])["gateway.form"] == "input_only"
    assert attributes(spans["primary"]) == {
        "gateway.verdict": "degrade",
        "gateway.enforced": True,
        "gateway.form": "full",
        "error.message": "primary: no answer in 0.004 s",
    }


def test_spans_have_their_true_start_and_length_one_after_the_other() -> None:
    spans = spans_of(*RECORD.decisions[:1])
    start = 1_700_000_000_000_000_000
    times = {name: (span.start_time, span.end_time) for name, span in spans.items()}
    assert times == {
        "infer": (start, start + 12_500_000),
        "rate": (start, start + 1_000_000),
        "ood": (start + 1_000_000, start + 3_000_000),
        "primary": (start + 3_000_000, start + 7_000_000),
    }


def test_spans_name_the_deployment_and_the_replica_but_neither_scores_nor_callers() -> None:
    for span in spans_of(*RECORD.decisions).values():
        assert span.resource.attributes["service.name"] == "letters"
        assert span.resource.attributes["service.instance.id"] == "replica-1"
        assert str(SCORE) not in span.to_json()
        assert "principal-7" not in span.to_json()


def test_the_stage_spans_of_a_batch_are_those_of_its_worst_row() -> None:
    """A trace that ends as refused must show the stage that refused."""
    calm = Decision("d.0", Served(OUTPUT, "primary"), (Finding("rate", 0.1, Verdict.ALLOW, True, 0.001),))
    refused = Decision("d.1", OUTCOMES[3], (Finding("rate", 1.5, Verdict.REFUSE, True, 0.001),))
    spans = spans_of(calm, refused)
    assert attributes(spans["infer"])["gateway.outcome"] == "refused"
    assert attributes(spans["rate"])["gateway.verdict"] == "refuse"


def test_a_stage_is_timed_once_a_pass_and_counted_once_a_row(telemetry: Telemetry) -> None:
    telemetry.add_pass(TRAIL)
    telemetry.add_pass(TRAIL)
    telemetry.accept([RECORD])
    found = families(telemetry)
    passes = {
        sample.labels["stage"]: sample.value
        for sample in found["gateway_stage_seconds"].samples
        if sample.name.endswith("_count")
    }
    assert passes == {"rate": 2, "ood": 2, "primary": 2}
    assert counts(found["gateway_stage_rows"], "stage") == {("rate",): 8, ("ood",): 8, ("primary",): 8}


def test_without_a_collector_no_span_is_made_and_no_thread_started() -> None:
    before = set(threading.enumerate())
    telemetry = Telemetry("letters", "replica-1")
    telemetry.accept([RECORD])
    assert set(threading.enumerate()) == before
    telemetry.close()


def test_two_deployments_in_one_process_do_not_mix(telemetry: Telemetry) -> None:
    other = Telemetry("fashion", "replica-2")
    other.accept([RECORD, RECORD])
    telemetry.accept([RECORD])
    assert set(counts(families(telemetry)["gateway_rows"], "outcome").values()) == {1}
    other.close()


@contextmanager
def collector(
    monkeypatch: pytest.MonkeyPatch, before_reply: Callable[[], object] = lambda: None
) -> Iterator[list[tuple[str, bytes]]]:
    """A collector of OTLP over HTTP that the environment names, with what it received: (path, body)."""
    received: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            before_reply()
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        yield received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def exported(body: bytes) -> dict[str, Any]:
    """The metrics of one export, by name."""
    (resource,) = ExportMetricsServiceRequest.FromString(body).resource_metrics
    (scope,) = resource.scope_metrics
    assert len({metric.name for metric in scope.metrics}) == len(scope.metrics)
    return {metric.name: metric for metric in scope.metrics}


def test_with_a_collector_metrics_and_spans_go_out_over_otlp(monkeypatch: pytest.MonkeyPatch) -> None:
    with collector(monkeypatch) as received:
        telemetry = Telemetry("letters", "replica-1")
        telemetry.add_pass(TRAIL)
        telemetry.accept([RECORD])
        assert b"gateway_rows" in telemetry.prometheus(), "one reader takes nothing from the other"
        telemetry.close()
    assert {path for path, _ in received} == {"/v1/metrics", "/v1/traces"}
    (sent,) = [exported(body) for path, body in received if path == "/v1/metrics"]
    assert {name: sum(point.as_int for point in metric.sum.data_points) for name, metric in sent.items()} == {
        "gateway_rows": 4,
        "gateway_stage_rows": 12,
        "gateway_stage_errors": 4,
        "gateway_request_seconds": 0,
        "gateway_stage_seconds": 0,
    }
    (requests,) = sent["gateway_request_seconds"].histogram.data_points
    assert (requests.count, requests.sum, requests.min, requests.max) == (1, 0.0125, 0.0125, 0.0125)
    assert list(requests.explicit_bounds) == BUCKETS_S
    assert requests.bucket_counts[BUCKETS_S.index(0.025)] == 1
    stages = sent["gateway_stage_seconds"].histogram.data_points
    assert sorted(point.sum for point in stages) == [0.001, 0.002, 0.004]
    assert {kv.key: kv.value.string_value for kv in stages[0].attributes} == {
        "model": "letters",
        "replica": "replica-1",
        "stage": "rate",
    }


@pytest.mark.parametrize(
    ("preference", "temporality", "second"),
    [
        ("", CUMULATIVE, (2, 0.5125, 0.0125, 0.5)),
        ("cumulative", CUMULATIVE, (2, 0.5125, 0.0125, 0.5)),
        ("delta", DELTA, (1, 0.5, 0.5, 0.5)),
        ("LowMemory", DELTA, (1, 0.5, 0.5, 0.5)),
    ],
)
def test_durations_are_exported_with_the_temporality_that_the_environment_prefers(
    monkeypatch: pytest.MonkeyPatch, preference: str, temporality: int, second: tuple[float, ...]
) -> None:
    if preference:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", preference)
    with collector(monkeypatch) as received:
        telemetry = Telemetry("letters", "replica-1")
        for elapsed_s in (0.0125, 0.5):
            telemetry.accept([RECORD._replace(elapsed_s=elapsed_s)])
            telemetry.prometheus()
            telemetry._meters.force_flush()
        telemetry.close()
    bodies = [body for path, body in received if path == "/v1/metrics"]
    histograms = [exported(body)["gateway_request_seconds"].histogram for body in bodies[:2]]
    assert [one.aggregation_temporality for one in histograms] == [temporality] * 2
    (before,), (after,) = (one.data_points for one in histograms)
    assert (before.count, before.sum, before.min, before.max) == (1, 0.0125, 0.0125, 0.0125)
    assert (after.count, after.sum, after.min, after.max) == second
    start_ns = before.time_unix_nano if temporality == DELTA else before.start_time_unix_nano
    assert after.start_time_unix_nano == start_ns < after.time_unix_nano


def test_durations_have_the_labels_of_the_scope_that_the_sdk_gives_counters(telemetry: Telemetry) -> None:
    telemetry.accept([RECORD])
    found = families(telemetry)
    scopes = [
        {(name, value) for name, value in sample.labels.items() if name.startswith("otel_")}
        for family in ("gateway_rows", "gateway_request_seconds")
        for sample in found[family].samples
    ]
    assert scopes == [set(SCOPE_LABELS.items())] * len(scopes)


def test_a_collector_that_is_gone_disturbs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    telemetry = Telemetry("letters", "replica-1")
    telemetry.accept([RECORD])
    assert b"gateway_rows" in telemetry.prometheus()
    telemetry.close()
