"""The cuts on the joint risk: shares, observed guards, slices, and what a budget needs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from gateway.core.decision import Verdict
from gateway.deployment.certification.alarms import (
    BudgetRefused,
    assumed_without_primary,
    certify_alarms,
    joint_risk,
    shifts_of,
    verdicts,
)
from gateway.policy.schema import Policy
from guards.order_statistic import samples_needed
from tests.support.calibration_evidence import policy_of

A, DELTA = 0.05, 0.1


def policy(*guards: dict[str, object], by: object = None) -> Policy:
    base = policy_of().model_dump(by_alias=True)
    one = {"kind": "ood", "detectors": ["raw"], "cuts": {"defer": "certified"}, "budget_s": 1.0}
    named = [one | {"name": f"g{i}", "on_error": "defer"} | guard for i, guard in enumerate(guards)]
    fields = {"guards": named, "false_alarm_budget": A, "delta": DELTA, "false_alarm_by": by}
    return Policy.model_validate(base | fields | {"deadline_s": 60.0})


def risks(seed: int, n: int) -> np.ndarray:
    return np.random.default_rng(seed).exponential(1.0, n)


def test_the_joint_risk_is_the_largest_moved_by_its_share() -> None:
    joint = joint_risk({"g0": np.array([3.0, 1.0]), "g1": np.array([3.5, 0.0])}, {"g1": 0.5})
    assert joint is not None
    assert joint.tolist() == pytest.approx([3.5 + math.log(0.5) if 3.5 + math.log(0.5) > 3 else 3.0, 1.0])
    assert joint_risk({}, {}) is None


def test_a_budget_takes_so_many_rows_and_one_fewer_is_refused_with_their_number() -> None:
    n = samples_needed(A, DELTA)
    assert certify_alarms(policy({}), risks(0, n), None) is not None
    with pytest.raises(BudgetRefused) as caught:
        certify_alarms(policy({}), risks(0, n - 1), None)
    assert caught.value.n == n - 1


def test_enforced_guards_stop_the_rows_of_the_joint_cut_and_observed_ones_none() -> None:
    scores = {"g0": risks(1, 2000), "g1": risks(2, 2000)}
    two = policy({}, {"cuts": {"degrade": "certified"}, "share": 0.5, "enforce": True})
    alarm = certify_alarms(two, joint_risk(scores, {"g1": 0.5}), None)
    assert alarm is not None
    joined = verdicts(two, scores, alarm, None, {"g1": 0.5})
    joint = joint_risk(scores, {"g1": 0.5})
    assert joint is not None
    assert ((joined > 0) == (joint >= alarm.cut)).all()
    assert set(joined.tolist()) == {0, Verdict.DEGRADE, Verdict.DEFER}
    observed = policy({}, {"cuts": {"degrade": "certified"}, "share": 0.5, "enforce": False})
    assert set(verdicts(observed, scores, alarm, None, {"g1": 0.5}).tolist()) == {0, Verdict.DEFER}


def test_what_a_guard_without_an_input_only_form_assumes_counts_only_where_it_acts() -> None:
    squeeze = {"kind": "squeeze", "on_error": "refuse", "detectors": None}
    acting = {key: value for key, value in squeeze.items() if value is not None}
    base = policy_of().model_dump(by_alias=True)
    one = {"name": "s", "cuts": {"defer": "certified"}, "budget_s": 1.0} | acting
    for enforce, expected in ((True, Verdict.REFUSE), (False, Verdict.ALLOW)):
        made = Policy.model_validate(base | {"guards": [one | {"enforce": enforce}], "deadline_s": 60.0})
        assert assumed_without_primary(made, []) == expected
        assert assumed_without_primary(made, ["s"]) == Verdict.ALLOW


def drawn(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Three slices, of which the third is stopped ten times as often by one cut; rare values beside them."""
    names = rng.choice(
        ["a", "b", "c", *(f"rare{i}" for i in range(40))], n, p=[0.5, 0.3, 0.16] + [0.001] * 40
    )
    return names, rng.exponential(np.where(names == "c", 3.0, 1.0))


def test_every_slice_keeps_to_the_budget_together_in_all_but_delta_of_the_draws() -> None:
    draws, broken = 150, 0
    names, many = drawn(np.random.default_rng(10**6), 300_000)
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        slices, r = drawn(rng, 1500)
        alarm = certify_alarms(policy({}, by="predicted_class"), r, slices)
        assert alarm is not None
        assert [one.values for one in alarm.slices][-1] == [], "the last slice is every other row"
        shares = []
        own = {value for one in alarm.slices for value in one.values}
        for one in alarm.slices:
            rows = np.isin(names, one.values) if one.values else ~np.isin(names, list(own))
            shares.append(float((many[rows] >= one.cut).mean()))
        broken += max(shares) > A
        stopped = many - shifts_of(alarm, names) >= alarm.cut
        assert float(stopped.mean()) <= max(shares)
    assert broken <= binom.isf(1e-4, draws, DELTA)


def test_one_cut_would_stop_the_third_slice_far_more_often_than_the_budget() -> None:
    """The control of the test above."""
    names, many = drawn(np.random.default_rng(1), 300_000)
    alarm = certify_alarms(policy({}), drawn(np.random.default_rng(2), 1500)[1], None)
    assert alarm is not None
    assert float((many[names == "c"] >= alarm.cut).mean()) > 3 * A


def test_too_few_rows_for_slices_leave_one_cut_for_all() -> None:
    n = samples_needed(A, DELTA) + 5
    slices = np.where(np.arange(n) % 2 == 0, "a", "b")
    pooled = certify_alarms(policy({}, by="predicted_class"), risks(0, n), slices)
    assert pooled is not None
    assert pooled.slices == []
    assert pooled == certify_alarms(policy({}), risks(0, n), None)


def test_a_value_that_was_never_seen_falls_into_the_slice_of_all_others() -> None:
    slices, r = drawn(np.random.default_rng(3), 1500)
    alarm = certify_alarms(policy({}, by="predicted_class"), r, slices)
    assert alarm is not None
    shifts = shifts_of(alarm, np.array(["never seen", "a"]))
    assert isinstance(shifts, np.ndarray)
    assert alarm.cut + shifts[0] == pytest.approx(alarm.slices[-1].cut)
    assert alarm.cut + shifts[1] == pytest.approx(alarm.slices[0].cut)
