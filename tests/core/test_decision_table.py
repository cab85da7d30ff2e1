"""The decision table of `gateway/decision.py`, line by line, and the edges that a table cannot show."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field

import numpy as np
import pytest

from gateway.core.batch import Answered, Batch
from gateway.core.deadline import CALL_PRINCIPALS, TOLERANCE_S
from gateway.core.decision import Decision, Deferred, Degraded, Reason, Refused, Served, Tensors, Verdict
from gateway.core.model import InputFaults, Model
from gateway.core.pipeline import Pipeline, ReviewRequest, Rung
from gateway.core.stage import FeatureStage, Stage
from tests.support.core_parts import (
    FakeGuard,
    FakeModel,
    FakeReview,
    InDoubt,
    Mood,
    Unfit,
    batch_of,
    run,
)

ALL_CUTS = {Verdict.DEGRADE: 1.0, Verdict.DEFER: 2.0, Verdict.REFUSE: 3.0}
X_FOR = {"allow": 0.0, "degrade": 1.0, "defer": 2.0, "refuse": 3.0}


def guard(reason: Reason = Reason.ABSTAINED, **other: object) -> Stage[Batch]:
    fields: dict[str, object] = {
        "name": "g",
        "guard": FakeGuard(),
        "cuts": ALL_CUTS,
        "reason": reason,
        "budget_s": 1.0,
        "on_error": Verdict.DEFER,
    }
    return Stage(**(fields | other))  # type: ignore[arg-type]


def objecting(objects: bool) -> Stage[Answered]:
    return Stage(
        "c",
        FakeGuard(slope=0.0, lift=float(objects)),
        {Verdict.DEGRADE: 1.0},
        Reason.ABSTAINED,
        1.0,
        Verdict.ALLOW,
    )


def ladder(first: FakeModel, second: FakeModel, objects: bool = False) -> tuple[Rung, ...]:
    return Rung(Model("big", first, 1.0), (objecting(objects),)), Rung(Model("small", second, 1.0))


def decide_one(
    x: float, rungs: tuple[Rung, ...], review: FakeReview | None, *guards: Stage[Batch] | FeatureStage
) -> Decision:
    pipeline = Pipeline("p", guards or (guard(),), rungs, review, 1.0)
    return run(lambda: pipeline.decide(batch_of([x])))[0]


WORKS, BROKEN, SLOW = FakeModel(), FakeModel("raises"), FakeModel("hangs")


@pytest.mark.parametrize(
    ("says", "big", "objects", "small", "room", "outcome", "by", "reason"),
    [
        ("allow", WORKS, False, WORKS, True, Served, "big", None),
        ("allow", BROKEN, False, WORKS, True, Degraded, "small", Reason.UNAVAILABLE),
        ("allow", SLOW, False, WORKS, True, Degraded, "small", Reason.UNAVAILABLE),
        ("allow", WORKS, True, WORKS, True, Degraded, "small", Reason.ABSTAINED),
        ("degrade", WORKS, False, WORKS, True, Degraded, "small", Reason.ABSTAINED),
        ("allow", BROKEN, False, BROKEN, True, Deferred, None, Reason.UNAVAILABLE),
        ("allow", WORKS, True, BROKEN, True, Deferred, None, Reason.ABSTAINED),
        ("degrade", WORKS, False, SLOW, True, Deferred, None, Reason.ABSTAINED),
        ("defer", WORKS, False, WORKS, True, Deferred, None, Reason.ABSTAINED),
        ("allow", BROKEN, False, BROKEN, False, Refused, None, Reason.UNAVAILABLE),
        ("defer", WORKS, False, WORKS, False, Refused, None, Reason.UNAVAILABLE),
        ("refuse", WORKS, False, WORKS, True, Refused, None, Reason.ABSTAINED),
    ],
)
def test_decision_table(
    says: str,
    big: FakeModel,
    objects: bool,
    small: FakeModel,
    room: bool,
    outcome: type,
    by: str | None,
    reason: Reason | None,
) -> None:
    got = decide_one(X_FOR[says], ladder(big, small, objects), FakeReview(room=room)).outcome
    assert isinstance(got, outcome)
    assert getattr(got, "by", None) == by
    assert getattr(got, "reason", None) == reason


@pytest.mark.parametrize(
    ("says", "big", "objects", "small", "reason"),
    [
        ("defer", WORKS, False, WORKS, Reason.ABSTAINED),
        ("degrade", WORKS, False, BROKEN, Reason.ABSTAINED),
        ("allow", WORKS, True, BROKEN, Reason.ABSTAINED),
        ("allow", BROKEN, False, SLOW, Reason.UNAVAILABLE),
    ],
)
def test_without_review_a_row_is_refused_for_the_reason_that_it_needs_one(
    says: str, big: FakeModel, objects: bool, small: FakeModel, reason: Reason
) -> None:
    assert decide_one(X_FOR[says], ladder(big, small, objects), None).outcome == Refused(reason)


@pytest.mark.parametrize("mood", ["raises", "hangs", "text", "shape", "cancels"])
def test_refuses_when_review_is_down(mood: str) -> None:
    got = decide_one(X_FOR["defer"], ladder(WORKS, WORKS), FakeReview(mood)).outcome  # type: ignore[arg-type]
    assert got == Refused(Reason.UNAVAILABLE)


def test_defers_a_row_that_was_stored_before_other_work_held_the_loop() -> None:
    """Refused, it would wait for a person without its caller."""

    class Held(FakeReview):
        async def put(self, cases: Sequence[ReviewRequest], /) -> Sequence[bool]:
            await asyncio.sleep(0)
            stored = await super().put(cases)
            time.sleep(TOLERANCE_S + 0.1)  # noqa: ASYNC251 (other work on the loop)
            return stored

    review = Held()
    pipeline = Pipeline("p", (guard(),), ladder(WORKS, WORKS), review, 0.05)
    (decision,) = asyncio.run(pipeline.decide(batch_of([X_FOR["defer"]], math.inf)))
    assert isinstance(decision.outcome, Deferred)
    assert [case.id for case in review.cases] == [decision.id]


class OverQuota:
    """Takes the first row, refuses the second as one too many of its caller, and has no room for a third."""

    async def put(self, cases: Sequence[ReviewRequest], /) -> Sequence[bool | Refused]:
        ends: list[bool | Refused] = [True, Refused(Reason.RATE_LIMITED, 60.0), False]
        return ends[: len(cases)]


def test_a_row_over_its_callers_share_of_the_queue_ends_as_the_queue_says() -> None:
    pipeline = Pipeline("p", (guard(),), ladder(WORKS, WORKS), OverQuota(), 1.0)
    outcomes = [one.outcome for one in run(lambda: pipeline.decide(batch_of([2.0, 2.0, 2.0, 0.0])))][:3]
    assert [type(one) for one in outcomes] == [Deferred, Refused, Refused]
    assert outcomes[1:] == [Refused(Reason.RATE_LIMITED, 60.0), Refused(Reason.UNAVAILABLE)]


@pytest.mark.parametrize("score", [np.nan, -np.inf])
def test_a_score_that_is_not_a_number_gets_on_error_and_says_so(score: float) -> None:
    got = decide_one(0.0, ladder(WORKS, WORKS), FakeReview(), guard(guard=FakeGuard(lift=score)))
    assert isinstance(got.outcome, Deferred)
    assert got.outcome.reason is Reason.UNAVAILABLE
    assert got.findings[0].score is None
    assert "not a number" in str(got.findings[0].error)


@pytest.mark.parametrize("mood", ["raises", "hangs", "cancels", "nan", "text", "shape"])
@pytest.mark.parametrize("n", [1, 2])
def test_a_guard_that_is_broken_decides_as_on_error_says(mood: Mood, n: int) -> None:
    pipeline = Pipeline("p", (guard(guard=FakeGuard(mood)),), ladder(WORKS, WORKS), FakeReview(), 1.0)
    for got in run(lambda: pipeline.decide(batch_of([0.0] * n))):
        assert isinstance(got.outcome, Deferred) and got.outcome.reason is Reason.UNAVAILABLE
        assert got.findings[0].score is None and got.findings[0].error


def test_an_infinite_score_is_the_strongest_alarm() -> None:
    got = decide_one(0.0, ladder(WORKS, WORKS), FakeReview(), guard(guard=FakeGuard(lift=np.inf)))
    assert got.outcome == Refused(Reason.ABSTAINED)


def test_a_score_equal_to_the_cut_alarms() -> None:
    got = decide_one(3.0, ladder(WORKS, WORKS), FakeReview())
    assert isinstance(got.outcome, Refused)


def test_a_refusal_says_how_long_its_score_takes_to_fade() -> None:
    slow = guard(Reason.RATE_LIMITED, retry_scale_s=4.0)
    assert decide_one(3.5, ladder(WORKS, WORKS), FakeReview(), slow).outcome == Refused(
        Reason.RATE_LIMITED, 2.0
    )


def test_one_forward_pass_is_shared_by_every_guard_and_by_rung_0() -> None:
    big = FakeModel()
    reads = guard(guard=FakeGuard(reads="big"))
    guards = (FeatureStage(reads, "big", Verdict.DEFER), FeatureStage(reads, "big", Verdict.DEFER))
    assert isinstance(decide_one(0.0, ladder(big, WORKS), FakeReview(), *guards).outcome, Served)
    assert big.calls == [1]


def test_refused_rows_cost_no_forward_pass_and_do_not_disturb_their_neighbours() -> None:
    big = FakeModel()
    pipeline = Pipeline("p", (guard(),), ladder(big, WORKS), FakeReview(), 1.0)
    outcomes = [d.outcome for d in run(lambda: pipeline.decide(batch_of([3.0, 0.0, 3.0, 0.5])))]
    assert [type(o) for o in outcomes] == [Refused, Served, Refused, Served]
    assert big.calls == [2]
    assert [o.output["y"].tolist() for o in outcomes if isinstance(o, Served)] == [[0.0], [0.5]]


def test_rows_of_a_broken_primary_are_judged_by_the_input_alone_and_it_is_called_once() -> None:
    big = FakeModel("raises")
    full, input_only_rows = guard(guard=FakeGuard(reads="big")), guard(guard=FakeGuard(slope=0.5))
    got = decide_one(1.0, ladder(big, WORKS), FakeReview(), FeatureStage(full, "big", input_only_rows))
    assert isinstance(got.outcome, Degraded)
    assert (got.findings[0].form, got.findings[0].score) == ("input_only", 0.5)
    assert big.calls == [1]


def test_a_broken_primary_defers_where_the_policy_says_so() -> None:
    full = guard(guard=FakeGuard(reads="big"), on_error=Verdict.ALLOW)
    got = decide_one(0.0, ladder(BROKEN, WORKS), FakeReview(), FeatureStage(full, "big", Verdict.DEFER))
    assert got.outcome == Deferred("r0", Reason.UNAVAILABLE)


def test_rows_that_arrive_past_their_deadline_are_refused_without_work() -> None:
    big = FakeModel()
    pipeline = Pipeline("p", (guard(),), ladder(big, WORKS), FakeReview(), 1.0)
    got = run(lambda: pipeline.decide(batch_of([0.0], deadline_s=1.0)))[0]
    assert got.outcome == Refused(Reason.DEADLINE)
    assert big.calls == []


def test_everything_that_hangs_together_still_ends_by_the_deadline() -> None:
    guards = tuple(guard(name=f"g{i}", guard=FakeGuard("hangs"), on_error=Verdict.DEGRADE) for i in range(5))
    pipeline = Pipeline("p", guards, ladder(SLOW, SLOW), FakeReview("hangs"), 1.0)

    async def timed() -> tuple[float, list[Decision]]:
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        decisions = await pipeline.decide(batch_of([0.0], deadline_s=start_s + 2.5))
        return loop.time() - start_s, decisions

    took_s, decisions = run(timed)
    assert took_s == pytest.approx(2.5)
    assert decisions[0].outcome == Refused(Reason.UNAVAILABLE)


def test_a_model_goes_on_within_its_budget_when_its_callers_deadline_is_shorter() -> None:
    ends: list[str] = []

    class Slow:
        async def predict(self, inputs: Tensors, /) -> Tensors:
            try:
                await asyncio.sleep(1.0)
            except asyncio.CancelledError:
                ends.append("stopped")
                raise
            ends.append("answered")
            return inputs

    async def main() -> None:
        start_s = asyncio.get_running_loop().time()
        model = Model("slow", Slow(), budget_s=2.0)
        answer = await model.forward({"x": np.zeros((1, 1))}, 1, start_s + 0.1)
        assert not answer.ok.any()
        assert asyncio.get_running_loop().time() - start_s < 0.2
        await asyncio.sleep(3.0)
        assert ends == ["answered"]
        short = Model("slow", Slow(), budget_s=0.5)
        answer = await short.forward({"x": np.zeros((1, 1))}, 1, start_s + 3.3)
        await asyncio.sleep(3.0)
        assert ends == ["answered", "stopped"], "nor any longer than that"

    run(main)


def test_a_model_is_told_when_nothing_waits_for_its_pass_any_more_and_so_is_no_other_pass() -> None:
    told: list[bool] = []
    waited_for: ContextVar[Callable[[], bool]] = ContextVar("waited_for", default=lambda: True)

    class Queued:
        async def predict(self, inputs: Tensors, /) -> Tensors:
            still_waited_for = waited_for.get()
            told.append(still_waited_for())
            await asyncio.sleep(1.0)
            told.append(still_waited_for())
            return inputs

    async def main() -> None:
        start_s = asyncio.get_running_loop().time()
        model = Model("queued", Queued(), budget_s=2.0, still_waited_for=waited_for)
        await model.forward({"x": np.zeros((1, 1))}, 1, start_s + 0.1)
        assert waited_for.get()(), "the next pass of this task is another one"
        await asyncio.sleep(2.0)
        assert told == [True, False]
        await model.forward({"x": np.zeros((1, 1))}, 1, start_s + 9.0)
        assert told == [True, False, True, True]

    run(main)


def test_our_own_cancellation_is_not_swallowed() -> None:
    pipeline = Pipeline("p", (guard(guard=FakeGuard("hangs")),), ladder(WORKS, WORKS), FakeReview(), 1.0)

    async def cancelled() -> bool:
        task = asyncio.create_task(pipeline.decide(batch_of([0.0])))
        await asyncio.sleep(0.1)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            return True
        return False

    assert run(cancelled)


def test_a_person_sees_what_the_model_would_have_said() -> None:
    review = FakeReview()
    reads = FeatureStage(guard(guard=FakeGuard(reads="big")), "big", Verdict.DEFER)
    decide_one(2.0, ladder(WORKS, WORKS), review, reads)
    suggestion = review.cases[0].suggestion
    assert suggestion is not None
    assert suggestion["y"].tolist() == [2.0]


POISON, FINE = 0.0, 0.1  # see parts._poisoned: 0.0 breaks a rowwise part, 0.1 does not


@pytest.mark.parametrize("mood", ["rowwise_raise", "rowwise_nan"])
def test_one_bad_row_never_decides_for_its_neighbours_in_a_guard(mood: str) -> None:
    bad = guard(guard=FakeGuard(mood), on_error=Verdict.REFUSE)  # type: ignore[arg-type]
    pipeline = Pipeline("p", (bad,), ladder(WORKS, WORKS), FakeReview(), 1.0)
    outcomes = [d.outcome for d in run(lambda: pipeline.decide(batch_of([FINE, POISON, FINE])))]
    assert [type(o) for o in outcomes] == [Served, Refused, Served]


@pytest.mark.parametrize("mood", ["rowwise_raise", "rowwise_nan"])
def test_one_bad_row_never_fails_its_neighbours_in_a_model(mood: str) -> None:
    big = FakeModel(mood)  # type: ignore[arg-type]
    pipeline = Pipeline("p", (guard(),), ladder(big, WORKS), FakeReview(), 1.0)
    outcomes = [d.outcome for d in run(lambda: pipeline.decide(batch_of([FINE, POISON, FINE])))]
    assert [type(o) for o in outcomes] == [Served, Degraded, Served]


def test_only_the_rows_without_features_are_judged_by_the_input_alone() -> None:
    big = FakeModel("rowwise_nan")
    full, input_only_rows = guard(guard=FakeGuard(reads="big")), guard(guard=FakeGuard(lift=0.5))
    stage = FeatureStage(full, "big", input_only_rows)
    pipeline = Pipeline("p", (stage,), ladder(big, WORKS), FakeReview(), 1.0)
    decisions = run(lambda: pipeline.decide(batch_of([FINE, POISON, FINE + FINE])))
    said = [(d.findings[0].form, d.findings[0].score) for d in decisions]
    assert said == [("full", FINE), ("input_only", 0.5), ("full", FINE + FINE)]


def test_a_part_that_hangs_is_not_called_again_row_by_row() -> None:
    big = FakeModel("hangs")
    pipeline = Pipeline("p", (guard(),), ladder(big, WORKS), FakeReview(), 1.0)
    run(lambda: pipeline.decide(batch_of([0.0, 0.1, 0.2])))
    assert big.calls == [3]


@pytest.mark.parametrize("order", [1, -1])
def test_the_most_severe_verdict_counts_in_any_order_of_the_guards(order: int) -> None:
    guards = guard(name="severe"), guard(name="mild", cuts={Verdict.DEGRADE: 1.0})
    got = decide_one(2.0, ladder(WORKS, WORKS), FakeReview(), *guards[::order])
    assert isinstance(got.outcome, Deferred)


def test_an_observed_guard_objects_on_paper_only() -> None:
    got = decide_one(3.0, ladder(WORKS, WORKS), FakeReview(), guard(enforce=False))
    assert isinstance(got.outcome, Served)
    assert got.findings[0].verdict is Verdict.REFUSE


def test_an_observed_check_objects_on_paper_only() -> None:
    check: Stage[Answered] = Stage(
        "c", FakeGuard(lift=9.0), {Verdict.DEGRADE: 1.0}, Reason.ABSTAINED, 1.0, Verdict.ALLOW, enforce=False
    )
    got = decide_one(0.0, (Rung(Model("big", WORKS, 1.0), (check,)),), FakeReview())
    assert isinstance(got.outcome, Served)
    assert got.findings[-1].verdict is Verdict.DEGRADE


def test_rows_that_stay_keep_their_forward_pass_when_their_neighbours_are_refused() -> None:
    big = FakeModel()
    reads = FeatureStage(guard(guard=FakeGuard(reads="big")), "big", Verdict.DEFER)
    pipeline = Pipeline("p", (reads, guard(name="after")), ladder(big, WORKS), FakeReview(), 1.0)
    outcomes = [d.outcome for d in run(lambda: pipeline.decide(batch_of([3.0, 0.0, 0.5])))]
    assert [type(o) for o in outcomes] == [Refused, Served, Served]
    assert big.calls == [3]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_model_that_returns_another_number_of_rows_has_failed(n: int) -> None:
    """Or a row would get another row's answer."""
    pipeline = Pipeline("p", (guard(),), ladder(FakeModel("shape"), WORKS), FakeReview(), 1.0)
    outcomes = [d.outcome for d in run(lambda: pipeline.decide(batch_of([0.1, 0.2, 0.5][:n])))]
    assert [type(o) for o in outcomes] == [Degraded] * n


