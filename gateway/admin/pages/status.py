"""The content of the status page: the merged metrics of all replicas, beside what the certificate states.

Counts come from the Prometheus text alone, so the page and a dashboard can never disagree, and promises from
`in_force` alone, as everywhere.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from gateway.core.brownout import Level
from gateway.core.decision import OUTCOME_NAMES, VERDICT_NAMES
from gateway.deployment.promises import InForce, in_force
from gateway.policy.kinds import AnyBudget, GuardPolicy
from gateway.policy.schema import RungPolicy
from gateway.serving.gateway import Gateway
from gateway.serving.repository import Entry, NotReady
from gateway.serving.stops import EVERY, Scope


class MetricSamples:
    """The samples of a Prometheus exposition, summed over all labels that a query does not name.

    model: keeps only the samples with this label.
    """

    def __init__(self, text: bytes, model: str | None = None) -> None:
        self._samples: dict[str, list[Sample]] = {}
        for family in text_string_to_metric_families(text.decode()):
            for sample in family.samples:
                if model is None or sample.labels.get("model") == model:
                    self._samples.setdefault(sample.name, []).append(sample)

    def by(self, label: str, name: str, **where: str) -> dict[str, float]:
        """Sums by the values of one label, over the samples with these other labels."""
        sums: dict[str, float] = defaultdict(float)
        for sample in self._samples.get(name, ()):
            if all(sample.labels.get(key) == value for key, value in where.items()):
                sums[sample.labels.get(label, "")] += sample.value
        return dict(sums)

    def sum(self, name: str, **where: str) -> float:
        return math.fsum(self.by("", name, **where).values())

    def one(self, name: str) -> float | None:
        """The value of a metric with one sample; None if there is none."""
        return next((sample.value for sample in self._samples.get(name, ())), None)

    def median(self, name: str, **where: str) -> float | None:
        """The median of a histogram, linear inside its bucket; None before the first observation."""
        buckets = sorted((float(le), n) for le, n in self.by("le", f"{name}_bucket", **where).items())
        if not buckets or not buckets[-1][1]:
            return None
        half, low, below = buckets[-1][1] / 2, 0.0, 0.0
        for high, n in buckets:
            if n >= half:
                return low if math.isinf(high) else low + (high - low) * (half - below) / (n - below)
            low, below = high, n
        return None


def status_of(
    gateway: Gateway, text: bytes, silent: Sequence[str], callers: Mapping[str, Any]
) -> dict[str, Any]:
    """The fields of the status page. silent: the replicas that did not answer; callers: as of `/callers`."""
    loaded, metrics = gateway.loaded, MetricSamples(text, gateway.name)
    policy, certificate = loaded.policy, loaded.artifacts.certificate
    holds = in_force(policy, certificate, loaded.observed)
    return {
        "deployment": policy.name,
        "policy": loaded.tag,
        "mode": policy.mode,
        "uptime_s": max(metrics.by("replica", "gateway_uptime_seconds").values(), default=0.0),
        "replicas": _replicas(metrics, silent),
        "outcomes": _outcomes(metrics),
        "median_s": metrics.median("gateway_request_seconds"),
        "keys_problem": gateway.callers.problem,
        **_stops(gateway),
        "overload_level": _overload_level(metrics),
        "promise": "" if certificate.answered is None else holds.sentence_of("answered"),
        "confidence": holds.confidence,
        "promises": [one.sentence() for one in holds.promises],
        "withdrawn": list(holds.withdrawn),
        "policies": metrics.by("policy", "gateway_policy_info"),
        "expected": gateway.expected or None,
        "reload": _reload(gateway, metrics),
        "not_promised": list(holds.not_promised),
        "guards": [_guard(guard, gateway, holds, metrics) for guard in policy.guards],
        "callers": callers["budgets"],
        "suspects": {name: _suspects(name, found, metrics) for name, found in callers["suspects"].items()},
        "rungs": [_rung(rung, holds, metrics) for rung in policy.rungs],
        "review": _review(gateway, metrics),
    }


def summary_of(entry: Entry, text: bytes, silent: Sequence[str]) -> dict[str, Any]:
    """One of several deployments in a list. ready: here; ready_at: at how many of the replicas."""
    metrics = MetricSamples(text, entry.name)
    ready_at = metrics.by("replica", "gateway_model_ready")
    fields: dict[str, Any] = {
        "deployment": entry.name,
        "folder": str(entry.folder),
        "ready": isinstance(entry, Gateway),
        "ready_at": int(sum(ready_at.values())),
        "replicas": len(ready_at) + len(silent),
    }
    if isinstance(entry, NotReady):
        return fields | {"reason": entry.reason, "problems": [str(one) for one in entry.problems]}
    loaded = entry.loaded
    return fields | {
        "policy": loaded.tag,
        "mode": loaded.policy.mode,
        "outcomes": _outcomes(metrics),
        "median_s": metrics.median("gateway_request_seconds"),
        "keys_problem": entry.callers.problem,
        **_stops(entry),
        "review": _review(entry, metrics),
    }


def _stops(gateway: Gateway) -> dict[str, Any]:
    """What is stopped here, as the file of stops says. stopped: why no rung may answer, or empty."""
    file, stops = gateway.latch.file, gateway.latch.now.stops
    own = [stop for stop in stops if stop.model in (EVERY, gateway.name)]
    scopes = {stop.scope for stop in own}
    return {
        "stopped": gateway.why_stopped,
        "stops": [{**stop.model_dump(mode="json"), "text": f"{stop.scope}: {stop}"} for stop in own],
        "stopped_as_model": file.scope(gateway.name) in scopes,
        "stopped_with_all": Scope() in scopes,
    }


def _overload_level(metrics: MetricSamples) -> str:
    """The lowest level of any replica."""
    at = metrics.by("level", "gateway_overload_level")
    return next((level for level in (Level.REFUSED, Level.FALLBACK) if at.get(level)), Level.FULL)


def _replicas(metrics: MetricSamples, silent: Sequence[str]) -> list[dict[str, Any]]:
    uptimes = metrics.by("replica", "gateway_uptime_seconds")
    known = [
        {
            "name": name,
            "answers": True,
            "uptime_s": uptime_s,
            "policy": next(iter(metrics.by("policy", "gateway_policy_info", replica=name)), ""),
            "keys_readable": metrics.sum("gateway_keys_readable", replica=name) > 0,
            "queued_rows": metrics.sum("gateway_queued_rows", replica=name),
            "audit_lost": metrics.sum("gateway_audit_lost_total", replica=name),
        }
        for name, uptime_s in sorted(uptimes.items(), key=lambda one: -one[1])
    ]
    return known + [{"name": name, "answers": False} for name in silent]


def _outcomes(metrics: MetricSamples) -> dict[str, Any]:
    rows = metrics.by("outcome", "gateway_rows_total")
    total = sum(rows.values())
    ends = {}
    for outcome in OUTCOME_NAMES.values():
        n = rows.get(outcome, 0.0)
        reasons = metrics.by("reason", "gateway_rows_total", outcome=outcome)
        by = metrics.by("served_by", "gateway_rows_total", outcome=outcome)
        by.pop("", None)  # rows that no rung answered
        ends[outcome] = {"rows": n, "share": n / total if total else 0.0, "reasons": reasons, "by": by}
    return {"rows": total, **ends}


def _stage(name: str, metrics: MetricSamples) -> dict[str, Any]:
    verdicts = metrics.by("verdict", "gateway_stage_rows_total", stage=name)
    return {
        "name": name,
        "rows": sum(verdicts.values()),
        "verdicts": {verdict: verdicts.get(verdict, 0.0) for verdict in VERDICT_NAMES},
        "errors": metrics.sum("gateway_stage_errors_total", stage=name),
        "median_s": metrics.median("gateway_stage_seconds", stage=name),
    }


def _reload(gateway: Gateway, metrics: MetricSamples) -> dict[str, Any]:
    """How reloads went: failures at all replicas, and why the latest one failed here, if it did."""
    reloads = gateway.reloads
    return {
        "on": gateway.loaded.policy.serving.reload,
        "failures": metrics.sum("gateway_policy_reload_failures_total"),
        "stale_at": metrics.sum("gateway_policy_stale"),
        "problems": list(reloads.problems),
        "failed_s": reloads.failed_s,
    }


def _observed(guard: GuardPolicy, gateway: Gateway, metrics: MetricSamples) -> dict[str, Any]:
    """Until when it is not enforced, None if it is or never will be; and what it would have done to rows."""
    until = guard.observe if guard.name in gateway.loaded.observed else None
    verdicts = metrics.by("verdict", "gateway_observed_rows_total", stage=guard.name)
    would_have = {verdict: verdicts.get(verdict, 0.0) for verdict in VERDICT_NAMES}
    return {"observed_until": None if until is None else until.text, "would_have": would_have}


def _guard(guard: GuardPolicy, gateway: Gateway, holds: InForce, metrics: MetricSamples) -> dict[str, Any]:
    loaded = gateway.loaded
    enforced = guard.enforce and loaded.policy.mode == "enforce" and guard.name not in loaded.observed
    if guard.certified:
        promise = holds.sentence_of("false_alarm")
    else:
        promise = guard.promise() if enforced else f"Only observed, so not in force: {guard.promise()}"
    return {
        **_stage(guard.name, metrics),
        "kind": guard.kind,
        "enforced": enforced,
        **_observed(guard, gateway, metrics),
        "on_error": guard.on_error,
        "promise": promise,
        **_ledger(guard, metrics),
    }


def _ledger(guard: GuardPolicy, metrics: MetricSamples) -> dict[str, Any]:
    """Where replicas share the budget, None if they do not; and at how many of them the ledger is gone."""
    answers = metrics.by("replica", "gateway_ledger_reachable", stage=guard.name)
    return {
        "ledger": guard.ledger if isinstance(guard, AnyBudget) else None,
        "ledger_gone_at": sum(not one for one in answers.values()),
    }


def _suspects(guard: str, listed: Sequence[Mapping[str, Any]], metrics: MetricSamples) -> dict[str, Any]:
    """at: how many have reached each step and no further one, summed over replicas; listed: some of them."""
    return {"at": metrics.by("step", "gateway_suspects", stage=guard), "listed": listed}


def _rung(rung: RungPolicy, holds: InForce, metrics: MetricSamples) -> dict[str, Any]:
    states = metrics.by("state", "gateway_breaker_state", rung=rung.name)
    breaker = {state: int(n) for state, n in states.items() if n}
    return {
        **_stage(rung.name, metrics),
        "breaker": breaker,
        "isolated": "isolated" in breaker,
        "in_service": sum(n for state, n in breaker.items() if state != "isolated"),
        "checks": [_stage(check.name, metrics) for check in rung.checks],
        "answered": metrics.sum("gateway_rows_total", served_by=rung.name),
        "promise": holds.sentence_of(f"selective.{rung.name}"),
    }


def _review(gateway: Gateway, metrics: MetricSamples) -> dict[str, Any] | None:
    if gateway.loaded.policy.review is None:
        return None
    cases = metrics.by("state", "gateway_review_cases")
    return {
        "reachable": bool(metrics.one("gateway_review_reachable")),
        "waiting": cases.get("open", 0.0) + cases.get("leased", 0.0),
        "cases": cases,
        "oldest_s": metrics.one("gateway_review_oldest_seconds"),
        "capacity": gateway.loaded.policy.review.capacity,
    }
