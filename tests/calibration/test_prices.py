"""Budgets stated in rows, as they are calibrated and served: honest callers pass, and thieves pay.

Callers are served by the compiled pipeline's own budget. Their rows are those of `populations` that
calibration never saw.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from gateway.core.batch import Batch
from gateway.core.deadline import now_s
from gateway.core.decision import Decision, Reason, Refused
from gateway.core.decision import Served as Answered
from gateway.core.errors import ArtifactError
from gateway.deployment.deployment import VAR, Deployment
from gateway.deployment.fitted import load_guards
from gateway.policy.kinds.information import OUTPUT
from guards.fitted_prices import FittedPrices
from guards.price import uncertainty
from tests.support import regressors
from tests.support.budgets import budget_of, fill, over
from tests.support.deployments import load, opened, run
from tests.support.honest import HONEST, IN_BITS, ROWS, THROTTLED, Served, calibrated, served, write_policy
from tests.support.population import Population
from tests.support.populations import floats, two_inputs

SURE = 1 - 1e-4
CALLERS = 1000


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return calibrated(tmp_path_factory.mktemp("fitted"), honest=HONEST)


@pytest.fixture
def copy(fitted: Path, tmp_path: Path) -> Path:
    return shutil.copytree(fitted, tmp_path / "copy")


def prices(folder: Path) -> FittedPrices:
    found, _ = load_guards(Deployment.read(folder).policy, folder / "guards.npz")
    return found.prices["extraction"]


def windows(world: Served, callers: int, seed: int) -> list[list[int]]:
    """The rows of honest callers, each with a mixture of classes of its own."""
    rng, found = np.random.default_rng(seed), []
    of = [np.flatnonzero(world.y == label) for label in np.unique(world.y)]
    for _ in range(callers):
        mixture = rng.dirichlet([1 / len(of)] * len(of))
        classes = rng.choice(len(of), 4 * ROWS, p=mixture)
        found.append([int(rng.choice(of[label])) for label in classes])
    return found


@pytest.mark.parametrize("population", [floats(), two_inputs()], ids=lambda one: one.name)
def test_honest_callers_of_fresh_rows_are_throttled_at_most_at_the_stated_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, population: Population
) -> None:
    world = asyncio.run(served(calibrated(tmp_path, population, honest=HONEST), monkeypatch, population))
    throttled = sum(
        world.is_throttled(f"caller {i}", rows) for i, rows in enumerate(windows(world, CALLERS, 0))
    )
    assert throttled <= binom.ppf(SURE, CALLERS, THROTTLED)


def test_callers_that_send_twice_as_much_are_throttled(fitted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = asyncio.run(served(fitted, monkeypatch, floats()))
    sent = windows(world, 100, 5)
    passed = [world.send(f"greedy {i}", rows[: 2 * ROWS]) for i, rows in enumerate(sent)]
    assert np.mean(passed) < 2 * ROWS, "at once, before any has ended"


def unsure(decision: Decision) -> float:
    if not isinstance(decision.outcome, Answered):
        return 0.0
    return float(uncertainty(decision.outcome.output[OUTPUT])[0])


def least_sure(world: Served) -> list[int]:
    """The tenth of the answered rows that tells an active thief most."""
    order = np.argsort([unsure(one) for one in world.decisions])
    return [int(row) for row in order[-len(order) // 10 :]]


def cost_ratio(world: Served) -> float:
    """What a row costs an active thief, over what one costs an honest caller."""
    budget = world.budget
    at_admission = budget.budget.prices_of("ada")
    thief, honest = [world.decisions[row] for row in least_sure(world)], world.decisions
    each = [budget.price_of(at_admission, rows) / len(rows) for rows in (thief, honest)]
    return each[0] / each[1]


def test_a_thief_pays_more_for_a_row_than_before_prices_were_fitted(
    fitted: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    after = asyncio.run(served(fitted, monkeypatch, floats()))
    write_policy(copy, **IN_BITS)
    before = asyncio.run(served(copy, monkeypatch, floats()))
    assert cost_ratio(after) > 1.5 * cost_ratio(before)


def test_a_thief_gets_fewer_rows_than_an_honest_caller_may_send(
    fitted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = asyncio.run(served(fitted, monkeypatch, floats()))
    passed = [world.send("thief", [row]) for row in least_sure(world)]
    assert 1 < sum(passed) < 0.9 * ROWS


def test_what_was_fitted_is_the_same_each_time(fitted: Path, tmp_path: Path) -> None:
    again = calibrated(tmp_path / "again", honest=HONEST)
    assert prices(again) == prices(fitted)
    assert (again / "guards.npz").read_bytes() == (fitted / "guards.npz").read_bytes()


def test_each_tier_has_the_same_rows_and_one_that_shows_more_uses_up_the_models_bits_sooner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = calibrated(tmp_path, honest=HONEST, model_budget={"rows": 400, "per_s": 2.0})
    world = asyncio.run(served(folder, monkeypatch, floats()))
    world.tiers |= {"exact": "exact"}
    budget = world.budget.budget
    plain, exact = (budget.limit_of(who).burst / budget.prices_of(who) for who in ("ada", "exact"))
    found = prices(folder)
    assert plain == pytest.approx(exact) == pytest.approx(ROWS * found.allowance / found.expected)
    assert budget.prices_of("exact") > 2 * budget.prices_of("ada")
    assert budget.model_limit is not None
    assert budget.model_limit.burst == pytest.approx(10 * budget.limit_of("ada").burst)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rows": 41}, "honest` is {rows: 41, per_s: 2, throttled: 0.02} without `review`"),
        ({"per_s": 3.0}, "prices were fitted to {rows: 40, per_s: 2, throttled: 0.02}"),
        ({"throttled": 0.05}, "run `gateway calibrate`"),
    ],
)
def test_another_honest_block_without_a_new_calibration_is_refused_and_says_so(
    copy: Path, change: dict[str, Any], said: str
) -> None:
    write_policy(copy, honest=HONEST | change)
    with pytest.raises(ArtifactError) as caught:
        load(copy)
    (problem,) = caught.value.problems
    assert said in problem.what and "guards.extraction" in problem.what
    assert problem.file.endswith("guards.npz")


def test_a_queue_that_is_added_takes_a_new_calibration_since_what_is_stopped_costs_less(copy: Path) -> None:
    text = (copy / "gateway.yaml").read_text()
    review = 'review: {store: "sqlite:///var/review.db", capacity: 10, expire_after_s: 60}\n'
    (copy / "gateway.yaml").write_text(text + review)
    with pytest.raises(ArtifactError, match=r"with `review`, and prices were fitted to .* without"):
        load(copy)


def test_a_budget_in_rows_that_was_never_calibrated_is_refused_and_one_in_bits_needs_nothing(
    tmp_path: Path,
) -> None:
    folder = calibrated(tmp_path, **IN_BITS)
    load(folder)
    write_policy(folder, honest=HONEST)
    with pytest.raises(ArtifactError, match="no prices are fitted to its `honest`: run `gateway calibrate`"):
        load(folder)


def test_bits_in_place_of_rows_take_no_new_calibration(copy: Path) -> None:
    write_policy(copy, **IN_BITS)
    load(copy)


def test_a_calibration_tells_what_it_found(fitted: Path) -> None:
    page = (fitted / "calibration.html").read_text()
    for told in (
        "At most 2 % of honest callers",
        "simulated",
        "synthetic",
        "Answers at once from one budget",
    ):
        assert told in page


def test_of_a_policy_without_a_guard_of_novelty_no_row_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is refused there either."""
    folder = calibrated(tmp_path, guards=0, honest=HONEST)
    world = asyncio.run(served(folder, monkeypatch, floats(), n=1000))
    assert prices(folder).novelty == 0 and world.budget.novelty_guards == ()
    assert not any(isinstance(one.outcome, Refused) for one in world.decisions)
    assert prices(folder).uncertainty > 0


