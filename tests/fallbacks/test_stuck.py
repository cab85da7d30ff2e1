"""The test for a model that is stuck: what it counts, when it alarms, and how often for no reason."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fallbacks.predictor import Tensors
from fallbacks.stuck import CALM_S, LAST_PAUSE_S, REPEATS_TO_ALARM, StuckOutput

Rows = NDArray[Any]
HALF = np.float32(0.5)


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def stuck_output() -> StuckOutput:
    return StuckOutput(["p"], Clock())


def batch(rows: Rows, answers: Rows) -> tuple[Tensors, Tensors]:
    return {"x": rows.reshape(len(rows), -1)}, {"p": answers.reshape(len(answers), -1)}


def alike(n: int) -> Rows:
    return np.full((n, 2), HALF)


def distinct(n: int, start: int = 0) -> Rows:
    return np.arange(start, start + 2 * n, dtype=np.float32).reshape(n, 2)


def test_a_batch_of_different_rows_with_one_answer_alarms_and_one_with_various_answers_does_not() -> None:
    test = stuck_output()
    assert not test.alarms(*batch(distinct(64), distinct(64)))
    assert not test.alarms(*batch(distinct(REPEATS_TO_ALARM), alike(REPEATS_TO_ALARM)))
    assert stuck_output().alarms(*batch(distinct(REPEATS_TO_ALARM + 1), alike(REPEATS_TO_ALARM + 1)))


def test_single_rows_are_compared_with_the_row_of_the_batch_before() -> None:
    test, rows = stuck_output(), distinct(20)
    alarmed = [test.alarms(*batch(rows[i : i + 1], alike(1))) for i in range(20)]
    assert alarmed.index(True) == REPEATS_TO_ALARM + 1, "the first row is not kept: it was not suspicious"


@pytest.mark.parametrize("size", [1, 4])
def test_each_other_answer_takes_one_repeat_back(size: int) -> None:
    test, rows = stuck_output(), distinct(REPEATS_TO_ALARM + 1)

    def alarms_of_a_run_just_too_short() -> bool:
        return any(test.alarms(*batch(rows[i : i + 1], alike(1))) for i in range(len(rows)))

    assert not alarms_of_a_run_just_too_short()
    for at in range(0, 4, size):
        test.alarms(*batch(distinct(size), distinct(size, 2 * at)))
    assert not alarms_of_a_run_just_too_short()
    test.alarms(*batch(distinct(1), distinct(1)))
    assert alarms_of_a_run_just_too_short(), "one other answer takes back one of four repeats"


@pytest.mark.parametrize("n", [1, 20])
@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_row_that_is_sent_again_is_no_repeat(n: int, value: float) -> None:
    test, rows = stuck_output(), np.full((n, 2), value, np.float32)
    assert not any(test.alarms(*batch(rows, alike(n))) for _ in range(40))


def test_texts_are_compared_too() -> None:
    texts = np.array([b"a", b"b"] * 8, object)
    assert stuck_output().alarms(*batch(texts, alike(16)))
    assert not stuck_output().alarms(*batch(np.array([b"a"] * 16, object), alike(16)))


def test_every_output_must_be_alike() -> None:
    test = StuckOutput(["p", "z"], Clock())
    inputs, outputs = batch(distinct(64), alike(64))
    in_pairs = np.repeat(distinct(32), 2, axis=0)  # every second answer is the one before
    for others in (distinct(64), in_pairs):
        assert not test.alarms(inputs, {"p": alike(64), "z": others})
        assert not test.alarms(inputs, {"p": others, "z": alike(64)})
    assert test.alarms(inputs, {**outputs, "z": alike(64)})


def test_rows_of_other_sizes_differ() -> None:
    test = stuck_output()
    assert any(test.alarms({"x": np.zeros((1, 2 + i % 2))}, {"p": alike(1)}) for i in range(20))


@pytest.mark.parametrize("outputs", [{}, {"p": alike(3)}, {"p": 3}, {"p": np.float32(1)}])
def test_what_is_no_answer_is_not_read(outputs: Any) -> None:
    assert not stuck_output().alarms({"x": distinct(64)}, outputs)


def test_without_outputs_of_floating_point_nothing_alarms() -> None:
    assert not StuckOutput([], Clock()).alarms(*batch(distinct(64), alike(64)))


def test_no_rows_are_nothing_to_read() -> None:
    assert not stuck_output().alarms({"x": distinct(0)}, {"p": alike(0)})


def test_alarms_of_a_model_that_does_answer_alike_become_as_rare_as_the_known_rows_are_asked() -> None:
    clock, found = Clock(), list[float]()
    test = StuckOutput(["p"], clock)
    for _ in range(2000):
        clock.now_s += 0.01
        if test.alarms(*batch(distinct(64), alike(64))):
            found.append(clock.now_s)
    pauses = np.diff(found)
    assert pauses[0] < 0.12 and (np.diff(pauses) >= -0.011).all(), "each about twice the one before"
    assert pauses[-1] == pytest.approx(LAST_PAUSE_S, abs=0.02)
    clock.now_s += CALM_S + LAST_PAUSE_S
    again = [test.alarms(*batch(distinct(64), alike(64)))]
    clock.now_s += 0.11
    again.append(test.alarms(*batch(distinct(64), alike(64))))
    assert again == [True, True]


def test_honest_answers_alarm_at_most_as_often_as_stated() -> None:
    """5 % of rows repeat: 2.5 million pass on average, so hardly one of 200 runs of 1,000 rows alarms."""
    rng, alarms = np.random.default_rng(0), 0
    for _ in range(200):
        changes = rng.random(1000) >= 0.05
        alarms += stuck_output().alarms(*batch(distinct(1000), np.cumsum(changes).astype(np.float32)))
    assert alarms <= 1


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1)), min_size=1, max_size=60), st.data())
def test_how_rows_are_cut_into_batches_changes_little(
    rows: list[tuple[int, int]], data: st.DataObject
) -> None:
    """A batch that alarms does so one by one as well, but for the first repeat, whose row is not kept."""
    x, p = (np.array([row[i] for row in rows], np.float32) for i in (0, 1))
    size = data.draw(st.integers(1, len(rows)))
    cut, single = stuck_output(), stuck_output()
    in_batches = any(
        cut.alarms(*batch(x[at : at + size], p[at : at + size])) for at in range(0, len(x), size)
    )
    one_by_one = any(single.alarms(*batch(x[at : at + 1], p[at : at + 1])) for at in range(len(x)))
    assert in_batches or not one_by_one
    assert in_batches is (_highest(x, p, size) >= REPEATS_TO_ALARM)


def _highest(x: Rows, p: Rows, size: int) -> int:
    """The CUSUM by its definition, one row after the other."""
    height = highest = 0
    kept = False
    for i in range(len(x)):
        repeats = i > 0 and p[i] == p[i - 1]
        known_before = i % size > 0 or kept
        height = max(0, height + (int(known_before and x[i] != x[i - 1]) if repeats else -1))
        highest = max(highest, height)
        if (i + 1) % size == 0:
            kept = repeats
    return highest