# ---------------------------------------------------------------- rows that the model cannot take

REJECTED, TAKEN = 0.0, 0.1
"""A row that `FakeModel` in a rowwise mood takes for bad, and one that it answers."""


def rung_of(model: FakeModel, name: str = "big") -> Rung:
    return Rung(Model(name, model, 1.0, {"y": ()}, model.faults))


@pytest.mark.parametrize("mood", ["rowwise_unfit", "rowwise_doubt"])
@pytest.mark.parametrize("lift", [0.0, 1.0, 2.0], ids=["allowed", "degraded", "deferred"])
def test_a_row_that_the_first_model_cannot_take_is_refused_without_rung_or_review(
    mood: Mood, lift: float
) -> None:
    model, small, review = FakeModel(mood), FakeModel(), FakeReview()
    rungs = rung_of(model), rung_of(small, "small")
    flat = guard(guard=FakeGuard(slope=0.0, lift=lift))
    pipeline = Pipeline("p", (flat,), rungs, review, 1.0)
    rejected, taken = run(lambda: pipeline.decide(batch_of([REJECTED, TAKEN])))
    assert rejected.outcome == Refused(Reason.INVALID)
    assert type(taken.outcome) is (Served, Degraded, Deferred)[int(lift)]
    assert [case.id for case in review.cases] == ["r1"][: int(lift == 2.0)]
    assert small.calls == [1][: int(lift == 1.0)]
    assert rejected.findings[-1].verdict is Verdict.REFUSE and rejected.findings[-1].error
    assert len(model.proofs) == (mood == "rowwise_doubt"), "one proof for all rows of a pass"


