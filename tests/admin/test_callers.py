"""What callers have spent of budgets of bits, in administration: the route, the status page, metrics."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.admin.pages.status import MetricSamples
from gateway.policy.kinds.information import EVERY_UNTRUSTED
from gateway.serving.spent import merged
from tests.support.admin_world import AdminWorld, admin_world, deployment, on_loop
from tests.support.budgets import FIELDS, PRICE, ROWS, budgeted, decided, passed
from tests.support.redis_server import RedisServer

HTML = {"accept": "text/html"}


async def ready(one: AdminWorld) -> None:
    await asyncio.sleep(0.3)
    assert all(answers for _, answers in one.gateway.budgets.reachable())


@on_loop
async def test_the_callers_that_spent_most_come_first_with_what_they_have_left(tmp_path: Path) -> None:
    fields = FIELDS + ", model_budget: {per_s: 0.001, burst: 1600}"
    async with admin_world(budgeted(tmp_path, fields=fields)) as one:
        await ready(one)
        await decided(one.gateway, 5, "bob")
        assert await passed(one.gateway, "ada") == ROWS
        await asyncio.sleep(0.3)
        found = (await one.script.get("/callers")).json()["budgets"]
        assert list(found) == ["extraction"]
        together, ada, bob = found["extraction"]
        assert together == {
            "principal": EVERY_UNTRUSTED,
            "spent": None,
            "refused": 0,
            "burst": 1600,
            "left": pytest.approx((2 * ROWS - ROWS - 5) * PRICE, abs=PRICE),
        }
        assert (ada["principal"], ada["spent"], ada["burst"]) == ("ada", pytest.approx(ROWS * PRICE), 800)
        assert ada["refused"] > 0 and ada["left"] == pytest.approx(0, abs=PRICE)
        assert bob["left"] == pytest.approx((ROWS - 5) * PRICE, abs=1)
        assert (await one.anonymous.get("/callers")).status_code == 401
        listed = (await one.script.get("/status")).json()["callers"]["extraction"]
        assert [one["principal"] for one in listed] == [EVERY_UNTRUSTED, "ada", "bob"]
        page = (await one.browser.get("/status", headers=HTML)).text
        assert "What callers have learnt" in page and "<code>ada</code>" in page


@on_loop
async def test_metrics_say_what_was_spent_and_that_the_ledger_answers(tmp_path: Path) -> None:
    async with admin_world(budgeted(tmp_path)) as one:
        await ready(one)
        await decided(one.gateway, 7)
        numbers = MetricSamples((await one.script.get("/metrics")).content)
        assert numbers.by("stage", "gateway_ledger_reachable") == {"extraction": 1}
        spent = numbers.by("stage", "gateway_budget_spent_bits_total")
        assert spent == {"extraction": pytest.approx(7 * PRICE)}


@on_loop
async def test_without_a_budget_there_are_no_callers_to_list_and_no_metric(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        assert (await one.script.get("/callers")).json() == {"budgets": {}, "suspects": {"queries": []}}
        fields = (await one.script.get("/status")).json()
        assert fields["callers"] == {} and {guard["ledger"] for guard in fields["guards"]} == {None}
        text = (await one.script.get("/metrics")).text
        assert "gateway_ledger" not in text and "gateway_budget" not in text


def test_a_ledger_that_is_gone_is_told_by_status_metrics_and_page(tmp_path: Path) -> None:
    @on_loop
    async def told(folder: Path) -> None:
        async with admin_world(folder) as one:
            await ready(one)
            server.kill()
            for _ in range(200):
                if not all(answers for _, answers in one.gateway.budgets.reachable()):
                    break
                await asyncio.sleep(0.05)
            await decided(one.gateway, 5)
            fields = (await one.script.get("/status")).json()
            guard = next(guard for guard in fields["guards"] if guard["name"] == "extraction")
            assert (guard["ledger"], guard["ledger_gone_at"]) == (server.url, 1)
            assert fields["callers"]["extraction"][0]["left"] is None
            page = (await one.browser.get("/status", headers=HTML)).text
            assert "does not answer at 1 of 1 replicas" in page and "unknown" in page
            numbers = MetricSamples((await one.script.get("/metrics")).content)
            assert numbers.sum("gateway_ledger_reachable") == 0

    with RedisServer(tmp_path) as server:
        told(budgeted(tmp_path, ledger=server.url))


def bucket(principal: str, spent: float | None, held: float, at_ledger: float | None) -> dict[str, Any]:
    more = {"refused": 2, "burst": 100.0, "held": held, "at_ledger": at_ledger}
    return {"principal": principal, "spent": spent, **more}


def test_what_replicas_say_is_added_up_and_a_ledger_that_one_of_them_reaches_is_enough() -> None:
    one = [bucket("ada", 5.0, 10.0, None), bucket("bob", 9.0, 0.0, 30.0)]
    other = [bucket("ada", 7.0, -4.0, 20.0), bucket("eve", 1.0, 70.0, 60.0), bucket("x", 0.5, 1.0, None)]
    found = merged([one, other], 9)
    assert [(b["principal"], b["spent"], b["refused"], b["left"]) for b in found] == [
        ("ada", 12.0, 4, 26.0),
        ("bob", 9.0, 2, 30.0),
        ("eve", 1.0, 2, 100.0),
        ("x", 0.5, 2, None),
    ]
    shared = merged([[bucket(EVERY_UNTRUSTED, None, 0.0, 5.0), *one]], 1)
    assert [b["principal"] for b in shared] == [EVERY_UNTRUSTED, "bob"]
