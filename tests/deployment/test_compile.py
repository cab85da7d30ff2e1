"""From policy and certificate to stages: which cut, verdict and budget, enforced or only observed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fallbacks.breaker import Breaker, BreakerState
from gateway.core.decision import Reason, Verdict
from gateway.core.errors import ArtifactError
from gateway.core.pipeline import Pipeline
from gateway.core.stage import FeatureStage, Stage
from gateway.deployment.artifacts import Artifacts, load_artifacts
from gateway.deployment.certificate import load_certificate
from gateway.deployment.compile import Stores, compile_policy
from gateway.deployment.deployment import Deployment
from gateway.policy.kinds.ood import FittedOod
from gateway.policy.kinds.squeeze import FittedSqueeze, SqueezePolicy
from gateway.policy.schema import Policy
from guards.rate import RateGuard
from guards.rows import Signals
from guards.squeeze import Squeeze, SqueezeGuard
from tests.support.deployments import batch_of, clean_rows, letters, rebound, run


@contextmanager
def artifacts_of(folder: Path) -> Iterator[tuple[Policy, Artifacts]]:
    deployment = Deployment.read(folder)
    policy, artifacts = deployment.policy, load_artifacts(deployment)
    try:
        yield policy, artifacts
    finally:
        artifacts.close()


def compiled(folder: Path, breakers: dict[str, Breaker] | None = None) -> Pipeline:
    held = {} if breakers is None else breakers
    with artifacts_of(folder) as (policy, artifacts):
        return compile_policy(policy, artifacts, Stores(None, lambda principal: None, held))


def ood_of(pipeline: Pipeline) -> FeatureStage:
    (stage,) = (guard for guard in pipeline.guards if guard.name == "ood")
    assert isinstance(stage, FeatureStage)
    return stage


def test_stages_and_rungs_stand_in_the_order_of_the_policy(tmp_path: Path) -> None:
    pipeline = compiled(letters(tmp_path))
    assert [budget.name for budget in pipeline.budgets] == ["rate"]
    assert [guard.name for guard in pipeline.guards] == ["ood", "queries"]
    assert [recall.guard for recall in pipeline.recalls] == ["queries"]
    assert [rung.name for rung in pipeline.rungs] == ["primary", "small"]
    assert [[check.name for check in rung.checks] for rung in pipeline.rungs] == [
        ["confidence"],
        ["small_confidence"],
    ]


def test_a_certified_cut_comes_from_the_certificate_each_form_from_its_own_part(tmp_path: Path) -> None:
    folder = letters(tmp_path)
    certificate = load_certificate(folder)
    assert certificate.false_alarm is not None
    assert certificate.without_features is not None
    stage = ood_of(compiled(folder))
    assert stage.full.cuts == {Verdict.DEFER: certificate.false_alarm.cut}
    assert isinstance(stage.without_features, Stage)
    assert stage.without_features.cuts == {Verdict.DEFER: certificate.without_features.cut}
    assert stage.full.cuts != stage.without_features.cuts


def test_the_input_only_form_reads_no_model_and_the_full_form_does(tmp_path: Path) -> None:
    with artifacts_of(letters(tmp_path)) as (policy, artifacts):
        stores = Stores(None, lambda principal: None, {})
        stage = ood_of(compile_policy(policy, artifacts, stores))
        assert stage.model == "primary"
        assert isinstance(stage.without_features, Stage)
        assert (stage.without_features.on_error, stage.without_features.enforce) == (Verdict.DEFER, True)
        full, blind = stage.full.guard, stage.without_features.guard
        form = artifacts.fitted.guards["ood"].input_only
        assert form is not None

        async def alone() -> None:
            batch = batch_of(clean_rows(8))  # there is no model that it could ask
            expected = form.score(Signals(None, batch.inputs["attributes"]))
            np.testing.assert_allclose(await blind.score(batch), expected, rtol=1e-9)
            with pytest.raises(KeyError, match="primary"):
                await full.score(batch)

        run(alone)


@pytest.mark.parametrize("verdict", [Verdict.DEGRADE, Verdict.DEFER, Verdict.REFUSE])
def test_a_cut_leads_where_the_policy_says(tmp_path: Path, verdict: Verdict) -> None:
    folder = letters(tmp_path)
    rebound(folder, ("{defer: certified}", f"{{{verdict.name.lower()}: certified}}"))
    stage = ood_of(compiled(folder))
    assert set(stage.full.cuts) == {verdict}
    assert isinstance(stage.without_features, Stage)
    assert set(stage.without_features.cuts) == {verdict}


@pytest.mark.parametrize("verdict", list(Verdict))
def test_on_error_is_what_the_policy_says(tmp_path: Path, verdict: Verdict) -> None:
    allow = "burst: 400, budget_s: 0.04, on_error: "
    change = (f"{allow}allow", f"{allow}{verdict.name.lower()}")
    (rate,) = compiled(letters(tmp_path, change)).budgets
    assert rate.on_error is verdict


def test_a_rate_guard_refuses_with_its_own_reason_and_knows_when_it_fades(tmp_path: Path) -> None:
    (rate,) = compiled(letters(tmp_path)).budgets
    assert isinstance(rate.budget, RateGuard)
    assert (rate.budget.per_s, rate.budget.burst) == (200, 400)
    assert (rate.refuse_from, rate.reason) == (1.0, Reason.RATE_LIMITED)
    assert rate.retry_scale_s == pytest.approx(400 / 200)


def test_each_rung_has_its_own_cut_its_budget_and_a_closed_breaker(tmp_path: Path) -> None:
    folder = letters(tmp_path, patient=False)
    selective = load_certificate(folder).selective
    breakers: dict[str, Breaker] = {}
    primary, small = compiled(folder, breakers).rungs
    assert primary.checks[0].cuts == {Verdict.DEGRADE: selective["primary"].cut}
    assert small.checks[0].cuts == {Verdict.DEGRADE: selective["small"].cut}
    assert (primary.model.budget_s, small.model.budget_s) == (0.1, 0.05)
    assert primary.model.outputs == {"probabilities": (26,), "logits": (26,), "features": (96,)}
    assert {name: breaker.state for name, breaker in breakers.items()} == {
        "primary": BreakerState.CLOSED,
        "small": BreakerState.CLOSED,
    }
    assert primary.model.predictor is breakers["primary"]


def test_in_observe_mode_nothing_is_enforced(tmp_path: Path) -> None:
    pipeline = compiled(letters(tmp_path, ('version: "1"', 'version: "1"\nmode: observe')))
    stage = ood_of(pipeline)
    assert isinstance(stage.without_features, Stage)
    (rate,) = pipeline.budgets
    told = [rate.enforce, stage.full.enforce, stage.without_features.enforce]
    told += [check.enforce for rung in pipeline.rungs for check in rung.checks]
    assert told == [False] * 5


def test_one_guard_may_be_observed_while_the_rest_is_enforced(tmp_path: Path) -> None:
    pipeline = compiled(letters(tmp_path, ("kind: rate,", "kind: rate, enforce: false,")))
    (rate,) = pipeline.budgets
    assert not rate.enforce
    assert ood_of(pipeline).full.enforce


def test_without_a_review_queue_there_is_no_room(tmp_path: Path) -> None:
    folder = letters(tmp_path)
    path = folder / "gateway.yaml"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith("review:")))
    pipeline = compiled(folder)
    assert pipeline.review is None


def test_without_features_defer_needs_no_second_form(tmp_path: Path) -> None:
    folder = letters(tmp_path)
    with artifacts_of(folder) as (policy, artifacts):
        guards = [g.model_copy(update={"without_features": "defer"}) for g in policy.guards[1:]]
        ood = artifacts.fitted.guards["ood"]
        assert isinstance(ood, FittedOod)
        guards_alone = {"ood": replace(ood, input_only=None)}
        lean = replace(artifacts, fitted=replace(artifacts.fitted, guards=guards_alone))
        changed = policy.model_copy(update={"guards": guards})
        pipeline = compile_policy(changed, lean, Stores(None, lambda principal: None, {}))
    assert ood_of(pipeline).without_features is Verdict.DEFER


def test_a_squeeze_guard_is_cut_by_the_joint_certificate_and_falls_to_on_error_without_the_primary(
    tmp_path: Path,
) -> None:
    guard = SqueezePolicy(
        name="perturbation",
        kind="squeeze",
        cuts={"degrade": "certified"},
        budget_s=1.0,
        on_error="refuse",
    )
    with artifacts_of(letters(tmp_path)) as (policy, artifacts):
        answer = artifacts.models["primary"].run({"attributes": clean_rows(1000)})
        h, p = answer["features"], answer["probabilities"]
        y = p.argmax(axis=1).astype(np.int64)
        half = slice(500), slice(500, None)
        squeeze = Squeeze.fit(
            h[half[0]], y[half[0]], h[half[1]], p[half[1]], np.tile(p[half[1]], (2, 1)), seed=0
        )
        guards = {**artifacts.fitted.guards, "perturbation": FittedSqueeze("perturbation", squeeze)}
        view = replace(artifacts.fitted.view, pictures=("attributes",))  # read by the guard alone
        fitted = replace(artifacts.fitted, guards=guards, view=view)
        more = policy.model_copy(update={"guards": [*policy.guards, guard]})
        stores = Stores(None, lambda principal: None, {})
        pipeline = compile_policy(more, replace(artifacts, fitted=fitted), stores)
    stage = pipeline.guards[-1]
    assert isinstance(stage, FeatureStage)
    assert isinstance(stage.full.guard, SqueezeGuard)
    assert artifacts.certificate.false_alarm is not None
    assert stage.full.cuts == {Verdict.DEGRADE: artifacts.certificate.false_alarm.cut}
    assert (stage.model, stage.without_features, stage.full.reason) == (
        "primary",
        Verdict.REFUSE,
        Reason.ABSTAINED,
    )


def test_what_the_certificate_does_not_cut_does_not_compile(tmp_path: Path) -> None:
    with artifacts_of(letters(tmp_path)) as (policy, artifacts):
        bare = artifacts.certificate.model_copy(update={"false_alarm": None})
        with pytest.raises(ArtifactError, match=r"guards\.ood: has no cut"):
            compile_policy(
                policy, replace(artifacts, certificate=bare), Stores(None, lambda principal: None, {})
            )


def test_the_rates_of_keys_reach_the_guard(tmp_path: Path) -> None:
    rates = {"slow": 0.0, "quick": 1000.0}
    with artifacts_of(letters(tmp_path)) as (policy, artifacts):
        pipeline = compile_policy(policy, artifacts, Stores(None, rates.get, {}))
    guard = pipeline.budgets[0].budget
    assert isinstance(guard, RateGuard)
    assert guard.charge("slow", 1) == [np.inf]
    assert all(score < 1 for score in guard.charge("quick", 1000))
    assert [score < 1 for score in guard.charge("unnamed", 500)].count(True) in range(400, 410)