def test_a_model_that_fails_for_its_known_row_has_failed_and_the_next_rung_answers() -> None:
    got = decide_one(
        TAKEN, (rung_of(FakeModel("doubt")), rung_of(FakeModel(), "small")), FakeReview()
    ).outcome
    assert isinstance(got, Degraded) and got.reason is Reason.UNAVAILABLE


def test_a_row_that_a_lower_rung_cannot_take_is_not_answered_by_it_and_goes_to_review() -> None:
    rungs = rung_of(FakeModel("raises")), rung_of(FakeModel("rowwise_unfit"), "small")
    assert isinstance(decide_one(REJECTED, rungs, FakeReview()).outcome, Deferred)


def test_what_is_assumed_of_rows_without_features_is_not_assumed_of_invalid_rows() -> None:
    model = FakeModel("rowwise_unfit")
    reads = FeatureStage(guard(guard=FakeGuard(reads="big"), cuts={}), "big", Verdict.REFUSE)
    pipeline = Pipeline("p", (reads,), (rung_of(model),), FakeReview(), 1.0)
    rejected, taken = run(lambda: pipeline.decide(batch_of([REJECTED, TAKEN])))
    assert rejected.outcome == Refused(Reason.INVALID)
    assert isinstance(taken.outcome, Served)


@dataclass
class Flaps:
    """A model that raises at its first call alone, and answers its known row."""

    principals: list[tuple[str, ...]] = field(default_factory=list)

    async def predict(self, inputs: Tensors, /) -> Tensors:
        self.principals.append(tuple(CALL_PRINCIPALS.get()))
        if len(self.principals) == 1:
            raise InDoubt
        return {"y": inputs["x"]}


