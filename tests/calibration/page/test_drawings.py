"""What the report draws: histograms, curves, reliability."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gateway.calibration.page.curves import risk_coverage, rung_plots
from gateway.calibration.page.histograms import guard_lines, guard_plots, histogram, input_only_stopped
from gateway.calibration.page.plot import BOTTOM, LEFT, RIGHT, TOP, Axis, Plot
from gateway.calibration.page.reliability import compare, fit_temperature, reliability, softmax
from gateway.deployment.certification.paths import CLOSED
from tests.support.calibration_evidence import ALARM, SELECTIVE, certificate_of, evidence_of


def rows_of(plot: Plot, tone: str) -> int:
    return sum(int(bar.says.split(" rows")[0].replace("\u202f", "")) for bar in plot.bars if bar.tone == tone)


def inside(plot: Plot) -> bool:
    """Whether everything lies on the paper."""
    places = [*((bar.x, bar.top) for bar in plot.bars), *((dot.x, dot.y) for dot in plot.dots)]
    places += [place for line in plot.lines for place in line.points]
    return all(LEFT <= x <= RIGHT and TOP <= y <= BOTTOM for x, y in places)


@pytest.mark.parametrize("cut", [-3.0, 0.0, 1e-9, 0.7, 2.0, 50.0, None])
@pytest.mark.parametrize("scores", ["many", "equal", "one", "far"])
def test_a_histogram_counts_every_row_on_its_side_of_the_cut(scores: str, cut: float | None) -> None:
    values = {
        "many": np.random.default_rng(0).exponential(size=5000),
        "equal": np.full(70, 0.7),
        "one": np.array([2.0]),
        "far": np.append(np.linspace(0, 1, 99), 1e12),
    }[scores]
    plot = histogram("g", values, cut)
    assert rows_of(plot, "stopped") == (0 if cut is None else int((values >= cut).sum()))
    assert rows_of(plot, "stopped") + rows_of(plot, "value") == len(values)
    assert inside(plot)
    assert len(plot.x_ticks) >= 2


def test_infinite_scores_are_counted_at_the_ends_and_nan_not_at_all() -> None:
    plot = histogram("g", np.array([np.nan, np.inf, -np.inf, 1.0]), 2.0)
    assert (rows_of(plot, "value"), rows_of(plot, "stopped")) == (2, 1)
    for cut in (2.0, None, np.inf, np.nan):
        assert histogram("g", np.full(3, np.nan), cut).bars == []


def test_guards_that_are_only_observed_stop_no_row_of_the_input_only_form() -> None:
    evidence = evidence_of(guards=2)
    first, second = evidence.guards
    observed = replace(evidence, guards=(first, replace(second, enforced=False)))
    stopped = input_only_stopped(observed)
    assert stopped is not None
    assert first.input_only_scores is not None
    assert first.input_only_cut is not None
    assert (stopped == (first.input_only_scores >= first.input_only_cut)).all()
    assert [line.enforced for line in guard_lines(observed)] == [True, False]


def test_the_joint_risk_is_drawn_with_the_cut_that_holds_for_all_guards() -> None:
    plot = guard_plots(certificate_of(false_alarm=ALARM), evidence_of(), 0.05)[0]
    assert plot.title == "all guards together"
    assert plot.cut is not None
    assert plot.cut[1] == "cut 3"


def test_rows_of_equal_suspicion_are_accepted_together() -> None:
    curve = risk_coverage(np.array([0.2, 0.1, 0.2, 0.4]), np.array([True, False, False, True]))
    assert curve.cuts.tolist() == [0.1, 0.2, 0.4]
    assert curve.share.tolist() == [0.25, 0.75, 1.0]
    assert curve.error.tolist() == [0.0, 1 / 3, 0.5]


def test_the_cut_of_a_rung_is_the_point_of_the_rows_that_it_accepts() -> None:
    evidence = evidence_of()
    plot = rung_plots(certificate_of(), evidence)[0]
    rung, passed = evidence.rungs[0], ~evidence.stopped
    assert rung.suspicion is not None
    accepted = rung.suspicion[passed] < 0.5
    (dot,) = plot.dots
    assert dot.x == pytest.approx(LEFT + (RIGHT - LEFT) * accepted.mean(), abs=0.1)
    assert "certified cut 0.5" in dot.says
    assert inside(plot)


def test_a_rung_without_a_promise_is_drawn_without_its_line() -> None:
    evidence = evidence_of()
    rungs = (replace(evidence.rungs[0], enforced=False), evidence.rungs[1])
    certificate = certificate_of(selective={"small": SELECTIVE}, unpromised_cuts={"primary": 0.5})
    plot = rung_plots(certificate, replace(evidence, rungs=rungs))[0]
    assert [key.text for key in plot.legend if "promise: " in key.text] == []
    assert "cut, without a promise 0.5, only observed" in plot.legend[-1].text


def test_a_cut_that_accepts_nothing_is_said_in_words() -> None:
    evidence = evidence_of()
    rungs = (replace(evidence.rungs[0], cut=CLOSED), evidence.rungs[1])
    plot = rung_plots(certificate_of(selective={}), replace(evidence, rungs=rungs))[0]
    assert "cut, without a promise that accepts no answer: 0\xa0% accepted" in plot.legend[-1].text


def test_a_rung_that_the_guards_leave_no_row_is_not_drawn() -> None:
    evidence = evidence_of()
    evidence.stopped[:] = True
    assert [plot.title for plot in rung_plots(certificate_of(), evidence)] == ["small, while primary is gone"]


@pytest.mark.parametrize("temperature", [0.2, 1.0, 3.5])
def test_the_temperature_of_logits_that_were_multiplied_is_found(temperature: float) -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(20_000, 3)) * 2
    y = (softmax(z).cumsum(axis=1) < rng.random((len(z), 1))).sum(axis=1)
    assert fit_temperature(z * temperature, y) == pytest.approx(temperature, rel=0.05)


def test_a_temperature_exists_where_no_answer_or_every_answer_is_right() -> None:
    z = np.eye(3) * 5
    assert fit_temperature(z, np.arange(3)) == pytest.approx(0.05, rel=1e-3)
    assert fit_temperature(z, np.array([1, 2, 0])) == pytest.approx(20, rel=1e-3)


def test_the_calibration_error_is_the_mean_distance_over_bins_of_equal_count() -> None:
    confidence = np.repeat([0.6, 0.9], 10)
    right = np.repeat([False, True], 10)
    found = reliability(confidence, right)
    assert [(one.rows, one.accuracy) for one in found.bins] == [(10, 0.0), (10, 1.0)]
    assert found.error == pytest.approx((0.6 + 0.1) / 2)


def test_overconfident_probabilities_are_mended_by_a_temperature_from_logits_and_from_log_p_alike() -> None:
    errors = []
    for logits in (True, False):
        evidence = evidence_of(4000, 3, logits=False)
        for rows in (evidence.rows, evidence.tail):
            answer = rows.answers["primary"]
            z = 4 * np.log(answer["probabilities"].astype(float))
            answer["probabilities"] = softmax(z)  # type: ignore[index]
            if logits:
                answer["logits"] = z  # type: ignore[index]
        rungs = (replace(evidence.rungs[0], probabilities=evidence.rows.answers["primary"]["probabilities"]),)
        found = compare(replace(evidence, rungs=rungs))
        assert found is not None
        assert found.after is not None
        assert found.temperature > 2
        assert found.after.error < found.before.error / 2
        assert found.source == ("logits" if logits else "log p")
        assert inside(found.plot)
        errors.append(found.after.error)
    assert errors[0] == pytest.approx(errors[1], abs=1e-3)


def test_logits_that_are_not_those_of_the_probabilities_are_not_used() -> None:
    evidence = evidence_of()
    evidence.rows.answers["primary"]["logits"][:] = 0.0
    found = compare(evidence)
    assert found is not None
    assert found.source == "log p"


def test_a_fold_without_labels_of_these_classes_leaves_the_confidence_as_it_is() -> None:
    evidence = evidence_of()
    evidence.tail.y[:] = 99
    found = compare(evidence)
    assert found is not None
    assert found.after is None


@pytest.mark.parametrize(
    ("low", "high", "log"), [(0, 1, False), (0.5, 3e6, True), (-3, 1e-7, False), (0.5, 2, True)]
)
def test_an_axis_has_ticks_inside_and_puts_values_outside_at_its_edge(
    low: float, high: float, log: bool
) -> None:
    axis = Axis(low, high, 10.0, 110.0, log)
    assert axis.ticks()
    assert all(10 <= at <= 110 for at, _ in axis.ticks())
    assert (axis.at(low - 1 if not log else low / 9), axis.at(high + 1)) == (10.0, 110.0)
