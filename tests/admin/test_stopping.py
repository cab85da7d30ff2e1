"""Stops from the administration plane: by whom, of what, at every replica, and what its pages show."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.core.decision import Reason, Refused
from tests.admin.test_replicas import ROWS, replicas
from tests.support.admin_world import HTML, AdminWorld, admin_world, deployment, on_loop
from tests.support.several import named


def sample(text: str, name: str, **labels: str) -> list[float]:
    return [
        one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
        if one.name == name and labels.items() <= one.labels.items()
    ]


async def all_stopped(one: AdminWorld) -> bool:
    decisions = await one.decide(ROWS, "rows")
    ends = [end.outcome for end in decisions]
    return all(isinstance(end, Refused) and end.reason is Reason.STOPPED for end in ends)


@pytest.mark.parametrize("path", ["", "/models/letters"])
@on_loop
async def test_an_operator_stops_and_resumes_at_every_replica(tmp_path: Path, path: str) -> None:
    async with replicas(deployment(tmp_path)) as worlds, worlds[0].of_person("ada", "operator") as ada:
        reply = await ada.post(f"{path}/stop", json={"reason": "bad answers"})
        assert reply.status_code == 200 and len(reply.json()["replicas"]) == 2
        for one in worlds:
            assert await all_stopped(one), "once it is replied to"
        [stop] = orjson.loads((worlds[0].repository.state / "stops.json").read_bytes())
        assert (stop["by"], stop["reason"], stop["rung"]) == ("ada", "bad answers", None)
        assert (await ada.post(f"{path}/resume")).status_code == 200
        for one in worlds:
            assert not await all_stopped(one)
        acts = [(act["act"], act["person"], act["done"]) for act in worlds[0].acts() if act["act"] != "login"]
        assert acts == [("stop", "ada", True), ("resume", "ada", True)]


@on_loop
async def test_a_stop_is_shown_by_status_metrics_and_pages_with_who_and_why(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        await one.script.post("/models/letters/stop", json={"reason": "<b>bad</b> answers"})
        fields = (await one.script.get("/status")).json()
        assert fields["stopped"].startswith("stopped by admin at ") and fields["stopped_as_model"]
        assert [stop["reason"] for stop in fields["stops"]] == ["<b>bad</b> answers"]
        metrics = (await one.script.get("/metrics")).text
        assert sample(metrics, "gateway_stopped", rung="primary") == [1.0]
        assert sample(metrics, "gateway_model_ready") == [0.0]
        page = (await one.browser.get("/status", headers=HTML)).text
        assert "&lt;b&gt;bad&lt;/b&gt; answers" in page and f"{one.root}/resume" in page
        assert one.location(await one.post("/resume")) == "/status"
        assert f"{one.root}/stop" in (await one.browser.get("/status", headers=HTML)).text
        assert sample((await one.script.get("/metrics")).text, "gateway_stopped") == [0.0, 0.0]


@on_loop
async def test_a_stop_of_a_rung_is_an_isolation(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        await one.script.post("/rungs/primary/isolate", json={"reason": "drifts"})
        fields = (await one.script.get("/status")).json()
        assert fields["stopped"] == "" and not fields["stopped_as_model"]
        assert [(stop["rung"], stop["reason"]) for stop in fields["stops"]] == [("primary", "drifts")]
        await one.script.post("/rungs/small/isolate")
        assert (await one.script.get("/status")).json()["stopped"] == "each of its rungs is stopped"


@on_loop
async def test_one_of_several_is_stopped_alone_and_all_are_stopped_even_if_not_ready(tmp_path: Path) -> None:
    birds, trees = named(tmp_path, "birds"), named(tmp_path, "trees")
    async with admin_world(birds, trees) as one:

        def stopped() -> list[str]:
            return [name for name, gateway in one.repository.gateways.items() if gateway.why_stopped]

        await one.script.post("/models/trees/stop")
        assert stopped() == ["trees"]
        await one.script.post("/models/birds/unload")
        assert (await one.script.post("/stop")).status_code == 200
        await one.script.post("/models/birds/load")
        assert stopped() == ["birds", "trees"]
        await one.script.post("/resume")
        assert stopped() == []


@on_loop
async def test_a_damaged_file_is_listed_as_a_problem_and_resume_of_all_writes_it_anew(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        (one.repository.state / "stops.json").write_bytes(b"[")
        own = (await one.script.get("/stops")).json()["replicas"][one.repository.replica]
        assert "stops.json: cannot be read" in own["problems"][0]
        assert await all_stopped(one)
        reply = await one.script.post("/rungs/primary/isolate")
        assert reply.status_code == 409 and "`gateway resume" in reply.text
        assert (await one.script.post("/resume")).status_code == 200
        assert not await all_stopped(one)


@pytest.mark.parametrize("reason", ["x" * 501, 7], ids=["long", "number"])
@on_loop
async def test_a_reason_that_is_no_short_text_stops_nothing(tmp_path: Path, reason: object) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        reply = await one.script.post("/stop", json={"reason": reason})
        assert reply.status_code == 422 and "at most 500 characters" in reply.text
        assert not await all_stopped(one)
