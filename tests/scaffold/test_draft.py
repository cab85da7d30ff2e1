"""A draft promises what the rows support, names the detectors that the model feeds, and is a valid policy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallbacks.predictor import ModelTensor
from gateway.deployment.deployment import Deployment
from gateway.deployment.tiers import tier_named
from gateway.protocol.disclosure import Full, Rounded
from gateway.scaffold.draft import (
    ERRORS,
    Draft,
    DraftInput,
    DraftModel,
    draft_inputs,
    error_to_promise,
    exposed_outputs,
    mean_to_promise,
    two_digits,
)
from gateway.scaffold.policy_text import deadline_s, policy_text
from gateway.scaffold.roles import Task
from guards.mean_bound import certifies_mean
from guards.selective import Counts

F4 = np.dtype(np.float32)
PLAN = ModelTensor("plan", np.dtype(object), (None, 1))
TABLE = DraftInput(ModelTensor("age", F4, (None, 1)), missing=True)
PICTURE = DraftInput(ModelTensor("image", F4, (None, 3, None, None)), 0.0, 1.0, (3, 48, 192))
CLASSIFIER = {"probabilities": "output_probability", "label": "output_label"}
SHARP = {"logits": "out", "features": "hidden"}
NUMBER = {"value": "variable"}


def draft(
    task: Task = "classification",
    names: dict[str, str] = CLASSIFIER,
    inputs: tuple[DraftInput, ...] = (TABLE,),
    rungs: int = 1,
    rows: int = 0,
    labels: tuple[str, ...] = (),
) -> Draft:
    models = tuple(DraftModel(f"rung{i}", names, 0.05 * (i + 1), path=f"rung{i}.onnx") for i in range(rungs))
    exposed = exposed_outputs(task, models, ["boxes"])
    mean = (10.0, 100.0) if task == "regression" else None
    return Draft("mine", task, models, inputs, exposed, labels, rows, mean_error=mean, notes=("A note.",))


@pytest.mark.parametrize("rungs", [1, 2, 3])
@pytest.mark.parametrize("inputs", [(TABLE,), (PICTURE, TABLE)], ids=["table", "picture"])
@pytest.mark.parametrize(
    ("task", "names"),
    [
        ("classification", CLASSIFIER),
        ("classification", SHARP),
        ("classification", {"label": "output_label"}),
        ("regression", NUMBER),
        ("opaque", {}),
    ],
    ids=["probabilities", "features", "label", "regression", "opaque"],
)
def test_the_text_is_a_valid_policy(
    tmp_path: Path, task: Task, names: dict[str, str], inputs: tuple[DraftInput, ...], rungs: int
) -> None:
    made = draft(task, names, inputs, rungs, rows=1000)
    (tmp_path / "gateway.yaml").write_text(policy_text(made))
    policy = Deployment.read(tmp_path).policy
    assert (policy.task, policy.name, len(policy.rungs)) == (task, "mine", rungs)
    assert [len(rung.checks) for rung in policy.rungs] == [int(made.checked(one)) for one in made.models]
    assert policy.inputs["age"].missing == "allow"
    assert (policy.absolute_error is None) == (task != "regression")


def test_a_draft_discloses_two_digits_to_all_but_trusted_callers(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text(policy_text(draft()))
    policy = Deployment.read(tmp_path).policy
    assert tier_named(policy, "anonymous") == tier_named(policy, "of no name") == Rounded(2)
    assert tier_named(policy, "trusted") == Full()


def test_labels_that_yaml_reads_as_something_else_stay_text(tmp_path: Path) -> None:
    labels = ("no", "1", "null", "a: b", "#x", "é", "")
    (tmp_path / "gateway.yaml").write_text(policy_text(draft(labels=labels)))
    assert Deployment.read(tmp_path).policy.labels == list(labels)


def test_detectors_are_those_that_the_model_feeds() -> None:
    assert draft(names=CLASSIFIER).detectors == ["raw"]
    assert draft(names=SHARP).detectors == ["gen", "rmd", "residual", "knn", "raw"]
    assert not draft(names=SHARP).squeezes
    assert draft(names=SHARP, inputs=(PICTURE,)).squeezes
    assert not draft(names=CLASSIFIER, inputs=(PICTURE,)).squeezes
    assert draft("regression", NUMBER).detectors == draft("opaque", {}).detectors == ["raw"]


def test_the_deadline_holds_every_budget() -> None:
    slow = draft(rungs=3)
    assert deadline_s(slow) >= sum(one.budget_s for one in slow.models)


@pytest.mark.parametrize(("rows", "budget"), [(0, 0.02), (559, 0.02), (558, 0.05), (150, 0.1), (60, 0.18)])
def test_the_budget_is_one_that_the_rows_certify(rows: int, budget: float) -> None:
    assert draft(rows=rows).false_alarm_budget == budget


@given(wrong=st.floats(0, 0.3), tests=st.integers(60, 4000), checked=st.booleans())
def test_the_error_is_certified_by_rows_that_err_as_measured(wrong: float, tests: int, checked: bool) -> None:
    r = error_to_promise(wrong, tests, checked=checked)
    assert r in ERRORS
    assert r == ERRORS[-1] or Counts(tests, round(wrong * tests)).certifies(r, 0.05)


@given(seed=st.integers(0, 50), scale=st.floats(0.01, 1000))
def test_the_mean_error_is_certified_by_rows_that_err_as_measured(seed: int, scale: float) -> None:
    errors = scale * np.random.default_rng(seed).exponential(1.0, 1000)
    mean, clip = mean_to_promise(errors)
    assert certifies_mean(np.minimum(errors, clip) / clip, mean / clip, 0.05)


@given(st.floats(1e-9, 1e9))
def test_two_digits_are_not_below_the_number(number: float) -> None:
    assert number * (1 - 1e-6) <= two_digits(number) <= number * 1.1 + 1e-12


def test_inputs_say_what_the_rows_say_of_them() -> None:
    specs = [
        PICTURE.spec,
        ModelTensor("age", F4, (None, 1)),
        PLAN,
    ]
    rows = {
        "image": np.full((4, 3, 8, 9), 0.5, np.float32),
        "age": np.array([[1], [np.nan], [3], [4]], np.float32),
        "plan": np.array([[b"a"]] * 4, object),
    }
    image, age, plan = draft_inputs(specs, rows)
    assert (image.low, image.high, image.shape) == (0.0, 1.0, (3, 8, 9))
    assert age.missing and age.shape is None
    assert plan == DraftInput(specs[2])
    assert draft_inputs(specs, None) == tuple(DraftInput(spec) for spec in specs)
