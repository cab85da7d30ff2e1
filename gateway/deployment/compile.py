"""From policy and artifacts to a pipeline: every guard and check becomes a stage here, with its cut.

A guard with a certified cut gets the one cut on the joint risk, moved by its share; the certificate has that
cut only because the guard entered the joint risk (`certification/alarms.py`), so none can be left out.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from fallbacks import worker
from fallbacks.breaker import Breaker
from fallbacks.predictor import ModelRaised, UnfitInput
from gateway.core.batch import Answered, Batch
from gateway.core.budget import BudgetStage
from gateway.core.decision import Verdict
from gateway.core.errors import ArtifactError, Problem
from gateway.core.model import InputFaults, Model
from gateway.core.pipeline import Pipeline, Review, Rung
from gateway.core.recall import Recall
from gateway.core.stage import FeatureStage, Stage
from gateway.deployment.artifacts import Artifacts
from gateway.deployment.certificate import CERTIFICATE_FILE, GUARDS_FILE, FalseAlarm
from gateway.deployment.circuits import breaker_of
from gateway.deployment.enforcement import with_enforcement
from gateway.deployment.histories import history_of
from gateway.deployment.measures import Measures, measures
from gateway.deployment.possible_rows import possible_rows
from gateway.deployment.query_history import QueryHistory
from gateway.deployment.slices import SlicedGuard
from gateway.deployment.tiers import ANONYMOUS, TRUSTED, bits_by_tier
from gateway.policy.fields import VERDICT_OF
from gateway.policy.kinds import AnyBudget, CheckPolicy
from gateway.policy.kinds.column import Column
from gateway.policy.kinds.kind import (
    BudgetKind,
    CertifiedGuardKind,
    HistoryKind,
    LedgerUse,
    Services,
    SharedAccounts,
)
from gateway.policy.kinds.ood import novelty_guards
from gateway.policy.kinds.queries import QueriesPolicy
from gateway.policy.schema import Policy, RungPolicy
from guards.gcra import Buckets

RISKS = 0.0, sys.float_info.max
"""The nats that a guard with a certified cut gives."""


def _of_this_pipeline(use: LedgerUse) -> SharedAccounts:
    return SharedAccounts.over(Buckets())


@dataclass(frozen=True, slots=True)
class Stores:
    """State that outlives a pipeline: the review queue, rates of keys in rows a second, and breakers.

    review: None: the deployment has no queue. tier_of: a principal's disclosure tier; shared: accounts that
    replicas share; without them each pipeline has its own.
    """

    review: Review | None
    rate_of: Callable[[str], float | None]
    breakers: dict[str, Breaker]
    tier_of: Callable[[str], str] = lambda principal: ANONYMOUS
    shared: Callable[[LedgerUse], SharedAccounts] = _of_this_pipeline


def compile_policy(
    policy: Policy, artifacts: Artifacts, stores: Stores, observed: Collection[str] = ()
) -> Pipeline:
    """The pipeline that the policy describes. Raises ArtifactError if a cut or an output is missing.

    Args:    observed: the guards that are not enforced yet, because of their `observe`.
    """
    measured = measures_of(artifacts)
    bits, tier_of = bits_by_tier(policy, artifacts.contract), stores.tier_of
    services = Services(
        time.monotonic,
        stores.rate_of,
        lambda principal: bits(tier_of(principal)),
        lambda principal: tier_of(principal) == TRUSTED,
        stores.shared,
        bits(ANONYMOUS),
        novelty_guards(policy.guards),
        artifacts.fitted.prices,
    )
    kinds = [guard for guard in policy.guards if isinstance(guard, QueriesPolicy)]
    histories = {kind.name: history_of(kind, policy, artifacts) for kind in kinds}
    pipeline = Pipeline(
        policy=artifacts.tag,
        guards=tuple(
            _certified(guard, policy, artifacts, measured)
            if guard.certified
            else _history(guard, policy, histories[guard.name])
            for guard in policy.guards
            if not isinstance(guard, AnyBudget)
        ),
        rungs=tuple(_rung(rung, policy, artifacts, stores) for rung in policy.rungs),
        review=stores.review,
        review_budget_s=policy.review.budget_s if policy.review else 0.001,
        budgets=tuple(
            _budget(guard, policy, services) for guard in policy.guards if isinstance(guard, AnyBudget)
        ),
        recalls=tuple(Recall(name, history) for name, history in histories.items()),
    )
    return with_enforcement(pipeline, observed, enforce=False)


def _budget(budget: BudgetKind, policy: Policy, services: Services) -> BudgetStage:
    return BudgetStage(
        budget.name,
        budget.meter(services),
        budget.refuse_from,
        budget.reason,
        VERDICT_OF[budget.on_error],
        budget.enforce and policy.mode == "enforce",
        budget.retry_scale_s,
    )


def _history(guard: HistoryKind, policy: Policy, history: QueryHistory) -> Stage[Batch]:
    return Stage(
        guard.name,
        history,
        guard.verdicts,
        guard.reason,
        guard.budget_s,
        VERDICT_OF[guard.on_error],
        guard.enforce and policy.mode == "enforce",
        score_range=(0.0, math.inf),
    )


def _certified(
    guard: CertifiedGuardKind, policy: Policy, artifacts: Artifacts, measured: Measures
) -> FeatureStage:
    name, fitted, certificate = guard.name, artifacts.fitted.guards[guard.name], artifacts.certificate
    alarm, by = _alarm(name, certificate.false_alarm), policy.false_alarm_by
    full_guard = fitted.guard(measured.columns_of(name))
    full: Stage[Batch] = Stage(
        name,
        SlicedGuard(full_guard, alarm, by, measured.model) if by and alarm.slices else full_guard,
        {guard.verdict: alarm.cut - math.log(guard.share)},
        guard.reason,
        guard.budget_s,
        VERDICT_OF[guard.on_error],
        guard.enforce and policy.mode == "enforce",
        score_range=RISKS,
    )
    if fitted.input_only is None:
        return FeatureStage(full, measured.model, guard.without_answer, measured.prefetch)
    alone = _alarm(name, certificate.without_features)
    form = Column(measured.input_only, measured.input_only_columns[name])
    input_only_stage = replace(
        full,
        guard=SlicedGuard(form, alone, by, measured.model) if by and alone.slices else form,
        cuts={guard.verdict: alone.cut},
    )
    return FeatureStage(full, measured.model, input_only_stage, measured.prefetch)


def _alarm(name: str, certified: FalseAlarm | None) -> FalseAlarm:
    """The certified cut on the joint risk; a guard's `share` moves it to its own scale (see `calibrate`)."""
    if certified is None:
        raise ArtifactError([Problem(f"guards.{name}", "has no cut in the certificate", CERTIFICATE_FILE)])
    return certified


