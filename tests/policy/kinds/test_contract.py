"""What every kind of guard and check keeps to: one suite over the unions, on the models of configs/fashion.

A kind enters by its line in the union; its own `example` is what runs here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from pydantic import TypeAdapter

from fallbacks.onnx import OnnxModel
from gateway.calibration.folds import ask
from gateway.calibration.judge import judge
from gateway.core.batch import Answered, Batch
from gateway.core.deadline import now_s
from gateway.core.model import Model
from gateway.deployment.measures import Measures, measures
from gateway.policy.fields import VERDICT_OF
from gateway.policy.kinds import AnyBudget, CheckPolicy, GuardPolicy
from gateway.policy.kinds.kind import CertifiedGuardKind, FittedGuard, Services, SharedAccounts
from gateway.policy.kinds.queries import QueriesPolicy
from gateway.policy.kinds.rows import CalibrationRows, FittingFolds
from guards.gcra import Buckets
from guards.spending import Spending
from tests.support.deployments import CONFIGS, run

MODEL, SOURCE = "primary", "image"
Kind = type[Any]


def members(union: Any) -> tuple[Kind, ...]:
    """The classes of a closed union, of which there may be one."""
    inside = get_args(union)[0] if hasattr(union, "__metadata__") else union
    return get_args(inside) or (inside,)


GUARDS, CHECKS = members(GuardPolicy), members(CheckPolicy)
ROOT = Path(__file__).parents[3]
CERTIFIED = [kind for kind in GUARDS if kind.certified]


def example(kind: Kind) -> Any:
    """The kind's own example, read as a policy is read."""
    return TypeAdapter(kind).validate_python(yaml.safe_load(kind.example))


@pytest.fixture(scope="module")
def model() -> Iterator[OnnxModel]:
    model = OnnxModel.load(CONFIGS / "fashion" / "primary.onnx")
    yield model
    model.close()


@pytest.fixture(scope="module")
def rows(model: OnnxModel) -> CalibrationRows:
    """The test pictures of configs/fashion, their quarters as a table, and what its model answers.

    The table holds the brightness of each quarter. A kind may read the one or the other.
    """
    with np.load(CONFIGS / "fashion" / "samples.npz") as held:
        x = {SOURCE: np.asarray(held["image"] * held["scale"], np.float32)}
        y = held["y"].astype(np.int64)
    side = x[SOURCE].shape[-1] // 2
    x["quarters"] = x[SOURCE].reshape(len(y), 2, side, 2, side).mean((2, 4)).reshape(len(y), 4)
    return CalibrationRows.classified(x, y, {MODEL: ask(model, x)}, MODEL, lambda inputs: ask(model, inputs))


@pytest.fixture(scope="module")
def folds(rows: CalibrationRows) -> FittingFolds:
    order = np.arange(len(rows))
    return FittingFolds(rows.take(order[:400]), rows.take(order[400:800]), 0)


@pytest.fixture(scope="module")
def fresh(rows: CalibrationRows) -> CalibrationRows:
    """Rows that no guard was fitted on."""
    return rows.take(np.arange(800, len(rows)))


@pytest.fixture(scope="module", params=CERTIFIED, ids=lambda kind: kind.__name__)
def fitted(request: pytest.FixtureRequest, folds: FittingFolds) -> tuple[CertifiedGuardKind, FittedGuard]:
    policy = example(request.param)
    return policy, policy.fit(folds)


def measured(guard: FittedGuard, name: str, rows: CalibrationRows) -> Measures:
    """The graphs of one guard, recorded as a start of the gateway does it."""
    few = rows.take(np.arange(8))
    return measures(MODEL, rows.view, {name: guard}, few.x, few.answers[MODEL])


def batch_of(rows: CalibrationRows, model: OnnxModel) -> Batch:
    ids = tuple(f"row{i}" for i in range(len(rows)))
    models = {MODEL: Model(MODEL, model, budget_s=60.0)}
    return Batch(ids, ids, rows.x, (now_s() + 60.0,) * len(rows), models)


