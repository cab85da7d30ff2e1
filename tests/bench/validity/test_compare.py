"""Procedures are compared on the same draws, and shown a line a scenario."""

from __future__ import annotations

import numpy as np
import pytest

from bench.validity import compare
from bench.validity.comparison_table import comparison_tables
from bench.validity.error_curves import ErrorCurve, Scenario
from bench.validity.procedures import PROCEDURES


def test_a_comparison_counts_cuts_that_are_wrong_too_often_and_draws_without_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    places = (np.arange(100) + 0.5) / 100
    hopeless = Scenario("hopeless", ErrorCurve(places, np.full(100, 0.5)), 100, 0.1)
    monkeypatch.setattr(compare, "scenarios", lambda: [hopeless])
    monkeypatch.setattr(compare, "PROCEDURES", {"none": lambda *_: None, "all": lambda *_: 1.0})

    none, everything = compare.compare(5).compared

    assert (none.broken, none.refused, none.coverage) == (0, 1, 0)
    assert (everything.broken, everything.refused, everything.coverage) == (1, 0, 1)


def test_the_tables_have_a_line_a_scenario_and_a_column_a_procedure(monkeypatch: pytest.MonkeyPatch) -> None:
    places = (np.arange(100) + 0.5) / 100
    rising = Scenario("rising", ErrorCurve(places, 0.3 * places), 200, 0.1)
    monkeypatch.setattr(compare, "scenarios", lambda: [rising])

    tables = [*comparison_tables(compare.compare(2))]

    assert [table.row_count for table in tables] == [1, 1, 1, len(compare.NEEDED_FOR)]
    assert len(tables[0].columns) == 4 + len(PROCEDURES)
