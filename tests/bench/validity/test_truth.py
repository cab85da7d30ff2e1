"""The true share of each promise, counted by hand and by the compiled pipeline."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from bench.validity.pools import POOLS, Pool
from bench.validity.resplit import draw, fit_guards, of_policy, take
from bench.validity.shapes import SHAPES, policy_of
from bench.validity.truth import ends, served_by
from gateway.calibration.fold_scores import fold_scores
from gateway.calibration.judge import judge
from gateway.calibration.served import serve
from gateway.core.decision import Verdict
from gateway.deployment.artifacts import Artifacts
from gateway.deployment.certificate import Certificate
from gateway.deployment.certification.alarms import Alarms, certify_guards, ladder_rows
from gateway.deployment.certification.ladder import Ladder, certify_ladder
from gateway.deployment.certification.paths import LadderRows, RungRows
from gateway.deployment.fitted import Fitted
from gateway.deployment.kept_rows import KeptRows
from gateway.policy.kinds.kind import FittedGuard
from gateway.policy.schema import Policy
from tests.bench.validity.hand_made import calibrate, policy, some_contract


def test_true_shares_are_those_counted_by_hand() -> None:
    found = calibrate(20_000, 0, policy())

    # Row 9 alone reaches the cut, and without the primary row 0, whose form turns the risks round. Of rows 0
    # to 8 the primary answers row 7 wrongly. Of rows 1 to 9 `small` may answer 1 to 7, row 6 wrongly; with
    # row 8, two of eight would be wrong. Together they answer what the primary answers alone.
    assert [(one.what, one.at_most, one.true) for one in found.promises] == [
        ("false alarm", 0.15, 0.1),
        ("without primary", 0.15, 0.1),
        ("selective primary", 0.2, 1 / 9),
        ("selective small", 0.2, 1 / 7),
        ("answered", 0.2, 1 / 9),
    ]
    assert found.answered == 0.9


def test_a_refused_calibration_prints_no_promise() -> None:
    assert calibrate(10, 0, policy()).refused == "budget"
    assert calibrate(10, 0, policy()).promises == ()
    assert calibrate(10, 0, policy()).answered == 0


def test_a_later_rung_answers_alone_what_its_own_guards_allow_while_the_primary_is_gone() -> None:
    suspicion, wrong = np.array([0.1, 0.2, 0.3]), np.zeros(3, bool)
    rung = RungRows(suspicion, wrong)
    rows = LadderRows(np.array([2, 0, 0], np.int8), np.array([0, 1, 2], np.int8), (rung, rung))

    assert ends(rows, [0.25, 0.5], 0, Verdict.ALLOW).tolist() == [-1, 0, 1]
    assert ends(rows, [0.25, 0.5], 1, Verdict.ALLOW).tolist() == [1, 1, -1]
    assert ends(rows, [0.25, 0.5], 1, Verdict.DEFER).tolist() == [-1, -1, -1]


@pytest.fixture(scope="module")
def mixed() -> Pool:
    return POOLS["mixed"]()


@pytest.mark.parametrize("shape", SHAPES)
def test_every_row_ends_where_the_compiled_pipeline_ends_it(mixed: Pool, shape: str) -> None:
    n, some = 3_000, np.arange(600)
    chosen, folds = policy_of(mixed, shape, 0.05, n), draw(mixed, n, 0)
    guards, measured = fit_guards(mixed, folds)
    population = of_policy(judge(mixed.rows, guards, measured), chosen)
    judged = {name: take(population, folds[name]) for name in ("tail", "cut", "risk")}
    alarms = certify_guards(chosen, fold_scores(chosen, judged["cut"]))
    tail, cut, test = (
        ladder_rows(chosen, fold_scores(chosen, judged[name]), alarms) for name in ("tail", "cut", "risk")
    )
    ladder = certify_ladder(chosen, tail.beside(cut), test)

    compiled = serve(chosen, _artifacts(mixed, chosen, guards, alarms, ladder), mixed.rows.take(some))

    few = take(population, some)
    planned = served_by(chosen, few, ladder_rows(chosen, fold_scores(chosen, few), alarms), ladder)
    for expected, by in zip(compiled.while_gone, planned.while_gone, strict=True):
        np.testing.assert_array_equal(by, expected)


def _artifacts(
    pool: Pool, chosen: Policy, guards: Mapping[str, FittedGuard], alarms: Alarms, ladder: Ladder
) -> Artifacts:
    certificate = Certificate.model_construct(
        false_alarm=alarms.full,
        without_features=alarms.input_only,
        selective={},
        unpromised_cuts=ladder.own,
    )
    named = {guard.name: guards[guard.name] for guard in chosen.guards}
    contract = some_contract()
    fitted = Fitted(pool.rows.view, named, {})
    return Artifacts(pool.models, contract, fitted, KeptRows.of(pool.rows), certificate, "validity")
