"""The review store's time passes evenly: no step of the system's clock ends a case early, or loses it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallbacks.review.cases import CaseState
from fallbacks.review.quotas import PutResult
from fallbacks.review.sqlite import steady_clock
from fallbacks.review.sqlite.steady_clock import (
    LONGEST_PAUSE_S,
    SLEW,
    Clocks,
    StoredTime,
    time_now,
)
from fallbacks.review.sqlite.store import SqliteReviewStore
from gateway.serving.review import EXPIRED_RETENTION_S, QueuedReview
from tests.support.review_cases import a_case

DAY_S = 86_400.0
WALL_S = 1_800_000_000.0


@dataclass
class Machine:
    """The clocks of a machine, moved by hand."""

    boot: str = "first"
    running_s: float = 500.0
    wall_s: float = WALL_S

    def clocks(self) -> Clocks:
        return Clocks(self.boot, lambda: self.running_s, lambda: self.wall_s)

    def pass_(self, seconds: float) -> None:
        self.running_s += seconds
        self.wall_s += seconds

    def start_again(self, off_s: float) -> None:
        self.boot, self.running_s = self.boot + "'", 3.0
        self.wall_s += off_s


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(steady_clock.Clocks, "of_this_machine", made.clocks)
    return made


@contextmanager
def opened(folder: Path) -> Iterator[SqliteReviewStore]:
    store = SqliteReviewStore.open(folder / "review.db", capacity=10)
    try:
        yield store
    finally:
        store.close()


def now_of(store: SqliteReviewStore) -> float:
    return store.now_s() - WALL_S


def sweep(store: SqliteReviewStore) -> None:
    """One round, as a gateway makes it every minute."""

    async def main() -> None:
        task = asyncio.create_task(QueuedReview(store, 3600.0).sweep())
        await asyncio.sleep(0.2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())


def test_a_clock_that_is_weeks_ahead_for_a_minute_loses_no_case(tmp_path: Path, machine: Machine) -> None:
    with opened(tmp_path) as store:
        cases = [a_case(f"{i}", WALL_S + 3600.0) for i in range(5)]
        assert asyncio.run(store.put(cases)) == [PutResult.STORED] * 5
        machine.wall_s += 40 * DAY_S
        for _ in range(3):
            machine.pass_(20.0)
            sweep(store)
        machine.wall_s -= 40 * DAY_S
        sweep(store)
        found = asyncio.run(store.find_all([f"{i}" for i in range(5)]))
        assert {one.state for one in found.values()} == {CaseState.OPEN}
        assert len(found) == 5
        assert asyncio.run(store.payload("0")) == b"x"
        assert now_of(store) == pytest.approx(60.0, abs=61 * SLEW)


@pytest.mark.parametrize("ahead_s", [40 * DAY_S, -40 * DAY_S])
def test_a_gateway_that_starts_while_the_clock_is_wrong_goes_on_from_the_store(
    tmp_path: Path, machine: Machine, ahead_s: float
) -> None:
    with opened(tmp_path) as store:
        asyncio.run(store.put([a_case("a", WALL_S + 3600.0)]))
    machine.pass_(100.0)
    machine.wall_s += ahead_s
    with opened(tmp_path) as store:
        assert now_of(store) == pytest.approx(100.0, abs=101 * SLEW)
        sweep(store)
        machine.pass_(3600.0 - 100.0 - 60.0)
        sweep(store)
        assert asyncio.run(store.find("a")).state is CaseState.OPEN  # type: ignore[union-attr]
        machine.pass_(120.0)
        assert asyncio.run(store.find("a")).state is CaseState.EXPIRED  # type: ignore[union-attr]
        machine.pass_(2 * max(EXPIRED_RETENTION_S))
        sweep(store)
        assert asyncio.run(store.find("a")) is None


def test_processes_that_share_a_store_have_one_time(tmp_path: Path, machine: Machine) -> None:
    with opened(tmp_path) as one:
        machine.wall_s += 7 * DAY_S
        machine.pass_(50.0)
        with opened(tmp_path) as other:
            machine.pass_(50.0)
            sweep(other)
            sweep(one)
            assert one.now_s() == other.now_s()
            assert now_of(one) == pytest.approx(100.0, abs=101 * SLEW)


@pytest.mark.parametrize(("off_s", "counted_s"), [(300.0, 300.0), (-5 * DAY_S, 0.0), (90 * DAY_S, DAY_S)])
def test_after_another_start_of_the_machine_a_day_at_most_has_passed(
    tmp_path: Path, machine: Machine, off_s: float, counted_s: float
) -> None:
    with opened(tmp_path) as store:
        assert now_of(store) == 0.0
    machine.start_again(off_s)
    with opened(tmp_path) as store:
        assert now_of(store) == counted_s


def test_a_corrected_clock_is_followed_in_the_end(tmp_path: Path, machine: Machine) -> None:
    with opened(tmp_path) as store:
        machine.wall_s += 60.0
        for _ in range(120):
            machine.pass_(60.0)
            sweep_time(store)
        assert store.now_s() == pytest.approx(machine.wall_s)


def sweep_time(store: SqliteReviewStore) -> None:
    asyncio.run(store.expire(0.0))


@given(st.lists(st.tuples(st.floats(0, 1e5), st.floats(-1e7, 1e7), st.booleans()), min_size=1, max_size=12))
def test_time_never_runs_backwards_nor_much_faster_than_it_passes(
    moves: list[tuple[float, float, bool]],
) -> None:
    machine = Machine()
    last = time_now(None, machine.clocks())
    for passed_s, step_s, starts_again in moves:
        if starts_again:
            machine.start_again(step_s)
        else:
            machine.pass_(passed_s)
            machine.wall_s += step_s
        now = time_now(last, machine.clocks())
        went_s = now.store_s - last.store_s
        if starts_again:
            assert 0.0 <= went_s <= LONGEST_PAUSE_S
        else:
            assert (1 - SLEW) * passed_s - 1e-3 <= went_s <= (1 + SLEW) * passed_s + 1e-3
        last = now


def test_a_machine_that_names_no_start_counts_by_its_wall_clock() -> None:
    last = StoredTime("", 900.0, 50.0, 1000.0)
    assert time_now(last, Clocks("", lambda: 0.0, lambda: 1600.0)).store_s == 650.0


def test_this_machine_has_a_start_and_a_clock_that_counts_from_it() -> None:
    clocks = Clocks.of_this_machine()
    assert clocks.boot
    assert 0 < clocks.running() < clocks.wall()