def test_a_row_in_doubt_is_asked_again_alone_on_behalf_of_its_own_caller() -> None:
    model, whole = Flaps(), FakeModel()
    rung = Rung(Model("big", model, 1.0, {"y": ()}, whole.faults))
    pipeline = Pipeline("p", (guard(),), (rung,), FakeReview(), 1.0)
    assert isinstance(run(lambda: pipeline.decide(batch_of([0.0])))[0].outcome, Served)
    model.principals.clear()
    outcomes = [one.outcome for one in run(lambda: pipeline.decide(batch_of([0.0, 0.5])))]
    assert all(isinstance(one, Served) for one in outcomes)
    assert model.principals == [("caller0", "caller1"), ("caller0",), ("caller1",)]
    assert not whole.proofs, "no row is left in doubt"


def test_a_proof_that_a_caller_has_no_time_to_wait_for_calls_no_row_invalid() -> None:
    async def late() -> None:
        await asyncio.sleep(3600)

    rung = Rung(Model("big", FakeModel("doubt"), 1.0, {"y": ()}, InputFaults(Unfit, InDoubt, late)))
    pipeline = Pipeline("p", (guard(),), (rung,), FakeReview(), 1.0)
    deadline_s = 1000.5  # the fake clock begins at 1000
    outcome = run(lambda: pipeline.decide(batch_of([0.0], deadline_s)))[0].outcome
    assert isinstance(outcome, Deferred) and outcome.reason is Reason.UNAVAILABLE
