"""All metrics as Prometheus text, counters and durations in the form of the OpenTelemetry SDK."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from gateway.telemetry.histogram import BUCKETS_S, DurationHistogram, Durations

SCOPE = "failsafe.gateway"
SCOPE_LABELS = {"otel_scope_name": SCOPE, "otel_scope_schema_url": "", "otel_scope_version": ""}
"""The labels that the SDK's reader gives every counter."""
BOUNDS = [*map(str, BUCKETS_S), "+Inf"]
FIRST_COUNTER = "gateway_rows"
"""Durations are rendered after it, in the SDK's order."""


class PrometheusText(Collector):
    """counters: where the SDK's reader is registered; durations: all since the start, as of now.

    labels: of every series of durations.
    """

    def __init__(
        self, counters: CollectorRegistry, durations: Callable[[], Durations], labels: dict[str, str]
    ) -> None:
        self._counters = counters
        self._durations = durations
        self._labels = {**SCOPE_LABELS, **labels}
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def render(self) -> bytes:
        """The exposition. Cost: 1 ms, wherever it is called."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        counters = list(self._counters.collect())
        first = [family for family in counters if family.name == FIRST_COUNTER]
        yield from first
        for name, description, series in self._durations().metrics():
            family = HistogramMetricFamily(name, description, labels=[*self._labels, *series[0][0]])
            for labels, histogram in series:
                values = [*self._labels.values(), *labels.values()]
                family.add_metric(values, _cumulative(histogram), histogram.sum_s)
            yield family
        yield from (family for family in counters if family.name != FIRST_COUNTER)


def _cumulative(histogram: DurationHistogram) -> list[tuple[str, float]]:
    """(upper bound, how many durations are not above it)."""
    return [(bound, float(n)) for bound, n in zip(BOUNDS, accumulate(histogram.counts), strict=True)]
