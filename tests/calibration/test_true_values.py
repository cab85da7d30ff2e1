"""What `y` of a calibration file may hold, for each task and for models that name their classes or do not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gateway.calibration.true_values import UNKNOWN, TrueValues, labelled_classes, true_values
from gateway.deployment.certificate import ClassNames, NoTarget, NumberRange
from gateway.policy.schema import Policy
from tests.support.calibration_evidence import policy_of

Array = NDArray[Any]
Named = Sequence[int | str] | None


def policy(*labels: str, task: str = "classification") -> Policy:
    if task == "opaque":
        return policy_of(task=task, check=False, answered_error=None)
    return policy_of(task=task, check=False, labels=labels)


def columns(k: int, **more: Any) -> dict[str, Array]:
    """The answer of a model with k columns of probabilities to a row."""
    return {"probabilities": np.full((1, k), 1 / k, np.float32), **more}


def texts(*values: str) -> Array:
    """Text as a model returns it."""
    return np.array([value.encode() for value in values], object)


def read(y: Any, answer: dict[str, Array], named: Named = None, labels: Sequence[str] = ()) -> TrueValues:
    values = np.array(y)
    return true_values(policy(*labels), named, answer, values, len(values))


def classes(found: TrueValues) -> ClassNames:
    assert isinstance(found.target, ClassNames)
    assert found.values is None
    assert found.y.dtype == np.int64
    return found.target


def refusal(y: Any, answer: dict[str, Array], named: Named = None, labels: Sequence[str] = ()) -> str:
    with pytest.raises(ValueError) as refused:
        read(y, answer, named, labels)
    return str(refused.value)


# Classes by their column.


def test_without_names_classes_are_the_columns_of_probabilities() -> None:
    found = read([0, 2, 2], columns(3))
    assert found.y.tolist() == [0, 2, 2]
    target = classes(found)
    assert (target.names, target.values, target.by_name) == (["0", "1", "2"], [], False)
    assert target.unseen == ["1"], "calibration saw no row of it"


@pytest.mark.parametrize(
    "y", [[True, False, True], np.array([1, 0, 1], np.uint8), [1.0, 0.0, 1.0]], ids=["bool", "uint8", "float"]
)
def test_bools_small_integers_and_whole_floats_are_columns_too(y: Any) -> None:
    found = read(y, columns(2))
    assert found.y.tolist() == [1, 0, 1]
    assert classes(found).by_name is False


@pytest.mark.parametrize(("y", "span"), [([0, 3], "0 to 3"), ([-1, 1], "-1 to 1"), ([5, 5], "5 to 5")])
def test_a_number_that_is_no_column_is_refused_with_what_the_model_has(y: list[int], span: str) -> None:
    assert refusal(y, columns(3)) == f"y: holds labels from {span}; the model has the classes 0 to 2"


@pytest.mark.parametrize(
    ("y", "first"),
    [
        ([0.5, 1.0], "0.5, first in row 0"),
        ([0, 1, 1.25], "1.25, first in row 2"),
        ([0.0, 1e300], "1e+300, first in row 1"),
    ],
)
def test_a_fraction_is_no_class_and_the_message_names_the_task_that_takes_it(
    y: list[float], first: str
) -> None:
    for answer in (columns(2), {"label": np.array([0, 1])}):
        assert refusal(y, answer) == f"y: holds {first}, which is no class; for numbers say task: regression"


def test_text_for_a_model_that_names_no_class_asks_for_labels() -> None:
    assert refusal(["no", "yes", "no"], columns(2)) == (
        "y: holds text (no, yes), and nothing names the classes; write `labels: [...]` in the order of the 2 "
        "columns of probabilities"
    )


# Classes by the labels of the policy.


def test_text_is_a_class_by_the_labels_of_the_policy_in_their_order() -> None:
    found = read(["yes", "no", "yes"], columns(2), labels=["yes", "no"])
    assert found.y.tolist() == [0, 1, 0]
    target = classes(found)
    assert (target.names, target.by_name, target.unseen) == (["yes", "no"], True, [])


def test_numbers_beside_labels_that_are_words_are_columns() -> None:
    found = read([1, 0], columns(2), labels=["yes", "no"])
    assert found.y.tolist() == [1, 0]
    assert classes(found).by_name is False


def test_labels_that_are_numbers_name_classes_by_them_whatever_their_column() -> None:
    found = read([7, 3, 3], columns(3), labels=["3", "5", "7"])
    assert found.y.tolist() == [2, 0, 0]
    target = classes(found)
    assert (target.by_name, target.unseen) == (True, ["5"])


def test_labels_in_an_order_of_their_own_are_not_taken_for_columns() -> None:
    assert read([1, 0, 0], columns(2), labels=["1", "0"]).y.tolist() == [0, 1, 1]


def test_columns_are_still_taken_where_labels_are_other_numbers() -> None:
    found = read([0, 1, 2], columns(3), labels=["3", "5", "7"])
    assert found.y.tolist() == [0, 1, 2]
    assert classes(found).by_name is False


def test_a_typo_is_refused_with_its_row_and_the_nearest_class() -> None:
    assert refusal(["versicolor", "setosa", "versicolour"], columns(2), labels=["setosa", "versicolor"]) == (
        "y: holds 'versicolour', first in row 2; the classes are setosa, versicolor; did you mean "
        "'versicolor'?"
    )


def test_text_like_no_class_is_refused_without_a_guess() -> None:
    assert refusal(["a", "?"], columns(2), labels=["a", "b"]) == (
        "y: holds '?', first in row 1; the classes are a, b"
    )


def test_a_message_lists_twenty_classes_at_most() -> None:
    labels = [f"class-{i:02}" for i in range(25)]
    found = refusal(["?"], columns(25), labels=labels)
    assert found.endswith("class-19 and 5 more")


# Classes by the model's own file.


@pytest.mark.parametrize("y", [[4, 2, 4], ["4", "2", "4"], [4.0, 2.0, 4.0]], ids=["int", "text", "float"])
def test_integers_that_the_models_file_names_are_classes_by_value_not_by_column(y: Any) -> None:
    found = read(y, columns(3, label=np.array([2])), named=[2, 3, 4])
    assert found.y.tolist() == [2, 0, 2]
    target = classes(found)
    assert (target.names, target.values, target.unseen) == (["2", "3", "4"], [2, 3, 4], ["3"])


def test_an_integer_that_the_models_file_does_not_name_is_refused_though_a_column_has_its_number() -> None:
    assert refusal([2, 0], columns(3), named=[2, 3, 4]) == (
        "y: holds '0', first in row 1; the classes are 2, 3, 4"
    )


def test_words_that_the_models_file_names_are_classes() -> None:
    found = read(["dog", "cat"], columns(2, label=texts("cat")), named=["cat", "dog"])
    assert found.y.tolist() == [1, 0]
    target = classes(found)
    assert (target.names, target.values, target.by_name) == (["cat", "dog"], ["cat", "dog"], True)


def test_numbers_beside_words_that_the_models_file_names_are_columns() -> None:
    assert read([1, 0], columns(2), named=["cat", "dog"]).y.tolist() == [1, 0]


def test_labels_of_the_policy_rename_the_models_own_integers() -> None:
    """`y` may be written as the model has it, or by the policy's names."""
    for y in ([20, 10], ["high", "low"]):
        found = read(y, columns(2, label=np.array([10])), named=[10, 20], labels=["low", "high"])
        assert found.y.tolist() == [1, 0]
        target = classes(found)
        assert (target.names, target.values) == (["low", "high"], [10, 20])
        assert target.by_name is isinstance(y[0], str)


