"""A cut that is too low is found, and an honest one is not."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest

from bench.validity import truth
from bench.validity.partial import Cell
from bench.validity.resplit import Certified
from bench.validity.results_file import as_json
from bench.validity.summary import TOGETHER, Broken, Summary, limits, summarise
from bench.validity.tables import validity_tables
from bench.validity.truth import Outcome, Promised
from gateway.deployment.certification.alarms import Alarms, certify_guards
from gateway.deployment.certification.ladder import Ladder, certify_ladder
from gateway.deployment.certification.paths import LadderRows
from gateway.deployment.certification.scores import FoldScores
from gateway.policy.schema import Policy
from guards.selective import Counts
from tests.bench.validity.hand_made import calibrate, policy

RESPLITS = 40


def _summary() -> Summary:
    runs = [[Certified("defers", 0.15, calibrate(500, seed, policy()))] for seed in range(RESPLITS)]
    return summarise({Cell("hand-made", 500): runs})


def _promise(summary: Summary, name: str) -> Broken:
    return next(one for one in summary.promises if one.promise == name)


def test_honest_cuts_break_no_promise() -> None:
    assert not [one for one in _summary().promises if one.is_broken]


def test_a_false_alarm_cut_lowered_by_one_atom_is_found_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def lowered(chosen: Policy, fold: FoldScores) -> Alarms:
        alarms = certify_guards(chosen, fold)
        assert alarms.full is not None
        return replace(alarms, full=alarms.full.model_copy(update={"cut": alarms.full.cut - 1}))

    monkeypatch.setattr(truth, "certify_guards", lowered)
    summary = _summary()

    assert [one.promise for one in summary.promises if one.is_broken] == ["false alarm", TOGETHER]


def test_a_confidence_cut_raised_by_one_atom_is_found_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def raised(chosen: Policy, pilot: LadderRows, test: LadderRows, *, kept: bool) -> Ladder:
        found = certify_ladder(chosen, pilot, test, kept=kept)
        cuts = (found.cuts[0], found.cuts[1] + 0.05)
        return replace(found, cuts=cuts, own=dict(zip(found.own, cuts, strict=True)))

    monkeypatch.setattr(truth, "certify_ladder", raised)
    monkeypatch.setattr(Counts, "certifies", lambda *_: True)  # the gateway's own last test would refuse it

    assert _promise(_summary(), "selective small").is_broken


def test_a_share_is_broken_only_where_its_lower_limit_is_above_the_level() -> None:
    lower, upper = limits(10, 200)

    assert 0.02 < lower < 0.05 < upper < 0.1
    assert limits(0, 200)[0] == 0
    assert limits(200, 200)[1] == 1


def test_all_together_counts_each_calibration_once_and_a_slice_as_part_of_its_promise() -> None:
    promises = (
        Promised("false alarm", 0.1, 0.05),
        Promised("worst slice", 0.1, 0.2),
        Promised("if enforced", 0.1, 0.2),
        Promised("answered", 0.1, 0.2),
    )
    runs = [
        [Certified("sliced", 0.1, Outcome("", promises, 0.9))],
        [Certified("sliced", 0.1, Outcome("rung", (), 0.0))],
    ]

    summary = summarise({Cell("x", 500): runs})

    together = _promise(summary, TOGETHER)
    assert (together.broken, together.printed, together.resplits) == (1, 1, 2)
    assert together.level == pytest.approx(0.1)
    assert summary.refused[0].refused == {"rung": 1}
    assert (summary.answered[0].certified, summary.answered[0].answered) == (1, 0.9)


def test_the_tables_name_what_is_broken() -> None:
    promises = (Promised("answered", 0.1, 0.2),)
    runs = [[Certified("defers", 0.02, Outcome("", promises, 0.9))]] * 20

    tables = [*validity_tables(summarise({Cell("letters", 2_000): runs}))]

    assert len(tables) == 4
    assert str(tables[3].title).startswith("Broken")


def test_the_results_are_one_line_for_each_promise_under_the_names_of_their_columns() -> None:
    runs = [[Certified("defers", 0.02, Outcome("", (Promised("answered", 0.1, 0.05),), 0.9))]]

    found = orjson.loads(as_json(summarise({Cell("letters", 2_000): runs})))

    first = dict(zip(found["promises"]["columns"], found["promises"]["rows"][0], strict=True))
    assert first["promise"] == "answered"
    assert (first["printed"], first["broken"], first["realised"]) == (1, 0, 0.5)
    assert found["refused"]["rows"] == [["letters", 2_000, 0.02, "defers", 1, {}]]
    assert found["answered"]["rows"] == [["letters", 2_000, 0.02, "defers", 1, 0.9]]
