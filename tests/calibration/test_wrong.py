"""Which answers are wrong: classes by what callers see of them, numbers by their interval, tensors never."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gateway.calibration.wrong import wrong_answers
from gateway.policy.kinds.rows import CalibrationRows
from gateway.policy.schema import Policy
from tests.support.calibration_evidence import policy_of

Array = NDArray[Any]
INPUTS = {"row": np.arange(8, dtype=np.float32).reshape(4, 2)}
TRUE = np.array([0, 1, 1, 0])
RIGHT, WRONG = np.array([0.9, 0.1]), np.array([0.1, 0.9])
P = np.stack([RIGHT, RIGHT, WRONG, RIGHT]).astype(np.float32)


def policy(task: str = "classification", *expose: str) -> Policy:
    more: dict[str, Any] = {"answered_error": None} if task == "opaque" else {}
    return policy_of(task=task, check=False, expose=list(expose or ("probabilities",)), **more)


def rows(answer: dict[str, Array], label: Array | None = None, truth: Array | None = None) -> CalibrationRows:
    found = CalibrationRows.classified(INPUTS, TRUE, {"primary": answer}, "primary", lambda _: answer)
    return replace(found, truth=truth, labelled={} if label is None else {"primary": label})


def wrong(task: str, of: CalibrationRows, *expose: str) -> list[bool]:
    found = wrong_answers(policy(task, *expose), "primary", of)
    assert found is not None
    assert found.dtype == np.bool_
    return [bool(one) for one in found]


def test_a_class_is_wrong_where_the_likeliest_one_is_not_the_true_one() -> None:
    assert wrong("classification", rows({"probabilities": P})) == [False, True, False, False]


def test_a_label_that_callers_do_not_see_makes_no_answer_wrong() -> None:
    labelled = rows({"probabilities": P}, np.array([1, 1, 1, 1]))
    assert wrong("classification", labelled, "probabilities") == [False, True, False, False]


def test_where_callers_see_both_an_answer_is_wrong_if_either_is() -> None:
    """A label of a threshold of its own may name another class than the likeliest."""
    labelled = rows({"probabilities": P}, np.array([1, 1, 1, 0]))
    assert wrong("classification", labelled, "probabilities", "label") == [True, True, False, False]


def test_a_label_is_all_there_is_of_a_model_without_probabilities_exposed_or_not() -> None:
    for expose in ("label", "value"):
        labelled = rows({"label": np.zeros(4)}, np.array([0, 0, -1, 0]))
        assert wrong("classification", labelled, expose) == [False, True, True, False]


def test_probabilities_of_other_ranks_tell_no_class() -> None:
    assert wrong_answers(policy(), "primary", rows({"probabilities": P[:, None]})) is None


def test_without_a_class_nothing_can_be_told() -> None:
    assert wrong_answers(policy(), "primary", rows({"value": np.zeros(4)})) is None


def test_a_number_is_wrong_where_the_true_value_lies_outside_its_interval() -> None:
    ends = {
        "lower": np.array([[0.0], [0.0], [0.0], [2.0]], np.float32),
        "upper": np.full((4, 1), 3.0, np.float32),
    }
    truth = np.array([0.0, 3.0, 3.0000001, 1.9])
    assert wrong("regression", rows(ends, truth=truth)) == [False, False, True, True], "ends are inside"


@pytest.mark.parametrize("lacking", ["lower", "upper"])
def test_a_number_without_an_interval_cannot_be_told(lacking: str) -> None:
    ends = {"lower": np.zeros(4), "upper": np.ones(4), "value": np.zeros(4)}
    del ends[lacking]
    assert wrong_answers(policy("regression"), "primary", rows(ends, truth=np.zeros(4))) is None


def test_rows_without_true_values_cannot_be_told() -> None:
    ends = {"lower": np.zeros(4), "upper": np.ones(4)}
    assert wrong_answers(policy("regression"), "primary", rows(ends)) is None


def test_of_an_opaque_task_nothing_can_be_told() -> None:
    assert wrong_answers(policy("opaque"), "primary", rows({"probabilities": P}, TRUE)) is None
