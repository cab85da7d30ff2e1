"""What is said to be left without a promise, beside what tests/calibration/test_promises.py calibrates."""

from __future__ import annotations

import numpy as np

from gateway.calibration.not_promised import not_promised, stopped_too_often
from gateway.calibration.slices import class_slices
from tests.support.calibration_evidence import certificate_of, evidence_of, policy_of


def test_a_class_that_is_stopped_too_often_is_named_with_its_share() -> None:
    evidence = evidence_of(1000, 4)
    evidence.stopped[:] = (evidence.rows.y == 2) & (np.arange(1000) % 2 == 0)
    (sentence,) = stopped_too_often(class_slices(evidence, ["a", "b", "c", "d"], 0.02, 1000))
    stopped = float(evidence.stopped[evidence.rows.y == 2].mean())
    assert f"c ({stopped:.1%} of {(evidence.rows.y == 2).sum()})" in sentence


def test_nothing_is_said_where_every_class_keeps_near_the_budget() -> None:
    evidence = evidence_of(1000, 4)
    evidence.stopped[:] = np.arange(1000) % 50 == 0
    assert not list(stopped_too_often(class_slices(evidence, [], 0.02, 1000)))


def test_everything_answered_without_a_promise_is_named() -> None:
    text = " ".join(not_promised(policy_of(), certificate_of(answered=None), ["g0", "g1"]))
    assert "Of everything answered, nothing" in text


def test_what_a_later_rung_answers_beside_a_working_one_is_named() -> None:
    text = " ".join(not_promised(policy_of(), certificate_of(), ["g0", "g1"]))
    assert "while an earlier rung works, nothing by itself" in text
