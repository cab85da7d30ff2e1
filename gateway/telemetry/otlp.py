"""Metrics and spans over OTLP. Imported only where `OTEL_EXPORTER_OTLP_ENDPOINT` is set: it takes 90 ms."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExportResult,
    MetricReader,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.trace.export import SpanExporter

from gateway.telemetry.histogram import BUCKETS_S, DurationHistogram, Durations
from gateway.telemetry.prometheus import SCOPE


def span_exporter() -> SpanExporter:
    """Sends spans to the endpoint of the environment."""
    return OTLPSpanExporter()


def metric_reader(take_durations: Callable[[], Durations], labels: dict[str, str]) -> MetricReader:
    """Sends metrics to the endpoint of the environment, once a minute and at shutdown.

    Args:    take_durations: those since its last call.
    """
    return PeriodicExportingMetricReader(OtlpMetricExporter(take_durations, labels))


class OtlpMetricExporter(OTLPMetricExporter):
    """Exports what the SDK has collected, with the durations, which the SDK does not know, added."""

    def __init__(self, take_durations: Callable[[], Durations], labels: dict[str, str]) -> None:
        super().__init__()
        self._take_durations = take_durations
        self._labels = labels
        self._unsent = Durations()
        self._start_ns = time.time_ns()
        wanted = os.environ.get(OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE, "").strip().upper()
        delta = wanted in ("DELTA", "LOWMEMORY")
        self._temporality = AggregationTemporality.DELTA if delta else AggregationTemporality.CUMULATIVE

    def export(
        self, metrics_data: MetricsData, timeout_millis: float | None = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        """Called by the thread of the reader, or at shutdown."""
        metrics = self._duration_metrics()
        resources = [
            replace(
                resource,
                scope_metrics=[
                    replace(scope, metrics=[*scope.metrics, *metrics]) if scope.scope.name == SCOPE else scope
                    for scope in resource.scope_metrics
                ],
            )
            for resource in metrics_data.resource_metrics
        ]
        return super().export(MetricsData(resources), timeout_millis, **kwargs)

    def _duration_metrics(self) -> list[Metric]:
        self._unsent.merge(self._take_durations())
        now_ns, durations, start_ns = time.time_ns(), self._unsent, self._start_ns
        if self._temporality is AggregationTemporality.DELTA:
            self._unsent, self._start_ns = Durations(), now_ns
        metrics = []
        for name, description, series in durations.metrics():
            points = [
                _point(histogram, self._labels | labels, start_ns, now_ns) for labels, histogram in series
            ]
            metrics.append(Metric(name, description, "", Histogram(points, self._temporality)))
        return metrics


def _point(
    histogram: DurationHistogram, labels: dict[str, str], start_ns: int, now_ns: int
) -> HistogramDataPoint:
    return HistogramDataPoint(
        attributes=labels,
        start_time_unix_nano=start_ns,
        time_unix_nano=now_ns,
        count=histogram.count,
        sum=histogram.sum_s,
        bucket_counts=list(histogram.counts),
        explicit_bounds=BUCKETS_S,
        min=histogram.min_s,
        max=histogram.max_s,
    )
