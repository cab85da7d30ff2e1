"""Rows of simulated thieves: of every kind of input, inside its range, and ever nearer to a boundary."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import pytest

from fallbacks.onnx import OnnxModel
from gateway.calibration.folds import ask
from gateway.calibration.thieves import STEPS, blend, thieves_rows
from gateway.core.decision import Tensors
from gateway.policy.kinds.rows import CalibrationRows
from guards.price import uncertainty
from tests.support.population import Population
from tests.support.populations import floats, pictures, two_inputs, whole_numbers

N = 300


def held(population: Population, n: int = N) -> CalibrationRows:
    x, y = population.draw(np.random.default_rng(1), n)
    model = OnnxModel("rung0", population.models[0], threads=1)
    return CalibrationRows.classified(x, y, {"rung0": ask(model, x)}, "rung0", partial(ask, model))


def unsure(rows: CalibrationRows, x: Tensors) -> float:
    return float(uncertainty(rows.ask_primary(x)["probabilities"]).mean())


@pytest.mark.parametrize(
    "population", [floats(), whole_numbers(), two_inputs(), pictures()], ids=lambda p: p.name
)
def test_every_thief_sends_rows_that_the_model_takes_inside_the_range_of_the_rows(
    population: Population,
) -> None:
    rows = held(population)
    found = thieves_rows(rows, 0)
    assert list(found) == ["random", "active", "synthetic", "walk"]
    for x in found.values():
        rows.ask_primary(x)
        for name, array in x.items():
            real = rows.x[name]
            assert array.dtype == real.dtype and array.shape[1:] == real.shape[1:]
            assert (array.min(axis=0) >= real.min(axis=0)).all()
            assert (array.max(axis=0) <= real.max(axis=0)).all()


def test_the_same_seed_gives_the_same_rows() -> None:
    rows = held(floats())
    one, again, other = (thieves_rows(rows, seed) for seed in (0, 0, 1))
    assert all(one[kind]["x"].tobytes() == again[kind]["x"].tobytes() for kind in one)
    assert one["synthetic"]["x"].tobytes() != other["synthetic"]["x"].tobytes()


def test_an_active_thief_sends_the_rows_that_the_model_is_least_sure_of() -> None:
    rows = held(floats())
    found = thieves_rows(rows, 0)
    each = uncertainty(rows.answers["rung0"]["probabilities"])
    assert len(found["active"]["x"]) == N // 10
    assert unsure(rows, found["active"]) == pytest.approx(np.sort(each)[-N // 10 :].mean(), rel=1e-4)


def test_a_walk_comes_nearer_to_the_boundary_with_every_step() -> None:
    rows = held(floats())
    x = thieves_rows(rows, 0)["walk"]["x"]
    steps = np.split(x, STEPS)
    assert unsure(rows, {"x": steps[0]}) < unsure(rows, {"x": steps[3]})
    moved = [np.abs(b - a).mean() for a, b in pairwise(steps)]
    assert moved[-1] < 0.01 * moved[0], "its last rows nearly repeat each other"


def test_rows_of_few_kinds_of_values_are_blended_as_what_they_are() -> None:
    share = np.array([0.2, 0.8])
    a = {
        "n": np.array([[0], [200]], np.uint8),
        "t": np.array([[b"a"], [b"a"]], object),
        "f": np.array([0.0, 1.0]),
    }
    b = {
        "n": np.array([[9], [100]], np.uint8),
        "t": np.array([[b"b"], [b"b"]], object),
        "f": np.array([1.0, np.nan]),
    }
    found = blend(a, b, share)
    assert found["n"].dtype == np.uint8 and found["n"].ravel().tolist() == [2, 120]
    assert found["t"].ravel().tolist() == [b"a", b"b"]
    assert found["f"][0] == pytest.approx(0.2) and np.isnan(found["f"][1]), "a missing value stays missing"


def test_identifiers_that_float64_cannot_hold_are_never_between_two() -> None:
    ids = np.array([[2**62 + 1], [2**63 - 1]])
    assert blend({"id": ids}, {"id": ids[::-1]}, np.array([0.4, 0.6]))["id"].tolist() == [[2**62 + 1]] * 2


def test_a_column_that_every_row_lacks_stays_missing() -> None:
    rows = held(floats())
    x = {"x": np.where(np.arange(5) == 2, np.nan, rows.x["x"]).astype(np.float32)}
    made = thieves_rows(replace(rows, x=x), 0)
    for one in made.values():
        assert np.isnan(one["x"][:, 2]).all() and np.isfinite(one["x"][:, [0, 1, 3, 4]]).all()


def test_a_model_that_cannot_take_rows_between_two_is_walked_at_random() -> None:
    rows = held(floats())

    def fails(x: Tensors) -> Tensors:
        raise RuntimeError("an index beyond the table")

    found = thieves_rows(CalibrationRows.classified(rows.x, rows.y, rows.answers, "rung0", fails), 0)
    assert np.isfinite(found["walk"]["x"]).all()


def test_without_probabilities_there_is_no_active_thief_and_walks_go_both_ways() -> None:
    rows = held(floats())
    mute = CalibrationRows.classified(rows.x, rows.y, {"rung0": {}}, "rung0", lambda x: {})
    found = thieves_rows(mute, 0)
    assert list(found) == ["random", "synthetic", "walk"]
    assert len(found["walk"]["x"]) == STEPS * 60
