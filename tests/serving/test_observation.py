"""A guard that is only observed until a moment, on real models and a clock that the test sets."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gateway.core.decision import Decision, Verdict
from gateway.deployment.deployment import Deployment
from gateway.serving.gateway import Gateway
from gateway.serving.host import Host
from tests.policy.test_observation import observing
from tests.support.deployments import FULL_RATE, batch_of, clean_rows, edit, letters, outlier_rows, run

UNTIL = datetime(2027, 1, 31, tzinfo=UTC)


@dataclass
class Clock:
    """The system's clock, as a test sets it."""

    now: datetime = UNTIL - timedelta(days=1)

    def __call__(self) -> datetime:
        return self.now


@asynccontextmanager
async def opened_at(folder: Path, clock: Clock) -> AsyncIterator[Gateway]:
    deployment = Deployment.read(folder)
    gateway = Gateway.of(deployment, replace(Host.of(deployment), now=clock))
    gateway.start()
    try:
        yield gateway
    finally:
        await gateway.close()


async def ends(gateway: Gateway, n: int = 10, name: str = "r") -> Counter[str]:
    decisions = await gateway.decide(batch_of(outlier_rows(n), name=name))
    return Counter(type(decision.outcome).__name__ for decision in decisions)


def said_by(decisions: list[Decision], stage: str) -> list[tuple[Verdict, bool]]:
    found = [finding for one in decisions for finding in one.findings if finding.stage == stage]
    return [(finding.verdict, finding.enforced) for finding in found]


def test_it_is_measured_and_stops_nothing_before_and_is_enforced_from_then_on_without_a_reload(
    tmp_path: Path,
) -> None:
    folder, clock = observing(letters(tmp_path, FULL_RATE), "2027-01-31"), Clock()

    async def main() -> None:
        async with opened_at(folder, clock) as gateway:
            tag, models = gateway.loaded.tag, gateway.loaded.artifacts.models
            decisions = await gateway.decide(batch_of(outlier_rows(10)))
            assert said_by(decisions, "ood").count((Verdict.DEFER, False)) >= 9
            assert (await ends(gateway, name="a"))["Deferred"] <= 5, "the check of the primary still acts"
            clock.now = UNTIL
            assert gateway.enforce_due() > 0
            assert (await ends(gateway, name="b"))["Deferred"] >= 9
            assert (gateway.loaded.tag, gateway.loaded.artifacts.models) == (tag, models)
            assert gateway.loaded.observed == frozenset()

    run(main)


def test_a_running_gateway_notices_the_moment_by_itself(tmp_path: Path) -> None:
    folder, clock = observing(letters(tmp_path), "2027-01-31"), Clock(UNTIL - timedelta(seconds=0.2))

    async def main() -> None:
        async with opened_at(folder, clock) as gateway:
            assert gateway.loaded.observed == {"ood"}
            clock.now = UNTIL
            for _ in range(1000):
                if not gateway.loaded.observed:
                    return
                await asyncio.sleep(0.05)
            raise AssertionError("it is not enforced")

    run(main)


def test_a_clock_that_is_set_back_makes_no_guard_observed_again(tmp_path: Path) -> None:
    folder, clock = observing(letters(tmp_path), "2027-01-31"), Clock(UNTIL)

    async def main() -> None:
        async with opened_at(folder, clock) as gateway:
            assert gateway.loaded.observed == frozenset()
            before = gateway.loaded
            clock.now = UNTIL - timedelta(days=30)
            gateway.enforce_due()
            assert gateway.loaded is before

    run(main)


def test_the_end_of_an_observation_enforces_nothing_while_the_policy_only_observes(tmp_path: Path) -> None:
    folder, clock = observing(letters(tmp_path, FULL_RATE), "2027-01-31"), Clock()
    edit(folder, ('version: "1"', 'version: "1"\nmode: observe'))

    async def main() -> None:
        async with opened_at(folder, clock) as gateway:
            clock.now = UNTIL
            gateway.enforce_due()
            assert gateway.loaded.observed == frozenset()
            assert await ends(gateway) == {"Served": 10}

    run(main)


def test_a_limit_that_is_only_observed_refuses_nothing_and_then_refuses(tmp_path: Path) -> None:
    folder = letters(tmp_path, ("per_s: *, burst: *", "per_s: 0.001, burst: 2"))
    observing(folder, "2027-01-31", "rate")
    clock = Clock()

    async def main() -> None:
        async with opened_at(folder, clock) as gateway:
            decisions = await gateway.decide(batch_of(clean_rows(5)))
            assert "Refused" not in {type(one.outcome).__name__ for one in decisions}
            assert said_by(decisions, "rate").count((Verdict.REFUSE, False)) == 3
            clock.now = UNTIL
            gateway.enforce_due()
            decisions = await gateway.decide(batch_of(clean_rows(5), name="b"))
            assert {type(one.outcome).__name__ for one in decisions} == {"Refused"}, "what was counted stays"

    run(main)