@pytest.mark.parametrize("kind", [*GUARDS, *CHECKS], ids=lambda kind: kind.__name__)
def test_the_example_is_a_valid_policy_without_contradictions(kind: Kind) -> None:
    policy = example(kind)
    assert policy.kind in kind.__name__.lower()
    assert policy.on_error in VERDICT_OF
    if kind in GUARDS:
        assert list(policy.contradictions()) == []


@pytest.mark.parametrize("kind", [*GUARDS, *CHECKS], ids=lambda kind: kind.__name__)
def test_only_fields_that_exist_are_exempt_from_the_certificate(kind: Kind) -> None:
    assert kind.unbound <= set(kind.model_fields), "the exemption of a field that is gone"


@pytest.mark.parametrize("kind", CERTIFIED, ids=lambda kind: kind.__name__)
def test_a_certified_kind_binds_what_it_measures(kind: Kind) -> None:
    """Time and failure may change without calibration; nothing that moves a score or a row's end may.

    A guard that is only observed for a while withdraws every promise, as the mode `observe` does.
    """
    assert kind.unbound <= {"budget_s", "on_error", "observe"}


@pytest.mark.parametrize("kind", GUARDS, ids=lambda kind: kind.__name__)
def test_a_reviewer_gets_a_sentence_without_numbers(kind: Kind) -> None:
    for form in ("full", "input_only"):
        sentence = example(kind).reviewer_sentence(form)
        assert len(sentence.split()) > 1 and not any(c.isdigit() for c in sentence)


def judged(guard: FittedGuard, name: str, rows: CalibrationRows) -> NDArray[np.float64]:
    """The scores that calibration certifies."""
    return judge(rows, {name: guard}, measured(guard, name, rows)).full[name]


def test_the_score_is_one_finite_number_a_row_that_varies(
    fitted: tuple[CertifiedGuardKind, FittedGuard], fresh: CalibrationRows
) -> None:
    scores = judged(fitted[1], fitted[0].name, fresh)
    assert scores.shape == (len(fresh),) and scores.dtype == np.float64
    assert np.isfinite(scores).all() and len(np.unique(scores)) > 1


def test_the_guard_that_serves_scores_what_calibration_certified(
    fitted: tuple[CertifiedGuardKind, FittedGuard], fresh: CalibrationRows, model: OnnxModel
) -> None:
    policy, guard = fitted
    found = measured(guard, policy.name, fresh)

    async def score() -> NDArray[np.float64]:
        return await guard.guard(found.columns_of(policy.name)).score(batch_of(fresh, model))

    np.testing.assert_allclose(run(score), judged(guard, policy.name, fresh), rtol=1e-5, atol=1e-7)


def test_a_row_scores_the_same_whatever_rows_are_beside_it(
    fitted: tuple[CertifiedGuardKind, FittedGuard], fresh: CalibrationRows
) -> None:
    policy, guard = fitted
    found = measured(guard, policy.name, fresh)
    alone = judge(fresh.take(np.arange(3)), {policy.name: guard}, found).full[policy.name]
    np.testing.assert_allclose(alone, judged(guard, policy.name, fresh)[:3], rtol=1e-5, atol=1e-7)


def test_without_an_input_only_form_what_is_assumed_is_bound(
    fitted: tuple[Any, FittedGuard],
) -> None:
    """A row that the model does not answer gets this verdict: it decides what a fallback answers."""
    policy, guard = fitted
    other = "refuse" if policy.on_error != "refuse" else "allow"
    changed = type(policy).model_validate({**policy.model_dump(), "on_error": other})
    if guard.input_only is None and changed.without_answer != policy.without_answer:
        assert "on_error" not in policy.unbound


def test_the_input_only_form_serves_what_it_certified(
    fitted: tuple[CertifiedGuardKind, FittedGuard], fresh: CalibrationRows, model: OnnxModel
) -> None:
    policy, guard = fitted
    form = guard.input_only
    if form is None:
        assert policy.without_answer in VERDICT_OF.values()
        return
    found = measured(guard, policy.name, fresh)

    async def score() -> NDArray[np.float64]:
        scores: NDArray[np.float64] = (await found.input_only(batch_of(fresh, model)))[:, 0]
        return scores

    np.testing.assert_allclose(run(score), form.score(fresh.signals), rtol=1e-5, atol=1e-7)


