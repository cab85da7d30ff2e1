"""The table from known records."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.core.errors import ArtifactError
from gateway.redteam.figures import (
    Wait,
    cost_ratio,
    first_alarm_median,
    rows_ratio,
    rows_to_fidelity,
    wait_to_fidelity,
)
from gateway.redteam.records import (
    JSON_SCHEMA,
    Checkpoint,
    Evasion,
    Extraction,
    Harm,
    Membership,
    Results,
    RunRecord,
)
from gateway.redteam.report import as_json, paths_of, render, write
from gateway.redteam.table import evasion_line, extraction_line, recorded, span, tables, theft_line


def run(ended: Any, queries: int, first_alarm: int | None = None) -> RunRecord:
    return RunRecord(0, ended, queries, None, first_alarm, "", {}, {}, 0.0, 0.0)


GUARDED = [run("success", 400, 4), run("queries", 1000, 2), run("queries", 1000, 8), run("time", 70, 6)]
BARE = [run("success", 100), run("success", 200), run("success", 300), run("queries", 1000)]
EVASION = Evasion("hopskipjump", "L2 1", GUARDED, BARE, 2, Harm(50, 5, {"served": 45, "deferred": 5}))
CURVE = [Checkpoint(50, 40, 0.5), Checkpoint(100, 80, 0.8)]
BARE_CURVE = [Checkpoint(50, 50, 0.7), Checkpoint(100, 100, 0.95)]
THEFT = Extraction("public", 10, "label", CURVE, BARE_CURVE, {}, 1, "queries", 2.0, 30.0, 0.5, None, 40)
BEFORE = Harm(100, 2, {"served": 98, "refused": 2})


def results(**more: Any) -> Results:
    made: dict[str, Any] = {
        "target": "http://127.0.0.1:1/v2/models/m",
        "model": "m",
        "made_s": 0.0,
        "seed": 0,
        "runs": 4,
    }
    made |= {"queries": 1000, "minutes": 1.0, "unit": "pixels", "rows_a_request": 1, "keys": 1}
    made |= {"obeys_retry_after": True, "lattice": False, "samples": "s.npz", "bare_model": None}
    return Results(JSON_SCHEMA, **made | more)


def test_a_line_of_the_table() -> None:
    assert evasion_line(EVASION, BEFORE, read=False) == (
        "hopskipjump, L2 1", "33% (1 to 91%) of 3", "75%", "400", "200", "4.5", "4", "not read",
        "2.0% → 10.0% of 50",
    )  # fmt: skip


def test_the_cost_of_a_success_counts_failed_runs_and_leaves_out_those_cut_short() -> None:
    ratio = cost_ratio(EVASION)
    assert ratio is not None
    assert ratio.value == pytest.approx((2400 / 1) / (1600 / 3)) and not ratio.at_least


def test_without_a_success_the_cost_ratio_is_a_bound() -> None:
    ratio = cost_ratio(Evasion("a", "L2 1", [run("queries", 1000)], BARE))
    assert str(ratio) == "> 1.9"
    assert cost_ratio(Evasion("a", "L2 1", GUARDED, None)) is None
    assert cost_ratio(Evasion("a", "L2 1", GUARDED, [run("queries", 9)])) is None


def test_a_run_without_an_alarm_is_later_than_any() -> None:
    assert first_alarm_median([run("queries", 9, 3), run("queries", 9), run("queries", 9, 7)]) == 7
    assert first_alarm_median([run("queries", 9, 3), run("queries", 9), run("queries", 9)]) is None


def test_rows_to_a_fidelity() -> None:
    assert rows_to_fidelity(CURVE) is None and rows_to_fidelity(BARE_CURVE) == 100
    assert str(rows_ratio(CURVE, BARE_CURVE)) == "> 1.0"
    assert extraction_line(THEFT, None, read=True) == (
        "extraction, public, 10 keys", "80.0%", "95.0%", "–", "100", "> 1.0", "1", "40", "–",
    )  # fmt: skip
    assert theft_line(THEFT) == (
        "public", "10", "label", "100", "80", "80.0%", "–", "100", "30 s", "> 70 s",
    )  # fmt: skip


def test_the_record_of_alarms_tells_none_from_before_and_from_not_read() -> None:
    assert [recorded(at, True) for at in (None, 0, 12)] == ["none", "before", "12"]
    assert recorded(12, False) == recorded(None, False) == "not read"


def test_the_wait_is_that_at_the_fidelity_or_goes_on_at_the_pace_of_answers() -> None:
    assert wait_to_fidelity(THEFT) == Wait(30 + (100 - 80) / 0.5, True)
    reached = replace(THEFT, curve=[*CURVE, Checkpoint(400, 200, 0.92, 7.0), Checkpoint(800, 400, 0.93, 9.0)])
    assert wait_to_fidelity(reached) == Wait(7.0, False)
    assert wait_to_fidelity(replace(THEFT, waited_s=0.0, pace=None)) == Wait(0.0, True)
    assert wait_to_fidelity(replace(THEFT, bare=CURVE)) is None
    assert wait_to_fidelity(replace(THEFT, curve=[])) is None
    assert [span(s) for s in (0.2, 119, 120, 7200, 172_800)] == ["0 s", "119 s", "2 min", "2.0 h", "2.0 d"]


def test_an_attack_without_a_whole_run_says_so() -> None:
    line = evasion_line(Evasion("boundary", "L2 1", [], None), None, read=True)
    assert line == ("boundary, L2 1", "no whole run", "–", "–", "–", "–", "–", "none", "–")


def full() -> Results:
    found = results(before=BEFORE, evasions=[EVASION], extractions=[THEFT], ended="interrupted")
    test = Membership("label", "quantile", 9, 9, 18, 0.5, 0.7, None, None, None, "queries", None)
    found.memberships = [test]
    found.skipped = {"<b>x": "why"}
    return found


def test_the_page_loads_nothing_and_escapes_what_it_shows() -> None:
    page = render(full())
    assert "<script" not in page and "<b>x" not in page and "&lt;b&gt;x" in page
    assert not re.findall(r"(?:src|href)=\"(?!#)", page)
    assert page.count("<figure>") == 2 and "interrupted" in page
    for lines in tables(full()):
        assert lines.title in page and all(
            cell.replace(">", "&gt;") in page for row in lines.rows for cell in row
        )


def test_the_page_of_nothing_done_is_a_page() -> None:
    assert "No attack was carried out" in render(results(ended="failed: gone"))


def test_the_json_has_every_run_and_the_figures(tmp_path: Path) -> None:
    write(full(), paths_of(tmp_path / "found"))
    held = json.loads((tmp_path / "found.json").read_bytes())
    assert (tmp_path / "found.html").read_text() == render(full())
    assert [one["queries"] for one in held["evasions"][0]["runs"]] == [400, 1000, 1000, 70]
    assert held["evasions"][0]["figures"]["cost_ratio"] == {"value": pytest.approx(4.5), "at_least": False}
    assert held["extractions"][0]["figures"]["rows_to_fidelity"] is None
    assert held["schema"] == JSON_SCHEMA and as_json(full())


def test_a_report_that_cannot_be_written_is_refused_before_the_attacks(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="--report: there is no such folder"):
        paths_of(tmp_path / "nowhere" / "r.html")
    (tmp_path / "r.html").mkdir()
    with pytest.raises(ArtifactError, match="--report: is a folder"):
        paths_of(tmp_path / "r")


def test_numbers_of_numpy_are_written_as_numbers() -> None:
    assert b'"runs": 4' in as_json(results(seed=np.int64(3)))
