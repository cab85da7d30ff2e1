"""The sentences of a certificate: what is in it is said, what is not promised is not."""

from __future__ import annotations

from gateway.deployment.promises import confidence_sentence, promises
from tests.support.calibration_evidence import ALARM, NUMBERS, SELECTIVE, certificate_of


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
