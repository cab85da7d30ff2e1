"""Budgets of a gateway: kept over reloads and restarts, shared in a process, and without their ledger."""

from __future__ import annotations

import asyncio
import math
import sys
from pathlib import Path

import pytest

from gateway.core.decision import Reason, Refused
from gateway.core.errors import PolicyError
from gateway.deployment.deployment import Deployment
from gateway.ledger.leased import LeasedAccounts
from gateway.ledger.open_ledger import FILE
from gateway.serving.gateway import Gateway
from gateway.serving.host import Host
from gateway.serving.repository import Repository
from tests.support.budgets import (
    FIELDS,
    PRICE,
    ROWS,
    budget_of,
    budgeted,
    decided,
    entry,
    fill,
    fill_redis,
    over,
    passed,
)
from tests.support.deployments import (
    FULL_RATE,
    batch_of,
    clean_rows,
    drop_queries,
    edit,
    letters,
    opened,
    outlier_rows,
    rebound,
    run,
)
from tests.support.redis_server import RedisServer
from tests.support.several import named

INITIAL = ROWS // 10


async def answers(gateway: Gateway) -> None:
    """Returns once every ledger has answered, or not."""
    await asyncio.sleep(0.3)
    assert dict(gateway.budgets.reachable())


async def until(gateway: Gateway, *, reached: bool) -> None:
    """Returns once the ledger answers, or does not any more."""
    for _ in range(200):
        if set(reachable(gateway).values()) == {reached}:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"the ledger {'does not answer' if reached else 'answers'}")


def reachable(gateway: Gateway) -> dict[str, bool]:
    return {key.ledger: answers for key, answers in gateway.budgets.reachable()}


def spent(gateway: Gateway) -> dict[str, float]:
    """Bits by principal."""
    return {one.principal: one.units for one in budget_of(gateway).spending.top(9)}


# ---------------------------------------------------------------- what is charged


