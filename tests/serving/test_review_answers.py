"""What a row's caller gets of a reviewer's answer, in the outputs that it determines and no others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest

from fallbacks.review.cases import CaseRecord, CaseState
from gateway.core.decision import Decision, Degraded, Outcome, Reason, Refused
from gateway.http.replies import reply_infer
from gateway.policy.review import ReviewPolicy
from gateway.protocol.contract import Contract, TensorSpec
from gateway.protocol.endings import BY_REVIEW, Stamp
from gateway.protocol.infer_request import InferRequest
from gateway.protocol.targets import Classes, NoForm, Number, Target
from gateway.serving.review_answers import (
    answer_none,
    answer_unsure,
    answer_with_label,
    answer_with_value,
    outcome_of,
)

F4, F8, I8, TEXT = (np.dtype(kind) for kind in (np.float32, np.float64, np.int64, np.object_))
REVIEW = ReviewPolicy(store="sqlite:///r.db", capacity=1, expire_after_s=1)
PETS = Classes(("cat", "dog", "newt"), (10, 20, 30))
REFUSED = Refused(Reason.ABSTAINED)


def contract(target: Target, **outputs: tuple[Any, ...]) -> Contract:
    specs = tuple(TensorSpec(name, *form) for name, form in outputs.items())
    return Contract("m", (TensorSpec("x", F4, (None, 3)),), specs, 8, "1", target=target)


def outcome(answer: str, of: Contract, review: ReviewPolicy | None = REVIEW) -> Outcome | None:
    why = '{"reason": "abstained", "raised": []}'
    state = CaseState.DECIDED
    record = CaseRecord("c", "ada", 0.0, 9.0, why, "[]", state, 1, "grace", None, answer, 1.0)
    return outcome_of(record, of, review)


def answered(answer: str, of: Contract, review: ReviewPolicy | None = REVIEW) -> dict[str, Any]:
    """The outputs as lists; every one has the form that the contract states."""
    found = outcome(answer, of, review)
    assert isinstance(found, Degraded)
    assert (found.by, found.reason) == (BY_REVIEW, Reason.ABSTAINED)
    assert list(found.output) == [spec.name for spec in of.outputs]
    assert all(spec.fits(found.output[spec.name]) for spec in of.outputs)
    return {name: array.tolist() for name, array in found.output.items()}


def test_a_class_is_one_hot_in_probabilities_and_its_value_in_label() -> None:
    of = contract(PETS, label=(I8, (None,)), probabilities=(F4, (None, 3)))
    assert answered(answer_with_label(1), of) == {"label": [20], "probabilities": [[0, 1, 0]]}


@pytest.mark.parametrize(
    ("values", "dtype", "shape", "label"),
    [
        ((10, 20, 30), I8, (None, 1), [[30]]),
        ((0, 1, 2), np.dtype(np.uint8), (None,), [2]),
        ((-1, 0, 1), np.dtype(np.int32), (None, 1, 1), [[[1]]]),
        ((b"Katze", b"Hund", b"Molch\0"), TEXT, (None,), [b"Molch\0"]),
        ((b"a", b"b", b"\xff"), TEXT, (None, 1), [[b"\xff"]]),
    ],
)
def test_a_label_has_the_datatype_and_the_shape_of_its_output(
    values: Any, dtype: Any, shape: Any, label: Any
) -> None:
    of = contract(Classes(PETS.names, values), label=(dtype, shape))
    assert answered(answer_with_label(2), of) == {"label": label}


def test_other_outputs_beside_the_classes_are_blank() -> None:
    of = contract(
        PETS,
        probabilities=(F8, (None, 3)),
        score=(F4, (None, 1)),
        logits=(F4, (None, 3)),
        value=(F4, (None,)),
        word=(TEXT, (None,)),
        count=(I8, (None,)),
    )
    found = answered(answer_with_label(0), of)
    assert found.pop("probabilities") == [[1, 0, 0]]
    assert np.isnan(found.pop("score")).all() and np.isnan(found.pop("logits")).all()
    assert np.isnan(found.pop("value")).all()
    assert found == {"word": [b""], "count": [np.iinfo(np.int64).min]}


def test_a_label_whose_values_are_unknown_is_blank() -> None:
    of = contract(Classes(PETS.names), label=(I8, (None,)), probabilities=(F4, (None, 3)))
    found = answered(answer_with_label(1), of)
    assert found == {"label": [np.iinfo(np.int64).min], "probabilities": [[0, 1, 0]]}


def test_probabilities_with_an_open_class_axis_have_as_many_as_there_are_classes() -> None:
    of = contract(PETS, probabilities=(F4, (None, None)))
    assert answered(answer_with_label(2), of) == {"probabilities": [[0, 0, 1]]}


@pytest.mark.parametrize("label", [-1, 3, 1000])
def test_a_class_that_there_is_no_more_is_refused(label: int) -> None:
    assert outcome(answer_with_label(label), contract(PETS, probabilities=(F4, (None, 3)))) == REFUSED


def test_a_class_beyond_the_probabilities_is_refused_rather_than_blank() -> None:
    assert outcome(answer_with_label(2), contract(PETS, probabilities=(F4, (None, 2)))) == REFUSED


@pytest.mark.parametrize(
    ("none_of_these", "gets"),
    [("refuse", None), ("newt", [[0, 0, 1]]), ("gone", None)],
)
def test_none_of_these_ends_as_the_policy_says(none_of_these: str, gets: Any) -> None:
    review = REVIEW.model_copy(update={"none_of_these": none_of_these})
    of = contract(PETS, probabilities=(F4, (None, 3)))
    if gets is None:
        assert outcome(answer_none(), of, review) == REFUSED
    else:
        assert answered(answer_none(), of, review) == {"probabilities": gets}
    assert outcome(answer_none(), of, None) == REFUSED


def test_refuse_means_a_refusal_even_where_a_label_is_called_so() -> None:
    of = contract(Classes(("allow", "refuse")), probabilities=(F4, (None, 2)))
    assert outcome(answer_none(), of) == REFUSED


def test_a_number_is_the_value_and_both_ends_of_its_interval() -> None:
    of = contract(
        Number(0.0, 10.0),
        value=(F4, (None, 1)),
        lower=(F8, (None,)),
        upper=(F8, (None, 1, 1)),
        score=(F4, (None,)),
    )
    found = answered(answer_with_value(2.5), of)
    assert np.isnan(found.pop("score")).all()
    assert found == {"value": [[2.5]], "lower": [2.5], "upper": [[[2.5]]]}


def test_a_number_is_rounded_to_a_float_and_exact_in_an_integer() -> None:
    found = answered(answer_with_value(0.1), contract(Number(0, 1), value=(F4, (None,))))
    assert found == {"value": [float(np.float32(0.1))]}
    assert answered(answer_with_value(7.0), contract(Number(0, 9), value=(I8, (None,)))) == {"value": [7]}


@pytest.mark.parametrize(
    ("value", "dtype"), [(7.5, I8), (300.0, np.dtype(np.uint8)), (1e30, I8), (70_000.0, np.dtype(np.float16))]
)
def test_a_number_that_its_output_cannot_hold_is_refused(value: float, dtype: Any) -> None:
    assert outcome(answer_with_value(value), contract(Number(0, 9), value=(dtype, (None,)))) == REFUSED


@pytest.mark.parametrize(
    ("answer", "target"),
    [
        (answer_with_label(0), Number(0.0, 9.0)),
        (answer_none(), Number(0.0, 9.0)),
        (answer_with_value(1.0), PETS),
        (answer_with_label(0), NoForm()),
        (answer_with_value(1.0), NoForm()),
        (answer_none(), NoForm()),
        (answer_unsure(), PETS),
        (answer_unsure(), Number(0.0, 9.0)),
        (answer_unsure(), NoForm()),
    ],
)
def test_an_answer_of_another_form_and_unsure_are_refused(answer: str, target: Target) -> None:
    of = contract(target, probabilities=(F4, (None, 3)), value=(F4, (None,)))
    assert outcome(answer, of) == REFUSED


@pytest.mark.parametrize(
    ("answer", "target", "data"),
    [
        (answer_with_label(1), PETS, {"label": [20], "probabilities": [0, 1, 0], "value": [None]}),
        (answer_with_value(3.25), Number(0, 9), {"probabilities": [None] * 3, "value": [3.25]}),
    ],
)
def test_an_answer_is_a_reply_of_the_model_with_null_where_it_says_nothing(
    answer: str, target: Target, data: dict[str, Any]
) -> None:
    forms = {"label": (I8, (None,)), "probabilities": (F4, (None, 3)), "value": (F4, (None, 1))}
    of = contract(target, **{name: form for name, form in forms.items() if name in data})
    found = outcome(answer, of)
    assert found is not None
    asked = InferRequest(None, {}, 1, of.default_outputs[False])
    reply = reply_infer(of, asked, [Decision("c", found)], Stamp("p", "enforce", "c"))
    body = orjson.loads(reply.body)
    assert (reply.status, body["parameters"]["fs_served_by"]) == (200, "review")
    assert {output["name"]: output["data"] for output in body["outputs"]} == data


@pytest.mark.parametrize(
    ("answer", "target"), [(answer_with_label(0), PETS), (answer_with_value(1.0), Number(0.0, 9.0))]
)
def test_an_answer_that_no_exposed_output_can_hold_is_refused_rather_than_blank(
    answer: str, target: Target
) -> None:
    assert outcome(answer, contract(target, score=(F4, (None, 1)))) == REFUSED


def test_an_answer_is_read_by_the_contract_in_force() -> None:
    old = contract(PETS, probabilities=(F4, (None, 3)))
    new = replace(old, target=Classes(("cat", "dog")), outputs=(TensorSpec("probabilities", F4, (None, 2)),))
    assert answered(answer_with_label(2), old) == {"probabilities": [[0, 0, 1]]}
    assert outcome(answer_with_label(2), new) == REFUSED
    assert answered(answer_with_label(1), new) == {"probabilities": [[0, 1]]}
