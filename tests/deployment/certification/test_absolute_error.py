"""The mean error of what is answered, counted row by row and bounded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gateway.calibration.fold_scores import absolute_errors
from gateway.deployment.certificate import MeanError
from gateway.deployment.certification.absolute_error import MeanRefused, absolute_error
from gateway.deployment.certification.paths import NO_RUNG
from gateway.policy.kinds.rows import CalibrationRows
from gateway.policy.schema import Policy
from guards.mean_bound import upper_mean_bound
from tests.support.regressors import policy_of

Array = NDArray[Any]
N = 600


def policy(mean: float = 2.0, clip: float = 5.0, **more: Any) -> Policy:
    asked = {"absolute_error": {"mean": mean, "clip": clip}} | more
    return Policy.model_validate(policy_of([None, None], **asked))


def rows(first: Array, second: Array, truth: Array) -> CalibrationRows:
    answers = {"rung0": {"value": first[:, None]}, "rung1": {"value": second}}
    x = {"x": np.zeros((len(truth), 1), np.float32)}
    found = CalibrationRows.classified(x, np.zeros(len(truth), np.int64), answers, "rung0", lambda _: {})
    return replace(found, truth=truth)


def stated(asked: Policy, known: CalibrationRows, by: Array) -> MeanError | None:
    return absolute_error(asked, absolute_errors(asked, known), by)


def drawn() -> tuple[CalibrationRows, Array]:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=N)
    first, second = (truth + scale * rng.normal(size=N) for scale in (1.0, 2.0))
    return rows(first.astype(np.float32), second, truth), rng.integers(NO_RUNG, 2, N)


def test_each_row_counts_by_the_rung_that_answers_it_and_not_at_all_without_one() -> None:
    known, by = drawn()
    assert known.truth is not None
    values = np.choose(by.clip(0), [known.answers["rung0"]["value"][:, 0], known.answers["rung1"]["value"]])
    errors = np.abs(values.astype(float) - known.truth)[by != NO_RUNG].clip(0, 5.0)
    found = stated(policy(), known, by)
    assert found is not None
    assert (found.mean, found.clip, found.delta, found.n) == (2.0, 5.0, 0.05, len(errors))
    assert found.average == pytest.approx(errors.mean(), abs=1e-12)
    assert found.bound == pytest.approx(5.0 * upper_mean_bound(errors / 5.0, 0.05), abs=1e-9)


def test_a_policy_that_does_not_ask_gets_no_statement() -> None:
    _, by = drawn()
    assert absolute_error(policy(absolute_error=None), None, by) is None


def test_an_error_counts_its_clip_at_most() -> None:
    truth = np.zeros(N)
    far = np.where(np.arange(N) % 100 == 0, 1e30, 0.1)
    found = stated(policy(mean=0.5, clip=2.0), rows(far, far, truth), np.zeros(N, np.int64))
    assert found is not None
    assert found.average == pytest.approx(0.01 * 2 + 0.99 * 0.1)


def test_a_mean_that_is_not_supported_is_refused_with_one_that_is() -> None:
    known, by = drawn()
    with pytest.raises(MeanRefused) as refused:
        stated(policy(mean=1.0), known, by)
    assert refused.value.n == (by != NO_RUNG).sum()
    assert refused.value.average < refused.value.bound
    assert stated(policy(mean=refused.value.bound), known, by) is not None


def test_no_answered_row_supports_nothing() -> None:
    known, _ = drawn()
    with pytest.raises(MeanRefused) as refused:
        stated(policy(), known, np.full(N, NO_RUNG))
    assert (refused.value.n, refused.value.bound) == (0, 5.0)


def test_a_smaller_delta_bounds_the_mean_higher() -> None:
    known, by = drawn()
    sure, surer = (stated(policy(mean=4.0, delta=delta), known, by) for delta in (0.1, 0.001))
    assert sure is not None and surer is not None
    assert sure.average == surer.average
    assert sure.bound < surer.bound
