"""The Prometheus text of all replicas and deployments: what telemetry counts, and gauges read now."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.requests import Request

from fallbacks.breaker import BreakerState
from gateway.admin.pages import repository_of
from gateway.admin.policy_skew import tags_by_model
from gateway.core.brownout import Level
from gateway.deployment.promises import in_force
from gateway.serving.expected_policy import is_expected
from gateway.serving.gateway import Gateway
from gateway.serving.loaded import LoadedDeployment
from gateway.serving.replicas import ALONE_HEADER, merge
from gateway.serving.repository import Repository
from gateway.serving.review import QueuedReview
from gateway.serving.spent import budgets_of
from gateway.serving.suspected import at_steps, histories_of

COUNTS_S = 1.0
"""A review queue whose disk does not answer within this time counts as not reachable."""
log = logging.getLogger(__name__)


async def merged_metrics(request: Request) -> tuple[bytes, list[str]]:
    """The merged text, and the replicas that are missing from it."""
    repository = repository_of(request)
    gateways = repository.gateways.values()
    own = [_exposition(_readiness(repository)), _exposition(_stalls(repository))]
    for gateway in gateways:
        own += [gateway.telemetry.prometheus(), _exposition(_replica_gauges(gateway))]
    if ALONE_HEADER in request.headers:
        return merge(own), []
    answers = await request.app.state.peers.ask("GET", "/metrics")
    silent = [answer.replica for answer in answers if not answer.ok]
    shared = [_exposition(_replicas_gauge(len(answers) - len(silent) + 1, len(silent)))]
    shared += [_exposition(await _review_gauges(gateway)) for gateway in gateways]
    texts = [*own, *(answer.body for answer in answers if answer.ok)]
    shared.append(_exposition([_policies_gauge(tags_by_model(texts))]))
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
        gateway = repository.gateways.get(name)
        gauge.add_metric([name, repository.replica], gateway is not None and not gateway.why_stopped)
    yield gauge


def _stalls(repository: Repository) -> Iterator[Metric]:
    """How often and how long the event loop of this replica was blocked."""
    stalls, own = repository.stalls, [repository.replica]
    counters = (
        (
            "gateway_loop_stalls",
            "times that the event loop was blocked for a quarter of a second",
            stalls.count,
        ),
        ("gateway_loop_stalled_seconds", "how long these took together", stalls.total_s),
    )
    for name, what, value in counters:
        yield _counter(name, what, ["replica"], own, value)
    what = "how long the longest of them took"
    yield _gauge(
        "gateway_loop_longest_stall_seconds", what, ["replica"], {(repository.replica,): stalls.longest_s}
    )


def _replica_gauges(gateway: Gateway) -> Iterator[Metric]:
    """The metrics of one deployment at this replica alone."""
    loaded, own = gateway.loaded, (gateway.name, gateway.replica)
    uptime_s = time.time() - gateway.started_s
    queued = float(gateway.batcher.queued_rows + gateway.brownout.below.queued_rows)
    names = ["model", "replica"]
    yield _gauge("gateway_uptime_seconds", "since the deployment was opened", names, {own: uptime_s})
    yield _gauge("gateway_queued_rows", "rows that wait for a batch", names, {own: queued})
    yield from _load_gauges(gateway, names, own)
    readable = {own: float(not gateway.callers.problem)}
    yield _gauge("gateway_keys_readable", "0 while no key is accepted from the file of keys", names, readable)
    stopped = {(*own, rung.name): float(gateway.stops.has(rung.name)) for rung in loaded.policy.rungs}
    yield _gauge("gateway_stopped", "1 while an operator has the rung stopped", [*names, "rung"], stopped)
    yield _counter("gateway_audit_lost", "audit lines that could not be kept", names, own, gateway.audit.lost)
    tagged = {(*own, loaded.tag, loaded.policy.mode): 1.0}
    yield _gauge("gateway_policy_info", "the policy in force", [*names, "policy", "mode"], tagged)
    yield from _reload_metrics(gateway, names, own)
    holds = in_force(loaded.policy, loaded.artifacts.certificate, loaded.observed)
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
    yield from _repeats(loaded, names, own)
    yield from _budgets(gateway, [*names, "stage"], own)
    yield from _suspects(gateway, [*names, "stage", "step"], own)


def _budgets(gateway: Gateway, names: list[str], own: tuple[str, str]) -> Iterator[Metric]:
    """Whether ledgers answer, and what was spent; nothing without a budget that replicas share."""
    reachable = {(*own, key.guard): float(answers) for key, answers in gateway.budgets.reachable()}
    if reachable:
        what = "1 if the ledger of a budget answers; while it does not, the policy's on_error decides"
        yield _gauge("gateway_ledger_reachable", what, names, reachable)
    if budgets := dict(budgets_of(gateway)):
        what = "bits that rows have cost, over all callers"
        spent = CounterMetricFamily("gateway_budget_spent_bits", what, labels=names)
        for stage, budget in budgets.items():
            spent.add_metric([*own, stage], budget.spending.total)
        yield spent


def _suspects(gateway: Gateway, names: list[str], own: tuple[str, str]) -> Iterator[Metric]:
    """How many suspects there are at each step; nothing without a guard against searches."""
    counts = {
        (*own, guard.name, step): float(n)
        for guard, history in histories_of(gateway)
        for step, n in at_steps(guard, history).items()
    }
    if counts:
        what = "suspects whose evidence has reached this step of the policy and no further one"
        yield _gauge("gateway_suspects", what, names, counts)


def _repeats(loaded: LoadedDeployment, names: list[str], own: tuple[str, str]) -> Iterator[Metric]:
    """What upstreams were sent beyond their callers' calls; nothing where no rung may be."""
    counts = {
        rung: breaker.repeats.taken
        for rung, breaker in loaded.breakers.items()
        if breaker.repeats is not None
    }
    if counts:
        what = "calls that a model got beyond those of its callers: retries and hedges"
        counter = CounterMetricFamily("gateway_model_repeats", what, labels=[*names, "rung"])
        for rung, count in counts.items():
            counter.add_metric([*own, rung], count)
        yield counter


