"""The sentences of a certificate: what is in it is said, what is not promised is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.deployment.promises import confidence_sentence, in_force, promises
from gateway.policy.schema import Policy, RungPolicy
from tests.support.calibration_evidence import ALARM, NUMBERS, SELECTIVE, certificate_of, policy_of


def test_every_promise_is_one_sentence_with_its_share_and_confidence() -> None:
    found = promises(certificate_of())
    assert [one.field for one in found] == [
        "false_alarm",
        "without_features",
        "selective.primary",
        "selective.small",
        "answered",
    ]
    for one in found:
        sentence = one.sentence()
        assert sentence.startswith("At most ") and sentence.endswith(" confidence.")
        assert one.at_most in sentence and f"{100 * one.confidence:.4g} %" in sentence


def test_a_fallback_is_promised_for_when_the_rungs_before_it_are_gone() -> None:
    gone = {"small": SELECTIVE | {"while_gone": ["primary"]}}
    (one,) = (p for p in promises(certificate_of(selective=gone)) if p.field == "selective.small")
    assert "what small answers while primary is gone" in one.sentence()


def test_a_cut_without_a_promise_is_no_promise() -> None:
    certificate = certificate_of(without_features=ALARM | {"promised": False}, answered=None)
    fields = [one.field for one in promises(certificate)]
    assert "without_features" not in fields and "answered" not in fields


def test_slices_are_part_of_the_sentence() -> None:
    cut = {"values": ["3"], "n": 100, "k": 2, "cut": 3.0}
    certificate = certificate_of(false_alarm=ALARM | {"slices": [cut, cut | {"values": []}]})
    assert "the good rows of each slice" in promises(certificate)[0].sentence()
    assert "2 slices" in promises(certificate)[0].evidence


def test_what_holds_of_all_is_said_and_attempts_only_if_there_were_others() -> None:
    one = certificate_of()
    assert "all 5 together with at least 75 %" in confidence_sentence(one)
    assert "attempt" not in confidence_sentence(one)
    again = one.confidence.model_copy(update={"attempts": 3, "over_attempts": 0.85})
    text = confidence_sentence(one.model_copy(update={"confidence": again}))
    assert "attempt 3 on these rows" in text and "at least 85 %" in text


def test_without_a_promise_nothing_is_said_to_hold() -> None:
    none = certificate_of(guards=False, check=False)
    assert promises(none) == []
    assert confidence_sentence(none) == "Nothing is promised."


def test_of_a_regressor_it_is_said_that_the_true_value_lies_outside_the_interval_and_nothing_of_wrong() -> (
    None
):
    mean = {"mean": 3.0, "clip": 30.0, "delta": 0.05, "n": 150, "average": 2.0, "bound": 2.6}
    found = promises(certificate_of(target=NUMBERS, absolute_error=mean))
    said = {one.field: f"{one.sentence()} {one.evidence}" for one in found}
    assert (
        "At most 10 % of what primary answers has its true value outside the interval"
        in said["selective.primary"]
    )
    assert "what small answers while primary is gone has its true value outside" in said["selective.small"]
    assert "everything answered has its true value outside the interval" in said["answered"]
    assert "5 of 150 true values outside" in said["answered"]
    assert "At most 3 of absolute error on average in everything answered" in said["absolute_error"]
    assert not any("wrong" in one for one in said.values())


def short_budget(policy: Policy) -> Policy:
    guards = [guard.model_copy(update={"budget_s": 1e-6}) for guard in policy.guards]
    return policy.model_copy(update={"guards": guards})


def fail_open(policy: Policy) -> Policy:
    guards = [guard.model_copy(update={"on_error": "allow"}) for guard in policy.guards]
    return policy.model_copy(update={"guards": guards})


def slow_rung(policy: Policy) -> Policy:
    rungs = [rung.model_copy(update={"budget_s": 1e-6}) for rung in policy.rungs]
    return policy.model_copy(update={"rungs": rungs})


def open_check(policy: Policy) -> Policy:
    def opened(rung: RungPolicy) -> RungPolicy:
        checks = [check.model_copy(update={"on_error": "allow"}) for check in rung.checks]
        return rung.model_copy(update={"checks": checks})

    return policy.model_copy(update={"rungs": [opened(rung) for rung in policy.rungs]})


WEAKER: dict[str, tuple[Callable[[Policy], Policy], list[str]]] = {
    "observe": (
        lambda policy: policy.model_copy(update={"mode": "observe"}),
        ["the policy's mode is observe"],
    ),
    "no time for a guard": (short_budget, ["guards.g0.budget_s is 1e-06, and 0.01 was certified"]),
    "a guard that fails open": (fail_open, ["guards.g0.on_error is allow, and defer was certified"]),
    "no time for the models": (
        slow_rung,
        [f"rungs.{rung}.budget_s is 1e-06, and 0.01 was certified" for rung in ("primary", "small")],
    ),
    "checks that fail open": (
        open_check,
        [
            f"rungs.{rung}.checks.{rung}_confidence.on_error is allow, and degrade was certified"
            for rung in ("primary", "small")
        ],
    ),
}


@pytest.mark.parametrize(("weaken", "reasons"), WEAKER.values(), ids=WEAKER)
def test_a_weaker_policy_withdraws_every_promise_with_the_reason(
    weaken: Callable[[Policy], Policy], reasons: list[str]
) -> None:
    policy, certificate = policy_of(), certificate_of()
    assert in_force(policy, certificate, ()).promises == tuple(promises(certificate))
    holds = in_force(weaken(policy), certificate, ())
    assert list(holds.withdrawn) == reasons
    assert holds.promises == ()
    assert holds.confidence.startswith("No promise is in force: ")
    for one in promises(certificate):
        assert holds.sentence_of(one.field).startswith(f"Not in force, because {'; '.join(reasons)}: ")
    assert reasons[0] in holds.not_promised[0]


def test_more_time_withdraws_nothing() -> None:
    policy, certificate = policy_of(), certificate_of()
    guards = [guard.model_copy(update={"budget_s": 0.5}) for guard in policy.guards]
    assert in_force(policy.model_copy(update={"guards": guards}), certificate, ()).withdrawn == ()


def test_a_condition_that_the_certificate_does_not_know_withdraws() -> None:
    policy, certificate = policy_of(), certificate_of()
    holds = in_force(policy, certificate.model_copy(update={"conditions": {}}), ())
    assert "guards.g0.budget_s is 0.01, and nothing was certified" in holds.withdrawn
