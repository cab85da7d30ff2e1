"""The rungs' cuts together: what counts in `answered`, what may be chosen, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from gateway.core.decision import Verdict
from gateway.deployment.certification.ladder import AnsweredRefused, RungRefused, certify_ladder
from gateway.deployment.certification.paths import CLOSED, NO_RUNG, OPEN, LadderRows, RungRows
from gateway.policy.schema import Policy
from tests.support.calibration_evidence import policy_of

DELTA = 0.1


def policy(first: float | None, second: float | None, answered: float, *, observed: bool = False) -> Policy:
    """Two rungs with checks of these promises, None without one. observed: the checks do not act."""

    def checks(name: str, r: float | None) -> list[dict[str, object]]:
        one: dict[str, object] = {
            "name": name,
            "kind": "confidence",
            "selective_error": r,
            "budget_s": 1.0,
            "on_error": "degrade",
        }
        return [] if r is None else [one | {"enforce": not observed}]

    base = policy_of().model_dump(by_alias=True)
    rung = {"model": {"kind": "onnx", "path": "m.onnx"}, "budget_s": 1.0}
    rungs = [
        {"name": "primary", **rung, "checks": checks("c0", first)},
        {"name": "small", **rung, "checks": checks("c1", second)},
    ]
    return Policy.model_validate(
        base | {"rungs": rungs, "delta": DELTA, "answered_error": answered, "deadline_s": 60.0}
    )


def rows(seed: int, n: int, *, degraded: float = 0.0) -> LadderRows:
    """Each rung errs with probability of its suspicion times 0.2 and 0.5; a guard degrades some rows."""
    rng = np.random.default_rng(seed)
    first, second = rng.uniform(size=n), rng.uniform(size=n)
    verdicts = np.where(rng.uniform(size=n) < degraded, np.int8(Verdict.DEGRADE), np.int8(0)).astype(np.int8)
    return LadderRows(
        verdicts,
        verdicts,
        (
            RungRows(first, rng.uniform(size=n) < 0.2 * first),
            RungRows(second, rng.uniform(size=n) < 0.5 * second),
        ),
    )


def true_error(cuts: tuple[float, ...], *, degraded: float = 0.0) -> float:
    many = rows(10**6, 200_000, degraded=degraded)
    by = many.answered_by(cuts)
    return float(many.wrong(by).sum() / (by != NO_RUNG).sum())


@pytest.mark.parametrize("degraded", [0.0, 0.3])
def test_everything_answered_errs_as_promised_rows_that_a_guard_degrades_included(degraded: float) -> None:
    draws, broken, opened = 60, 0, 0
    for seed in range(draws):
        pilot, test = rows(2 * seed, 5000, degraded=degraded), rows(2 * seed + 1, 3000, degraded=degraded)
        found = certify_ladder(policy(0.09, 0.2, 0.11), pilot, test)
        broken += true_error(found.cuts, degraded=degraded) > 0.11
        opened += found.cuts[1] > CLOSED
        assert found.answered
    assert broken <= binom.isf(1e-4, draws, DELTA)
    assert opened > draws / 2, "the second rung answers what the promise leaves room for"


def test_a_rung_without_a_check_counts_with_everything_that_it_answers() -> None:
    pilot, test = rows(0, 4000), rows(1, 2000)
    found = certify_ladder(policy(0.05, None, 0.3), pilot, test)
    assert found.cuts[1] == OPEN
    with pytest.raises(AnsweredRefused):  # the second rung errs in a quarter of what the first leaves to it
        certify_ladder(policy(0.05, None, 0.06), pilot, test)


def test_the_first_cut_gives_way_where_the_unchecked_rung_behind_it_would_err_too_often() -> None:
    pilot, test = rows(0, 20_000), rows(1, 10_000)
    loose = certify_ladder(policy(0.099, None, 0.25), pilot, test).cuts[0]
    tight = certify_ladder(policy(0.099, None, 0.11), pilot, test).cuts[0]
    assert tight == loose, "a looser first cut leaves less to the rung behind it"


def test_an_observed_check_has_a_cut_of_its_own_and_stops_nothing() -> None:
    found = certify_ladder(policy(0.05, 0.2, 0.3, observed=True), rows(0, 4000), rows(1, 2000))
    assert found.cuts == (OPEN, OPEN)
    assert set(found.own) == {"primary", "small"}


def test_without_any_check_a_promise_that_the_rows_do_not_show_is_left_out() -> None:
    pilot, test = rows(0, 4000), rows(1, 2000)
    assert certify_ladder(policy(None, None, 0.15), pilot, test).answered
    assert not certify_ladder(policy(None, None, 0.05), pilot, test).answered


def test_without_labels_to_count_nothing_is_said_of_everything_answered() -> None:
    test = rows(1, 2000)
    unknown = LadderRows(test.verdicts, test.without_primary, (test.rungs[0], RungRows(None, None)))
    assert not certify_ladder(policy(0.05, None, 0.5), rows(0, 4000), unknown).answered


def test_a_rung_that_cannot_keep_its_promise_is_named_with_its_surest_rows() -> None:
    with pytest.raises(RungRefused) as caught:
        certify_ladder(policy(0.09, 0.0001, 0.11), rows(0, 4000), rows(1, 3000))
    assert caught.value.rung == 1
    assert caught.value.surest.accepted > 0


def test_every_cut_that_is_chosen_was_certified_for_its_own_rung() -> None:
    for seed in range(8):
        pilot, test = rows(2 * seed, 3000), rows(2 * seed + 1, 1500)
        found = certify_ladder(policy(0.09, 0.2, 0.11), pilot, test)
        for depth, r in ((0, 0.09), (1, 0.2)):
            suspicion, wrong = test.rungs[depth].suspicion, test.rungs[depth].wrong
            assert suspicion is not None and wrong is not None
            below = suspicion < found.cuts[depth]
            assert not below.any() or binom.cdf(wrong[below].sum(), below.sum(), r) <= DELTA * (1 + 1e-9)


def test_a_check_of_which_nothing_is_promised_refuses_no_calibration() -> None:
    pilot, test = rows(0, 4000), rows(1, 3000)
    observed = certify_ladder(policy(0.0001, 0.0001, 0.5, observed=True), pilot, test)
    assert set(observed.own) == {"primary", "small"}
    kept = certify_ladder(policy(0.09, 0.0001, 0.3), pilot, test, kept=True)
    assert kept.answered
    with pytest.raises(RungRefused):
        certify_ladder(policy(0.09, 0.0001, 0.3), pilot, test)


def test_a_fallback_is_not_closed_for_a_handful_of_rows() -> None:
    """The loosest first cut may leave the promise no room for the second rung; a hair less does."""
    closed = 0
    for seed in range(12):
        pilot, test = rows(2 * seed, 9000), rows(2 * seed + 1, 4000)
        closed += certify_ladder(policy(0.09, 0.2, 0.092), pilot, test).cuts[1] == CLOSED
    assert closed <= 2
