"""The form of a case and the answers that it takes, by what the contract says a person may answer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.admin.answers import DIGITS, InvalidAnswer, accepted, form_of, keyed, read_answer
from gateway.policy.review import ReviewPolicy
from gateway.protocol.contract import Contract, TensorSpec
from gateway.protocol.targets import Classes, NoForm, Number, Target

F4 = np.dtype(np.float32)
PETS = Classes(("cat", "dog", "newt"))
METRES = Number(10.0, 30.0)
PLACES = {
    Classes: TensorSpec("probabilities", F4, (None, None)),
    Number: TensorSpec("value", F4, (None, 1)),
    NoForm: TensorSpec("boxes", F4, (None, 4)),
}
"""An output that can hold the answer, by the kind of target."""


def contract(target: Target, *outputs: TensorSpec) -> Contract:
    specs = outputs or (PLACES[type(target)],)
    return Contract("m", (TensorSpec("x", F4, (None, 3)),), specs, 8, "1", target=target)


def kept(fields: dict[str, Any], target: Target, *outputs: TensorSpec) -> Any:
    return orjson.loads(read_answer(fields, contract(target, *outputs)))


def refusal(fields: dict[str, Any], target: Target, *outputs: TensorSpec) -> str:
    with pytest.raises(InvalidAnswer) as caught:
        read_answer(fields, contract(target, *outputs))
    return str(caught.value)


@pytest.mark.parametrize(
    ("said", "stored"),
    [
        ({"label": "dog"}, {"label": 1}),
        ({"label": 2}, {"label": 2}),
        ({"none": True}, {"none": True}),
        ({"none": "1"}, {"none": True}),
        ({"none": False, "label": "cat"}, {"label": 0}),
        ({"unsure": "1"}, {"unsure": True}),
        ({"unsure": True, "none": True, "label": "cat"}, {"unsure": True}),
    ],
)
def test_a_class_is_answered_by_name_or_number_or_as_none_of_them(said: Any, stored: Any) -> None:
    assert kept(said, PETS) == stored


@pytest.mark.parametrize("said", [{"label": "bird"}, {"label": 3}, {"value": 1.0}, {"none": "yes"}, {}])
def test_what_is_no_class_is_refused_with_the_classes(said: Any) -> None:
    assert "one of cat, dog, newt, or its number" in refusal(said, PETS)


def test_of_many_classes_a_refusal_names_the_first() -> None:
    message = refusal({"label": "x"}, Classes(tuple(f"l{i}" for i in range(1000))))
    assert "l19 and 980 more" in message and "l20" not in message


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        (12.5, 12.5),
        (12, 12.0),
        ("12.5", 12.5),
        (" 12 ", 12.0),
        ("1.25e1", 12.5),
        ("+.5", 0.5),
        ("-10", -10.0),
        ("50.", 50.0),
    ],
)
def test_a_number_is_taken_from_json_and_from_a_form(typed: Any, value: float) -> None:
    assert kept({"value": typed}, METRES) == {"value": value}


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("12,5", "decimal point and no comma"),
        ("1,000", "decimal point and no comma"),
        ("", "type a number"),
        ("  ", "type a number"),
        (None, "type a number"),
        (True, "type a number"),
        ([12.5], "type a number"),
        ("twelve", "'twelve' is not a number"),
        ("nan", "'nan' is not a number"),
        ("inf", "'inf' is not a number"),
        ("1_2", "'1_2' is not a number"),
        ("0x10", "'0x10' is not a number"),
        ("\uff11\uff12", "is not a number"),
        ("12 m", "'12 m' is not a number"),
        ("1e999", "must be finite"),
        (math.inf, "must be finite"),
        (50.001, "50.001 is not from -10 to 50 (calibration saw 10 to 30)"),
        ("-10.5", "-10.5 is not from -10 to 50"),
        ("x" * 500, "x" * 40 + "'"),
    ],
)
def test_what_is_no_number_of_the_range_is_refused_with_what_to_write(typed: Any, says: str) -> None:
    assert says in refusal({"value": typed}, METRES)


@pytest.mark.parametrize(
    ("number", "limits"),
    [
        (Number(10.0, 30.0), (-10.0, 50.0)),
        (Number(-1.0, 0.0), (-2.0, 1.0)),
        (Number(4.0, 4.0), (0.0, 8.0)),
        (Number(-4.0, -4.0), (-8.0, 0.0)),
        (Number(0.0, 0.0), (-1.0, 1.0)),
    ],
)
def test_numbers_one_width_beyond_the_calibration_range_are_accepted(
    number: Number, limits: tuple[float, float]
) -> None:
    assert accepted(number) == limits
    for limit in limits:
        assert kept({"value": limit}, number) == {"value": limit}
    assert "calibration saw" in refusal({"value": limits[1] + 1}, number)


def test_a_number_that_an_output_cannot_hold_is_refused_at_once() -> None:
    count = TensorSpec("value", np.dtype(np.int64), (None,))
    assert kept({"value": "12"}, METRES, count) == {"value": 12.0}
    assert "a whole number, what output 'value' can hold (INT64)" in refusal({"value": 12.5}, METRES, count)
    half = TensorSpec("upper", np.dtype(np.float16), (None,))
    assert "output 'upper' can hold (FP16)" in refusal({"value": 70_000}, Number(0, 60_000), half)


def test_without_a_form_only_unsure_is_an_answer() -> None:
    assert kept({"unsure": True}, NoForm()) == {"unsure": True}
    for said in ({"label": 0}, {"label": "cat"}, {"value": 1.0}, {"none": True}, {}):
        assert "unsure: must be true" in refusal(said, NoForm())


def test_there_is_no_form_where_no_exposed_output_could_hold_an_answer() -> None:
    label = TensorSpec("label", np.dtype(np.int64), (None,))
    for target, output in ((PETS, PLACES[Number]), (METRES, PLACES[Classes]), (PETS, label)):
        assert form_of(contract(target, output), None) == {"kind": "none"}
        assert "no exposed output" in refusal({"label": 0, "value": 12.0}, target, output)
    assert form_of(contract(Classes(PETS.names, (7, 8, 9)), label), None)["kind"] == "class"


def test_the_form_says_what_may_be_answered() -> None:
    review = ReviewPolicy(store="sqlite:///r.db", capacity=1, expire_after_s=1, none_of_these="dog")
    assert form_of(contract(PETS), review) == {"kind": "class", "none_of_these": "dog"}
    assert form_of(contract(PETS), None) == {"kind": "class", "none_of_these": "refuse"}
    number = {"kind": "number", "low": 10.0, "high": 30.0, "min": -10.0, "max": 50.0}
    assert form_of(contract(METRES), review) == number
    assert form_of(contract(NoForm()), review) == {"kind": "none"}


@pytest.mark.parametrize(
    ("names", "keys"),
    [
        (("cat", "dog"), ("1", "2")),
        (tuple("0123456789"), tuple("0123456789")),
        (("3", "cat", "1", "dog"), ("3", "2", "1", "4")),
        (tuple("ABCDEFGHIJK"), (*DIGITS, "", "")),
        (tuple(map(str, range(12))), (*"0123456789", "", "")),
        ((), ()),
    ],
)
def test_a_key_shows_the_label_that_it_picks(names: tuple[str, ...], keys: tuple[str, ...]) -> None:
    assert keyed(names) == list(zip(names, keys, strict=True))


@given(st.lists(st.text(max_size=2), unique=True, max_size=30))
def test_no_two_labels_share_a_key_and_a_digit_is_its_own_key(names: list[str]) -> None:
    found = keyed(names)
    assert [name for name, _ in found] == names
    keys = [key for _, key in found if key]
    assert len(set(keys)) == len(keys)
    assert all(key == name for name, key in found if name in DIGITS and len(name) == 1)
