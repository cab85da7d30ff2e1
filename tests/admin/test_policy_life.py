"""What the administration says of the life of a policy: reloads, versions over replicas, observed guards."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gateway.admin.pages.status import MetricSamples
from gateway.admin.policy_skew import tags_by_model
from gateway.serving.expected_policy import expect
from tests.admin.test_replicas import replicas
from tests.policy.test_observation import observing
from tests.support.admin_world import AdminWorld, admin_world, deployment, on_loop, rewrite
from tests.support.deployments import clean_rows, outlier_rows


async def metrics_of(one: AdminWorld) -> MetricSamples:
    return MetricSamples((await one.script.get("/metrics")).content)


@on_loop
async def test_a_failed_reload_is_counted_and_shown_until_one_succeeds(tmp_path: Path) -> None:
    folder = deployment(tmp_path)
    async with admin_world(folder) as one:
        for _ in range(2):
            rewrite(folder, "kind: rate", "kind: rat")
            assert (await one.script.post("/policy/reload")).status_code == 409
            rewrite(folder, "kind: rat", "kind: rate")
        metrics = await metrics_of(one)
        assert metrics.one("gateway_policy_reload_failures_total") == 2
        assert metrics.one("gateway_policy_stale") == 1
        shown = (await one.script.get("/status")).json()["reload"]
        assert (shown["on"], shown["failures"], shown["stale_at"]) == ("on_request", 2, 1)
        assert "guards[0].kind" in shown["problems"][0]
        assert "The folder holds another policy" in (await one.browser.get("/status")).text
        assert (await one.script.post("/policy/reload")).status_code == 200
        metrics = await metrics_of(one)
        assert metrics.one("gateway_policy_reload_failures_total") == 2
        assert metrics.one("gateway_policy_stale") == 0
        assert (await one.script.get("/status")).json()["reload"]["problems"] == []


@on_loop
async def test_a_guard_that_is_observed_for_a_while_is_shown_with_what_it_would_have_done(
    tmp_path: Path,
) -> None:
    folder = observing(deployment(tmp_path), "2090-01-31")
    async with admin_world(folder) as one:
        decisions = await one.decide(np.concatenate([clean_rows(20), outlier_rows(20)]))
        said = [
            finding.verdict.name for each in decisions for finding in each.findings if finding.stage == "ood"
        ]
        metrics = await metrics_of(one)
        counted = metrics.by("verdict", "gateway_observed_rows_total", stage="ood")
        assert counted == {"allow": said.count("ALLOW"), "defer": said.count("DEFER")}
        assert metrics.by("stage", "gateway_guard_observed_until_seconds") == {"ood": 3789504000.0}
        fields = (await one.script.get("/status")).json()
        rate, ood, queries = fields["guards"]
        assert (ood["enforced"], ood["observed_until"]) == (False, "2090-01-31 00:00 UTC")
        assert ood["would_have"] == {"allow": 0, "degrade": 0, "defer": 0, "refuse": 0} | counted
        assert all((guard["enforced"], guard["observed_until"]) == (True, None) for guard in (rate, queries))
        assert sum(rate["would_have"].values()) == 0
        assert fields["promises"] == []
        assert fields["withdrawn"] == ["the guard ood is only observed until 2090-01-31 00:00 UTC"]
        page = (await one.browser.get("/status")).text
        assert "observed only until 2090-01-31 00:00 UTC" in page
        assert "while observed it would have let through" in page
        assert set(metrics.by("", "gateway_promise_in_force").values()) == {0.0}


@on_loop
async def test_replicas_with_different_policies_are_counted(tmp_path: Path) -> None:
    folder = deployment(tmp_path)
    async with replicas(folder) as (one, _):
        assert (await metrics_of(one)).by("model", "gateway_policies_in_force") == {"letters": 1}
        rewrite(folder, 'version: "1"', 'version: "2"')
        await one.repository.load("letters")
        assert (await metrics_of(one)).by("model", "gateway_policies_in_force") == {"letters": 2}
        policies = (await one.script.get("/status")).json()["policies"]
        assert sorted(policies.values()) == [1, 1]
        assert "2 different policies are in force" in (await one.browser.get("/status")).text
        await one.script.post("/policy/reload")
        assert (await metrics_of(one)).by("model", "gateway_policies_in_force") == {"letters": 1}


def test_tags_are_counted_by_model_over_texts_and_quotes_in_them_end_nothing() -> None:
    line = 'gateway_policy_info{mode="enforce",model="%s",policy="%s",replica="%s"} 1.0\n'
    texts = [line % ("a", r"a@1\"x#1", "r1"), line % ("a", "a@1#2", "r2"), line % ("b", "b@1#1", "r1")]
    found = tags_by_model(text.encode() + b'other{model="a"} 1.0\n' for text in texts)
    assert found == {"a": {'a@1"x#1', "a@1#2"}, "b": {"b@1#1"}}


@on_loop
async def test_a_policy_that_is_expected_and_not_in_force_is_said(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        tag = one.gateway.loaded.tag
        assert "gateway_policy_expected" not in (await one.script.get("/metrics")).text
        for expected in (tag, tag.partition("#")[2], {"letters": tag}):
            assert expect(one.repository, {"generation": 1, "policy": expected}) == []
            assert (await metrics_of(one)).one("gateway_policy_expected") == 1
        assert expect(one.repository, {"policy": "0123"}) == [f"{tag} is in force, and 0123 is expected"]
        assert (await metrics_of(one)).by("policy", "gateway_policy_expected") == {"0123": 0}
        assert (await one.script.get("/status")).json()["expected"] == "0123"
        assert expect(one.repository, {"policy": 7}) == [
            "policy must be a hash, or of several deployments a mapping of names to hashes"
        ]
        [unknown] = expect(one.repository, {"policy": {"lettres": tag}})
        assert unknown == "no deployment is called 'lettres': there are letters"
        assert expect(one.repository, {"generation": 2}) == []
        assert (await one.script.get("/status")).json()["expected"] is None
