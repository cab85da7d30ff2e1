"""The eight laws of the core, as properties over random pipelines of working and broken parts.

Law 5 (a failed reload changes nothing) lives with the reload, in test_gateway.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.batch import Answered, Batch
from gateway.core.decision import Decision, Deferred, Degraded, Outcome, Reason, Refused, Served, Verdict
from gateway.core.model import Model
from gateway.core.pipeline import AnyGuard, Pipeline, Rung
from gateway.core.stage import FeatureStage, Stage
from tests.support.core_parts import MODEL_MOODS, MOODS, FakeGuard, FakeModel, FakeReview, Mood, batch_of, run

moods: st.SearchStrategy[Mood] = st.one_of(
    st.sampled_from(MOODS), st.sampled_from(MOODS[:1]), st.sampled_from(MOODS[-3:-1])
)  # whole ones and row-wise broken ones more often than the rest
model_moods: st.SearchStrategy[Any] = st.one_of(moods, st.sampled_from(MODEL_MOODS[-3:]))
scores = st.floats(-3, 3, allow_nan=False)
xs = st.lists(st.floats(-2, 2, allow_nan=False), min_size=2, max_size=6)
verdicts = st.sampled_from(Verdict)


@st.composite
def guard_stages(draw: st.DrawFn, name: str, enforce: bool | None = None) -> AnyGuard:
    enforced = draw(st.booleans()) if enforce is None else enforce
    raised = st.sampled_from([Verdict.DEGRADE, Verdict.DEFER, Verdict.REFUSE])

    def stage(reads: str | None) -> Stage[Batch]:
        return Stage(
            name=name,
            guard=FakeGuard(draw(moods), draw(scores), draw(scores), reads),
            cuts=draw(st.dictionaries(raised, scores, max_size=3)),
            reason=Reason.ABSTAINED,
            budget_s=1.0,
            on_error=draw(verdicts),
            enforce=enforced,
        )

    if draw(st.booleans()):
        return stage(None)
    return FeatureStage(stage("m0"), "m0", draw(verdicts) if draw(st.booleans()) else stage(None))


@st.composite
def rungs(draw: st.DrawFn, depth: int) -> Rung:
    checks: tuple[Stage[Answered], ...] = tuple(
        Stage(
            name=f"check{depth}{i}",
            guard=FakeGuard(draw(moods), draw(scores), draw(scores)),
            cuts={Verdict.DEGRADE: draw(scores)},
            reason=Reason.ABSTAINED,
            budget_s=1.0,
            on_error=draw(st.sampled_from([Verdict.ALLOW, Verdict.DEGRADE])),
            enforce=draw(st.booleans()),
        )
        for i in range(draw(st.integers(0, 2)))
    )
    model = FakeModel(draw(model_moods), shift=float(depth))
    return Rung(Model(f"m{depth}", model, 1.0, {"y": ()}, model.faults), checks)


@st.composite
def pipelines(draw: st.DrawFn) -> Pipeline:
    return Pipeline(
        policy="p@1#0",
        guards=tuple(draw(guard_stages(f"g{i}")) for i in range(draw(st.integers(0, 4)))),
        rungs=tuple(draw(rungs(depth)) for depth in range(draw(st.integers(1, 3)))),
        review=FakeReview(draw(moods), draw(st.booleans())),
        review_budget_s=1.0,
    )


def decide(pipeline: Pipeline, x: Sequence[float]) -> list[Decision]:
    return run(lambda: pipeline.decide(batch_of(x)))


def fall(outcome: Outcome) -> tuple[int, str]:
    match outcome:
        case Served():
            return 0, ""
        case Degraded(by=by):
            return 1, by
        case Deferred():
            return 2, ""
        case Refused():
            return 3, ""


def plain(decisions: Sequence[Decision]) -> list[tuple[object, ...]]:
    """Outcomes as comparable values, arrays included; deferral tickets by position."""
    told: list[tuple[object, ...]] = []
    for decision in decisions:
        match decision.outcome:
            case Served(output, by):
                told.append(("served", by, output["y"].tolist()))
            case Degraded(output, by, reason):
                told.append(("degraded", by, reason, output["y"].tolist()))
            case Deferred(_, reason):
                told.append(("deferred", reason))
            case Refused(reason, wait):
                told.append(("refused", reason, wait))
    return told


@given(pipelines(), xs)
def test_law_1_every_row_gets_exactly_one_outcome_in_order_and_nothing_raises(
    p: Pipeline, x: list[float]
) -> None:
    decisions = decide(p, x)
    assert [d.id for d in decisions] == [f"r{i}" for i in range(len(x))]
    for decision, value in zip(decisions, x, strict=True):
        if isinstance(decision.outcome, Served | Degraded):
            shift = float(decision.outcome.by.removeprefix("m"))
            assert decision.outcome.output["y"].tolist() == [value + shift], "a row got another row's answer"


@given(pipelines(), xs, st.data())
def test_law_2_raising_a_score_never_improves_an_outcome(
    p: Pipeline, x: list[float], data: st.DataObject
) -> None:
    lift = data.draw(st.floats(0, 6))
    stages = [(i, g) for i, g in enumerate(p.guards) if mood_of(g) == "answers"]
    if not stages:
        return
    at, stage = data.draw(st.sampled_from(stages))
    worse = replace(p, guards=(*p.guards[:at], lifted(stage, lift), *p.guards[at + 1 :]))
    for before, after in zip(decide(p, x), decide(worse, x), strict=True):
        assert fall(after.outcome) >= fall(before.outcome)


@given(pipelines(), xs, st.data())
def test_law_2_raising_a_checks_score_never_improves_an_outcome(
    p: Pipeline, x: list[float], data: st.DataObject
) -> None:
    rung = data.draw(st.sampled_from(p.rungs))
    working = [c for c in rung.checks if isinstance(c.guard, FakeGuard) and c.guard.mood == "answers"]
    if not working:
        return
    check, lift = data.draw(st.sampled_from(working)), data.draw(st.floats(0, 6))
    checks = tuple(raised(c, lift) if c is check else c for c in rung.checks)
    worse = replace(p, rungs=tuple(replace(r, checks=checks) if r is rung else r for r in p.rungs))
    for before, after in zip(decide(p, x), decide(worse, x), strict=True):
        assert fall(after.outcome) >= fall(before.outcome)


@given(pipelines(), xs, guard_stages("extra", enforce=True), st.data())
def test_law_2_adding_an_enforced_guard_never_improves_an_outcome(
    p: Pipeline, x: list[float], extra: AnyGuard, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(p.guards)))
    more = replace(p, guards=(*p.guards[:at], extra, *p.guards[at:]))
    for before, after in zip(decide(p, x), decide(more, x), strict=True):
        assert fall(after.outcome) >= fall(before.outcome)


@given(pipelines(), xs, guard_stages("extra", enforce=False), st.data())
def test_law_3_an_observed_guard_never_changes_an_outcome(
    p: Pipeline, x: list[float], extra: AnyGuard, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(p.guards)))
    more = replace(p, guards=(*p.guards[:at], extra, *p.guards[at:]))
    assert plain(decide(more, x)) == plain(decide(p, x))


@given(pipelines(), xs)
def test_law_4_a_batch_of_n_equals_n_batches_of_one(p: Pipeline, x: list[float]) -> None:
    assert plain(decide(p, x)) == [one for value in x for one in plain(decide(p, [value]))]


@given(pipelines(), xs, st.permutations(range(4)))
def test_law_2_the_order_of_guards_never_changes_how_far_a_row_falls(
    p: Pipeline, x: list[float], order: list[int]
) -> None:
    shuffled = replace(p, guards=tuple(p.guards[i] for i in order if i < len(p.guards)))
    assert [fall(d.outcome) for d in decide(shuffled, x)] == [fall(d.outcome) for d in decide(p, x)]


@given(pipelines(), xs)
def test_law_6_nan_is_an_error_never_a_number(p: Pipeline, x: list[float]) -> None:
    for decision in decide(p, x):
        for finding in decision.findings:
            assert finding.score is None or not np.isnan(finding.score)
            if finding.score is None and not finding.stage.startswith("m"):
                assert finding.error is not None
        if isinstance(decision.outcome, Served | Degraded):
            assert np.isfinite(decision.outcome.output["y"]).all()


@given(pipelines(), xs)
def test_law_6_a_failed_guard_gives_exactly_the_verdict_of_on_error(p: Pipeline, x: list[float]) -> None:
    by_name = {g.name: g for g in p.guards if isinstance(g, Stage)}
    for decision in decide(p, x):
        for finding in decision.findings:
            if finding.error is not None and finding.stage in by_name:
                assert finding.verdict == by_name[finding.stage].on_error


@given(pipelines(), xs)
def test_law_7_no_answer_leaves_without_every_enforced_guard_and_its_rungs_checks(
    p: Pipeline, x: list[float]
) -> None:
    enforced = {g.name for g in p.guards if enforcing(g)}
    for decision in decide(p, x):
        if not isinstance(decision.outcome, Served | Degraded):
            continue
        said = {f.stage: f.verdict for f in decision.findings}
        deepest = Verdict.ALLOW if isinstance(decision.outcome, Served) else Verdict.DEGRADE
        assert all(said[name] <= deepest for name in enforced)
        by = decision.outcome.by
        rung = next(r for r in p.rungs if r.name == by)
        assert all(said[c.name] == Verdict.ALLOW for c in rung.checks if c.enforce)


@given(pipelines(), xs)
def test_law_8_a_row_that_the_first_model_cannot_take_is_refused_and_no_other_is_called_invalid(
    p: Pipeline, x: list[float]
) -> None:
    first, review = p.rungs[0].model.predictor, p.review
    assert isinstance(first, FakeModel) and isinstance(review, FakeReview)
    for decision, value in zip(decide(p, x), x, strict=True):
        found = isinstance(decision.outcome, Refused) and decision.outcome.reason is Reason.INVALID
        if not first.rejects(value):
            assert not found
            continue
        assert isinstance(decision.outcome, Refused), "no other rung answers it, and no reviewer gets it"
        assert decision.id not in [case.id for case in review.cases]
        by_a_guard = any(
            f.verdict is Verdict.REFUSE and f.enforced for f in decision.findings if f.stage[0] == "g"
        )
        assert found is not by_a_guard


@given(pipelines(), xs)
def test_law_8_a_model_that_does_not_answer_its_known_row_calls_no_row_invalid(
    p: Pipeline, x: list[float]
) -> None:
    broken = FakeModel("doubt")
    first = Rung(Model("m0", broken, 1.0, {"y": ()}, broken.faults), p.rungs[0].checks)
    for decision in decide(replace(p, rungs=(first, *p.rungs[1:])), x):
        assert getattr(decision.outcome, "reason", None) is not Reason.INVALID


def enforcing(stage: AnyGuard) -> bool:
    return stage.full.enforce if isinstance(stage, FeatureStage) else stage.enforce


def mood_of(stage: AnyGuard) -> str:
    guard = stage.full.guard if isinstance(stage, FeatureStage) else stage.guard
    assert isinstance(guard, FakeGuard)
    return guard.mood


def raised(check: Stage[Answered], by: float) -> Stage[Answered]:
    assert isinstance(check.guard, FakeGuard)
    return replace(check, guard=replace(check.guard, lift=check.guard.lift + by))


def lifted(stage: AnyGuard, by: float) -> AnyGuard:
    if isinstance(stage, FeatureStage):
        full = lifted(stage.full, by)
        assert isinstance(full, Stage)
        return replace(stage, full=full)
    assert isinstance(stage.guard, FakeGuard)
    return replace(stage, guard=replace(stage.guard, lift=stage.guard.lift + by))
