"""Where rows end, against the pipeline's rule written row by row; counts for all combinations at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.decision import Verdict
from gateway.deployment.certification.paths import CLOSED, NO_RUNG, OPEN, LadderRows, RungRows


def ladder(rng: np.random.Generator, n: int, rungs: int, checked: list[bool]) -> LadderRows:
    return LadderRows(
        rng.integers(0, 4, n).astype(np.int8),
        rng.integers(0, 4, n).astype(np.int8),
        tuple(
            RungRows(rng.integers(0, 6, n) / 5 if checked[d] else None, rng.uniform(size=n) < 0.3)
            for d in range(rungs)
        ),
    )


def by_hand(rows: LadderRows, cuts: tuple[float, ...]) -> list[int]:
    """The rule of `core/pipeline.py`, one row at a time."""
    found = []
    for i, verdict in enumerate(rows.verdicts):
        by = NO_RUNG
        for depth, rung in enumerate(rows.rungs):
            if verdict > (Verdict.DEGRADE if depth else Verdict.ALLOW):
                continue
            if rung.suspicion is None or rung.suspicion[i] < cuts[depth]:
                by = depth
                break
        found.append(by)
    return found


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.booleans(), min_size=1, max_size=3))
def test_rows_end_as_in_the_pipeline_and_are_counted_so(seed: int, checked: list[bool]) -> None:
    rng = np.random.default_rng(seed)
    rows = ladder(rng, 40, len(checked), checked)
    grids = [(CLOSED, 0.3, 0.5, 0.9, 1.1) if one else (OPEN,) for one in checked]
    answered, errors = rows.counts(grids)
    assert answered.shape == tuple(len(grid) for grid in grids)
    for at in np.ndindex(answered.shape):
        cuts = tuple(grid[j] for grid, j in zip(grids, at, strict=True))
        by = rows.answered_by(cuts)
        assert by.tolist() == by_hand(rows, cuts)
        assert answered[at] == (by != NO_RUNG).sum()
        assert errors[at] == rows.wrong(by).sum()


def test_a_later_rung_answers_degraded_rows_and_without_a_check_all_that_reach_it() -> None:
    verdicts = np.array([Verdict.ALLOW, Verdict.ALLOW, Verdict.DEGRADE, Verdict.DEFER], np.int8)
    first = RungRows(np.array([0.2, 0.8, 0.2, 0.2]), np.array([False, True, True, True]))
    rows = LadderRows(verdicts, verdicts, (first, RungRows(None, np.array([True, False, False, True]))))
    assert rows.answered_by((0.5, OPEN)).tolist() == [0, 1, 1, NO_RUNG]
    answered, errors = rows.counts([(CLOSED, 0.5, 0.9), (OPEN,)])
    assert answered.tolist() == [[3], [3], [3]]
    assert errors.tolist() == [[1], [0], [1]]


def test_a_later_rung_is_reached_by_what_the_input_only_forms_allow_or_degrade() -> None:
    rng = np.random.default_rng(0)
    rows = ladder(rng, 100, 2, [True, True])
    assert (rows.reached(0) == (rows.verdicts == Verdict.ALLOW)).all()
    assert (rows.reached(1) == (rows.without_primary <= Verdict.DEGRADE)).all()


def test_rows_beside_others_keep_their_order() -> None:
    rng = np.random.default_rng(0)
    one, other = ladder(rng, 5, 2, [True, False]), ladder(rng, 7, 2, [True, False])
    both = one.beside(other)
    assert both.verdicts.tolist() == [*one.verdicts, *other.verdicts]
    assert both.rungs[1].suspicion is None
    suspicion = both.rungs[0].suspicion
    assert suspicion is not None
    assert one.rungs[0].suspicion is not None
    assert suspicion[:5].tolist() == one.rungs[0].suspicion.tolist()


@pytest.mark.parametrize("cut", [CLOSED, -1.0])
def test_no_row_passes_a_closed_cut(cut: float) -> None:
    rows = LadderRows(np.zeros(3, np.int8), np.zeros(3, np.int8), (RungRows(np.zeros(3), np.zeros(3, bool)),))
    assert (rows.answered_by((cut,)) == NO_RUNG).all()
