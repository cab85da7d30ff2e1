"""Callers that seem to search, in administration: the route, the status page, the metric, replicas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gateway.admin.pages.status import MetricSamples
from gateway.serving.suspected import merged_suspects, step_of
from tests.admin.test_replicas import replicas
from tests.support.admin_world import LETTERS, AdminWorld, admin_world, deployment, on_loop, rewrite
from tests.support.served import SEARCH_ROWS, near_rows

HTML = {"accept": "text/html"}
ROWS = np.load(LETTERS / "samples.npz")["attributes"]
ALARM = 1000.0


async def search(one: AdminWorld, who: str) -> None:
    """Asks nearly equal rows, one request a row."""
    for i, row in enumerate(near_rows(ROWS[:1])):
        await one.decide(row[None], f"{who}-{i}", who)


@on_loop
async def test_a_searcher_is_listed_with_its_evidence_its_step_and_the_row_of_its_alarm(
    tmp_path: Path,
) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        await one.decide(ROWS[100:130], "honest", "ada")
        await search(one, "eve")
        (eve,) = (await one.script.get("/callers")).json()["suspects"]["queries"]
        assert eve["evidence"] >= ALARM and eve["step"] in ("replay", "coarsen")
        (member,) = eve["members"]
        assert (eve["principals"], member["principal"]) == (1, "eve")
        assert 3 <= member["alarm_row"] <= member["rows"] == eve["rows"] <= SEARCH_ROWS
        assert (await one.anonymous.get("/callers")).status_code == 401


@on_loop
async def test_the_status_page_and_the_metric_say_how_many_have_reached_each_step(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        empty = MetricSamples((await one.script.get("/metrics")).content)
        assert empty.by("step", "gateway_suspects") == {"replay": 0, "coarsen": 0}
        assert "No caller is suspected." in (await one.browser.get("/status", headers=HTML)).text
        await search(one, "<b>eve</b>")
        numbers = MetricSamples((await one.script.get("/metrics")).content)
        assert sum(numbers.by("step", "gateway_suspects", stage="queries").values()) == 1
        fields = (await one.script.get("/status")).json()["suspects"]["queries"]
        assert sum(fields["at"].values()) == 1 and len(fields["listed"]) == 1
        page = (await one.browser.get("/status", headers=HTML)).text
        assert "Callers that seem to search" in page and "<code>&lt;b&gt;eve&lt;/b&gt;</code>" in page


@on_loop
async def test_what_two_replicas_have_seen_of_one_caller_is_one_suspect(tmp_path: Path) -> None:
    async with replicas(deployment(tmp_path)) as worlds:
        for one in worlds:
            await search(one, "eve")
        for one in worlds:
            (eve,) = (await one.script.get("/callers")).json()["suspects"]["queries"]
            assert [member["principal"] for member in eve["members"]] == ["eve"]
            assert SEARCH_ROWS < eve["rows"] <= 2 * SEARCH_ROWS and eve["principals"] == 1


@on_loop
async def test_without_the_guard_no_suspects_are_listed_and_there_is_no_metric(tmp_path: Path) -> None:
    folder = deployment(tmp_path)
    text = (folder / "gateway.yaml").read_text()
    at = text.index("  - name: queries"), text.index("rungs:")
    rewrite(folder, text[at[0] : at[1]], "\n")
    rewrite(folder, "waivers: {queries: a broken memory of queries stops no traffic}\n", "")
    async with admin_world(folder) as one:
        assert (await one.script.get("/callers")).json() == {"budgets": {}, "suspects": {}}
        assert "gateway_suspects" not in (await one.script.get("/metrics")).text


def suspect(evidence: float, *names: str, principals: int = 0, alarm: int | None = None) -> dict[str, Any]:
    members = [{"principal": name, "rows": 10, "alarm_row": alarm} for name in names]
    step = step_of({"replay": 1e3, "refuse": 1e6}, evidence)
    count = principals or len(names)
    return {
        "evidence": evidence, "step": step, "principals": count, "rows": 10 * count, "members": members,
    }  # fmt: skip


def test_suspects_of_several_replicas_that_share_a_principal_are_one() -> None:
    here = [suspect(2e3, "a", "b", alarm=7), suspect(5.0, "x")]
    there = [suspect(50.0, "b", "c", alarm=4), suspect(2e6, "z"), suspect(1e4, "c", "d")]
    found = merged_suspects([here, there], 9)
    assert [(one["evidence"], one["step"], one["principals"], one["rows"]) for one in found] == [
        (2e6, "refuse", 1, 10), (1e4, "replay", 4, 60), (5.0, None, 1, 10),
    ]  # fmt: skip
    alarms = {one["principal"]: one["alarm_row"] for one in found[1]["members"]}
    assert alarms == {"a": 7, "b": 4, "c": 4, "d": None}
    assert len(merged_suspects([here, there], 2)) == 2


def test_the_step_is_the_most_severe_one_that_the_evidence_reaches() -> None:
    cuts = {"replay": 1e3, "coarsen": 1e5, "refuse": 1e5}
    assert [step_of(cuts, e) for e in (999.0, 1e3, 99_999.0, 1e5)] == [None, "replay", "replay", "refuse"]
