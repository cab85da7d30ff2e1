"""OpenTelemetry metrics and spans, made from finished records and passes, never on the request path.

Every stage already carries its own time, so spans are written after the fact with their true start and end.
Metrics are read as Prometheus text; both also go out over OTLP when `OTEL_EXPORTER_OTLP_ENDPOINT` is set,
and then one span a request with one child a stage. Labels are stage names, outcomes and reasons: bounded.
A stage is timed once a pass, however many rows share the pass.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Sequence

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, set_span_in_context
from prometheus_client import CollectorRegistry, generate_latest

from gateway.audit import Record
from gateway.decision import Decision, Outcome, Served, Verdict, severity
from gateway.pipeline import Trail

VERDICT_NAMES = [verdict.name.lower() for verdict in Verdict]
MOST_PASSES = 20_000
BUCKETS_S = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5]


class Telemetry:
    """A sink for records. `replica` tells the replicas of one deployment apart."""

    def __init__(self, deployment: str, replica: str, exporter: SpanExporter | None = None) -> None:
        resource = Resource.create({"service.name": deployment, "service.instance.id": replica})
        self._registry = CollectorRegistry()
        readers: list[MetricReader] = [
            PrometheusMetricReader(disable_target_info=True, registry=self._registry)
        ]
        exporter = exporter or _otlp_spans()
        if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
            readers.append(_otlp_metrics())
        histogram = View(
            instrument_name="*_seconds", aggregation=ExplicitBucketHistogramAggregation(BUCKETS_S)
        )
        self._meters = MeterProvider(
            metric_readers=readers,
            resource=resource,
            views=[histogram],
            exemplar_filter=AlwaysOffExemplarFilter(),
        )
        meter = self._meters.get_meter("failsafe.gateway")
        self._passes: deque[Trail] = deque(maxlen=MOST_PASSES)
        self._replica = replica
        self._rows = meter.create_counter("gateway_rows", description="rows by how they ended")
        self._stages = meter.create_counter("gateway_stage_rows", description="rows by stage and verdict")
        self._errors = meter.create_counter(
            "gateway_stage_errors", description="rows for which a stage failed"
        )
        self._seconds = meter.create_histogram(
            "gateway_request_seconds", unit="", description="time to answer"
        )
        self._stage_seconds = meter.create_histogram(
            "gateway_stage_seconds", unit="", description="time by stage"
        )
        self._spans: TracerProvider | None = None
        if exporter is not None:
            self._spans = TracerProvider(resource=resource)
            self._spans.add_span_processor(BatchSpanProcessor(exporter))

    def passed(self, trail: Trail) -> None:
        """Takes what the stages said of one batch: one append. Of more than 20,000 the oldest go."""
        self._passes.append(trail)

    def __call__(self, records: Sequence[Record]) -> None:
        """Counts finished records and passes: each counter is touched once a label set."""
        ends = Counter(labels(decision.outcome) for record in records for decision in record.decisions)
        for (outcome, by, reason), n in ends.items():
            told = {"replica": self._replica, "outcome": outcome, "served_by": by, "reason": reason}
            self._rows.add(n, told)
        replica = {"replica": self._replica}
        for record in records:
            self._seconds.record(record.elapsed_s, replica)
            if self._spans is not None:
                self._trace(record)
        self._count_passes()

    def _count_passes(self) -> None:
        verdicts, errors = Counter[tuple[str, str]](), Counter[str]()
        while self._passes:
            for rows, found in self._passes.popleft():
                self._stage_seconds.record(found.elapsed_s, {"replica": self._replica, "stage": found.stage})
                if found.quiet:
                    verdicts[found.stage, "allow"] += len(rows)
                else:
                    verdicts.update((found.stage, VERDICT_NAMES[v]) for v in found.verdicts.tolist())
                if found.errors:
                    errors[found.stage] += len(found.errors)
        for (stage, verdict), n in verdicts.items():
            self._stages.add(n, {"replica": self._replica, "stage": stage, "verdict": verdict})
        for stage, n in errors.items():
            self._errors.add(n, {"replica": self._replica, "stage": stage})

    def prometheus(self) -> bytes:
        """All metrics as Prometheus text."""
        return generate_latest(self._registry)

    def close(self) -> None:
        """Sends what is left."""
        self._meters.shutdown()
        if self._spans is not None:
            self._spans.shutdown()

    def _trace(self, record: Record) -> None:
        assert self._spans is not None
        tracer = self._spans.get_tracer("failsafe.gateway")
        start_ns = int(record.received_s * 1e9)
        worst = max(record.decisions, key=lambda decision: severity(decision.outcome))
        outcome, by, reason = labels(worst.outcome)
        about = {
            "gateway.decision_id": record.id,
            "gateway.policy": record.policy,
            "gateway.outcome": outcome,
        }
        about |= {
            "gateway.reason": reason,
            "gateway.served_by": by,
            "gateway.rows": str(len(record.decisions)),
        }
        span = tracer.start_span("infer", start_time=start_ns, attributes=about)
        _stage_spans(tracer_span=span, decision=worst, provider=self._spans, start_ns=start_ns)
        span.end(start_ns + int(record.elapsed_s * 1e9))


def _stage_spans(*, tracer_span: Span, decision: Decision, provider: TracerProvider, start_ns: int) -> None:
    tracer, parent = provider.get_tracer("failsafe.gateway"), set_span_in_context(tracer_span)
    for finding in decision.findings:
        end_ns = start_ns + int(finding.elapsed_s * 1e9)
        about: dict[str, str | bool] = {
            "gateway.verdict": finding.verdict.name.lower(),
            "gateway.enforced": finding.enforced,
            "gateway.form": finding.form,
        }
        if finding.error is not None:
            about["error.message"] = finding.error
        tracer.start_span(finding.stage, parent, start_time=start_ns, attributes=about).end(end_ns)
        start_ns = end_ns


def labels(outcome: Outcome) -> tuple[str, str, str]:
    """(outcome, served_by, reason), the bounded labels of one row's end."""
    reason = "ok" if isinstance(outcome, Served) else outcome.reason.value
    return type(outcome).__name__.lower(), getattr(outcome, "by", ""), reason


def _otlp_spans() -> SpanExporter | None:
    if not os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # 90 ms, only if asked

    return OTLPSpanExporter()


def _otlp_metrics() -> MetricReader:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

    return PeriodicExportingMetricReader(OTLPMetricExporter())