def test_a_gateway_takes_what_its_rows_cost_in_the_end_from_a_budget_in_rows(copy: Path) -> None:
    """With a ledger: rows beyond the first are refused until a replica has leased some of the bucket."""
    fill(copy / VAR)
    x, _ = floats().draw(np.random.default_rng(2), 300)

    async def main() -> None:
        async with opened(copy) as gateway:
            answered = list[Decision]()
            for at in range(0, 300, 2):
                batch = Batch(("a", "b"), ("ada",) * 2, {"x": x["x"][at : at + 2]}, (now_s() + 50,) * 2)
                decisions = await gateway.decide(batch)
                answered += [one for one in decisions if not over(one)]
                if len(answered) >= ROWS:
                    break
                await asyncio.sleep(0.03)
            assert len(answered) == ROWS, "an honest caller"
            budget = budget_of(gateway)
            price = budget.price_of(budget.budget.prices_of("ada"), answered)
            assert budget.spending.top(1)[0].units == pytest.approx(price)

    run(main)


def test_a_regressor_whose_rows_have_no_classes_and_no_probabilities_has_prices_too(tmp_path: Path) -> None:
    ood = {"name": "ood", "kind": "ood", "detectors": ["raw"], "cuts": {"refuse": "certified"}}
    honest = {"name": "extraction", "kind": "budget", "honest": HONEST, "on_error": "refuse"}
    guards = [one | {"budget_s": 1.0, "on_error": "refuse"} for one in (ood, honest)]
    regressors.calibrated(tmp_path, regressors.policy_of([None], guards=guards), [regressors.regressor()])
    found = prices(tmp_path)
    assert [one.kind for one in found.thieves] == ["random", "synthetic", "walk"]
    assert found.uncertainty == 0 and found.allowance >= found.expected >= 1


def test_what_is_over_the_budget_is_rate_limited_with_a_wait_in_proportion_to_the_tier(
    fitted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = asyncio.run(served(fitted, monkeypatch, floats(), n=1000))
    world.tiers |= {"exact": "exact"}
    waits = {}
    for who in ("ada", "exact"):
        for _ in range(3):
            world.send(who, list(range(1000)))
        stage = world.pipeline.budgets[0]
        outcome = stage.outcome(stage.charge(who, 1)[0])
        assert isinstance(outcome, Refused) and outcome.reason is Reason.RATE_LIMITED
        waits[who] = outcome.retry_after_s
    assert waits["ada"] == pytest.approx(waits["exact"], rel=0.01)
