"""The sink that makes metrics and spans from finished requests and passes, never on the request path.

Metrics are read as Prometheus text; both also go out over OTLP where `OTEL_EXPORTER_OTLP_ENDPOINT` is set.
Labels are stage names, outcomes and reasons: bounded. A stage is timed once a pass, however many rows share
the pass. OpenTelemetry reads the counts only when metrics are collected: by a scrape or an export.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from prometheus_client import CollectorRegistry

from gateway.core.assessment import Trail
from gateway.core.decision import VERDICT_NAMES
from gateway.core.errors import PolicyError, Problem
from gateway.core.record import AuditRecord, RequestRecord
from gateway.telemetry.histogram import Durations
from gateway.telemetry.prometheus import SCOPE, PrometheusText
from gateway.telemetry.spans import outcome_labels, write_spans

LabelValues: TypeAlias = tuple[str, ...]
Callback: TypeAlias = Callable[[CallbackOptions], Iterable[Observation]]
MAX_PASSES = 20_000
CLOSE_S = 2.0
log = logging.getLogger(__name__)


@contextmanager
def _settings_named() -> Iterator[None]:
    """OpenTelemetry reads variables OTEL_... when its parts are made, and raises anything for a wrong one.

    Raises:  PolicyError naming those that are set.
    """
    try:
        yield
    except Exception as error:
        variables = sorted(name for name in os.environ if name.startswith("OTEL_"))
        if not variables:
            raise
        what = f"OpenTelemetry cannot be set up with them: {str(error) or type(error).__name__}"
        raise PolicyError([Problem(", ".join(variables), f"{what}; correct or unset them")]) from error


def _resource(deployment: str, replica: str) -> Resource:
    """What metrics and spans are of. `OTEL_SERVICE_NAME` replaces the deployment's name."""
    named = Resource.create({"service.instance.id": replica})
    if str(named.attributes["service.name"]).startswith("unknown_service"):
        return named.merge(Resource({"service.name": deployment}))
    return named


