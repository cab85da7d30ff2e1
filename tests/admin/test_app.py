"""The administration plane on one real replica: metrics, status, policy, breakers, decisions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fallbacks.breaker import BreakerState
from fallbacks.retry_budget import RetryBudget
from gateway.admin.pages.formatting import count, milliseconds, share, span
from gateway.admin.pages.status import MetricSamples
from tests.support.admin_world import LETTERS, admin_world, deployment, on_loop, rewrite
from tests.support.deployments import edit

GOOD = np.load(LETTERS / "samples.npz")["attributes"][:60]
ODD = np.load(LETTERS / "outliers.npz")["uniform"][:20]


def series(text: str) -> dict[str, list[Any]]:
    return {family.name: family.samples for family in text_string_to_metric_families(text)}


@on_loop
async def test_metrics_count_what_an_upstream_was_sent_once_more(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        repeats = one.gateway.loaded.breakers["small"].repeats = RetryBudget()
        assert repeats.take()
        numbers = MetricSamples((await one.script.get("/metrics")).content)
        assert numbers.by("rung", "gateway_model_repeats_total") == {"small": 1}


@on_loop
async def test_metrics_show_the_replica_as_it_is_now(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        await one.decide(GOOD)
        await one.put("x")
        one.gateway.loaded.breakers["small"].isolate()
        reply = await one.script.get("/metrics")
        assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
        numbers = MetricSamples(reply.content)
        assert numbers.sum("gateway_rows_total") == len(GOOD)
        states = numbers.by("state", "gateway_breaker_state", rung="small")
        assert states == {state.value: float(state is BreakerState.ISOLATED) for state in BreakerState}
        assert numbers.by("state", "gateway_breaker_state", rung="primary")["closed"] == 1
        assert numbers.one("gateway_model_repeats_total") is None, "no rung is in another server"
        waiting = await one.review.store.counts()
        assert numbers.by("state", "gateway_review_cases") == {
            state.value: n for state, n in waiting.by_state.items()
        }
        assert 89 < (numbers.one("gateway_review_oldest_seconds") or 0) < 95
        assert numbers.one("gateway_review_reachable") == 1
        assert numbers.by("answers", "gateway_replicas") == {"yes": 1, "no": 0}
        own = one.gateway.replica
        for name in ("gateway_uptime_seconds", "gateway_queued_rows", "gateway_audit_lost_total"):
            assert list(numbers.by("replica", name)) == [own]


@on_loop
async def test_metrics_are_served_without_the_review_store(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        one.review.store.close()
        reply = await one.script.get("/metrics")
        assert reply.status_code == 200 and MetricSamples(reply.content).one("gateway_review_reachable") == 0
        assert "unreachable" in (await one.browser.get("/status")).text


@on_loop
async def test_status_as_json_agrees_with_the_metrics(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        decisions = await one.decide(np.concatenate([GOOD, ODD]))
        ends = [type(decision.outcome).__name__.lower() for decision in decisions]
        fields = (await one.script.get("/status")).json()
        assert fields["outcomes"]["rows"] == len(ends)
        for end in ("served", "degraded", "deferred", "refused"):
            assert fields["outcomes"][end]["rows"] == ends.count(end)
        assert fields["outcomes"]["served"]["share"] == pytest.approx(ends.count("served") / len(ends))
        assert fields["policy"] == one.gateway.loaded.tag and fields["mode"] == "enforce"
        ood = next(guard for guard in fields["guards"] if guard["name"] == "ood")
        assert sum(ood["verdicts"].values()) == len(ends) and ood["verdicts"]["defer"] > 0
        assert ood["promise"] == (
            "At most 2 % of good rows are stopped by the guards together, with 95 % confidence."
        )
        assert fields["confidence"].startswith("Each promise alone holds with 95 %")
        assert "at least 75 %" in fields["confidence"]
        primary = fields["rungs"][0]
        assert primary["breaker"] == {"closed": 1} and primary["answered"] == ends.count("served")
        assert primary["promise"].startswith("At most 2 % of what primary answers is wrong, with 95 %")
        assert fields["review"]["waiting"] == ends.count("deferred")
        assert [replica["answers"] for replica in fields["replicas"]] == [True]


@on_loop
async def test_no_promise_is_shown_as_in_force_while_the_policy_only_observes(tmp_path: Path) -> None:
    folder = deployment(tmp_path)
    edit(folder, ('version: "1"', 'version: "1"\nmode: observe'))
    async with admin_world(folder) as one:
        fields = (await one.script.get("/status")).json()
        assert fields["promises"] == []
        assert fields["confidence"] == "No promise is in force: the policy's mode is observe."
        assert fields["withdrawn"] == ["the policy's mode is observe"]
        promises = [part["promise"] for part in (*fields["guards"], *fields["rungs"])]
        assert all(one.startswith(("Not in force", "Only observed, so not in force")) for one in promises)


@on_loop
async def test_status_is_a_page_for_browsers(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        empty = await one.browser.get("/status")
        assert empty.status_code == 200 and 'http-equiv="refresh" content="5"' in empty.text
        await one.decide(np.concatenate([GOOD, ODD]))
        one.gateway.loaded.breakers["small"].isolate()
        text = (await one.browser.get("/status")).text
        for expected in ("letters", "80 since start", "taken out by hand", "At most 2 %", "Isolate"):
            assert expected in text
        assert f'formaction="{one.root}/rungs/small/restore"' in text
        assert (await one.browser.get("/status?format=json")).json()["deployment"] == "letters"
        home = await one.browser.get("/")
        assert (home.status_code, one.location(home)) == (303, "/status")


@on_loop
async def test_status_and_metrics_say_to_what_level_overload_has_come(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        assert (await one.script.get("/status")).json()["overload_level"] == "full"
        one.gateway.batcher.limit.refuse(3)
        assert (await one.script.get("/status")).json()["overload_level"] == "refused"
        assert "some are refused" in (await one.browser.get("/status")).text
        numbers = MetricSamples((await one.script.get("/metrics")).content)
        assert numbers.by("level", "gateway_overload_level") == {"full": 0, "fallback": 0, "refused": 1}
        assert numbers.one("gateway_overload_refused_total") == 3
        assert numbers.one("gateway_overload_stepped_down_total") == 0


@on_loop
async def test_a_deployment_without_review_says_so(tmp_path: Path) -> None:
    folder = deployment(tmp_path)
    text = (folder / "gateway.yaml").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("review:")]
    (folder / "gateway.yaml").write_text("\n".join(lines))
    async with admin_world(folder) as one:
        assert "What no model may answer is refused" in (await one.browser.get("/status")).text
        assert (await one.script.get("/status")).json()["review"] is None
        assert "gateway_review" not in (await one.script.get("/metrics")).text
        assert (await one.script.get("/review")).status_code == 404
        assert "asks no people" in (await one.browser.get("/review")).text


@on_loop
async def test_policy_is_shown_as_it_is_in_force(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        fields = (await one.script.get("/policy")).json()
        assert fields["tag"] == one.gateway.loaded.tag
        assert fields["policy"]["schema"] == 1 and fields["policy"]["guards"][1]["name"] == "ood"


@on_loop
async def test_reload_says_whether_anything_changed(tmp_path: Path) -> None:
    folder = deployment(tmp_path)
    async with admin_world(folder) as one:
        own, old = one.gateway.replica, one.gateway.loaded.tag
        same = await one.script.post("/policy/reload")
        assert (same.status_code, same.json()["replicas"][own]["changed"]) == (200, False)
        rewrite(folder, 'version: "1"', 'version: "2"')
        other = await one.script.post("/policy/reload")
        fields = other.json()["replicas"][own]
        assert fields["changed"] is True
        assert fields["tag"] == one.gateway.loaded.tag != old
        assert one.location(await one.post("/policy/reload")) == "/status"


@on_loop
async def test_a_failed_reload_keeps_the_old_policy_and_names_every_problem(tmp_path: Path) -> None:
    folder = deployment(tmp_path)
    async with admin_world(folder) as one:
        old = one.gateway.loaded
        rewrite(folder, "kind: rate", "kind: <b>rat</b>")
        reply = await one.script.post("/policy/reload")
        assert reply.status_code == 409 and one.gateway.loaded is old
        problems = reply.json()["replicas"][one.gateway.replica]["problems"]
        assert "gateway.yaml:" in problems[0] and "must be one of" in problems[0]
        page = await one.post("/policy/reload")
        assert page.status_code == 409 and "must be one of" in page.text and "<b>rat" not in page.text


@on_loop
async def test_a_reload_that_breaks_is_a_problem_and_not_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        monkeypatch.setattr(one.gateway, "reload", lambda: 1 / 0)
        assert (await one.script.post("/policy/reload")).status_code == 409


@on_loop
async def test_an_isolated_rung_is_not_called_until_restored(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        reply = await one.script.post("/rungs/primary/isolate")
        assert reply.json() == {
            "rung": "primary",
            "replicas": {one.gateway.replica: {"state": "isolated"}},
        }
        decisions = await one.decide(GOOD[:5], "first")
        assert "Served" not in {type(one.outcome).__name__ for one in decisions}
        assert one.location(await one.post("/rungs/primary/restore")) == "/status"
        decisions = await one.decide(GOOD[:5], "second")
        assert "Served" in {type(one.outcome).__name__ for one in decisions}


@on_loop
async def test_an_unknown_rung_names_the_known_ones(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        reply = await one.script.post("/rungs/primry/isolate")
        assert reply.status_code == 404 and reply.json()["rungs"] == ["primary", "small"]
        assert "primary, small" in (await one.post("/rungs/x/restore")).text


@on_loop
async def test_a_decision_is_explained_whole_and_by_row(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        await one.decide(GOOD[:3], "abc")
        fields = (await one.script.get("/decisions/abc")).json()
        assert [row["id"] for row in fields["rows"]] == ["abc.0", "abc.1", "abc.2"]
        assert any("score" in finding for finding in fields["rows"][0]["findings"])
        row = (await one.script.get("/decisions/abc.1")).json()
        assert [row["id"] for row in row["rows"]] == ["abc.1"]
        for unknown in ("abd", "abc.3"):
            assert (await one.script.get(f"/decisions/{unknown}")).status_code == 404


@on_loop
async def test_what_is_not_there_is_not_found_in_either_form(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        for path in ("/nothing", "/pages/base.html", "/pages/__init__.py", "/review/x/image.png"):
            assert (await one.script.get(path)).status_code == 404, path
        assert (await one.script.get("/policy/reload")).status_code == 405
        assert "Back to the status" in (await one.browser.get("/nothing")).text


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (100_000, "1 d 3 h"),
        (-1, "0 s"),
    ],
)
def test_spans_are_coarse(seconds: float, said: str) -> None:
    assert span(seconds) == said


@pytest.mark.parametrize(
    ("part", "said"),
    [(0, "0 %"), (1, "100 %"), (0.02, "2 %"), (0.025, "2.5 %"), (1e-6, "< 0.1 %"), (1 - 1e-6, "> 99.9 %")],
)
def test_shares_never_round_to_nothing_or_all(part: float, said: str) -> None:
    assert share(part) == said


def test_numbers_are_formatted_for_reading() -> None:
    assert (count(1234567.0), count(None)) == ("1\u202f234\u202f567", "–")
    assert [milliseconds(s) for s in (0.00021, 0.0034, 0.12, None)] == ["0.21 ms", "3.4 ms", "120 ms", "–"]


def test_a_median_lies_inside_its_bucket() -> None:
    text = """# TYPE t histogram
t_bucket{le="0.1",r="a"} 1
t_bucket{le="0.2",r="a"} 1
t_bucket{le="+Inf",r="a"} 1
t_bucket{le="0.1",r="b"} 0
t_bucket{le="0.2",r="b"} 3
t_bucket{le="+Inf",r="b"} 3
"""
    numbers = MetricSamples(text.encode())
    assert numbers.median("t") == pytest.approx(0.1 + 0.1 * (2 - 1) / 3)
    assert numbers.median("t", r="a") == pytest.approx(0.05)
    assert numbers.median("t", r="c") is None
    beyond = MetricSamples(b'# TYPE t histogram\nt_bucket{le="0.1"} 0\nt_bucket{le="+Inf"} 2\n')
    assert beyond.median("t") == 0.1