def _reload_metrics(gateway: Gateway, names: list[str], own: tuple[str, str]) -> Iterator[Metric]:
    """How reloads went, and which guards are not enforced yet."""
    what = "reloads that failed: the policy before them stayed in force"
    yield _counter("gateway_policy_reload_failures", what, names, own, gateway.reloads.failures)
    stale = {own: float(bool(gateway.reloads.problems))}
    what = "1 if the latest reload failed: the folder holds another policy than the one in force"
    yield _gauge("gateway_policy_stale", what, names, stale)
    if gateway.expected:
        met = {(*own, gateway.expected): float(is_expected(gateway.loaded.tag, gateway.expected))}
        what = "1 if the policy that Ray's user_config names is in force, 0 if another one is"
        yield _gauge("gateway_policy_expected", what, [*names, "policy"], met)
    ends = {
        (*own, guard.name): guard.observe.until.timestamp()
        for guard in gateway.loaded.policy.guards
        if guard.observe is not None and guard.name in gateway.loaded.observed
    }
    if ends:
        what = "Unix time from which a guard that is only observed is enforced"
        yield _gauge("gateway_guard_observed_until_seconds", what, [*names, "stage"], ends)


def _load_gauges(gateway: Gateway, names: list[str], own: tuple[str, str]) -> Iterator[Metric]:
    """How near the deployment is to more than it can answer, and what it refused for that."""
    limit, size = gateway.batcher.limit, gateway.batcher.size
    under_way = {own: float(limit.under_way + gateway.brownout.below.limit.under_way)}
    yield _gauge("gateway_rows_under_way", "rows that are taken and not answered yet", names, under_way)
    yield _gauge("gateway_row_limit", "how many rows may be under way now", names, {own: float(limit.rows)})
    yield _gauge(
        "gateway_batch_rows", "rows that are decided together at most", names, {own: float(size.rows)}
    )
    what = "rows refused for want of room"
    yield _counter("gateway_overload_refused", what, names, own, limit.refused_total)
    what = "rows decided without the first rung, for want of room"
    yield _counter("gateway_overload_stepped_down", what, names, own, gateway.brownout.stepped_down_total)
    now = gateway.brownout.level()
    levels = {(*own, level.value): float(level is now) for level in Level}
    what = "1 for the lowest level at which rows were decided in the last two seconds"
    yield _gauge("gateway_overload_level", what, [*names, "level"], levels)


def _counter(name: str, what: str, labels: list[str], of: Sequence[str], count: float) -> CounterMetricFamily:
    """A counter with one sample."""
    counter = CounterMetricFamily(name, what, labels=labels)
    counter.add_metric(of, count)
    return counter


def _gauge(name: str, what: str, labels: list[str], values: Mapping[Any, float]) -> GaugeMetricFamily:
    gauge = GaugeMetricFamily(name, what, labels=labels)
    for of, number in values.items():
        gauge.add_metric(of, number)
    return gauge


def _policies_gauge(tags: Mapping[str, set[str]]) -> Metric:
    what = "different policies in force over the replicas that answer: more than 1 while they differ"
    counts = {(model,): float(len(different)) for model, different in tags.items()}
    return _gauge("gateway_policies_in_force", what, ["model"], counts)


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
        cases = await asyncio.wait_for(gateway.review.store.counts(), COUNTS_S)
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
