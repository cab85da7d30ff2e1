"""A recorded formula gives the numbers of the formula itself, for any rows, or is not served at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fallbacks.onnx_file import open_session
from gateway.deployment import graph
from gateway.deployment.graph import Formula, record
from gateway.deployment.tracing import Recorded, Tape
from guards.fdbd import Fdbd
from guards.gen import Gen
from guards.knn import Knn
from guards.noise import Noise
from guards.ood import Ood
from guards.raw_image import RawImage
from guards.raw_tabular import RawTabular
from guards.residual import Residual
from guards.rmd import Rmd
from guards.rows import F8, Signals
from guards.squeeze import Squeeze

RNG = np.random.default_rng(0)
D, K = 12, 4
HEAD = RNG.standard_normal((D, K)).astype(np.float32)
CENTRES = 3 * RNG.standard_normal((K, D)).astype(np.float32)


def pictures(n: int, seed: int = 1) -> tuple[Signals, NDArray[np.int64]]:
    """n rows of pictures with features around their class's centre and logits from a linear head."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, K, n)
    h = (CENTRES[y] + rng.standard_normal((n, D))).astype(np.float32)
    x = rng.random((n, 1, 9, 7), np.float32)
    return Signals(x, h=h, z=h @ HEAD), y


def table_rows(n: int, seed: int = 1) -> tuple[Signals, NDArray[np.int64]]:
    """n table rows, a whole number in the first column, some values missing."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 5)).astype(np.float32)
    x[:, 0] = rng.integers(0, 9, n)
    x[rng.random((n, 5)) < 0.03] = np.nan
    return Signals(None, x), rng.integers(0, K, n)


PICTURES, Y = pictures(400)
KINDS = (Gen, Fdbd, Rmd, Residual, Knn, Noise, RawImage)


def named(s: Signals) -> dict[str, Any]:
    return {name: array for name in ("x", "t", "h", "z") if (array := getattr(s, name)) is not None}


def formula(score: Callable[[Signals], F8]) -> Formula:
    return lambda given: score(Signals(*(given.get(name) for name in ("x", "t", "h", "z"))))


FITTED: dict[str, Callable[[Signals], F8]] = {}
for kind in KINDS:
    FITTED[kind.kind] = kind.fit(PICTURES, Y, seed=0).score
FITTED["ood"] = Ood.fit(["gen", "rmd", "knn", "raw"], PICTURES, Y, pictures(400, 2)[0], 0).score
LIKE = named(pictures(3, 9)[0])
RECORDED = {name: record(name, formula(score), LIKE) for name, score in FITTED.items()}


@pytest.mark.parametrize("name", FITTED)
@given(n=st.integers(1, 9), seed=st.integers(0, 10**6), scale=st.sampled_from([0.0, 1e-6, 1.0, 50.0]))
def test_every_detector_recorded_equals_itself_in_numpy(name: str, n: int, seed: int, scale: float) -> None:
    rows, _ = pictures(n, seed)
    assert rows.h is not None and rows.x is not None
    h = (scale * rows.h).astype(np.float32)
    odd = Signals((scale * rows.x).astype(np.float32), h=h, z=h @ HEAD)
    np.testing.assert_allclose(RECORDED[name].run(named(odd)), FITTED[name](odd), rtol=1e-6, atol=1e-6)


def test_a_table_guard_recorded_equals_itself_also_where_values_are_missing() -> None:
    rows, y = table_rows(400)
    score = RawTabular.fit(rows, y, seed=0).score
    recorded = record("raw", formula(score), named(table_rows(3, 2)[0]))
    fresh, _ = table_rows(300, 3)
    assert fresh.t is not None and np.isnan(fresh.t).any()
    np.testing.assert_allclose(recorded.run(named(fresh)), score(fresh), rtol=1e-9, atol=1e-9)


def test_the_first_look_of_squeeze_recorded_has_all_three_columns() -> None:
    tail, _ = pictures(400, 2)
    assert PICTURES.h is not None and tail.h is not None and tail.z is not None
    p = np.exp(tail.z) / np.exp(tail.z).sum(1, keepdims=True)
    squeeze = Squeeze.fit(PICTURES.h, Y, tail.h, p, np.concatenate([p, np.roll(p, 1, 0)]), seed=0)
    fresh, _ = pictures(50, 3)
    looked = formula(lambda s: np.stack(squeeze.first_pass(s), axis=1))
    found = record("perturbation", looked, LIKE).run(named(fresh))
    assert found.shape == (50, 3)
    np.testing.assert_allclose(found, looked(named(fresh)), rtol=1e-6, atol=1e-6)


def test_reads_only_what_the_formula_uses() -> None:
    assert RECORDED["noise"].reads == ("x",)
    assert RECORDED["gen"].reads == ("z",)
    assert RECORDED["fdbd"].reads == ("h", "z")


@pytest.mark.parametrize("name", ["gen", "rmd", "residual", "knn", "fdbd"])
def test_a_feature_that_is_not_a_number_gives_a_score_that_is_not_a_number(name: str) -> None:
    rows, _ = pictures(2, 3)
    assert rows.x is not None and rows.h is not None and rows.z is not None
    h, z = rows.h.copy(), rows.z.copy()
    h[0, 3] = z[0, 1] = np.nan
    first, second = RECORDED[name].run({"x": rows.x, "h": h, "z": z})
    assert np.isnan(first)
    assert second == pytest.approx(FITTED[name](rows)[1], rel=1e-6)


def test_another_width_is_an_error_and_not_a_number() -> None:
    rows, _ = pictures(2, 3)
    assert rows.h is not None
    with pytest.raises(Exception, match="dimension"):
        RECORDED["rmd"].run({"h": rows.h[:, 1:]})


def test_a_graph_that_gives_other_numbers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Off:
        def __init__(self, session: object) -> None:
            self.session = session

        def run(self, names: None, feed: dict[str, object]) -> list[F8]:
            return [self.session.run(names, feed)[0] * 1.01]  # type: ignore[attr-defined]

    monkeypatch.setattr(graph, "open_session", lambda *args, **options: Off(open_session(*args, **options)))
    with pytest.raises(ValueError, match="ood: onnxruntime does not reproduce its formula"):
        record("ood", formula(FITTED["ood"]), LIKE)


@pytest.mark.parametrize(
    ("score", "error"),
    [
        (lambda s: np.zeros(3), "does not depend on the row"),
        (lambda s: np.cumsum(s.h, axis=1), "cumsum is not recorded"),
        (lambda s: np.sin(s.h), "sin is not recorded"),
        (lambda s: s.h.reshape(3, -1), "give the first size as -1"),
        (lambda s: s.h[:, ::2], "is not recorded"),
        (lambda s: np.add(s.h, 1.0, out=s.h), "is not recorded"),
        (lambda s: np.stack([s.h, s.h]), "the first axis is the row"),
        (lambda s: np.sort(s.h, axis=0), "sort along axis 0 is not recorded"),
    ],
)
def test_what_cannot_be_recorded_is_refused_at_once(score: Callable[[Signals], F8], error: str) -> None:
    with pytest.raises((TypeError, NotImplementedError), match=error):
        record("odd", formula(score), LIKE)


@pytest.mark.parametrize("key", ["[:, 0]", "[:, -1]", "[:, 1:3]", "[..., 2:]", "[:, None, -2:]", "[:, :-1]"])
def test_every_index_that_formulas_use_is_recorded(key: str) -> None:
    cut = formula(eval(f"lambda s: s.h{key}"))
    np.testing.assert_array_equal(record("index", cut, LIKE).run(LIKE), cut(LIKE))


def test_constants_are_kept_once() -> None:
    rows, _ = pictures(3, 9)
    assert rows.h is not None
    tape = Tape()
    h = Recorded(tape, "h", rows.h)
    found = h @ HEAD + h @ HEAD.copy()
    assert len(tape.constants) == 1
    np.testing.assert_allclose(found.value, 2 * (rows.h @ HEAD), rtol=1e-6)
