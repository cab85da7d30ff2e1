"""Procedures for the confidence cut: the one that serves is among them, and all keep to delta."""

from __future__ import annotations

import numpy as np
import pytest

from bench.validity.compare import refusal
from bench.validity.error_curves import ErrorCurve
from bench.validity.procedures import PROCEDURES
from guards.selective import Labelled, certified_cuts

R, DELTA = 0.1, 0.05


def _curve(rising: float) -> ErrorCurve:
    places = (np.arange(1_000) + 0.5) / 1_000
    return ErrorCurve(places, rising * places)


def _draw(curve: ErrorCurve, seed: int) -> tuple[Labelled, Labelled]:
    rng = np.random.default_rng(seed)
    return curve.draw(700, rng), curve.draw(300, rng)


def test_pilot_3_is_what_calibration_does() -> None:
    for seed in range(20):
        pilot, test = _draw(_curve(0.4), seed)
        certified = certified_cuts(pilot, test, R, DELTA).certified

        found = PROCEDURES["pilot 3"](pilot, test, R, DELTA)

        assert found == (certified[-1] if certified else None)


@pytest.mark.parametrize("name", PROCEDURES)
def test_a_procedure_seldom_certifies_a_cut_that_is_wrong_too_often(name: str) -> None:
    curve = _curve(0.4)
    cuts = [PROCEDURES[name](*_draw(curve, seed), R, DELTA) for seed in range(100)]

    known = [curve.below(cut) for cut in cuts if cut is not None]
    assert sum(error > R for _, error in known) <= 12
    assert known


@pytest.mark.parametrize("name", PROCEDURES)
def test_a_procedure_certifies_nothing_where_every_second_answer_is_wrong(name: str) -> None:
    curve = ErrorCurve(np.arange(100) / 100, np.full(100, 0.5))

    assert all(PROCEDURES[name](*_draw(curve, seed), R, DELTA) is None for seed in range(10))


def test_the_best_possible_refusal_falls_with_the_rows() -> None:
    assert refusal(1_000, 0.25) < 0.02 < refusal(1_000, 0.1) < refusal(1_000, 0.05)