# Models that give labels only.


def test_a_label_only_model_has_the_classes_that_it_and_the_rows_name_numbers_in_their_order() -> None:
    found = read([2, 10, 2], {"label": np.array([[10], [2], [3]])})
    assert found.y.tolist() == [0, 2, 0]
    target = classes(found)
    assert (target.names, target.values, target.unseen) == (["2", "3", "10"], [2, 3, 10], ["3"])


def test_a_label_only_model_of_words_has_the_words_as_classes() -> None:
    found = read(["b", "a", "c"], {"label": texts("a", "b", "a")})
    assert found.y.tolist() == [1, 0, 2]
    target = classes(found)
    assert (target.names, target.values, target.by_name) == (["a", "b", "c"], ["a", "b", "c"], True)


def test_rows_that_name_no_class_of_a_label_only_model_are_refused_with_both() -> None:
    """Every answer would be wrong, and a reviewer would choose among twice as many classes as there are."""
    assert refusal(["a", "b", "a"], {"label": np.array([1, 0, 1])}) == (
        "y: holds a, b, and the model's label 0, 1, none of them alike; write y as the model does, or name "
        "its classes in order (labels)"
    )


def test_rows_of_a_label_only_model_without_a_label_are_refused() -> None:
    assert refusal(["a", "", "b"], {"label": texts("a", "b", "b")}) == (
        "y: is empty, first in row 1; leave out rows without a label"
    )


