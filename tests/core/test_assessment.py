"""Scores of rows read from their trails together: the largest of the named stages, NaN where none judged."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.assessment import Assessment, Findings, Trail, allowed, largest_scores
from gateway.core.decision import Finding

STAGES = ("ood", "noise", "rate")


def entry(stage: str, rows: Sequence[int], scores: Sequence[float]) -> tuple[np.ndarray, Assessment]:
    n = len(rows)
    found = Assessment(stage, np.array(scores, np.float64), allowed(n), True, True, 0.0)
    return np.array(rows, np.intp), found


def by_hand(findings: Sequence[Finding], stages: Sequence[str]) -> float:
    known = [one.score for one in findings if one.stage in stages and one.score is not None]
    return max(known, default=math.nan)


def test_rows_that_a_stage_did_not_judge_have_no_score_of_it() -> None:
    trail: Trail = [entry("ood", [0, 2], [1.0, 5.0]), entry("rate", [0, 1, 2], [9.0, 9.0, 9.0])]
    found = largest_scores([Findings(trail, row) for row in (2, 1, 0)], ("ood", "noise"))
    np.testing.assert_array_equal(found, [5.0, math.nan, 1.0])


def test_rows_of_several_batches_and_rows_without_findings_keep_their_order() -> None:
    one, other = [entry("ood", [0, 1], [1.0, 2.0])], [entry("ood", [0], [3.0])]
    findings = [Findings(other, 0), (), Findings(one, 1), Findings([], 0)]
    np.testing.assert_array_equal(largest_scores(findings, {"ood"}), [3.0, math.nan, 2.0, math.nan])
    assert largest_scores([], {"ood"}) == []


@given(st.data())
def test_the_scores_are_those_of_the_findings(data: st.DataObject) -> None:
    trail = []
    for stage in data.draw(st.permutations(STAGES)):
        rows = sorted(data.draw(st.sets(st.integers(0, 6), min_size=1)))
        scores = data.draw(
            st.lists(st.floats(0, 9) | st.just(math.nan), min_size=len(rows), max_size=len(rows))
        )
        trail.append(entry(stage, rows, scores))
    findings = [Findings(trail, row) for row in data.draw(st.lists(st.integers(0, 6), min_size=1))]
    stages = data.draw(st.sets(st.sampled_from(STAGES)))
    expected = [by_hand(one, tuple(stages)) for one in findings]
    assert largest_scores(findings, stages) == pytest.approx(expected, nan_ok=True)
