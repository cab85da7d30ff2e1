"""Several replicas answer as one over real unix sockets; dead ones are removed, silent ones are named."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.admin.handler import UNIX_LIMITS, AdminHandler
from gateway.admin.pages.status import MetricSamples
from gateway.listener.server import Server
from gateway.replica import bind_unix
from gateway.serving.replicas import PeerReplicas, PeerReply, merge
from tests.support.admin_world import LETTERS, TOKEN, AdminWorld, admin_world, deployment, on_loop, rewrite

ROWS = np.load(LETTERS / "samples.npz")["attributes"][:8]


@asynccontextmanager
async def listening(one: AdminWorld) -> AsyncIterator[Path]:
    """Serves a replica's administration plane on its unix socket."""
    path = one.repository.run / f"{one.repository.replica}.sock"
    server = Server(AdminHandler(one.app, None, "http"), UNIX_LIMITS)
    await server.start(bind_unix(path))
    try:
        yield path
    finally:
        await server.stop(1.0)


@asynccontextmanager
async def replicas(folder: Path, n: int = 2) -> AsyncIterator[list[AdminWorld]]:
    """Replicas of one deployment, each with its socket, the first asked first."""
    async with AsyncExitStack() as stack:
        worlds = [await stack.enter_async_context(admin_world(folder)) for _ in range(n)]
        for one in worlds:
            await stack.enter_async_context(listening(one))
        yield worlds


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A deployment whose path alone is longer than the address of a unix socket may be."""
    return deployment(tmp_path / ("deep" * 30))


@on_loop
async def test_one_scrape_shows_every_replica(folder: Path) -> None:
    async with replicas(folder, 3) as worlds:
        for i, one in enumerate(worlds):
            await one.decide(ROWS[: i + 1], f"ask{i}")
        await worlds[0].put("x")
        text = (await worlds[1].script.get("/metrics")).text
        families = [family.name for family in text_string_to_metric_families(text)]
        assert len(families) == len(set(families)), "a family comes twice"
        assert text.count("# HELP gateway_rows_total ") == text.count("# TYPE gateway_rows_total ") == 1
        numbers = MetricSamples(text.encode())
        names = {one.gateway.replica for one in worlds}
        assert set(numbers.by("replica", "gateway_rows_total")) == names
        assert numbers.sum("gateway_rows_total") == 1 + 2 + 3
        assert set(numbers.by("replica", "gateway_breaker_state", rung="small")) == names
        waiting = await worlds[0].review.store.counts()
        assert numbers.sum("gateway_review_cases") == sum(waiting.by_state.values()), (
            "counted once, not thrice"
        )
        assert numbers.by("answers", "gateway_replicas") == {"yes": 3, "no": 0}


@on_loop
async def test_a_replica_answers_a_peer_for_itself_alone(folder: Path) -> None:
    async with replicas(folder) as (one, other):
        await other.decide(ROWS, "theirs")
        alone = {"x-fs-alone": "1", "authorization": f"Bearer {one.app.state.peers.token}"}
        numbers = MetricSamples((await one.anonymous.get("/metrics", headers=alone)).content)
        assert set(numbers.by("replica", "gateway_uptime_seconds")) == {one.gateway.replica}
        assert (await one.anonymous.get("/decisions/theirs", headers=alone)).status_code == 404
        await one.anonymous.post("/rungs/primary/isolate", headers=alone)
        assert other.gateway.loaded.breakers["primary"].state == "closed"


@on_loop
async def test_only_a_replica_can_ask_one_replica_alone(folder: Path) -> None:
    async with replicas(folder) as (one, other):
        await one.script.post("/rungs/primary/isolate", headers={"x-fs-alone": "1"})
        assert other.gateway.loaded.breakers["primary"].state == "isolated"
        other.gateway.audit.drain()
        isolating = [(act["person"], act["on"]) for act in one.acts() if act["act"] == "isolate"]
        assert isolating == [("admin", "letters/primary")], "recorded once, where it was asked"


@on_loop
async def test_status_lists_every_replica(folder: Path) -> None:
    async with replicas(folder) as (one, other):
        await other.decide(ROWS, "theirs")
        fields = (await one.script.get("/status")).json()
        assert {row["name"] for row in fields["replicas"]} == {one.gateway.replica, other.gateway.replica}
        assert fields["outcomes"]["rows"] == len(ROWS)
        other.gateway.loaded.breakers["primary"].isolate()
        text = (await one.browser.get("/status")).text
        assert "in service at 1" in text and "taken out by hand at 1" in text


@on_loop
async def test_a_rung_is_isolated_and_restored_everywhere(folder: Path) -> None:
    async with replicas(folder) as worlds:
        for verb, state in ("isolate", "isolated"), ("restore", "closed"):
            reply = await worlds[0].script.post(f"/rungs/primary/{verb}")
            assert reply.status_code == 200
            assert reply.json()["replicas"] == {one.gateway.replica: {"state": state} for one in worlds}
            assert {one.gateway.loaded.breakers["primary"].state for one in worlds} == {state}


@on_loop
async def test_a_reload_reaches_every_replica_and_names_those_that_failed(folder: Path) -> None:
    async with replicas(folder) as worlds:
        rewrite(folder, 'version: "1"', 'version: "2"')
        reply = await worlds[1].script.post("/policy/reload")
        assert reply.status_code == 200
        assert [line["changed"] for line in reply.json()["replicas"].values()] == [True, True]
        assert {one.gateway.loaded.policy.version for one in worlds} == {"2"}
        rewrite(folder, "deadline_s: 0.5", "deadline_s: never")
        broken = await worlds[0].script.post("/policy/reload")
        assert broken.status_code == 409
        for line in broken.json()["replicas"].values():
            assert "deadline_s" in line["problems"][0]


@on_loop
async def test_a_decision_is_found_wherever_it_was_made(folder: Path) -> None:
    async with replicas(folder, 3) as worlds:
        await worlds[2].decide(ROWS[:2], "far")
        fields = (await worlds[0].script.get("/decisions/far.1")).json()
        assert [row["id"] for row in fields["rows"]] == ["far.1"]
        assert (await worlds[0].script.get("/decisions/nowhere")).status_code == 404


@on_loop
async def test_a_dead_socket_is_removed_and_a_new_one_is_waited_for(folder: Path) -> None:
    async with replicas(folder, 1) as (one,):
        run = folder / "var" / "run"
        old, fresh = run / "dead.sock", run / "fresh.sock"
        for path in (old, fresh):
            bind_unix(path).close()
        os.utime(old, (time.time() - 60,) * 2)
        numbers = MetricSamples((await one.script.get("/metrics")).content)
        assert not old.exists() and fresh.exists()
        assert numbers.by("answers", "gateway_replicas") == {"yes": 1, "no": 1}


@on_loop
async def test_a_silent_replica_is_named_and_does_not_delay_the_reply(folder: Path) -> None:
    async with replicas(folder, 2) as (one, other):
        with bind_unix(folder / "var" / "run" / "silent.sock") as silent:
            silent.listen()
            start_s = time.monotonic()
            fields = (await one.script.get("/status")).json()
            assert time.monotonic() - start_s < 1.5
            answers = {row["name"]: row["answers"] for row in fields["replicas"]}
            assert answers == {one.gateway.replica: True, other.gateway.replica: True, "silent": False}
            assert "does not answer" in (await one.browser.get("/status")).text
            reply = await one.script.post("/rungs/primary/isolate")
            assert reply.status_code == 409 and reply.json()["replicas"]["silent"] == {
                "problems": ["no answer"]
            }
            assert other.gateway.loaded.breakers["primary"].state == "isolated"
            assert "no answer" in (await one.post("/rungs/primary/restore")).text


@on_loop
async def test_peers_with_another_token_do_not_answer(folder: Path) -> None:
    async with replicas(folder, 1) as (one,):
        run = folder / "var" / "run"
        asked = await PeerReplicas(run, "me", TOKEN + "x").ask("GET", "/metrics")
        assert [(answer.replica, answer.status, answer.ok) for answer in asked] == [
            (one.gateway.replica, 401, False)
        ]
        assert [answer.ok for answer in await PeerReplicas(run, "me", TOKEN).ask("GET", "/metrics")] == [True]
        assert await PeerReplicas(folder / "nowhere", "me", TOKEN).ask("GET", "/metrics") == []


def test_an_answer_that_is_no_json_is_none() -> None:
    assert PeerReply("a", 200, b"{").json() is None


def test_families_are_merged_once_each_with_all_their_series() -> None:
    one = b'# HELP a_total things\n# TYPE a_total counter\na_total{replica="1"} 1.0\n'
    two = (
        b'# HELP b other\n# TYPE b gauge\nb{replica="2",x="a\xe2\x80\xa8b"} 3.0\n'
        b'# HELP a_total things\n# TYPE a_total counter\na_total{replica="2"} 2.0\n'
    )
    assert merge([one, two]).decode() == (
        '# HELP a_total things\n# TYPE a_total counter\na_total{replica="1"} 1.0\na_total{replica="2"} 2.0\n'
        '# HELP b other\n# TYPE b gauge\nb{replica="2",x="a\u2028b"} 3.0\n'
    )
    assert merge([]) == b""
    assert merge([one]) == one