def test_a_label_only_model_with_labels_in_the_policy_has_those_classes() -> None:
    found = read(["b", "a"], {"label": texts("a", "b")}, labels=["b", "a", "c"])
    assert found.y.tolist() == [0, 1]
    assert classes(found).unseen == ["c"]


def test_integer_labels_beside_words_of_the_policy_are_columns() -> None:
    found = read(["no", "yes"], {"label": np.array([1, 0])}, labels=["yes", "no"])
    assert classes(found).values == [0, 1]
    labelled = labelled_classes(found.target, {"label": np.array([1, 0, 7])})
    assert labelled is not None
    assert labelled.tolist() == [1, 0, UNKNOWN]


def test_a_model_without_probabilities_and_label_is_refused_with_what_to_map() -> None:
    assert refusal([0, 1], {"value": np.zeros(2)}) == (
        "y: no output tells a class; map one to probabilities, logits or label (names)"
    )


# What an answer's label names.


@pytest.mark.parametrize(
    ("label", "classes"),
    [
        (np.array([4, 2, 9]), [2, 0, UNKNOWN]),
        (np.array([[4.0], [2.0], [9.0]], np.float32), [2, 0, UNKNOWN]),
        (texts("4", "2", "x"), [2, 0, UNKNOWN]),
    ],
    ids=["int", "float column", "text"],
)
def test_a_label_names_the_class_with_its_value_and_any_other_none(label: Array, classes: list[int]) -> None:
    target = ClassNames(kind="classes", names=["a", "b", "c"], values=[2, 3, 4], by_name=True, unseen=[])
    found = labelled_classes(target, {"label": label})
    assert found is not None
    assert found.dtype == np.int64
    assert found.tolist() == classes


def test_bools_are_labels_of_two_classes() -> None:
    target = classes(read([0, 1], columns(2, label=np.array([True, False]))))
    assert target.values == [0, 1]
    found = labelled_classes(target, {"label": np.array([True, False])})
    assert found is not None
    assert found.tolist() == [1, 0]


@pytest.mark.parametrize(
    "target",
    [
        NoTarget(kind="none"),
        NumberRange(kind="number", low=0.0, high=1.0),
        ClassNames(kind="classes", names=["a"], values=[], by_name=True, unseen=[]),
    ],
)
def test_a_target_without_values_of_labels_reads_no_label(target: Any) -> None:
    assert labelled_classes(target, {"label": np.array([0])}) is None


def test_an_answer_without_a_label_names_no_class() -> None:
    target = ClassNames(kind="classes", names=["a"], values=[0], by_name=True, unseen=[])
    assert labelled_classes(target, columns(1)) is None


# Numbers, and rows without true values.


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint8])
def test_a_regressions_numbers_are_kept_with_their_range(dtype: Any) -> None:
    found = true_values(policy(task="regression"), None, {}, np.array([3, 1, 2], dtype), 3)
    assert found.target == NumberRange(kind="number", low=1.0, high=3.0)
    assert found.values is not None
    assert found.values.dtype == np.float64
    assert found.values.tolist() == [3.0, 1.0, 2.0]
    assert found.y.dtype == np.int64
    assert found.y.tolist() == [0, 0, 0]


@pytest.mark.parametrize(("bad", "text"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf")])
def test_a_true_value_that_is_no_number_is_refused_with_its_row(bad: float, text: str) -> None:
    with pytest.raises(
        ValueError, match=f"^y: holds {text}, first in row 1; leave out rows without a true value$"
    ):
        true_values(policy(task="regression"), None, {}, np.array([0.5, bad, bad]), 3)


@pytest.mark.parametrize(("y", "dtype"), [(["1", "2"], "<U1"), ([True, False], "bool")])
def test_what_is_no_number_is_refused_for_a_regression(y: list[Any], dtype: str) -> None:
    with pytest.raises(
        ValueError, match=f"^y: is {dtype}, not numbers, and the policy says task: regression$"
    ):
        true_values(policy(task="regression"), None, {}, np.array(y), 2)


@pytest.mark.parametrize("y", [None, np.array(["a", "b", "c"])])
def test_an_opaque_task_reads_no_true_values(y: Array | None) -> None:
    found = true_values(policy(task="opaque"), None, {}, y, 3)
    assert found.target == NoTarget(kind="none")
    assert found.values is None
    assert found.y.tolist() == [0, 0, 0]
