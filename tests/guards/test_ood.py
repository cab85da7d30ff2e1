"""Ood: a calibrated rarity that hears what any of its detectors hears, and reads no more than it needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from guards.arrays import load, pack, save, unpack
from guards.ood import KINDS, Ood, detectors
from guards.raw_image import RawImage
from guards.raw_tabular import RawTabular
from guards.rows import Signals
from tests.support.guard_world import far, row, world

ALL = ("gen", "fdbd", "rmd", "residual", "knn", "raw")
FIT, Y = world(1, 400)
TAIL, _ = world(2, 800)
OOD = Ood.fit(ALL, FIT, Y, TAIL, 0)
BLIND = Ood.fit(("raw",), FIT, Y, TAIL, seed=0)


def test_good_rows_reach_u_nats_in_a_share_of_exp_minus_u() -> None:
    u = OOD.score(world(3, 3000)[0])
    assert (u >= 0).all()
    for nats in (0.5, 1.0, 2.0, 3.0):
        assert (u >= nats).mean() == pytest.approx(np.exp(-nats), rel=0.35)


def test_far_rows_are_rarer_than_one_in_a_thousand() -> None:
    assert (OOD.score(far(40)) > np.log(1000)).all()


def test_one_detector_that_objects_is_enough() -> None:
    good, odd = world(4, 50)[0], far(50)
    only_input = Signals(odd.x, h=good.h, z=good.z)
    only_features = Signals(good.x, h=odd.h, z=good.z)
    for s in (only_input, only_features):
        assert (OOD.score(s) > 5).mean() > 0.9
    assert np.median(OOD.score(good)) < 2


def test_the_input_only_form_is_its_own_fit_with_its_own_tails() -> None:
    assert OOD.needs_features
    assert not BLIND.needs_features
    x = Signals(world(3, 3000)[0].x)
    assert (BLIND.score(x) >= 2).mean() == pytest.approx(np.exp(-2), rel=0.35)
    assert (BLIND.score(Signals(far(40).x)) > np.log(1000)).all()


def test_a_batch_of_n_equals_n_batches_of_one() -> None:
    for s in (world(3, 20)[0], far(20)):
        rows = np.concatenate([OOD.score(row(s, i)) for i in range(20)])
        np.testing.assert_allclose(OOD.score(s), rows, rtol=1e-6, atol=1e-9)


def test_round_trip_through_a_file_keeps_every_bit(tmp_path: Path) -> None:
    save(tmp_path / "ood.npz", pack("ood", OOD) | pack("blind", BLIND))
    arrays = load(tmp_path / "ood.npz")
    s = world(5, 30)[0]
    assert unpack(Ood, "ood", arrays).score(s).tobytes() == OOD.score(s).tobytes()
    assert unpack(Ood, "blind", arrays).score(s).tobytes() == BLIND.score(s).tobytes()


def test_the_same_seed_gives_the_same_file_another_seed_another(tmp_path: Path) -> None:
    digests = []
    for seed in (0, 0, 1):
        save(tmp_path / "ood.npz", pack("ood", Ood.fit(("knn", "raw"), FIT, Y, TAIL, seed)))
        digests.append((tmp_path / "ood.npz").read_bytes())
    assert digests[0] == digests[1] != digests[2]


def test_raw_is_a_detector_for_the_picture_and_one_for_the_table() -> None:
    x, t = FIT.x, world(1, 400, "table")[0].t
    assert detectors("raw", Signals(x)) == (RawImage,)
    assert detectors("raw", Signals(None, t=t)) == (RawTabular,)
    assert detectors("raw", Signals(x, t=t)) == (RawImage, RawTabular)
    with pytest.raises(ValueError, match="raw: the model has no picture and no table of inputs"):
        detectors("raw", Signals(None, h=FIT.h))


def test_raw_of_a_picture_beside_a_table_hears_what_is_odd_in_either() -> None:
    def both(seed: int, n: int) -> Signals:
        return Signals(world(seed, n)[0].x, t=world(seed, n, "table")[0].t)

    ood = Ood.fit(("raw",), both(1, 400), Y, both(2, 800), 0)
    good = both(4, 50)
    assert np.median(ood.score(good)) < 2
    assert (ood.score(Signals(far(50).x, t=good.t)) > 5).mean() > 0.9
    assert (ood.score(Signals(good.x, t=far(50, "table").t)) > 5).mean() > 0.9


@pytest.mark.parametrize("kind", ["noise", "raw_image", "raw_tabular"])
def test_a_detector_of_an_input_that_the_model_has_not_says_so(kind: str) -> None:
    with pytest.raises(ValueError, match=rf"^{kind}: needs a (picture input|table of inputs), and the model"):
        Ood.fit((kind,), Signals(None, h=FIT.h), Y, TAIL, 0)


def test_an_unknown_kind_gets_a_suggestion() -> None:
    with pytest.raises(ValueError, match="'residuals': no such detector; did you mean 'residual'"):
        Ood.fit(("residuals",), FIT, Y, TAIL, 0)
    assert {one for kind in KINDS for one in detectors(kind, FIT)} == set(KINDS.values())


@pytest.mark.parametrize("kinds", [(), ("rmd", "rmd"), ("raw", "raw_image")])
def test_no_kinds_or_one_kind_twice_are_refused(kinds: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="name at least one, and each once"):
        Ood.fit(kinds, FIT, Y, TAIL, 0)
