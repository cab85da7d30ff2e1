"""A memory of answers in the pipeline: who is asked, what leaves, what is written down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import pytest

from gateway.core.batch import Batch
from gateway.core.decision import Decision, Deferred, Degraded, Reason, Refused, Served, Verdict
from gateway.core.model import Model
from gateway.core.pipeline import Pipeline, Rung
from gateway.core.recall import Answer, Given, Recall, Recalled
from gateway.core.stage import Stage
from tests.support.core_parts import FakeGuard, FakeModel, FakeReview, batch_of, run


@dataclass
class Repeats:
    """Answers every row above 1 with 42."""

    asked: list[dict[int, Answer]] = field(default_factory=list)
    seen: list[tuple[str, ...]] = field(default_factory=list)

    def recall(self, batch: Batch, answers: Mapping[int, Answer]) -> Recalled:
        self.asked.append(dict(answers))
        self.seen.append(batch.ids)
        x = batch.inputs["x"]
        return Recalled(
            [
                Given(row, replace(answer, output={"y": np.array([42.0])}), "replayed", float(x[row]))
                for row, answer in answers.items()
                if x[row] > 1
            ]
        )


def pipeline(memory: Repeats, *, enforce: bool = True, fallback: bool = False) -> Pipeline:
    cuts = {Verdict.DEFER: 5.0, Verdict.REFUSE: 8.0}
    guard: Stage[Batch] = Stage(
        "queries", FakeGuard(), cuts, Reason.RATE_LIMITED, 1.0, Verdict.ALLOW, enforce
    )
    names = ("primary", "small") if fallback else ("primary",)
    mood = {"primary": FakeModel("raises" if fallback else "answers"), "small": FakeModel(shift=100.0)}
    rungs = tuple(Rung(Model(name, mood[name], 1.0)) for name in names)
    return Pipeline("p", (guard,), rungs, FakeReview(), 1.0, recalls=(Recall("queries", memory),))


def decide(one: Pipeline, x: list[float]) -> list[Decision]:
    return run(partial(one.decide, batch_of(x)))


def value(decision: Decision) -> float:
    assert isinstance(decision.outcome, (Served, Degraded))
    return float(decision.outcome.output["y"][0])


def test_only_rows_that_a_model_answered_can_get_another_answer() -> None:
    memory = Repeats()
    ends = decide(pipeline(memory), [0.5, 9.0, 2.0, 6.0])
    assert value(ends[0]) == 0.5 and value(ends[2]) == 42.0
    assert isinstance(ends[1].outcome, Refused) and isinstance(ends[3].outcome, Deferred)
    assert len(memory.asked) == 1
    assert [memory.seen[0][row] for row in memory.asked[0]] == [ends[0].id, ends[2].id]


def test_a_degraded_row_stays_degraded_by_its_rung_and_reason() -> None:
    (end,) = decide(pipeline(Repeats(), fallback=True), [2.0])
    assert value(end) == 42.0
    assert isinstance(end.outcome, Degraded)
    assert (end.outcome.by, end.outcome.reason) == ("small", Reason.UNAVAILABLE)


def test_a_guard_that_is_only_observed_changes_no_answer_and_is_written_down() -> None:
    memory = Repeats()
    (end,) = decide(pipeline(memory, enforce=False), [2.0])
    assert value(end) == 2.0
    assert memory.asked, "it learns meanwhile"
    (found,) = [one for one in end.findings if one.stage == "queries.replayed"]
    assert (found.score, found.verdict, found.enforced) == (2.0, Verdict.ALLOW, False)


def test_what_was_given_is_among_the_findings_of_its_row_alone() -> None:
    ends = decide(pipeline(Repeats()), [0.5, 9.0, 2.0, 3.0])
    found = [[one.score for one in end.findings if one.stage == "queries.replayed"] for end in ends]
    assert found == [[], [], [2.0], [3.0]]


def test_a_later_entry_of_a_row_takes_the_place_of_an_earlier_one() -> None:
    class Twice(Repeats):
        def recall(self, batch: Batch, answers: Mapping[int, Answer]) -> Recalled:
            again = replace(answers[0], output={"y": np.array([43.0])})
            return Recalled([*super().recall(batch, answers).given, Given(0, again, "coarsened", 1.0)])

    (end,) = decide(pipeline(Twice()), [2.0])
    assert value(end) == 43.0
    assert [one.stage for one in end.findings if "." in one.stage] == [
        "queries.replayed",
        "queries.coarsened",
    ]


def test_a_row_that_was_asked_before_is_decided_as_one_that_repeats() -> None:
    class Again(Repeats):
        def recall(self, batch: Batch, answers: Mapping[int, Answer]) -> Recalled:
            return Recalled((), [max(answers)])

    ends = decide(pipeline(Again(), enforce=False), [9.0, 0.5, 2.0])
    assert [end.repeats for end in ends] == [False, False, True], "also where the guard is only observed"
    assert value(ends[2]) == 2.0


def test_without_an_answered_row_a_memory_changes_nothing() -> None:
    memory = Repeats()
    ends = decide(pipeline(memory), [9.0, 9.5])
    assert all(isinstance(end.outcome, Refused) for end in ends)
    assert memory.asked == [{}]


def test_a_memory_that_raises_lets_no_answer_out() -> None:
    """The batcher turns what the pipeline raises into refusals (`batching.py`)."""

    class Broken(Repeats):
        def recall(self, batch: Batch, answers: Mapping[int, Answer]) -> Recalled:
            raise RuntimeError("broken on purpose")

    with pytest.raises(RuntimeError, match="broken on purpose"):
        decide(pipeline(Broken()), [2.0])
