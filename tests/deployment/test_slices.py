"""Cuts a slice: the serving guard stops exactly the rows that calibration counted, by class and by input."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from gateway.core.batch import Batch
from gateway.core.model import Forward
from gateway.core.rows import F8
from gateway.deployment.certificate import FalseAlarm, SliceCut
from gateway.deployment.slices import SlicedGuard, slice_names, slice_shifts
from gateway.policy.schema import InputSlices
from tests.support.deployments import run

CUTS = {"0": 3.0, "1": 4.5}
OTHER = 2.0


def alarm() -> FalseAlarm:
    slices = [SliceCut(values=[name], n=100, k=3, cut=cut) for name, cut in CUTS.items()]
    slices.append(SliceCut(values=[], n=50, k=1, cut=OTHER))
    return FalseAlarm(budget=0.05, delta=0.1, n=250, k=7, cut=4.5, slices=slices)


@dataclass(frozen=True)
class Fixed:
    """A guard with given scores."""

    scores: F8

    async def score(self, batch: Batch) -> F8:
        return self.scores


def batch(p: NDArray[np.float32], region: NDArray[np.object_]) -> Batch:
    n = len(p)
    ids = tuple(map(str, range(n)))
    known = {"primary": Forward({"probabilities": p}, np.ones(n, bool), True, 0.0)}
    return Batch(ids, ids, {"region": region}, (float("inf"),) * n, {}, _memo=known)


def names_to_rows(names: list[str]) -> tuple[NDArray[np.float32], NDArray[np.object_]]:
    """Answers that predict these classes, and the same as a text input."""
    p = np.eye(3, dtype=np.float32)[[int(name) for name in names]]
    return p, np.array([[name.encode()] for name in names], object)


@pytest.mark.parametrize("by", ["predicted_class", InputSlices(input="region")], ids=["class", "input"])
def test_a_row_is_compared_with_the_cut_of_its_slice(by: InputSlices | str) -> None:
    names = ["0", "0", "1", "1", "2", "2"]
    scores = np.array([2.9, 3.1, 4.4, 4.6, 1.9, 2.1])
    guard = SlicedGuard(Fixed(scores), alarm(), by, "primary")

    async def score() -> F8:
        return await guard.score(batch(*names_to_rows(names)))

    assert (run(score) >= alarm().cut).tolist() == [False, True] * 3


def test_the_slice_of_a_row_is_the_same_text_for_calibration_and_serving() -> None:
    p, region = names_to_rows(["2", "0"])
    assert slice_names("predicted_class", {}, {"probabilities": p}).tolist() == ["2", "0"]
    assert slice_names(InputSlices(input="region"), {"region": region}, {}).tolist() == ["2", "0"]
    numbers = np.array([[100100037], [-1]], np.int64)
    assert slice_names(InputSlices(input="id"), {"id": numbers}, {}).tolist() == ["100100037", "-1"]


def test_text_that_is_no_utf8_is_a_slice_of_its_own() -> None:
    values = np.array([b"\xff", b"a"], object)
    assert slice_names(InputSlices(input="t"), {"t": values}, {}).tolist() == ["\\xff", "a"]


def test_a_long_text_costs_no_more_than_a_short_one() -> None:
    """Numpy's text has one width for all rows: 2 MB in one of 128 rows took a gigabyte."""
    values = np.array([b"x" * 2_000_000] + [b"y"] * 127, object)
    names = slice_names(InputSlices(input="t"), {"t": values}, {})
    assert names.nbytes < 128 * 4 * 300 and names[1] == "y"


def test_shifts_lead_from_each_cut_to_the_highest() -> None:
    shifts = slice_shifts(alarm(), np.array(["0", "1", "never seen"]))
    assert (alarm().cut + shifts).tolist() == [3.0, 4.5, 2.0]