class Telemetry:
    """An audit sink that counts rows, verdicts and durations. `model` and `replica` label every series."""

    @_settings_named()
    def __init__(self, deployment: str, replica: str, exporter: SpanExporter | None = None) -> None:
        """exporter: for spans; if None, that of OTLP, if an endpoint is set. Raises PolicyError."""
        self._labels = {"model": deployment, "replica": replica}
        self._passes: deque[Trail] = deque(maxlen=MAX_PASSES)
        self._lock = threading.Lock()  # an exporter collects in a thread of its own
        self._rows, self._stage_rows = Counter[LabelValues](), Counter[LabelValues]()
        self._stage_errors, self._missed = Counter[LabelValues](), Counter[LabelValues]()
        self._observed_rows = Counter[LabelValues]()
        self._recent = Durations()  # since the last collection
        self._scraped, self._exported = Durations(), Durations()
        resource = _resource(deployment, replica)
        counters = CollectorRegistry()
        readers: list[MetricReader] = [PrometheusMetricReader(disable_target_info=True, registry=counters)]
        if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
            from gateway.telemetry import otlp

            readers.append(otlp.metric_reader(self._take_exported, self._labels))
            exporter = exporter or otlp.span_exporter()
        self._meters = MeterProvider(
            metric_readers=readers,
            resource=resource,
            exemplar_filter=AlwaysOffExemplarFilter(),
            shutdown_on_exit=False,  # the SDK would wait for half a minute
        )
        self._register_counters(self._meters.get_meter(SCOPE))
        self._text = PrometheusText(counters, self._copy_scraped, self._labels)
        self._tracers: TracerProvider | None = None
        if exporter is not None:
            self._tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
            self._tracers.add_span_processor(BatchSpanProcessor(exporter))
            self._tracer = self._tracers.get_tracer(SCOPE)

    def _register_counters(self, meter: Meter) -> None:
        """Makes the instruments, which the SDK reads at each collection."""

        def read(counts: Counter[LabelValues], *names: str) -> list[Callback]:
            def observations(_: CallbackOptions) -> list[Observation]:
                with self._lock:
                    found = list(counts.items())
                labels = self._labels
                return [Observation(n, labels | dict(zip(names, values, strict=True))) for values, n in found]

            return [observations]

        counter = meter.create_observable_counter
        rows = read(self._rows, "outcome", "served_by", "reason")
        counter("gateway_rows", rows, description="rows by how they ended")
        stage_rows = read(self._stage_rows, "stage", "verdict")
        counter("gateway_stage_rows", stage_rows, description="rows by stage and verdict")
        stage_errors = read(self._stage_errors, "stage")
        counter("gateway_stage_errors", stage_errors, description="rows for which a stage failed")
        counter("gateway_records_missed", read(self._missed), description="requests that are in no metric")
        observed_rows = read(self._observed_rows, "stage", "verdict")
        what = "rows by what a stage that is only observed would have done"
        counter("gateway_observed_rows", observed_rows, description=what)

    def _collect_durations(self) -> None:
        """Adds the durations since the last collection, scrape or export, to both readers."""
        recent, self._recent = self._recent, Durations()
        self._scraped.merge(recent)
        self._exported.merge(recent)

    def _copy_scraped(self) -> Durations:
        """All durations so far."""
        copy = Durations()
        with self._lock:
            self._collect_durations()
            copy.merge(self._scraped)
        return copy

    def _take_exported(self) -> Durations:
        """The durations since the last export."""
        with self._lock:
            self._collect_durations()
            exported, self._exported = self._exported, Durations()
        return exported

    def add_pass(self, trail: Trail) -> None:
        """Adds the assessments of one batch: one append. Of more than 20,000 the oldest are dropped."""
        self._passes.append(trail)

    def accept(self, records: Sequence[AuditRecord], /) -> None:
        """Counts finished requests and passes. Cost: 0.4 us a request of one row, and 3 us a pass."""
        requests = [record for record in records if isinstance(record, RequestRecord)]
        rows = [outcome_labels(decision.outcome) for record in requests for decision in record.decisions]
        with self._lock:
            self._rows.update(rows)
            for record in requests:
                self._recent.requests.add(record.elapsed_s)
            while self._passes:
                self._count_pass(self._passes.popleft())
        if self._tracers is not None:
            for record in requests:
                write_spans(self._tracer, record)

    def flush(self, missed: int, /) -> None:
        """Counts the requests that are missing; exporters have threads of their own."""
        if missed:
            with self._lock:
                self._missed[()] += missed

    def _count_pass(self, trail: Trail) -> None:
        for rows, assessment in trail:
            stage = assessment.stage
            self._recent.stages[stage].add(assessment.elapsed_s)
            if assessment.all_allowed:
                self._stage_rows[stage, "allow"] += len(rows)
                if not assessment.enforced:
                    self._observed_rows[stage, "allow"] += len(rows)
                continue
            verdicts = assessment.verdicts.tolist()
            for verdict, name in enumerate(VERDICT_NAMES):
                if n := verdicts.count(verdict):
                    self._stage_rows[stage, name] += n
                    if not assessment.enforced:
                        self._observed_rows[stage, name] += n
            if assessment.errors:
                self._stage_errors[stage,] += len(assessment.errors)

    def prometheus(self) -> bytes:
        """All metrics as Prometheus text. Cost: 1 ms."""
        return self._text.render()

    def close(self) -> None:
        """Exports the remaining metrics and spans, unless the collector takes longer than CLOSE_S; blocks."""
        shutdowns: list[Callable[[], None]] = [self._meters.shutdown]
        if self._tracers is not None:
            shutdowns.append(self._tracers.shutdown)
        closing = [threading.Thread(target=one, daemon=True) for one in shutdowns]
        until_s = time.monotonic() + CLOSE_S
        for thread in closing:
            thread.start()
        for thread in closing:
            thread.join(max(0.0, until_s - time.monotonic()))
        if any(thread.is_alive() for thread in closing):
            log.warning("the last metrics and spans were not exported: the collector did not answer")
