"""What the report says of a regressor: its numbers, their intervals, and how ranges of numbers fare."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gateway.calibration.page.curves import rung_plots
from gateway.calibration.page.deciles import LEAST_ROWS, number_slices
from gateway.calibration.page.intervals import number_plots, rung_errors
from gateway.calibration.page.numbers import answered_numbers, numbers_of
from gateway.calibration.page.truth import STEPS
from gateway.calibration.slices import exact_interval
from guards.selective import NEVER
from tests.calibration.page.test_drawings import inside
from tests.support.calibration_evidence import NUMBERS, certificate_of, evidence_of, number_evidence_of


def test_the_numbers_of_a_row_are_those_of_the_rung_that_answers_it() -> None:
    evidence = number_evidence_of(60)
    evidence.by[:] = np.arange(60) % 3 - 1
    found, primary = answered_numbers(evidence), numbers_of(evidence, 0)
    assert found is not None and primary is not None
    assert (found.value - primary.value)[evidence.by == 1] == pytest.approx(10.0)
    assert (found.value == primary.value)[evidence.by == 0].all()
    assert np.isnan(found.value[evidence.by < 0]).all() and np.isnan(found.error[evidence.by < 0]).all()


def test_a_truth_inside_is_not_beyond_its_interval_and_one_outside_as_far_as_it_lies() -> None:
    evidence = number_evidence_of(200)
    found, outside = answered_numbers(evidence), evidence.rungs[0].wrong
    assert found is not None and outside is not None
    given = evidence.by >= 0
    assert found.beyond[given & outside] == pytest.approx(0.5)
    assert (found.beyond[given & ~outside] == 0).all()


def test_classes_and_several_numbers_a_row_are_no_numbers() -> None:
    assert answered_numbers(evidence_of()) is None
    assert number_slices(evidence_of(), 0.05, 0.1) == []
    assert number_plots(evidence_of(), 0.1) == []
    assert rung_errors(evidence_of()) == []
    evidence = number_evidence_of(60)
    evidence.rows.answers["primary"]["value"] = np.zeros((60, 3))  # type: ignore[index]
    assert numbers_of(evidence, 0) is None


def test_ten_slices_of_the_primarys_numbers_hold_every_row_once_and_count_what_is_in_them() -> None:
    evidence = number_evidence_of(2000)
    primary = numbers_of(evidence, 0)
    assert primary is not None
    slices = number_slices(evidence, 0.05, 0.2)
    assert [one.rows for one in slices] == [200] * 10
    lowest = primary.value <= np.sort(primary.value)[199]
    assert slices[0].stopped.share == evidence.stopped[lowest].mean()
    given = lowest & (evidence.by >= 0)
    outside = primary.beyond[given] > 0
    assert slices[0].outside is not None
    assert slices[0].outside.share == outside.mean()
    assert (slices[0].outside.low, slices[0].outside.high) == exact_interval(outside.sum(), given.sum())
    assert slices[0].error == pytest.approx(primary.error[given].mean())
    assert slices[0].width == pytest.approx(2.0)


def test_a_slice_is_marked_only_where_the_whole_interval_of_its_share_is_too_large() -> None:
    evidence = number_evidence_of(2000)
    primary, outside = numbers_of(evidence, 0), evidence.rungs[0].wrong
    assert primary is not None and outside is not None
    assert not any(one.outside_often or one.stopped_often for one in number_slices(evidence, 0.05, 0.1))
    top = primary.value >= np.sort(primary.value)[-200]
    evidence.stopped[top & (np.arange(2000) % 2 == 0)] = True
    assert evidence.rows.truth is not None
    evidence.rows.truth[top] = primary.value[top] + np.where(np.arange(2000)[top] % 4 == 1, 5.0, 0.0)
    slices = number_slices(evidence, 0.05, 0.1)
    assert (
        [one.stopped_often for one in slices] == [one.outside_often for one in slices] == [False] * 9 + [True]
    )
    assert not any(one.outside_often for one in number_slices(evidence, 0.05, None))


@pytest.mark.parametrize(("n", "slices"), [(1, 1), (3 * LEAST_ROWS, 3), (5000, 10)])
def test_few_rows_have_fewer_slices(n: int, slices: int) -> None:
    assert len(number_slices(number_evidence_of(n), 0.05, 0.1)) == slices


def test_equal_numbers_are_one_slice() -> None:
    evidence = number_evidence_of(400)
    evidence.rows.answers["primary"]["value"][:] = 7.0
    (one,) = number_slices(evidence, 0.05, 0.1)
    assert (one.name, one.rows) == ("7", 400)


def test_a_slice_without_answers_or_intervals_says_nothing_of_them() -> None:
    evidence = number_evidence_of(60)
    evidence.by[:] = -1
    assert {(one.outside, one.error, one.width) for one in number_slices(evidence, 0.05, 0.1)} == {
        (None, None, None)
    }
    (first, *_) = number_slices(number_evidence_of(60, interval=False), 0.05, 0.1)
    assert first.outside is None and first.width is None and first.error is not None


def test_each_rung_alone_has_its_error_and_bias_on_the_rows_that_pass() -> None:
    evidence = number_evidence_of(500)
    primary, small = rung_errors(evidence)
    passed = ~evidence.stopped
    numbers = numbers_of(evidence, 0)
    assert numbers is not None
    assert primary.error == pytest.approx(numbers.error[passed].mean())
    assert small.bias - primary.bias == pytest.approx(10.0)
    assert small.outside == 1.0
    assert small.width == pytest.approx(2.0)
    evidence.stopped[:] = True
    assert rung_errors(evidence) == []


@pytest.mark.parametrize("n", [1, 2, 50, 3000])
@pytest.mark.parametrize("shape", [{}, {"interval": False}, {"relative": True}])
def test_the_plots_of_numbers_lie_on_the_paper(n: int, shape: dict[str, Any]) -> None:
    plots = number_plots(number_evidence_of(n, guards=0, **shape), 0.1)
    assert [plot.title for plot in plots] == ["truth against value", "outside against width"][
        : 1 + ("interval" not in shape)
    ]
    assert all(inside(plot) for plot in plots)
    assert 1 <= len(plots[0].dots) <= STEPS


def test_true_values_outside_are_drawn_in_another_tone_and_counted() -> None:
    truth, width = number_plots(number_evidence_of(3000), 0.1)
    stopped = sum(dot.tone == "stopped" for dot in truth.dots)
    assert 0 < stopped < len(truth.dots) / 3
    assert f"{stopped} of these {len(truth.dots)}" in truth.legend[1].text
    assert len(width.dots) == 10
    assert "10\xa0%" in width.legend[-1].text


def test_the_limit_of_a_relative_width_is_a_share_of_the_number() -> None:
    evidence = number_evidence_of(500, relative=True)
    assert "as a share of the number" in number_plots(evidence, 0.1)[1].x_label
    plot = rung_plots(certificate_of(target=NUMBERS), evidence)[0]
    assert "width limit 3 times the number" in plot.legend[-1].text


def test_the_curve_of_widths_ends_where_no_limit_accepts_more() -> None:
    evidence = number_evidence_of(500, guards=0)
    suspicion = np.where(np.arange(500) < 100, NEVER, np.linspace(1, 2, 500))
    rung = replace(evidence.rungs[0], suspicion=suspicion)
    plot = rung_plots(certificate_of(target=NUMBERS), replace(evidence, rungs=(rung,)))[0]
    assert max(x for x, _ in plot.lines[0].points) == pytest.approx(46 + 294 * 0.8, abs=0.2)
    assert "80\xa0% accepted" in plot.legend[-1].text and "of them outside" in plot.legend[-1].text
    never = replace(rung, suspicion=np.full(500, NEVER))
    assert rung_plots(certificate_of(target=NUMBERS), replace(evidence, rungs=(never,))) == []