def test_what_was_packed_scores_the_same_when_loaded(
    fitted: tuple[CertifiedGuardKind, FittedGuard], fresh: CalibrationRows
) -> None:
    policy, guard = fitted
    packed = guard.pack()
    assert packed and all(key.startswith(policy.name) for key in packed)
    again = policy.load(packed)
    assert judged(again, policy.name, fresh).tobytes() == judged(guard, policy.name, fresh).tobytes()
    assert (again.input_only is None) == (guard.input_only is None)


def test_a_state_that_lost_a_key_is_refused(fitted: tuple[CertifiedGuardKind, FittedGuard]) -> None:
    policy, guard = fitted
    for key in guard.pack():
        short = {name: array for name, array in guard.pack().items() if name != key}
        with pytest.raises(ValueError, match="calibrate again"):
            policy.load(short)


def services() -> Services:
    return Services(
        lambda: 0.0,
        lambda principal: None,
        lambda principal: 3.0,
        lambda principal: False,
        lambda use: SharedAccounts(Buckets(), Spending()),
        anonymous_bits=3.0,
        novelty_guards=(),
        fitted={},
    )


@pytest.mark.parametrize(
    "kind",
    members(AnyBudget),
    ids=lambda kind: kind.__name__,
)
def test_a_budget_charges_every_row_and_says_what_it_promises(kind: Kind) -> None:
    policy = example(kind)
    assert policy.promise().endswith(".")
    budget = policy.meter(services())
    scores = budget.charge("ada", 100_000)
    assert len(scores) == 100_000
    assert scores[0] < policy.refuse_from <= scores[-1]


def test_a_history_knows_the_same_cuts_when_what_was_packed_is_loaded(folds: FittingFolds) -> None:
    policy = example(QueriesPolicy).model_copy(update={"honest_share": 0.5, "retained": 4096})
    fitted = policy.fit(folds)
    packed = fitted.pack()
    assert packed and all(key.startswith(policy.name) for key in packed)
    assert policy.near_cuts(policy.load(packed), b"x" * 16) == policy.near_cuts(fitted, b"x" * 16)
    assert policy.promise().endswith(".")
    for key in packed:
        short = {name: array for name, array in packed.items() if name != key}
        with pytest.raises(ValueError, match="calibrate again"):
            policy.load(short)


def test_a_history_that_the_rows_cannot_certify_is_not_fitted(folds: FittingFolds) -> None:
    with pytest.raises(ValueError, match=r"give \d+ rows, or retain fewer"):
        example(QueriesPolicy).fit(folds)


NUMBERS = {
    "value": np.linspace(-1, 1, 200, dtype=np.float32),
    "lower": np.linspace(-2, 0, 200, dtype=np.float32),
    "upper": np.linspace(-1, 2, 200, dtype=np.float32),
}
"""What a regressor might answer for the fresh rows."""


@pytest.mark.parametrize("kind", CHECKS, ids=lambda kind: kind.__name__)
def test_the_check_that_serves_scores_what_calibration_certified(kind: Kind, fresh: CalibrationRows) -> None:
    policy, answer = example(kind), {**fresh.answers[MODEL], **NUMBERS}
    ids = tuple(f"row{i}" for i in range(len(fresh)))

    async def score() -> NDArray[np.float64]:
        scores: NDArray[np.float64] = await policy.guard().score(Answered(ids, fresh.x, answer))
        return scores

    assert run(score).tobytes() == policy.suspicion(answer).tobytes()


def test_every_kind_has_a_section_in_the_guards_page() -> None:
    page = (ROOT / "docs" / "guards.md").read_text()
    for kind in (*GUARDS, *CHECKS):
        (name,) = get_args(kind.model_fields["kind"].annotation)
        assert re.search(rf"(?m)^###? .*\b{name}\b", page), f"docs/guards.md has no section about {name}"


def test_every_kind_has_a_file_of_its_own() -> None:
    folder = ROOT / "gateway" / "policy" / "kinds"
    for kind in (*GUARDS, *CHECKS):
        (name,) = get_args(kind.model_fields["kind"].annotation)
        assert (folder / f"{name}.py").is_file()
        assert kind.__module__ == f"gateway.policy.kinds.{name}"
