"""The administration of several deployments: one page for all, and each below its own path."""

from __future__ import annotations

import re
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.serving.repository import NotReady
from tests.admin.test_replicas import listening
from tests.support.admin_world import admin_world, on_loop
from tests.support.deployments import clean_rows, edit, outlier_rows
from tests.support.several import named, no_certificate, unreadable

PROCESS_FAMILIES = {
    "gateway_replicas",
    "gateway_loop_stalls",
    "gateway_loop_stalled_seconds",
    "gateway_loop_longest_stall_seconds",
}
"""The families that are of a process and not of a model."""


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """birds and trees, which are sound, and stones, whose policy is not valid."""
    made = [named(tmp_path, name) for name in ("birds", "trees", "stones")]
    unreadable(made[-1])
    return made


@on_loop
async def test_the_status_of_all_lists_each_with_its_state_and_problems(folders: list[Path]) -> None:
    async with admin_world(*folders) as one:
        listed = (await one.script.get("/status")).json()["deployments"]
        assert [(d["deployment"], d["ready"]) for d in listed] == [
            ("birds", True),
            ("trees", True),
            ("stones", False),
        ]
        assert "defre" in listed[2]["problems"][0] and str(folders[2]) in listed[2]["problems"][0]
        text = (await one.browser.get("/status")).text
        assert "2 of 3 are ready" in text and "defre" in text
        for name in ("birds", "trees", "stones"):
            assert f'href="{one.root}/models/{name}/status"' in text


@on_loop
async def test_the_status_of_one_is_its_own_and_of_a_broken_one_its_problems(folders: list[Path]) -> None:
    async with admin_world(*folders) as one:
        assert (await one.script.get("/models/trees/status")).json()["deployment"] == "trees"
        broken = await one.script.get("/models/stones/status")
        assert broken.status_code == 503 and "defre" in broken.json()["problems"][0]
        page = await one.browser.get("/models/stones/status")
        assert page.status_code == 503
        assert f'action="{one.root}/models/stones/load"' in page.text and "defre" in page.text
        assert (await one.script.get("/models/stones/policy")).status_code == 503
        unknown = await one.script.get("/models/ferns/status")
        assert unknown.status_code == 404 and "/models/birds" in unknown.json()["error"]


@on_loop
async def test_what_is_of_one_deployment_must_be_asked_for_below_its_path(folders: list[Path]) -> None:
    async with admin_world(*folders) as one:
        for method, path in (
            ("GET", "/review"),
            ("POST", "/review/claim"),
            ("POST", "/rungs/primary/isolate"),
        ):
            reply = await one.script.request(method, path)
            assert reply.status_code == 404 and "/models/birds" in reply.json()["error"]
            states = {g.loaded.breakers["primary"].state for g in one.repository.gateways.values()}
            assert states == {"closed"}


@on_loop
async def test_every_link_of_a_deployments_pages_stays_below_its_path(folders: list[Path]) -> None:
    async with admin_world(*folders) as one:
        await one.decide(outlier_rows(3), model="trees")
        claimed = await one.post("/models/trees/review/claim")
        at = one.location(claimed)
        assert claimed.status_code == 303 and at.startswith("/models/trees/review/")
        pages = ["/models/trees/status", "/models/trees/review", at]
        of_all = {"/status", "/metrics", "/sessions", "/logout"}
        for path in pages:
            text = (await one.browser.get(path)).text
            links = {
                link.removeprefix(one.root) for link in re.findall(r'(?:href|action|src)="(/[^"]*)"', text)
            }
            own = {link for link in links if link.startswith("/models/trees/")}
            switch = {f"/models/{n}/{p}" for n in ("birds", "stones") for p in ("status", "review")}
            rest = {link for link in links - own - switch - of_all if not link.startswith("/pages/")}
            assert all(link.startswith("/decisions/") for link in rest), rest
            assert len(own) >= 3
            for link in own:
                if "/answer" not in link and "/claim" not in link:
                    reply = await one.browser.get(link)
                    assert reply.status_code in (200, 405), link


@on_loop
async def test_a_case_is_reviewed_in_its_own_deployment_alone(folders: list[Path]) -> None:
    async with admin_world(*folders) as one:
        await one.decide(outlier_rows(1), model="trees")
        assert (await one.script.get("/models/birds/review")).json()["waiting"] == 0
        assert (await one.script.post("/models/birds/review/claim")).status_code == 204
        case = (await one.script.post("/models/trees/review/claim")).json()
        answer = {"fence": case["fence"], "label": case["labels"][0]}
        elsewhere = await one.script.post(f"/models/birds/review/{case['id']}/answer", json=answer)
        assert elsewhere.status_code == 409
        done = await one.script.post(f"/models/trees/review/{case['id']}/answer", json=answer)
        assert done.status_code == 200


