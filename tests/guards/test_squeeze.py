"""Squeeze: only triggered rows cost a forward pass, all in one call, and the result is a rarity."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from guards.arrays import load, pack, save, unpack
from guards.atoms import NATS
from guards.rarity import Tail
from guards.rmd import Rmd
from guards.rows import F8, Signals, Tensors
from guards.squeeze import Squeeze, SqueezeGuard
from guards.squeezers import answer_change, variants
from tests.support.guard_world import FakeBatch, K, far, features, known, logits, softmax, world

RNG = np.random.default_rng(0)
FIT, Y = world(1, 400)
TAIL, TAIL_Y = world(2, 1000)


def shaken(p: NDArray[np.float32], rng: np.random.Generator, by: float = 0.05) -> NDArray[np.float32]:
    """Answers to the two variants: the answer itself, a little off."""
    both = np.concatenate([p, p])
    return softmax(np.log(both + 1e-6) + by * rng.standard_normal(both.shape))


def fitted() -> Squeeze:
    assert FIT.h is not None
    assert TAIL.h is not None
    assert TAIL.z is not None
    p = softmax(TAIL.z)
    return Squeeze.fit(FIT.h, Y, TAIL.h, p, shaken(p, np.random.default_rng(5)), seed=0)


SQUEEZE = fitted()


def held(seed: int, n: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    s, _ = world(seed, n)
    assert s.h is not None
    assert s.z is not None
    return s.h, softmax(s.z)


def test_a_tenth_of_good_rows_is_triggered_and_they_are_the_oddest() -> None:
    h, _ = held(3, 2000)
    hit = SQUEEZE.to_squeeze(h)
    assert hit.mean() == pytest.approx(0.1, abs=0.03)
    assert FIT.h is not None
    oddness = Rmd.fit(FIT, Y, seed=0).score(Signals(None, h=h))
    assert oddness[hit].min() >= oddness[~hit].max()


@pytest.mark.parametrize("quantile", [0.0, 0.5, 0.9])
def test_rows_that_repeat_are_triggered_all_or_not_at_all(quantile: float) -> None:
    assert FIT.h is not None and TAIL.h is not None and TAIL.z is not None
    rng = np.random.default_rng(1)
    which = np.append(np.arange(25), rng.integers(0, 25, 975))
    h, p = TAIL.h[which], softmax(TAIL.z[which])
    squeeze = Squeeze.fit(FIT.h, Y, h, p, np.concatenate([p, p]), seed=0, quantile=quantile)
    hit = squeeze.to_squeeze(h)
    assert hit.mean() <= 1 - quantile
    assert hit.all() == (quantile == 0)
    for _ in range(20):
        noisy = (h * (1 + 1e-7 * rng.uniform(-1, 1, h.shape))).astype(np.float32)
        np.testing.assert_array_equal(squeeze.to_squeeze(noisy), hit)


def test_good_rows_reach_u_nats_in_a_share_of_exp_minus_u() -> None:
    h, p = held(3, 4000)
    hit = SQUEEZE.to_squeeze(h)
    changes = np.where(hit, answer_change(p, shaken(p, RNG)), 0.0)
    u = SQUEEZE.score(h, p, changes)
    assert (u >= 0).all()
    assert (u >= 2.0).mean() == pytest.approx(np.exp(-2), rel=0.4)
    assert (u >= 4.0).mean() == pytest.approx(np.exp(-4), rel=0.6)


def test_a_changed_mind_is_rare_and_so_is_a_foreign_nearest_prototype() -> None:
    h, p = held(3, 50)
    usual = SQUEEZE.score(h, p, np.zeros(50))
    assert np.median(usual) < 0.5
    assert (SQUEEZE.score(h, p, np.full(50, 1.5)) > 6).all()
    other = np.roll(p, 1, axis=1)
    assert (SQUEEZE.score(h, other, np.zeros(50)) > 3).mean() > 0.9


def test_the_worse_of_both_signals_gets_a_tail_of_its_own() -> None:
    assert FIT.h is not None
    assert TAIL.h is not None
    assert TAIL.z is not None
    p = softmax(TAIL.z)
    p[::9] = np.roll(p[::9], 1, axis=1)  # a model that is often wrong: the prototypes disagree
    squeezed = shaken(p, RNG)
    fitted = Squeeze.fit(FIT.h, Y, TAIL.h, p, squeezed, seed=0)
    changes = np.where(fitted.to_squeeze(TAIL.h), answer_change(p, squeezed), 0.0)
    disagreements = fitted.prototypes.disagreement(TAIL.h, p.argmax(1))
    worse = np.maximum(fitted.change.rarity(changes), fitted.disagreement.rarity(disagreements))
    assert (worse > fitted.change.rarity(changes)).mean() > 0.05
    outer = Tail.fit(worse, resolution=NATS)
    np.testing.assert_array_equal(fitted.outer.values, outer.values)
    assert fitted.outer.scale == outer.scale


def test_more_change_is_never_less_suspicious() -> None:
    h, p = held(3, 1)
    u = [SQUEEZE.score(h, p, np.array([c]))[0] for c in np.linspace(0, 2, 41)]
    assert (np.diff(u) >= 0).all()
    assert u[-1] > u[1]


def test_round_trip_through_a_file_keeps_every_bit(tmp_path: Path) -> None:
    save(tmp_path / "s.npz", pack("s", SQUEEZE))
    back = unpack(Squeeze, "s", load(tmp_path / "s.npz"))
    h, p = held(3, 20)
    assert (
        back.score(h, p, np.linspace(0, 1, 20)).tobytes()
        == SQUEEZE.score(h, p, np.linspace(0, 1, 20)).tobytes()
    )
    assert (back.to_squeeze(h) == SQUEEZE.to_squeeze(h)).all()


def test_settings_and_shapes_that_cannot_be_are_refused() -> None:
    assert FIT.h is not None
    assert TAIL.h is not None
    assert TAIL.z is not None
    p = softmax(TAIL.z)
    good = shaken(p, RNG)
    for bits, quantile in ((0, 0.8), (8, 0.8), (4, 1.0), (4, -0.1)):
        with pytest.raises(ValueError, match="squeeze: bits is"):
            Squeeze.fit(FIT.h, Y, TAIL.h, p, good, seed=0, bits=bits, quantile=quantile)
    with pytest.raises(ValueError, match="expected two a row"):
        Squeeze.fit(FIT.h, Y, TAIL.h, p, good[:-1], seed=0)
    with pytest.raises(ValueError, match=r"squeeze: probabilities has shape \[50\]"):
        SQUEEZE.score(held(3, 50)[0], p[:50, 0], np.zeros(50))


def scripted(inputs: Tensors) -> Tensors:
    """A model whose answer to a squeezed picture depends on it, so that a mix-up of rows would show."""
    x = inputs["image"]
    weight = np.random.default_rng(1).standard_normal((x[0].size, K)) / 5
    return {"probabilities": softmax(x.reshape(len(x), -1) @ weight)}


async def first_pass(rows: FakeBatch) -> F8:
    """The three columns that the guard reads, straight from the formula."""
    answer = await rows.forward("primary")
    return np.stack(SQUEEZE.first_pass(Signals(None, h=answer["features"], z=answer["probabilities"])), 1)


def batch(n: int) -> FakeBatch:
    s = world(8, n)[0]
    odd = far(n - n // 2).h
    assert odd is not None
    h = np.concatenate([features(RNG, np.zeros(n // 2, np.int64)), odd])
    answer = {"features": h, "probabilities": scripted({"image": known(s.x)})["probabilities"]}
    return FakeBatch({"image": known(s.x), "age": np.arange(n)}, answer, scripted)


def test_the_guard_squeezes_all_triggered_rows_in_one_call_and_no_others() -> None:
    asked = batch(20)
    hit = SQUEEZE.to_squeeze(asked.answer["features"])
    assert 0 < hit.sum() < 20
    found = asyncio.run(SqueezeGuard(SQUEEZE, first_pass, "primary", "image").score(asked))
    assert set(asked.forwards) == {"primary"}
    (inputs,) = asked.predicts
    np.testing.assert_array_equal(inputs["image"], variants(asked.inputs["image"][hit], 4))
    np.testing.assert_array_equal(inputs["age"], np.concatenate([np.flatnonzero(hit)] * 2))
    p = asked.answer["probabilities"]
    changes = answer_change(p, scripted({"image": variants(asked.inputs["image"], 4)})["probabilities"])
    expected = SQUEEZE.score(asked.answer["features"], p, np.where(hit, changes, 0.0))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_batch_of_n_equals_n_batches_of_one() -> None:
    whole = batch(12)
    guard = SqueezeGuard(SQUEEZE, first_pass, "primary", "image")
    found = asyncio.run(guard.score(whole))
    for i in range(12):
        one = FakeBatch(
            {name: a[i : i + 1] for name, a in whole.inputs.items()},
            {name: a[i : i + 1] for name, a in whole.answer.items()},
            scripted,
        )
        np.testing.assert_allclose(asyncio.run(guard.score(one)), found[i : i + 1], rtol=1e-6, atol=1e-9)


def test_the_guard_makes_no_call_if_nothing_is_odd() -> None:
    h = features(RNG, np.zeros(300, np.int64))
    h = h[~SQUEEZE.to_squeeze(h)]
    answer = {"features": h, "probabilities": softmax(logits(h))}
    asked = FakeBatch({"image": np.zeros((len(h), 1, 12, 12), np.float32)}, answer, scripted)
    found = asyncio.run(SqueezeGuard(SQUEEZE, first_pass, "primary", "image").score(asked))
    assert asked.predicts == []
    assert len(found) == len(h) > 100
