"""One replica on real models: law 5 (reload), broken parts while it serves, and a clean end."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest

from fallbacks.breaker import Breaker, BreakerState, CircuitOpen
from fallbacks.review.cases import CaseState
from gateway.core.batch_size import FIRST_EXPONENT
from gateway.core.budget import BudgetStage
from gateway.core.decision import Decision, Deferred, Degraded, Reason, Refused, Served, Tensors, Verdict
from gateway.core.errors import ArtifactError, PolicyError, Problems
from gateway.core.model import Predictor
from gateway.core.pipeline import AnyGuard
from gateway.core.stage import FeatureStage
from gateway.protocol.disclosure import Full, Label, Rounded, Top
from gateway.serving.gateway import Gateway
from gateway.serving.review import QueuedReview
from gateway.serving.stops import Stop
from tests.support.deployments import (
    FULL_RATE,
    Hangs,
    NotANumber,
    Raises,
    Switch,
    batch_of,
    clean_rows,
    edit,
    letters,
    opened,
    outlier_rows,
    predictor_of,
    rebound,
    record_of,
    run,
    swap,
)

QUICK_PRIMARY = ("budget_s: 2\n", "budget_s: 0.1\n")


def kinds(decisions: Sequence[Decision]) -> Counter[str]:
    return Counter(type(decision.outcome).__name__ for decision in decisions)


def guarded(gateway: Gateway, decision: Decision) -> bool:
    """Law 7 on one decision: every enforced guard and every check of its rung let the answer pass."""
    if not isinstance(decision.outcome, Served | Degraded):
        return True
    said = {finding.stage: finding for finding in decision.findings}
    deepest = Verdict.ALLOW if isinstance(decision.outcome, Served) else Verdict.DEGRADE
    by = decision.outcome.by
    rung = next(rung for rung in gateway.loaded.pipeline.rungs if rung.name == by)
    pipeline = gateway.loaded.pipeline
    stages = (*pipeline.budgets, *pipeline.guards)
    guards = [said[one.name].verdict <= deepest for one in stages if enforced(one)]
    return all(guards) and all(said[check.name].verdict is Verdict.ALLOW for check in rung.checks)


def enforced(guard: AnyGuard | BudgetStage) -> bool:
    return guard.full.enforce if isinstance(guard, FeatureStage) else guard.enforce


async def waiting(gateway: Gateway) -> int:
    """How many cases wait for a person."""
    assert isinstance(gateway.review, QueuedReview)
    return (await gateway.review.store.counts()).by_state[CaseState.OPEN]


# ---------------------------------------------------------------- serving


def test_clean_rows_are_served_by_the_primary_and_strange_ones_are_not(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(letters(tmp_path, FULL_RATE)) as gateway:
            clean = await gateway.decide(batch_of(clean_rows(100)))
            strange = await gateway.decide(batch_of(outlier_rows(100), name="o"))
            assert kinds(clean)["Served"] >= 80
            assert kinds(strange)["Served"] + kinds(strange)["Degraded"] <= 5
            assert kinds(strange)["Deferred"] >= 95
            assert await waiting(gateway) == (kinds(clean) + kinds(strange))["Deferred"]
            assert all(guarded(gateway, decision) for decision in [*clean, *strange])
            assert {decision.policy for decision in [*clean, *strange]} == {gateway.loaded.tag}

    run(main)


def test_answers_are_the_models_own_whatever_batch_they_came_in(tmp_path: Path) -> None:
    x = clean_rows(40)

    async def main() -> None:
        async with opened(letters(tmp_path, FULL_RATE)) as gateway:
            together = await gateway.decide(batch_of(x))
            alone = await asyncio.gather(
                *(gateway.decide(batch_of(x[i : i + 1], name=f"s{i}-")) for i in range(40))
            )
            model = gateway.loaded.artifacts.models["primary"]
            for i, (a, (b,)) in enumerate(zip(together, alone, strict=True)):
                assert type(a.outcome) is type(b.outcome)
                if isinstance(a.outcome, Served) and isinstance(b.outcome, Served):
                    own = model.run({"attributes": x[i : i + 1]})["probabilities"]
                    assert abs(a.outcome.output["probabilities"] - own).max() < 1e-5
                    assert abs(b.outcome.output["probabilities"] - own).max() < 1e-5

    run(main)


def test_concurrent_requests_share_the_primarys_passes(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(letters(tmp_path, FULL_RATE)) as gateway:
            counting = Switch(predictor_of(gateway))
            swap(gateway, counting)
            x = clean_rows(200)
            requests = [batch_of(x[i : i + 1], name=f"r{i}-") for i in range(200)]
            got = await asyncio.gather(*map(gateway.decide, requests))
            assert sum(counting.asked) == 200
            assert len(counting.asked) <= 200 / (1 << FIRST_EXPONENT)
            assert [one[0].id for one in got] == [request.ids[0] for request in requests]

    run(main)


def test_in_observe_mode_everything_is_answered_and_the_findings_tell(tmp_path: Path) -> None:
    folder = letters(tmp_path, FULL_RATE, ('version: "1"', 'version: "1"\nmode: observe'))

    async def main() -> None:
        async with opened(folder) as gateway:
            decisions = await gateway.decide(batch_of(outlier_rows(20)))
            assert kinds(decisions) == {"Served": 20}
            said = [finding for d in decisions for finding in d.findings if finding.stage == "ood"]
            assert sum(finding.verdict is Verdict.DEFER for finding in said) >= 19
            assert not any(finding.enforced for finding in said)

    run(main)


def test_rows_over_the_rate_join_no_batch_and_the_other_callers_are_served(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(letters(tmp_path, ("per_s: 200, burst: 400", "per_s: 0.001, burst: 8"))) as gateway:
            await gateway.decide(batch_of(clean_rows(8), "greedy"))
            batches = gateway.statistics.executions
            flood = [gateway.decide(batch_of(clean_rows(4), "greedy")) for _ in range(50)]
            polite = gateway.decide(batch_of(clean_rows(8), "polite"))
            *refused, served = await asyncio.gather(*flood, polite)
            assert {type(one.outcome).__name__ for request in refused for one in request} == {"Refused"}
            assert kinds(served)["Refused"] == 0
            assert gateway.statistics.executions == batches + 1

    run(main)


def test_of_a_request_over_the_rate_the_first_rows_are_decided_and_the_others_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(letters(tmp_path, ("per_s: 200, burst: 400", "per_s: 0.001, burst: 3"))) as gateway:
            decisions = await gateway.decide(batch_of(clean_rows(5)))
            assert [isinstance(one.outcome, Refused) for one in decisions] == [False] * 3 + [True] * 2
            assert all(guarded(gateway, one) for one in decisions)
            said = [next((found.stage, found.verdict) for found in one.findings) for one in decisions]
            assert said == [("rate", Verdict.ALLOW)] * 3 + [("rate", Verdict.REFUSE)] * 2

    run(main)


def test_a_caller_over_the_rate_is_refused_with_the_time_to_wait(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(letters(tmp_path, ("per_s: *, burst: *", "per_s: 2, burst: 4"))) as gateway:
            greedy = await gateway.decide(batch_of(clean_rows(6), "greedy"))
            modest = await gateway.decide(batch_of(clean_rows(2), "modest"))
            refused = [d.outcome for d in greedy if isinstance(d.outcome, Refused)]
            assert len(refused) == 2
            for outcome in refused:
                assert outcome.reason is Reason.RATE_LIMITED
                assert outcome.retry_after_s is not None
                assert 0 < outcome.retry_after_s <= 2
            assert "Refused" not in kinds(modest)

    run(main)


def test_two_replicas_share_one_queue_and_its_capacity(tmp_path: Path) -> None:
    folder = letters(tmp_path, FULL_RATE, ("capacity: *", "capacity: 12, per_caller: 12"))

    async def main() -> None:
        async with opened(folder) as one, opened(folder) as two:
            assert one.replica != two.replica
            got = await asyncio.gather(
                one.decide(batch_of(outlier_rows(10), name="a")),
                two.decide(batch_of(outlier_rows(20)[10:], name="b")),
            )
            ends = kinds([*got[0], *got[1]])
            assert ends["Deferred"] == 12
            assert await waiting(one) == await waiting(two) == 12

    run(main)


# ---------------------------------------------------------------- law 5: reload


def truncate(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-100])


SPOILED: dict[str, Callable[[Path], object]] = {
    "a policy that is not YAML": lambda folder: (folder / "gateway.yaml").write_text("guards: ["),
    "a policy with an unknown field": lambda folder: edit(folder, ("expose:", "reveal: 1\nexpose:")),
    "a policy that YAML cannot make": lambda folder: edit(folder, ("name: letters", "name: !!int letters")),
    "no policy": lambda folder: (folder / "gateway.yaml").unlink(),
    "an output that no model has": lambda folder: edit(folder, ("[probabilities]", "[chances]")),
    "a stale certificate": lambda folder: edit(folder, ("false_alarm_budget: *", "false_alarm_budget: 0.1")),
    "no certificate": lambda folder: (folder / "certificate.json").unlink(),
    "a certificate cut short": truncate("certificate.json"),
    "guards cut short": truncate("guards.npz"),
    "no guards": lambda folder: (folder / "guards.npz").unlink(),
    "a primary cut short": truncate("primary.onnx"),
    "a fallback cut short": truncate("fallback.onnx"),
    "no primary": lambda folder: (folder / "primary.onnx").unlink(),
    "another model for the primary": lambda folder: (folder / "fallback.onnx").replace(
        folder / "primary.onnx"
    ),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_law_5_a_failed_reload_leaves_everything_as_it_was(
    tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    folder = letters(tmp_path, FULL_RATE)

    async def main() -> None:
        async with opened(folder) as gateway:
            before = gateway.loaded
            spoil(folder)
            with pytest.raises(Problems) as caught:
                await gateway.reload()
            assert isinstance(caught.value, PolicyError | ArtifactError)
            assert gateway.loaded is before
            decisions = await gateway.decide(batch_of(clean_rows(20)))
            assert kinds(decisions)["Served"] >= 15
            assert {decision.policy for decision in decisions} == {before.tag}

    run(main)


def test_law_5_a_reload_to_an_equal_policy_changes_nothing(tmp_path: Path) -> None:
    folder = letters(tmp_path)

    async def main() -> None:
        async with opened(folder) as gateway:
            before = gateway.loaded
            assert await gateway.reload() is False
            path = folder / "gateway.yaml"
            path.write_text("# another remark\n\n" + path.read_text().replace("[gen, fdbd,", "[ gen,fdbd,"))
            assert await gateway.reload() is False
            assert gateway.loaded is before

    run(main)


def test_a_reload_to_another_policy_takes_effect_at_once_and_says_so(tmp_path: Path) -> None:
    folder = letters(tmp_path, FULL_RATE)

    async def main() -> None:
        async with opened(folder) as gateway:
            before = gateway.loaded.tag
            rebound(folder, ("{defer: certified}", "{refuse: certified}"))
            assert await gateway.reload() is True
            assert gateway.loaded.tag != before
            decisions = await gateway.decide(batch_of(outlier_rows(10)))
            assert kinds(decisions)["Refused"] >= 9
            assert {decision.policy for decision in decisions} == {gateway.loaded.tag}
            rebound(folder, ("{refuse: certified}", "{defer: certified}"))
            assert await gateway.reload() is True
            assert gateway.loaded.tag == before, "the same files are the same policy again"

    run(main)


def test_a_batch_that_is_being_decided_ends_under_the_policy_it_began_with(tmp_path: Path) -> None:
    folder = letters(tmp_path, FULL_RATE)

    @dataclass
    class Slow:
        inner: Predictor

        async def predict(self, inputs: Tensors, /) -> Tensors:
            await asyncio.sleep(0.2)
            return await self.inner.predict(inputs)

    async def main() -> None:
        async with opened(folder) as gateway:
            swap(gateway, Slow(predictor_of(gateway)))
            old = gateway.loaded.tag
            flying = asyncio.create_task(gateway.decide(batch_of(clean_rows(3))))
            await asyncio.sleep(0.05)
            edit(folder, ('version: "1"', 'version: "2"'))
            assert await gateway.reload()
            queued = asyncio.create_task(gateway.decide(batch_of(clean_rows(3), name="q")))
            assert {(d.policy, type(d.outcome)) for d in await flying} == {(old, Served)}
            assert {(d.policy, type(d.outcome)) for d in await queued} == {(gateway.loaded.tag, Served)}

    run(main)


def test_a_reload_under_load_loses_no_request_and_every_decision_names_its_policy(tmp_path: Path) -> None:
    folder = letters(tmp_path, FULL_RATE)
    x = clean_rows(50)

    async def main() -> None:
        async with opened(folder) as gateway:
            in_force = {gateway.loaded.tag}
            expected = kinds(await gateway.decide(batch_of(x)))
            ended: list[Decision] = []
            over = False

            async def client(number: int) -> None:
                i = 0
                while not over:
                    name = f"c{number}.{i}."
                    got = await gateway.decide(batch_of(x[number : number + 1], f"c{number}", name=name))
                    assert [decision.id for decision in got] == [f"{name}0"]
                    ended.extend(got)
                    i += 1

            async def everybody_under(tag: str) -> None:
                """Until the policy has judged as many rows as there are clients."""
                for _ in range(2000):
                    if sum(decision.policy == tag for decision in ended) >= 50:
                        return
                    await asyncio.sleep(0.005)
                raise AssertionError(f"{tag} judges nothing")

            clients = [asyncio.create_task(client(number)) for number in range(50)]
            for version in range(2, 6):
                await everybody_under(gateway.loaded.tag)
                edit(folder, (f'version: "{version - 1}"', f'version: "{version}"'))
                assert await gateway.reload()
                in_force.add(gateway.loaded.tag)
            await everybody_under(gateway.loaded.tag)
            over = True
            await asyncio.gather(*clients)
            assert len(in_force) == 5
            assert {decision.policy for decision in ended} == in_force
            assert set(kinds(ended)) <= set(expected)
            assert "Refused" not in kinds(ended)

    run(main)


def test_a_rung_that_an_operator_took_out_stays_out_over_a_reload(tmp_path: Path) -> None:
    folder = letters(tmp_path, FULL_RATE)

    async def main() -> None:
        async with opened(folder) as gateway:
            gateway.latch.stop_here(Stop(model="*", rung="primary", by="ada", at=datetime.now(UTC)))
            gateway.apply_stops()
            edit(folder, ('version: "1"', 'version: "2"'))
            assert await gateway.reload()
            assert gateway.loaded.breakers["primary"].state is BreakerState.ISOLATED
            assert "Served" not in kinds(await gateway.decide(batch_of(clean_rows(5))))

    run(main)


def test_a_reload_that_shuts_anonymous_callers_out_shuts_them_out(tmp_path: Path) -> None:
    folder = letters(tmp_path)

    async def main() -> None:
        async with opened(folder) as gateway:
            assert gateway.callers.identify(None, "127.0.0.1") is not None
            edit(folder, ("anonymous: loopback", "anonymous: nobody"))
            assert await gateway.reload(), "shutting a door may not need a restart"
            assert gateway.callers.identify(None, "127.0.0.1") is None

    run(main)


def test_a_reload_to_less_room_for_review_leaves_less_room(tmp_path: Path) -> None:
    folder = letters(tmp_path, FULL_RATE)

    async def main() -> None:
        async with opened(folder) as gateway:
            edit(folder, ("capacity: *", "capacity: 2, per_caller: 2"))
            if await applied(gateway):
                assert kinds(await gateway.decide(batch_of(outlier_rows(20))))["Deferred"] == 2

    run(main)


def test_a_reload_to_a_shorter_queue_shortens_it(tmp_path: Path) -> None:
    folder = letters(tmp_path, FULL_RATE)

    async def main() -> None:
        async with opened(folder) as gateway:
            edit(folder, ("anonymous: loopback", "anonymous: loopback, max_queued_rows: 4"))
            if await applied(gateway):
                assert kinds(await gateway.decide(batch_of(clean_rows(5)))) == {"Refused": 5}

    run(main)


async def applied(gateway: Gateway) -> bool:
    """Reloads. What only a restart can change may be refused instead, if it is refused in so many words."""
    try:
        return await gateway.reload()
    except PolicyError as error:
        assert "restart" in str(error)
        return False


# ---------------------------------------------------------------- broken while serving


def broken_primary(gateway: Gateway, how: str) -> Predictor:
    if how == "raises":
        return Raises()
    return Hangs() if how == "hangs" else NotANumber(predictor_of(gateway))


@pytest.mark.parametrize("how", ["raises", "hangs", "is not a number"])
def test_without_the_primary_rows_are_degraded_and_guarded_by_the_input_alone(
    tmp_path: Path, how: str
) -> None:
    async def main() -> None:
        async with opened(letters(tmp_path, FULL_RATE, QUICK_PRIMARY)) as gateway:
            swap(gateway, broken_primary(gateway, how))
            x = clean_rows(300)
            decisions: list[Decision] = []
            for at in range(0, 300, 100):
                decisions += await gateway.decide(batch_of(x[at : at + 100], name=f"{at}-"))
            ends = kinds(decisions)
            assert set(ends) == {"Degraded", "Deferred"}
            assert ends["Degraded"] >= 5, "the fallback answers nothing"
            for decision in decisions:
                ood = next(finding for finding in decision.findings if finding.stage == "ood")
                assert (ood.form, ood.error, ood.enforced) == ("input_only", None, True)
                primary = [finding for finding in decision.findings if finding.stage == "primary"]
                assert all(finding.error for finding in primary)
                assert guarded(gateway, decision)
                if isinstance(decision.outcome, Degraded):
                    assert (decision.outcome.by, decision.outcome.reason) == ("small", Reason.UNAVAILABLE)
            strange = await gateway.decide(batch_of(outlier_rows(50), name="o"))
            assert kinds(strange)["Deferred"] >= 45

    run(main)


def test_a_hanging_primary_costs_its_budget_and_no_more(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(letters(tmp_path, FULL_RATE, QUICK_PRIMARY)) as gateway:
            swap(gateway, Hangs())
            start_s = time.perf_counter()
            await gateway.decide(batch_of(clean_rows(10)))
            assert 0.1 <= time.perf_counter() - start_s < 1.0

    run(main)


def test_a_row_of_nan_fails_without_its_neighbours(tmp_path: Path) -> None:
    x = clean_rows(60)

    async def main() -> None:
        async with opened(letters(tmp_path, FULL_RATE)) as gateway:
            good = await gateway.decide(batch_of(x))
            swap(gateway, NotANumber(predictor_of(gateway), x[7]))
            for before, after, row in zip(good, await gateway.decide(batch_of(x, name="s")), x, strict=True):
                if (row == x[7]).all():
                    assert not isinstance(after.outcome, Served)
                else:
                    assert type(after.outcome) is type(before.outcome)

    run(main)


def test_defers_when_every_model_is_broken_and_refuses_when_the_queue_is_full(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        async with opened(
            letters(tmp_path, FULL_RATE, ("capacity: *", "capacity: 3, per_caller: 3"))
        ) as gateway:
            swap(gateway, Raises(), 0)
            swap(gateway, Raises(), 1)
            decisions = await gateway.decide(batch_of(clean_rows(5)))
            assert kinds(decisions) == {"Deferred": 3, "Refused": 2}
            assert [d.outcome for d in decisions[3:]] == [Refused(Reason.UNAVAILABLE)] * 2
            assert await waiting(gateway) == 3
            swap(gateway, gateway.loaded.artifacts.models["primary"])
            assert kinds(await gateway.decide(batch_of(clean_rows(5), name="n")))["Served"] == 5

    run(main)


def test_a_full_review_queue_refuses_what_needs_a_person_and_nothing_else(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(letters(tmp_path, FULL_RATE, ("capacity: *", "capacity: 1"))) as gateway:
            assert kinds(await gateway.decide(batch_of(outlier_rows(1)))) == {"Deferred": 1}
            strange = await gateway.decide(batch_of(outlier_rows(6)[1:], name="o"))
            assert [d.outcome for d in strange] == [Refused(Reason.UNAVAILABLE)] * 5
            assert kinds(await gateway.decide(batch_of(clean_rows(20), name="c")))["Served"] >= 18

    run(main)


def test_a_review_store_that_is_gone_refuses_what_needs_a_person_and_nothing_else(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(letters(tmp_path, FULL_RATE)) as gateway:
            assert isinstance(gateway.review, QueuedReview)
            gateway.review.store.close()
            strange = await gateway.decide(batch_of(outlier_rows(3)))
            assert [d.outcome for d in strange] == [Refused(Reason.UNAVAILABLE)] * 3
            assert kinds(await gateway.decide(batch_of(clean_rows(20), name="c")))["Served"] >= 18

    run(main)


def test_without_a_review_queue_what_a_guard_stops_is_an_abstention(tmp_path: Path) -> None:
    folder = letters(tmp_path, FULL_RATE)
    path = folder / "gateway.yaml"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith("review:")))

    async def main() -> None:
        async with opened(folder) as gateway:
            assert gateway.review is None
            strange = await gateway.decide(batch_of(outlier_rows(3)))
            assert [d.outcome for d in strange] == [Refused(Reason.ABSTAINED)] * 3
        assert not (folder / "var" / "review.db").exists()

    run(main)


def test_callers_with_short_deadlines_do_not_open_the_models_circuit(tmp_path: Path) -> None:
    folder = letters(tmp_path, FULL_RATE)

    class Slow:
        """A model that takes a while, all of which it is given."""

        def __init__(self, inner: Predictor) -> None:
            self.inner, self.begun, self.finished = inner, 0, 0

        async def predict(self, inputs: Tensors, /) -> Tensors:
            self.begun += 1
            await asyncio.sleep(0.05)
            self.finished += 1
            return await self.inner.predict(inputs)

    async def main() -> None:
        async with opened(folder) as gateway:
            for rung in (0, 1):
                breaker = predictor_of(gateway, rung)
                assert isinstance(breaker, Breaker)
                breaker._predictor = Slow(breaker._predictor)
            primary = gateway.loaded.breakers["primary"]._predictor
            assert isinstance(primary, Slow)
            for i in range(12):
                decisions = await gateway.decide(batch_of(clean_rows(1), within_s=0.01, name=f"h{i}"))
                assert decisions[0].outcome == Refused(Reason.DEADLINE)
            assert {b.state for b in gateway.loaded.breakers.values()} == {BreakerState.CLOSED}
            decisions = await gateway.decide(batch_of(clean_rows(1)))
            assert isinstance(decisions[0].outcome, Served)
            assert primary.finished == primary.begun > 1, "no pass was cut off at its caller's deadline"

    run(main)


def test_the_breaker_opens_lets_one_probe_through_and_closes_again(tmp_path: Path) -> None:
    now_s = [1000.0]

    async def main() -> None:
        async with opened(letters(tmp_path, FULL_RATE)) as gateway:
            model = Switch(gateway.loaded.artifacts.models["primary"], broken=True)
            breaker = Breaker(model, failures=5, reset_s=5.0, clock=lambda: now_s[0])
            swap(gateway, breaker)
            x = clean_rows(1)

            async def one(name: str) -> Decision:
                (decision,) = await gateway.decide(batch_of(x, name=name))
                return decision

            for i in range(5):
                assert not isinstance((await one(f"f{i}")).outcome, Served)
            assert (breaker.state, len(model.asked)) == (BreakerState.OPEN, 5)
            for i in range(5):
                decision = await one(f"o{i}")
                assert not isinstance(decision.outcome, Served)
                said = [f.error for f in decision.findings if f.stage == "primary"]
                assert all(CircuitOpen.__name__ in str(error) for error in said)
            assert len(model.asked) == 5, "an open breaker calls no model"
            now_s[0] += 5.1
            assert not isinstance((await one("probe")).outcome, Served)
            assert (breaker.state, len(model.asked)) == (BreakerState.OPEN, 6)
            model.broken = False
            assert not isinstance((await one("waits")).outcome, Served)
            now_s[0] += 5.1
            assert isinstance((await one("back")).outcome, Served)
            assert (breaker.state, len(model.asked)) == (BreakerState.CLOSED, 7)

    run(main)


def test_the_breakers_in_force_are_those_that_the_rungs_ask(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(letters(tmp_path, FULL_RATE)) as gateway:
            gateway.loaded.breakers["primary"].isolate()
            assert "Served" not in kinds(await gateway.decide(batch_of(clean_rows(5))))
            gateway.loaded.breakers["primary"].restore()
            assert kinds(await gateway.decide(batch_of(clean_rows(5), name="b")))["Served"] == 5

    run(main)


# ---------------------------------------------------------------- health


def test_health_decides_one_row_without_charge_review_or_record(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(letters(tmp_path, ("per_s: *, burst: *", "per_s: 1, burst: 1"))) as gateway:
            for _ in range(5):
                assert await gateway.healthy()
            assert await waiting(gateway) == 0
            assert b"gateway_rows" not in gateway.telemetry.prometheus()
            assert "Refused" not in kinds(await gateway.decide(batch_of(clean_rows(1), "canary")))
        assert not list((tmp_path / "letters" / "var").glob("decisions-*"))

    run(main)


@pytest.mark.parametrize("how", ["raises", "hangs", "is not a number"])
def test_a_replica_with_a_broken_primary_still_decides(tmp_path: Path, how: str) -> None:
    async def main() -> None:
        async with opened(letters(tmp_path, QUICK_PRIMARY)) as gateway:
            swap(gateway, broken_primary(gateway, how))
            assert await gateway.healthy()

    run(main)


def test_a_replica_that_cannot_decide_in_time_is_not_healthy(tmp_path: Path) -> None:
    class Blocks:
        async def predict(self, inputs: Tensors, /) -> Tensors:
            time.sleep(0.6)  # noqa: ASYNC251 (the event loop itself stands still)
            return {}

    async def main() -> None:
        async with opened(letters(tmp_path, patient=False)) as gateway:
            await gateway.healthy()
            swap(gateway, Blocks())
            assert not await gateway.healthy()

    run(main)


# ---------------------------------------------------------------- beginning and end


def threads() -> set[threading.Thread]:
    return set(threading.enumerate())


def test_closing_leaves_no_thread_and_no_task(tmp_path: Path) -> None:
    async def main() -> None:
        before = threads()
        async with opened(letters(tmp_path)) as gateway:
            await gateway.decide(batch_of(clean_rows(3)))
            assert len(threads()) > len(before)
        assert threads() == before
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main)
    gc.collect()


def test_closing_soon_after_a_reload_leaves_no_thread_of_the_old_models(tmp_path: Path) -> None:
    folder = letters(tmp_path)

    async def main() -> None:
        before = threads()
        async with opened(folder) as gateway:
            edit(folder, ('version: "1"', 'version: "2"'))
            assert await gateway.reload()
        assert threads() == before

    run(main)


def test_what_a_reload_replaced_is_forgotten_once_no_row_can_need_it(tmp_path: Path) -> None:
    """A gateway that is reloaded every hour must not hold every model it ever had."""
    folder = letters(tmp_path, patient=False)

    async def main() -> None:
        async with opened(folder) as gateway:
            old = weakref.ref(gateway.loaded.artifacts.models["primary"])
            edit(folder, ('version: "1"', 'version: "2"'))
            assert await gateway.reload()
            for _ in range(8):
                await asyncio.sleep(0.4)
                gc.collect()
                if old() is None:
                    return
            raise AssertionError("three seconds later the old model is still held")

    run(main)


def test_a_reload_ends_only_the_models_whose_own_deadline_has_passed(tmp_path: Path) -> None:
    """Rows of a patient policy may still need its models after a hasty one came and went."""
    folder = letters(tmp_path, ("deadline_s: *", "deadline_s: 20"), patient=False)

    async def main() -> None:
        async with opened(folder) as gateway:
            model = gateway.loaded.artifacts.models["primary"]
            edit(folder, ("deadline_s: *", "deadline_s: 0.5"))
            assert await gateway.reload()
            edit(folder, ('version: "1"', 'version: "2"'))
            assert await gateway.reload()
            await asyncio.sleep(1.3)
            assert "probabilities" in await model.predict(gateway.loaded.artifacts.kept.first(1))

    run(main)


def test_closing_finishes_what_was_taken(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(letters(tmp_path, FULL_RATE)) as gateway:
            x = clean_rows(20)
            tasks = [asyncio.create_task(gateway.decide(batch_of(x[i : i + 1]))) for i in range(20)]
            await asyncio.sleep(0)
        assert "Refused" not in kinds([(await task)[0] for task in tasks])

    run(main)


def test_after_closing_a_row_is_refused_not_an_error(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(letters(tmp_path)) as gateway:
            pass
        decisions = await gateway.decide(batch_of(clean_rows(2)))
        assert [d.outcome for d in decisions] == [Refused(Reason.UNAVAILABLE)] * 2

    run(main)


@pytest.mark.parametrize("begin", [True, False], ids=["just started", "never started"])
def test_closing_writes_what_was_recorded(tmp_path: Path, begin: bool) -> None:
    folder = letters(tmp_path)

    async def main() -> None:
        gateway = Gateway.open(folder)
        if begin:
            gateway.start()
        gateway.record(record_of(Decision("d", Refused(Reason.ABSTAINED))))
        await gateway.close()

    run(main)
    (path,) = (folder / "var").glob("decisions-*.jsonl")
    assert [orjson.loads(line)["id"] for line in path.read_bytes().splitlines()] == ["d"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.mkdir(parents=True),
        lambda path: (path.parent.mkdir(), path.write_text("not a database, but long enough to be one" * 99)),
        lambda path: path.parent.write_text(""),
    ],
    ids=["a folder", "a text", "a file for the folder"],
)
def test_a_review_store_that_cannot_be_used_refuses_to_start(
    tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    folder = letters(tmp_path)
    spoil(folder / "var" / "review.db")
    with pytest.raises(PolicyError) as caught:
        Gateway.open(folder)
    (problem,) = caught.value.problems
    assert problem.field == "review.store"
    assert "review.db" in (folder / "gateway.yaml").read_text().splitlines()[problem.line - 1]


def test_a_start_that_fails_leaves_no_thread(tmp_path: Path) -> None:
    folder = letters(tmp_path)
    (folder / "certificate.json").unlink()
    before = threads()
    with pytest.raises(ArtifactError):
        Gateway.open(folder)
    gc.collect()
    for thread in threads() - before:
        thread.join(2)
    assert threads() == before


def test_tiers_are_what_the_policy_says_and_two_digits_where_it_says_nothing(tmp_path: Path) -> None:
    tiers = "disclosure: {anonymous: {rounded: 3}, trusted: full, few: {top: 2}, bare: label}"

    async def main() -> None:
        change = ("disclosure: {anonymous: {rounded: 2}, trusted: full}", tiers)
        async with opened(letters(tmp_path, change)) as gateway:
            tier = gateway.loaded.tier
            assert [tier(name) for name in ("anonymous", "trusted", "few", "bare")] == [
                Rounded(3),
                Full(),
                Top(2),
                Label(),
            ]
            assert tier("somebody") == Rounded(2)

    run(main)


def test_every_deferral_has_its_case_and_every_case_its_deferral(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(letters(tmp_path, FULL_RATE)) as gateway:
            assert isinstance(gateway.review, QueuedReview)
            decisions = await gateway.decide(batch_of(outlier_rows(20), "ada"))
            tickets = [d.outcome.ticket for d in decisions if isinstance(d.outcome, Deferred)]
            for ticket in tickets:
                record = await gateway.review.store.find(ticket)
                assert record is not None
                assert (record.principal, orjson.loads(record.why)["reason"]) == ("ada", "abstained")
            assert await waiting(gateway) == len(tickets) > 0

    run(main)
