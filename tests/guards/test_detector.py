"""The contract that every detector keeps, parametrised over all of them, and the checks that they share."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import numpy as np
import pytest

from guards.arrays import load, pack, save, unpack
from guards.detector import as_matrix, check_fit_rows, unit_rows
from guards.ood import KINDS, AnyDetector
from guards.rows import Signals
from tests.support.guard_world import K, far, part, row, world

RAW = {"raw_tabular": "table"}
FITTED: dict[str, AnyDetector] = {}


@pytest.fixture(params=sorted(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def good(kind: str, seed: int, n: int) -> Signals:
    return world(seed, n, RAW.get(kind, "image"))[0]


def fresh(kind: str, seed: int = 0) -> AnyDetector:
    signals, y = world(1, 400, RAW.get(kind, "image"))
    return KINDS[kind].fit(signals, y, seed=seed)


@pytest.fixture
def fitted(kind: str) -> AnyDetector:
    if kind not in FITTED:
        FITTED[kind] = fresh(kind)
    return FITTED[kind]


def test_names_itself_as_the_policy_does(kind: str, fitted: AnyDetector) -> None:
    assert fitted.kind == kind
    assert type(fitted) is KINDS[kind]


def test_one_finite_float64_a_row(kind: str, fitted: AnyDetector) -> None:
    for n in (0, 1, 7):
        score = fitted.score(good(kind, 2, max(n, 1)) if n else empty(kind))
        assert score.dtype == np.float64
        assert score.shape == (n,)
        assert np.isfinite(score).all()


def empty(kind: str) -> Signals:
    return part(good(kind, 2, 1), slice(0))


@pytest.mark.parametrize("value", [0.0, 1.0, -3.5, 1e-30, 1e18, -1e18])
def test_finite_for_any_finite_signal(kind: str, fitted: AnyDetector, value: float) -> None:
    s = good(kind, 2, 3)
    x, t, h, z = (None if one is None else np.full_like(one, value) for one in (s.x, s.t, s.h, s.z))
    flat = Signals(x, t=t, h=h, z=z)
    assert np.isfinite(fitted.score(flat)).all()


def test_a_batch_of_n_equals_n_batches_of_one(kind: str, fitted: AnyDetector) -> None:
    for s in (good(kind, 3, 40), far(40, RAW.get(kind, "image"))):
        rows = np.concatenate([fitted.score(row(s, i)) for i in range(40)])
        np.testing.assert_allclose(fitted.score(s), rows, rtol=1e-6, atol=1e-12)


def test_scoring_does_not_change_the_signals(kind: str, fitted: AnyDetector) -> None:
    s, again = good(kind, 3, 5), good(kind, 3, 5)
    fitted.score(s)
    for name in ("x", "t", "h", "z"):
        np.testing.assert_array_equal(getattr(s, name), getattr(again, name))


def test_far_outliers_score_above_good_rows(kind: str, fitted: AnyDetector) -> None:
    usual = np.quantile(fitted.score(good(kind, 4, 400)), 0.95)
    assert (fitted.score(far(50, RAW.get(kind, "image"))) > usual).mean() > 0.9


def test_the_same_seed_fits_the_same(kind: str) -> None:
    one, two = pack("d", fresh(kind)), pack("d", fresh(kind))
    assert list(one) == list(two)
    assert all(one[key].tobytes() == two[key].tobytes() for key in one)


def test_round_trip_through_a_file_keeps_every_bit(kind: str, fitted: AnyDetector, tmp_path: Path) -> None:
    save(tmp_path / "d.npz", pack("d", fitted))
    back = unpack(KINDS[kind], "d", load(tmp_path / "d.npz"))
    s = good(kind, 5, 30)
    assert back.score(s).tobytes() == fitted.score(s).tobytes()


def test_nothing_fitted_can_be_changed(kind: str, fitted: AnyDetector) -> None:
    for key, array in pack("d", fitted).items():
        if array.ndim:
            assert not array.flags.writeable, key
    name = fields(fitted)[0].name
    with pytest.raises(FrozenInstanceError):
        setattr(fitted, name, None)


def test_another_width_is_refused_by_name(kind: str, fitted: AnyDetector) -> None:
    s = good(kind, 2, 4)
    signals = (s.x, s.t, s.h, s.z)
    x, t, h, z = (None if one is None else np.concatenate([one, one], -1) for one in signals)
    wide = Signals(x, t=t, h=h, z=z)
    with pytest.raises(ValueError, match=rf"^{kind}: .* has shape .* expected"):
        fitted.score(wide)
    with pytest.raises(ValueError, match=rf"^{kind}: "):
        x, t, h, z = (None if one is None else one[0] for one in signals)
        fitted.score(Signals(x, t=t, h=h, z=z))


def test_without_the_models_answer_only_input_detectors_score(kind: str, fitted: AnyDetector) -> None:
    s = good(kind, 2, 4)
    alone = Signals(s.x, t=s.t)
    if fitted.needs_features:
        with pytest.raises(ValueError, match=rf"^{kind}: needs (features|logits)"):
            fitted.score(alone)
    else:
        np.testing.assert_array_equal(fitted.score(alone), fitted.score(s))


def test_labels_that_do_not_match_are_refused(kind: str) -> None:
    s, y = world(1, 400, RAW.get(kind, "image"))
    for bad in (y[:-1], y[:, None], y.astype(np.float64)):
        with pytest.raises(ValueError, match=rf"^{kind}: labels are"):
            KINDS[kind].fit(s, np.asarray(bad), seed=0)


def test_too_few_rows_or_none_are_refused(kind: str) -> None:
    s, y = world(1, 1, RAW.get(kind, "image"))
    if kind != "gen":  # nothing to learn
        with pytest.raises(ValueError, match=rf"^{kind}: 1 rows to fit on, needs at least"):
            KINDS[kind].fit(s, y, seed=0)


def test_nan_in_the_rows_to_fit_on_is_refused_where_it_is_not_a_missing_value(kind: str) -> None:
    s, y = world(1, 400, RAW.get(kind, "image"))
    for a in (s.x, s.t, s.h, s.z):
        if a is not None:
            a[3] = np.nan
    if kind == "raw_tabular":
        assert np.isfinite(KINDS[kind].fit(s, y, seed=0).score(s)).all()
    else:
        with pytest.raises(ValueError, match=rf"^{kind}: the rows to fit on hold NaN"):
            KINDS[kind].fit(s, y, seed=0)


def test_matrix_says_what_it_got_and_what_it_wanted() -> None:
    with pytest.raises(ValueError, match=r"rmd: features has shape \[2, 3\], expected \[n, 4\]"):
        as_matrix("rmd", "features", np.zeros((2, 3)), 4)
    with pytest.raises(ValueError, match=r"rmd: features has shape \[3\], expected \[n, d\]"):
        as_matrix("rmd", "features", np.zeros(3))
    copy = as_matrix("rmd", "features", np.ones((1, K), np.float32), K)
    assert copy.dtype == np.float64


def test_labelled_accepts_exactly_the_least() -> None:
    check_fit_rows("a", np.zeros((2, 1)), np.zeros(2, np.int64), 2)
    with pytest.raises(ValueError, match="a: 2 rows to fit on, needs at least 3"):
        check_fit_rows("a", np.zeros((2, 1)), np.zeros(2, np.int64), 3)


def test_unit_rows_have_length_one_and_zero_stays_zero() -> None:
    h = np.array([[3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(unit_rows(h), [[0.6, 0.8], [0.0, 0.0]])
