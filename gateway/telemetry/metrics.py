"""OpenTelemetry metrics and spans, made from finished records and passes, never on the request path.

Every stage already carries its own time, so spans are written after the fact with their true start and end.
Metrics are read as Prometheus text; both also go out over OTLP when `OTEL_EXPORTER_OTLP_ENDPOINT` is set,
and then one span a request with one child a stage. Labels are stage names, outcomes and reasons: bounded.
A stage is timed once a pass, however many rows share the pass. What is counted here goes to OpenTelemetry
only when somebody collects: a scrape, or an export.
"""

from __future__ import annotations

import os
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, set_span_in_context
from prometheus_client import CollectorRegistry, generate_latest

from gateway.core.decision import Decision, Outcome, Served, severity
from gateway.core.pipeline import Trail
from gateway.core.record import RequestRecord
from gateway.telemetry.audit import VERDICT_NAMES
from gateway.telemetry.histogram import Tally, TallyAggregation, Times

Labels: TypeAlias = tuple[str, ...]
Callback: TypeAlias = Callable[[CallbackOptions], Iterable[Observation]]
MOST_PASSES = 20_000


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
        histogram = View(instrument_name="*_seconds", aggregation=TallyAggregation())
        self._meters = MeterProvider(
            metric_readers=readers,
            resource=resource,
            views=[histogram],
            exemplar_filter=AlwaysOffExemplarFilter(),
        )
        self._passes: deque[Trail] = deque(maxlen=MOST_PASSES)
        self._lock = threading.Lock()  # an exporter collects in a thread of its own
        self._rows, self._stages, self._errors = Counter[Labels](), Counter[Labels](), Counter[Labels]()
        self._took = Times()
        self._stages_took: defaultdict[str, Times] = defaultdict(Times)
        self._replica = replica
        self._register(self._meters.get_meter("failsafe.gateway"))
        self._spans: TracerProvider | None = None
        if exporter is not None:
            self._spans = TracerProvider(resource=resource)
            self._spans.add_span_processor(BatchSpanProcessor(exporter))

    def _register(self, meter: Meter) -> None:
        """Makes the instruments that are asked for what was counted, each time somebody collects."""

        def observe(counts: Counter[Labels], *names: str) -> Callback:
            def told(_: CallbackOptions) -> list[Observation]:
                with self._lock:
                    found = list(counts.items())
                return [Observation(n, self._labelled(names, values)) for values, n in found]

            return told

        self._seconds = meter.create_histogram(
            "gateway_request_seconds", unit="", description="time to answer"
        )
        self._stage_seconds = meter.create_histogram(
            "gateway_stage_seconds", unit="", description="time by stage"
        )
        rows = observe(self._rows, "outcome", "served_by", "reason")
        stages, errors = observe(self._stages, "stage", "verdict"), observe(self._errors, "stage")
        counter = meter.create_observable_counter
        # Callbacks are asked before any histogram is read, so one of them may still fill those.
        counter("gateway_rows", [rows, self._tell_times], description="rows by how they ended")
        counter("gateway_stage_rows", [stages], description="rows by stage and verdict")
        counter("gateway_stage_errors", [errors], description="rows for which a stage failed")

    def _labelled(self, names: Sequence[str], values: Labels) -> dict[str, str]:
        return {"replica": self._replica, **dict(zip(names, values, strict=True))}

    def _tell_times(self, _: CallbackOptions) -> Iterable[Observation]:
        """Hands the times of since the last collection to the histograms; observes nothing itself."""
        with self._lock:
            took, self._took = self._took, Times()
            stages, self._stages_took = self._stages_took, defaultdict(Times)
        if any(took.counts):
            self._seconds.record(Tally(took), self._labelled((), ()))
        for stage, times in stages.items():
            self._stage_seconds.record(Tally(times), self._labelled(("stage",), (stage,)))
        return ()

    def passed(self, trail: Trail) -> None:
        """Takes what the stages said of one batch: one append. Of more than 20,000 the oldest go."""
        self._passes.append(trail)

    def __call__(self, records: Sequence[RequestRecord]) -> None:
        """Counts finished records and passes. Cost: 0.6 us a request of one row, and 5 us a pass."""
        with self._lock:
            self._rows.update(labels(decision.outcome) for record in records for decision in record.decisions)
            for record in records:
                self._took.add(record.elapsed_s)
            while self._passes:
                self._count(self._passes.popleft())
        if self._spans is not None:
            for record in records:
                self._trace(record)

    def _count(self, trail: Trail) -> None:
        for rows, found in trail:
            stage = found.stage
            self._stages_took[stage].add(found.elapsed_s)
            if found.quiet:
                self._stages[stage, "allow"] += len(rows)
                continue
            given = found.verdicts.tolist()
            for verdict, name in enumerate(VERDICT_NAMES):
                if n := given.count(verdict):
                    self._stages[stage, name] += n
            if found.errors:
                self._errors[stage,] += len(found.errors)

    def prometheus(self) -> bytes:
        """All metrics as Prometheus text."""
        return generate_latest(self._registry)

    def close(self) -> None:
        """Sends what is left."""
        self._meters.shutdown()
        if self._spans is not None:
            self._spans.shutdown()

    def _trace(self, record: RequestRecord) -> None:
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
