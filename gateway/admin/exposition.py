"""The Prometheus text of all replicas and deployments: what telemetry counts, and gauges read now."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.requests import Request

from fallbacks.breaker import BreakerState
from gateway.admin.pages import repository_of
from gateway.deployment.promises import in_force
from gateway.serving.gateway import Gateway
from gateway.serving.replicas import ALONE_HEADER, merge
from gateway.serving.repository import Repository
from gateway.serving.review import QueuedReview

log = logging.getLogger(__name__)


async def merged_metrics(request: Request) -> tuple[bytes, list[str]]:
    """The merged text, and the replicas that are missing from it."""
    repository = repository_of(request)
    gateways = repository.gateways.values()
    own = [_exposition(_readiness(repository))]
    for gateway in gateways:
        own += [gateway.telemetry.prometheus(), _exposition(_replica_gauges(gateway))]
    if ALONE_HEADER in request.headers:
        return merge(own), []
    answers = await request.app.state.peers.ask("GET", "/metrics")
    silent = [answer.replica for answer in answers if not answer.ok]
    shared = [_exposition(_replicas_gauge(len(answers) - len(silent) + 1, len(silent)))]
    shared += [_exposition(await _review_gauges(gateway)) for gateway in gateways]
    return merge([*own, *(answer.body for answer in answers if answer.ok), *shared]), silent


class _FixedCollector(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


def _exposition(families: Iterator[Metric] | list[Metric]) -> bytes:
    registry = CollectorRegistry()
    registry.register(_FixedCollector(list(families)))
    return generate_latest(registry)


def _readiness(repository: Repository) -> Iterator[Metric]:
    gauge = GaugeMetricFamily(
        "gateway_model_ready", "whether the model is ready", labels=["model", "replica"]
    )
    for name in repository.entries:
        gauge.add_metric([name, repository.replica], name in repository.gateways)
    yield gauge


def _replica_gauges(gateway: Gateway) -> Iterator[Metric]:
    """The metrics of one deployment at this replica alone."""
    loaded, own = gateway.loaded, (gateway.name, gateway.replica)
    uptime_s, queued = time.time() - gateway.started_s, float(gateway.batcher.queued_rows)
    names = ["model", "replica"]
    yield _gauge("gateway_uptime_seconds", "since the deployment was opened", names, {own: uptime_s})
    yield _gauge("gateway_queued_rows", "rows that wait for a batch", names, {own: queued})
    readable = {own: float(not gateway.callers.problem)}
    yield _gauge("gateway_keys_readable", "0 while no key is accepted from the file of keys", names, readable)
    lost = CounterMetricFamily("gateway_audit_lost", "audit lines that could not be kept", labels=names)
    lost.add_metric(own, gateway.audit.lost)
    yield lost
    tagged = {(*own, loaded.tag, loaded.policy.mode): 1.0}
    yield _gauge("gateway_policy_info", "the policy in force", [*names, "policy", "mode"], tagged)
    holds = in_force(loaded.policy, loaded.artifacts.certificate)
    promised = {(*own, one.field): float(not holds.withdrawn) for one in holds.certified}
    what = "1 for a promise of the certificate that is in force, 0 for one that the policy withdraws"
    yield _gauge("gateway_promise_in_force", what, [*names, "promise"], promised)
    states = {
        (*own, rung, state.value): float(breaker.state is state)
        for rung, breaker in loaded.breakers.items()
        for state in BreakerState
    }
    what = "1 for the state that it is in"
    yield _gauge("gateway_breaker_state", what, [*names, "rung", "state"], states)


def _gauge(name: str, what: str, labels: list[str], values: Mapping[Any, float]) -> GaugeMetricFamily:
    gauge = GaugeMetricFamily(name, what, labels=labels)
    for of, number in values.items():
        gauge.add_metric(of, number)
    return gauge


def _replicas_gauge(answering: int, silent: int) -> list[Metric]:
    values = {("yes",): float(answering), ("no",): float(silent)}
    what = "replicas on this machine, by whether they answer"
    return [_gauge("gateway_replicas", what, ["answers"], values)]


async def _review_gauges(gateway: Gateway) -> list[Metric]:
    """The review store, which all replicas share: counted once, without a `replica` label."""
    if not isinstance(gateway.review, QueuedReview):
        return []
    own, what = (gateway.name,), "whether the review queue can be read"
    try:
        cases = await gateway.review.store.counts()
    except Exception:
        log.exception("the review queue cannot be read")
        return [_gauge("gateway_review_reachable", what, ["model"], {own: 0.0})]
    counts = {(*own, state.value): float(n) for state, n in cases.by_state.items()}
    oldest = {own: cases.oldest_waiting_s or 0.0}
    return [
        _gauge("gateway_review_reachable", what, ["model"], {own: 1.0}),
        _gauge("gateway_review_cases", "cases by state", ["model", "state"], counts),
        _gauge("gateway_review_oldest_seconds", "age of the oldest case that waits", ["model"], oldest),
    ]