@on_loop
async def test_every_family_of_metrics_is_labelled_by_model(folders: list[Path]) -> None:
    async with admin_world(*folders) as one:
        for model in ("birds", "trees"):
            await one.decide(clean_rows(4), model=model)
        text = (await one.script.get("/metrics")).text
        models: dict[str, set[str]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                models.setdefault(family.name, set()).add(sample.labels.get("model", ""))
        assert {name for name, found in models.items() if "" in found} == PROCESS_FAMILIES
        assert {"gateway_rows", "gateway_stage_rows", "gateway_request_seconds"} <= models.keys()
        assert models.pop("gateway_model_ready") == {"birds", "trees", "stones"}
        assert all(
            found == {"birds", "trees"} for name, found in models.items() if name not in PROCESS_FAMILIES
        )
        assert 'gateway_model_ready{model="stones"' in text


@on_loop
async def test_a_reload_of_one_and_of_all_changes_what_was_named(folders: list[Path]) -> None:
    async with admin_world(*folders) as one:
        for folder in folders[:2]:
            edit(folder, ('version: "1"', 'version: "2"'))
        reply = await one.script.post("/models/trees/policy/reload")
        assert reply.json()["replicas"][one.repository.replica]["changed"]
        versions = {n: g.loaded.policy.version for n, g in one.repository.gateways.items()}
        assert versions == {"birds": "1", "trees": "2"}
        reply = await one.script.post("/policy/reload")
        assert reply.status_code == 409
        found = reply.json()["replicas"][one.repository.replica]["deployments"]
        assert (found["birds"]["changed"], found["trees"]["changed"]) == (True, False)
        assert "defre" in found["stones"]["problems"][0]
        edit(folders[2], ("on_error: defre", "on_error: defer"))
        assert (await one.script.post("/policy/reload")).status_code == 200
        assert set(one.repository.gateways) == {"birds", "trees", "stones"}


@on_loop
async def test_load_and_unload_reach_every_replica(folders: list[Path]) -> None:
    async with AsyncExitStack() as stack:
        one, other = [await stack.enter_async_context(admin_world(*folders)) for _ in range(2)]
        async with listening(one), listening(other):
            edit(folders[2], ("on_error: defre", "on_error: defer"))
            reply = await one.script.post("/models/stones/load")
            assert reply.status_code == 200
            assert set(reply.json()["replicas"]) == {one.repository.replica, other.repository.replica}
            assert "stones" in one.repository.gateways and "stones" in other.repository.gateways
            reply = await other.script.post("/models/birds/unload")
            assert reply.status_code == 200
            assert "birds" not in one.repository.gateways and "birds" not in other.repository.gateways
            listed = (await one.script.get("/status")).json()["deployments"]
            assert [(d["ready"], d["ready_at"], d["replicas"]) for d in listed] == [
                (False, 0, 2),
                (True, 2, 2),
                (True, 2, 2),
            ]
            assert listed[0]["reason"] == "it was unloaded by an administrator"


@on_loop
async def test_a_load_that_fails_is_a_conflict_that_names_every_problem(folders: list[Path]) -> None:
    async with admin_world(*folders) as one:
        reply = await one.script.post("/models/stones/load")
        assert reply.status_code == 409
        assert "defre" in reply.json()["replicas"][one.repository.replica]["problems"][0]
        page = await one.post("/models/stones/load")
        assert page.status_code == 409 and "defre" in page.text


@on_loop
async def test_a_rung_is_isolated_in_its_own_deployment_alone(folders: list[Path]) -> None:
    async with admin_world(*folders) as one:
        assert one.location(await one.post("/models/trees/rungs/primary/isolate")) == ("/models/trees/status")
        states = {n: g.loaded.breakers["primary"].state for n, g in one.repository.gateways.items()}
        assert states == {"birds": "closed", "trees": "isolated"}


@on_loop
async def test_a_decision_of_any_deployment_is_found_without_naming_it(folders: list[Path]) -> None:
    async with admin_world(*folders) as one:
        await one.decide(clean_rows(1), "known")  # by the first
        assert (await one.script.get("/decisions/known")).json()["id"] == "known"


@on_loop
async def test_one_deployment_has_its_paths_as_before_and_below_its_name(tmp_path: Path) -> None:
    async with admin_world(named(tmp_path, "birds")) as one:
        for path in ("/status", "/models/birds/status"):
            assert (await one.script.get(path)).json()["deployment"] == "birds"
        text = (await one.browser.get("/status")).text
        assert f'href="{one.root}/review"' in text and "/models/" not in text
        no_certificate(one.gateway.folder)
        assert (await one.script.post("/models/birds/unload")).status_code == 200
        assert (await one.script.get("/status")).status_code == 503
        assert (await one.script.post("/policy/reload")).status_code == 409
        entry = one.repository.entries["birds"]
        assert isinstance(entry, NotReady) and "certificate.json" in str(entry.problems[0])
