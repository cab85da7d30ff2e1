"""Outliers that are made from good rows: far from them, and requests that the deployment takes."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.cli.infer_body import infer_body
from gateway.cli.outliers import made_outliers, noise, sendable
from gateway.protocol.infer_request import parse_http_infer
from tests.support.typed_models import DATATYPES, rows, texts
from tests.support.wire_parts import contract_of, spec_of

N = 40


def test_numbers_lie_thirty_robust_spreads_from_the_median_on_either_side() -> None:
    age = spec_of("FP32", (None, 1), "age", missing=True)
    x = np.random.default_rng(0).normal(50, 2, (N, 1)).astype(np.float32)
    x[0], x[1] = np.nan, 1e9  # neither a missing value nor an outlier moves them
    far = made_outliers([age], {"age": x}, seed=0)["numbers far off"]["age"]
    assert far.shape == x.shape and far.dtype == x.dtype and np.isfinite(far).all()
    distance = np.abs(far - 50)
    assert distance.min() > 30 and distance.max() < 100
    assert (far < 50).any() and (far > 50).any()


def test_a_constant_column_gets_other_values_too() -> None:
    far = made_outliers([spec_of("INT64")], {"x": np.full((N, 2), 7)}, seed=0)["numbers far off"]["x"]
    assert set(np.unique(far)) == {7 - 30, 7 + 30}


def test_text_is_replaced_by_text_that_no_row_has() -> None:
    plan = spec_of("BYTES", (None, 1), "plan", utf8=True)
    x = {"plan": texts(*[b"basic", b"pro"] * (N // 2)).reshape(N, 1)}
    made = made_outliers([plan], x, seed=0)["unseen text"]["plan"]
    assert len({text.decode() for text in made.flat} - {"basic", "pro"}) == N
    assert all(len(text.decode()) == 8 for text in made.flat)


def test_each_kind_of_input_is_changed_alone_and_there_is_a_family_of_each() -> None:
    inputs = [spec_of("FP32", (None, 1), "age"), spec_of("BYTES", (None,), "plan")]
    inputs += [spec_of("FP32", (None, 1, 4, 4), "face", low=0.0, high=1.0), spec_of("BOOL", (None,), "paid")]
    x = {
        "age": np.arange(N, dtype=np.float32).reshape(N, 1),
        "plan": texts(*[b"basic"] * N),
        "face": np.full((N, 1, 4, 4), 0.5, np.float32),
        "paid": np.arange(N) % 2 == 0,
    }
    changed = {
        family: [name for name in x if not np.array_equal(made[name], x[name])]
        for family, made in made_outliers(inputs, x, seed=0).items()
    }
    assert changed == {
        "numbers far off": ["age"],
        "unseen text": ["plan"],
        "pictures of noise": ["face"],
    }
    faces = made_outliers(inputs, x, seed=0)["pictures of noise"]["face"]
    assert 0 <= faces.min() < 0.05 and 0.95 < faces.max() <= 1
    at_once = noise(inputs, x, seed=0)
    assert [name for name in x if not np.array_equal(at_once[name], x[name])] == ["age", "plan", "face"]


def test_values_stay_inside_the_range_of_the_policy() -> None:
    count = spec_of("INT32", (None, 3), "count", low=0.5, high=9)
    x = {"count": np.random.default_rng(0).integers(3, 6, (N, 3), np.int32)}
    far = made_outliers([count], x, seed=0)["numbers far off"]["count"]
    assert set(np.unique(far)) == {1, 9}
    assert sendable([count], {"count": far}).all()


def test_what_is_far_from_the_largest_numbers_is_still_a_number() -> None:
    """A BF16 has no number between its largest and infinity, though float32, its form here, has."""
    wide = spec_of("BF16", (None, 1))
    x = np.repeat(np.array([-3e38, 3e38], np.float32), N // 2).reshape(N, 1)
    [made] = made_outliers([wide], {"x": x}, seed=0).values()
    assert np.isfinite(made["x"]).all() and np.abs(made["x"]).min() > 3.3e38


@pytest.mark.parametrize("datatype", sorted(set(DATATYPES) - {"BOOL"}))
def test_outliers_of_every_datatype_are_requests_that_are_taken(datatype: str) -> None:
    """Also where good rows hold the largest and the least number of the datatype."""
    good = rows(datatype, N)
    spec = spec_of(datatype, (None, good.shape[1]))
    contract = contract_of(spec, max_rows=N)
    [made] = made_outliers([spec], {"x": good}, seed=0).values()
    assert len(made["x"]) == N
    body, head = infer_body([spec], made, {}, binary=True)
    taken = parse_http_infer(body, head, contract).inputs["x"]
    assert taken.tolist() == made["x"].tolist() != good.tolist()


def test_inputs_that_are_true_or_false_have_no_outliers() -> None:
    assert made_outliers([spec_of("BOOL")], {"x": np.ones((N, 2), bool)}, seed=0) == {}