def measures_of(artifacts: Artifacts) -> Measures:
    """The measures of the fitted guards, recorded on the rows that calibration kept.

    Raises ArtifactError where the model's outputs do not suit a guard.
    """
    primary, fitted, kept = next(iter(artifacts.models)), artifacts.fitted, artifacts.kept
    try:
        return measures(primary, fitted.view, fitted.guards, kept.x, kept.answer)
    except ValueError as error:
        raise ArtifactError([Problem("guards", str(error), GUARDS_FILE)]) from error


def _rung(rung: RungPolicy, policy: Policy, artifacts: Artifacts, stores: Stores) -> Rung:
    loaded = artifacts.models[rung.name]
    breaker = breaker_of(rung, artifacts, policy.expose)
    stores.breakers[rung.name] = breaker
    outputs = {spec.name: spec.shape[1:] for spec in loaded.outputs}
    faults = InputFaults(UnfitInput, ModelRaised, breaker.prove)
    dtypes = {spec.name: spec.dtype for spec in loaded.outputs}
    possible = possible_rows(loaded.outputs, artifacts.contract.target)
    model = Model(
        rung.name, breaker, rung.budget_s, outputs, faults, dtypes, possible, worker.STILL_WAITED_FOR
    )
    return Rung(model, tuple(_check(check, rung.name, policy, artifacts) for check in rung.checks))


def _check(check: CheckPolicy, rung: str, policy: Policy, artifacts: Artifacts) -> Stage[Answered]:
    cut = artifacts.certificate.cut_of(rung)
    if cut is None:
        raise ArtifactError(
            [Problem(f"rungs.{rung}.{check.name}", "has no cut in the certificate", CERTIFICATE_FILE)]
        )
    return Stage(
        check.name,
        check.guard(),
        {Verdict.DEGRADE: cut},
        check.reason,
        check.budget_s,
        VERDICT_OF[check.on_error],
        check.enforce and policy.mode == "enforce",
        score_range=(0.0, check.most),
    )
