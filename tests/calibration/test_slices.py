"""Slices of the judged rows by class."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta

from gateway.calibration.slices import class_slices, exact_interval, slices_of
from tests.support.calibration_evidence import evidence_of


def masks(n: int, stopped: int, wrong: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of n rows the first are stopped, the others answered, the last wrong."""
    at = np.arange(n)
    return at < stopped, at >= stopped, at >= n - wrong


def test_a_class_is_counted_with_its_share_stopped_and_its_share_wrong() -> None:
    (one,) = slices_of(np.zeros(100, int), ["shoe"], *masks(100, 20, 8), budget=0.05)
    assert (one.name, one.rows, one.stopped, one.answered, one.wrong) == ("shoe", 100, 0.2, 80, 0.1)


def test_the_worst_class_comes_first_and_ties_are_decided_by_errors_and_rows() -> None:
    classes = np.repeat([0, 1, 2, 3], [10, 10, 10, 20])
    parts = [masks(10, 1), masks(10, 3), masks(10, 1, 4), masks(20, 2)]
    stopped, answered, wrong = (np.concatenate(column) for column in zip(*parts, strict=True))
    found = slices_of(classes, [], stopped, answered, wrong, budget=0.05)
    assert [one.name for one in found] == ["1", "2", "3", "0"]


def test_a_large_class_stopped_over_three_times_the_budget_is_flagged_and_comes_first() -> None:
    classes = np.repeat([0, 1], [199, 200])
    parts = [masks(199, 100), masks(200, 31)]
    stopped, answered, wrong = (np.concatenate(column) for column in zip(*parts, strict=True))
    found = slices_of(classes, ["few", "many"], stopped, answered, wrong, budget=0.05)
    assert [(one.name, one.flagged) for one in found] == [("many", True), ("few", False)]


def test_exactly_three_times_the_budget_is_not_flagged() -> None:
    (one,) = slices_of(np.zeros(200, int), [], *masks(200, 30), budget=0.05)
    assert not one.flagged


def test_a_class_with_the_rows_in_the_whole_file_is_flagged_though_fewer_of_them_are_judged() -> None:
    evidence = evidence_of(200, 2)
    evidence.stopped[:] = evidence.rows.y == 1
    share = (evidence.rows.y == 1).mean()
    assert 80 < 200 * share < 120
    assert not class_slices(evidence, [], 0.05, rows=200).flagged
    flagged = class_slices(evidence, [], 0.05, rows=600).by_label[0]
    assert (flagged.name, flagged.flagged) == ("1", True)


@pytest.mark.parametrize(("events", "n"), [(0, 1), (0, 50), (3, 50), (50, 50), (7, 4000)])
def test_the_interval_is_the_exact_one(events: int, n: int) -> None:
    low, high = exact_interval(events, n)
    assert low == pytest.approx(beta.ppf(0.025, events, n - events + 1) if events else 0.0, abs=1e-9)
    assert high == pytest.approx(beta.ppf(0.975, events + 1, n - events) if events < n else 1.0, abs=1e-9)


def test_the_interval_of_no_rows_is_everything() -> None:
    assert exact_interval(0, 0) == (0.0, 1.0)


def test_labels_name_the_classes_and_numbers_the_others() -> None:
    classes = np.array([-7, 0, 1, 2])
    mask = np.zeros(4, bool)
    names = {one.name for one in slices_of(classes, ["zero", "one"], mask, mask, mask, budget=0.05)}
    assert names == {"-7", "zero", "one", "2"}


def test_no_error_is_stated_where_nothing_is_answered_or_the_model_has_no_classes() -> None:
    found = class_slices(evidence_of(probabilities=False, check=False), [], 0.05, 750)
    assert found.by_prediction == []
    assert all(one.wrong is None and one.answered == 0 for one in found.by_label)


def test_slices_by_prediction_are_of_the_class_that_the_primary_predicts() -> None:
    evidence = evidence_of(300, 4)
    predicted = evidence.rungs[0].probabilities
    assert predicted is not None
    found = class_slices(evidence, [], 0.05, 750).by_prediction
    assert {one.name: one.rows for one in found} == {
        str(k): int((predicted.argmax(axis=1) == k).sum()) for k in range(4)
    }