def test_a_caller_gets_its_budget_of_bits_and_no_more_and_other_callers_have_their_own(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        async with opened(budgeted(tmp_path)) as gateway:
            assert await passed(gateway) == ROWS
            assert await passed(gateway, "bob") == ROWS
            found = spent(gateway)
            assert found == pytest.approx({"ada": ROWS * PRICE, "bob": ROWS * PRICE})

    run(main)


def test_each_admitted_row_is_settled_once_after_it_was_decided(tmp_path: Path) -> None:
    fields = "budget: {per_s: 0.001, burst: 1000000}, prices: {base: 0, uncertainty: 100, refusal_factor: 3}"
    folder = budgeted(tmp_path, fields=fields)
    rebound(folder, ("cuts: {defer: certified}", "cuts: {refuse: certified}"))

    async def main() -> None:
        async with opened(folder) as gateway:
            budget = budget_of(gateway)
            label = budget.budget.prices_of("ada")
            assert label == pytest.approx(math.log2(26))
            strange = await gateway.decide(batch_of(outlier_rows(20), "eve"))
            clean = await decided(gateway, 20, "ada")
            refused = sum(one.outcome == Refused(Reason.ABSTAINED) for one in strange)
            assert refused >= 19
            torn, found = budget.price_of(label, clean), spent(gateway)
            assert found["ada"] == pytest.approx(torn) and torn > 20 * label + 1
            assert found["eve"] == pytest.approx(budget.price_of(label, strange))
            assert found["eve"] >= 3 * 19 * label

    run(main)


def test_a_request_whose_caller_gives_up_keeps_its_price(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(budgeted(tmp_path)) as gateway:
            asking = asyncio.create_task(decided(gateway, 5))
            await asyncio.sleep(0)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            assert budget_of(gateway).spending.total == pytest.approx(5 * PRICE)
            assert await passed(gateway) == ROWS - 5

    run(main)


def test_a_new_ledger_gives_the_first_rows_alone_and_fills_at_the_rate(tmp_path: Path) -> None:
    folder = budgeted(tmp_path)
    (folder / "var" / FILE).unlink()

    async def main() -> None:
        async with opened(folder) as gateway:
            await answers(gateway)
            assert await passed(gateway) == INITIAL

    run(main)


def test_a_rate_with_a_ledger_holds_over_a_reload_and_one_without_begins_anew(tmp_path: Path) -> None:
    shared = (FULL_RATE[0], "per_s: 0.001, burst: 40, ledger: local")

    async def main(folder: Path, after: int) -> None:
        fill(folder / "var")
        async with opened(folder) as gateway:
            assert await passed(gateway) == 40
            edit(folder, ('version: "1"', 'version: "2"'))
            assert await gateway.reload()
            await asyncio.sleep(0.2)
            assert await passed(gateway) == after

    run(lambda: main(letters(tmp_path / "a", shared), 0))
    own = (FULL_RATE[0], "per_s: 0.001, burst: 40")
    run(lambda: main(letters(tmp_path / "b", own), 40))


# ---------------------------------------------------------------- reloads and restarts


def test_a_reload_with_other_limits_keeps_what_was_spent(tmp_path: Path) -> None:
    folder = budgeted(tmp_path)

    async def main() -> None:
        async with opened(folder) as gateway:
            assert await passed(gateway) == ROWS
            edit(folder, ("burst: 800", "burst: 1600"))
            assert await gateway.reload()
            assert len(dict(gateway.budgets.reachable())) == 1
            assert await passed(gateway) in range(ROWS - 1, ROWS + 1), "the bucket is larger, not new"
            assert budget_of(gateway).spending.total == pytest.approx(2 * ROWS * PRICE, abs=PRICE)

    run(main)


def test_a_reload_that_fails_leaves_every_budget_as_it_was(tmp_path: Path) -> None:
    fields = FIELDS + ", model_budget: {per_s: 0.001, burst: 1600}"
    folder = budgeted(tmp_path, fields=fields)

    async def main() -> None:
        async with opened(folder) as gateway:
            assert await passed(gateway) == ROWS
            edit(folder, ("expose: [probabilities]", "expose: [probabilities, nothing]"))
            with pytest.raises(PolicyError):
                await gateway.reload()
            edit(folder, ("[probabilities, nothing]", "[probabilities]"))
            (folder / "guards.npz").rename(folder / "gone")
            with pytest.raises(Exception, match=r"guards\.npz"):
                await gateway.reload()
            assert await passed(gateway, "bob") == ROWS
            assert await passed(gateway, "eve") == 0, "the model's budget is spent"

    run(main)


def test_a_reload_that_changes_the_ledger_opens_the_other_and_gives_back_what_was_leased(
    tmp_path: Path,
) -> None:
    folder = budgeted(tmp_path / "a")

    async def main(server: RedisServer) -> None:
        await fill_redis(server)
        async with opened(folder) as gateway:
            await decided(gateway, 5)
            await answers(gateway)
            edit(folder, ('ledger: "local"', f'ledger: "{server.url}"'))
            assert await gateway.reload()
            await answers(gateway)
            assert reachable(gateway) == {server.url: True}
            assert await passed(gateway) == ROWS, "another ledger knows nothing of what was spent here"
        edit(folder, (f'ledger: "{server.url}"', 'ledger: "local"'))
        async with opened(folder) as gateway:
            assert await passed(gateway) == ROWS - 5

    with RedisServer(tmp_path) as server:
        run(lambda: main(server))


def test_a_restart_gives_the_first_rows_alone_and_they_are_owed(tmp_path: Path) -> None:
    folder = budgeted(tmp_path)

    async def main(left: int) -> int:
        """The rows that pass; and how many the bucket holds before and after."""
        async with opened(folder) as gateway:
            await answers(gateway)
            rows = await passed(gateway)
            await answers(gateway)
            budget = budget_of(gateway).budget
            assert isinstance(budget.accounts, LeasedAccounts)
            glance = budget.accounts.glance("ada", budget.limit)
            found = await gateway.budgets.left_at_ledger("extraction", {"ada": glance})
            assert found["ada"] == pytest.approx((left - rows) * PRICE, abs=1)
            return rows

    assert run(lambda: main(ROWS)) == ROWS
    left = 0
    for _ in range(3):
        rows = run(lambda n=left: main(n))  # type: ignore[misc]
        assert 0 < rows <= INITIAL
        left -= rows


def test_what_a_process_had_leased_and_not_spent_is_there_after_it_has_ended(tmp_path: Path) -> None:
    folder = budgeted(tmp_path)

    async def some() -> None:
        async with opened(folder) as gateway:
            await decided(gateway, 5)
            await asyncio.sleep(0.3)

    async def rest() -> None:
        async with opened(folder) as gateway:
            assert await passed(gateway) == ROWS - 5

    run(some)
    run(rest)


# ---------------------------------------------------------------- one process, several deployments


def test_deployments_of_a_process_share_one_file_and_no_budget(tmp_path: Path) -> None:
    folders = [named(tmp_path, name) for name in ("birds", "trees")]
    for folder in folders:
        drop_queries(folder)
        edit(folder, ("  - name: ood\n", f"{entry()}  - name: ood\n"))
        edit(folder, ("{anonymous: {rounded: 2}, trusted: full}", "{anonymous: label}"))
    fill(tmp_path / "state")

    async def main() -> None:
        repository = Repository.open(folders, tmp_path / "state")
        repository.start()
        try:
            for gateway in repository.gateways.values():
                await answers(gateway)
                assert reachable(gateway) == {"local": True}
                assert await passed(gateway) == ROWS
            await repository.unload("birds")
            await asyncio.gather(*repository._closing.values())
            assert reachable(repository.gateways["trees"]) == {"local": True}
        finally:
            await repository.close()
        assert [path.name for path in (tmp_path / "state").rglob(FILE)] == [FILE]

    run(main)


# ---------------------------------------------------------------- places that do not suit


def refused(opening: object) -> str:
    assert callable(opening)
    with pytest.raises(PolicyError) as error:
        opening()
    (problem,) = error.value.problems
    assert problem.field == "guards[1].ledger" and problem.line
    return problem.what


def test_a_file_for_one_replica_is_refused_with_more_by_the_policy_or_the_command(tmp_path: Path) -> None:
    folder = budgeted(tmp_path)
    assert "there are 2: say `ray`" in refused(lambda: Repository.open([folder], None, replicas=2))
    edit(folder, ("serving: {anonymous", "serving: {replicas: 2, anonymous"))
    assert "serving.replicas is 2: say `ray`" in refused(lambda: Deployment.read(folder))


def test_an_actor_of_ray_is_refused_in_a_process_without_ray(tmp_path: Path) -> None:
    folder = budgeted(tmp_path, ledger="ray")
    assert "none with --local: say `local`" in refused(lambda: Repository.open([folder]))
    deployment = Deployment.read(folder)
    Gateway.of(deployment, Host.of(deployment))  # as `gateway check`: it may be served under Ray


def test_a_reload_to_a_ledger_that_does_not_suit_is_refused_and_the_old_one_stays(tmp_path: Path) -> None:
    folder = budgeted(tmp_path)

    async def main() -> None:
        repository = Repository.open([folder])
        repository.start()
        (gateway,) = repository.gateways.values()
        try:
            edit(folder, ('ledger: "local"', 'ledger: "ray"'))
            with pytest.raises(PolicyError, match="none with --local"):
                await gateway.reload()
            assert list(reachable(gateway)) == ["local"]
        finally:
            await repository.close()

    run(main)


def test_a_redis_without_redis_py_is_refused_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = budgeted(tmp_path, ledger="redis://127.0.0.1")
    monkeypatch.setitem(sys.modules, "redis", None)  # as where it is not installed
    assert "failsafe-gateway[redis]" in refused(lambda: Gateway.open(folder))


def test_what_is_no_url_of_a_redis_is_refused(tmp_path: Path) -> None:
    folder = budgeted(tmp_path, ledger="redis://host:6379?socket_timeout=soon")
    assert "is no URL of a Redis" in refused(lambda: Gateway.open(folder))


# ---------------------------------------------------------------- without the ledger


@pytest.mark.parametrize(
    ("on_error", "reason"), [("refuse", Reason.UNAVAILABLE), ("allow", Reason.RATE_LIMITED), ("defer", None)]
)
def test_while_a_ledger_does_not_answer_on_error_decides_and_the_log_says_so(
    tmp_path: Path, on_error: str, reason: Reason | None, caplog: pytest.LogCaptureFixture
) -> None:
    folder = budgeted(tmp_path, on_error=on_error)

    async def main() -> None:
        async with opened(folder) as other:
            await answers(other)
            async with opened(folder) as gateway:  # the file is the other's
                await answers(gateway)
                assert reachable(gateway) == {"local": False}
                first = await decided(gateway, INITIAL + 5)
                ends = [getattr(one.outcome, "reason", None) for one in first[INITIAL:]]
                assert not any(over(one) for one in first[:INITIAL])
                if reason is not None:
                    assert set(ends) == {reason}
                else:
                    assert {type(one.outcome).__name__ for one in first[INITIAL:]} == {"Deferred"}

    run(main)
    assert "is open in another process" in caplog.text
    assert "the ledger of budgets does not answer" in caplog.text


def test_a_ledger_that_comes_back_is_used_again(tmp_path: Path) -> None:
    folder = budgeted(tmp_path)

    async def main() -> None:
        async with opened(folder) as other:
            await answers(other)
            gateway = Gateway.open(folder)
            gateway.start()
            await answers(gateway)
            assert reachable(gateway) == {"local": False}
        await until(gateway, reached=True)
        assert await passed(gateway) == ROWS
        await gateway.close()

    run(main)


def test_two_gateways_share_a_budget_in_redis_and_survive_its_restart(tmp_path: Path) -> None:
    async def main(server: RedisServer) -> None:
        await fill_redis(server)
        folders = [budgeted(tmp_path / name, ledger=server.url) for name in ("a", "b")]
        async with opened(folders[0]) as one, opened(folders[1]) as other:
            for gateway in (one, other):
                await answers(gateway)
            both = await passed(one) + await passed(other)
            assert ROWS <= both <= ROWS + INITIAL, "and the first rows of the second, which are owed"
            server.kill()
            await until(one, reached=False)
            (decision,) = await decided(one, 1)
            assert decision.outcome == Refused(Reason.UNAVAILABLE)
            server.start()
            await until(one, reached=True)
            assert await passed(one) == 0, "a server that forgot gives no new budget"

    with RedisServer(tmp_path) as server:
        run(lambda: main(server))


def test_without_a_budget_in_the_policy_no_decision_is_wrapped_and_no_ledger_opened(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(letters(tmp_path, FULL_RATE)) as gateway:
            assert not gateway.loaded.pipeline.settles
            assert dict(gateway.budgets.reachable()) == {}
            deciding = gateway.decide(batch_of(clean_rows(1)))
            assert getattr(deciding, "__qualname__", "") == "Batcher.decide"
            await deciding
            assert not (gateway.state / FILE).exists()

    run(main)


def test_a_row_that_a_caller_asks_again_costs_nothing_where_queries_are_remembered(tmp_path: Path) -> None:
    """Twenty times the rows of a full bucket, of which five are new."""

    async def main() -> None:
        async with opened(budgeted(tmp_path, history=True)) as gateway:
            await answers(gateway)
            for _ in range(20 * ROWS // 5):
                decisions = await gateway.decide(batch_of(clean_rows(5), "eve"))
                assert not any(isinstance(one.outcome, Refused) for one in decisions)
            assert spent(gateway)["eve"] == pytest.approx(5 * PRICE)

    run(main)
