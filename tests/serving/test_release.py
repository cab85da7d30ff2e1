"""When an answer is released: the points of a grid, the clock that keeps them, and a policy that has one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import uvloop

from gateway.access.callers import add_key
from gateway.serving.release import HASHED_BYTES, SPREAD, ReleaseClock, next_point_s, shift_of
from tests.support.data_planes import plane_of
from tests.support.deployments import FULL_RATE, key_for, letters

STEP_S = 0.010
STEP_MS = 400
GRID = ("serving: {", f"serving: {{release_grid_ms: {STEP_MS}, ")
START_S = 7.0


def released_after(work_s: float, deadline_s: float = 1.0) -> float:
    """Seconds until a request is released whose work takes this long."""
    return next_point_s(START_S, START_S + work_s, STEP_S, START_S + deadline_s) - START_S


@pytest.mark.parametrize("work_s", [0.0, 0.0001, 0.004, 0.0099])
def test_work_that_ends_within_one_step_is_released_at_its_end(work_s: float) -> None:
    assert released_after(work_s) == pytest.approx(STEP_S)


@pytest.mark.parametrize(("work_s", "steps"), [(0.011, 2), (0.0199, 2), (0.0301, 4)])
def test_longer_work_is_released_at_the_next_whole_step(work_s: float, steps: int) -> None:
    assert released_after(work_s) == pytest.approx(steps * STEP_S)


@pytest.mark.parametrize("work_s", [0.001, 0.014, 0.0249, 0.03])
def test_no_answer_waits_beyond_the_deadline(work_s: float) -> None:
    assert released_after(work_s, deadline_s=0.025) <= 0.025 + 1e-9


INPUTS = (np.arange(6, dtype=np.float32).reshape(1, 6), np.array([["a word"]], object))
ANOTHER_NUMBER = (np.array([[0, 1, 2, 3, 4, 6]], np.float32), INPUTS[1])
ANOTHER_TEXT = (INPUTS[0], np.array([["a ward"]], object))
SECRET = b"0123456789abcdef"


def test_the_same_inputs_are_shifted_alike_and_others_or_under_another_secret_differently() -> None:
    again = (INPUTS[0].copy(), np.array([["a " + "word"]], object))
    strided = (np.repeat(INPUTS[0], 2, axis=1)[:, ::2], INPUTS[1])
    own = shift_of(INPUTS, SECRET)
    assert own == shift_of(again, SECRET) == shift_of(strided, SECRET)
    others = [(ANOTHER_NUMBER, SECRET), (ANOTHER_TEXT, SECRET), (INPUTS, SECRET[::-1])]
    assert len({own, *(shift_of(inputs, secret) for inputs, secret in others)}) == 4


def test_shifts_cover_a_tenth_of_a_step_evenly_for_small_inputs_and_large_ones() -> None:
    small = [shift_of((np.array([i]),), SECRET) for i in range(2000)]
    large = [shift_of((np.zeros(HASHED_BYTES + 1, np.uint8),), SECRET) for _ in range(200)]
    for shifts in (small, large):
        assert min(shifts) >= 0
        assert max(shifts) <= SPREAD
        tenths = np.histogram(shifts, bins=10, range=(0, SPREAD))[0] / len(shifts)
        assert tenths.min() > 0.01
        assert tenths.max() < 0.25


@pytest.fixture
def clock() -> Iterator[ReleaseClock]:
    made = ReleaseClock()
    yield made
    made.close()


def ends_of(clock: ReleaseClock, *waits_s: float) -> list[tuple[float, float]]:
    """When each of these sleeps was due and ended, in the order of their ends."""
    ends = []

    async def sleep(due_s: float) -> None:
        await clock.sleep_until(due_s)
        ends.append((due_s, time.monotonic()))

    async def main() -> None:
        start_s = time.monotonic()
        await asyncio.gather(*(sleep(start_s + wait_s) for wait_s in waits_s))

    uvloop.run(main())
    return ends


def test_requests_are_released_in_the_order_of_their_points_and_none_before_its_own(
    clock: ReleaseClock,
) -> None:
    ends = ends_of(clock, 0.05, 0.0317, 0.0, 0.0804, 0.0803)
    assert [due_s for due_s, _ in ends] == sorted(due_s for due_s, _ in ends)
    assert all(ended_s >= due_s for due_s, ended_s in ends)


def test_a_clock_serves_a_second_event_loop_and_requests_after_a_pause(clock: ReleaseClock) -> None:
    for _ in range(2):
        ((due_s, ended_s),) = ends_of(clock, 0.02)
        assert ended_s >= due_s


def test_a_cancelled_request_delays_no_other(clock: ReleaseClock) -> None:
    async def main() -> None:
        now_s = time.monotonic()
        cancelled = asyncio.create_task(clock.sleep_until(now_s + 0.02))
        other = asyncio.create_task(clock.sleep_until(now_s + 0.04))
        await asyncio.sleep(0)
        cancelled.cancel()
        await other
        assert cancelled.cancelled()

    uvloop.run(main())


def test_a_closed_clock_releases_what_waits_and_lets_nothing_wait(clock: ReleaseClock) -> None:
    async def main() -> None:
        far_s = time.monotonic() + 1e6
        waiting = asyncio.create_task(clock.sleep_until(far_s))
        await asyncio.sleep(0)
        clock.close()
        await waiting
        await clock.sleep_until(far_s)
        clock.close()

    uvloop.run(main())


def test_served_and_deferred_rows_are_released_on_the_grid_of_the_policy(tmp_path: Path) -> None:
    folder = letters(tmp_path, FULL_RATE, GRID)
    with plane_of(folder, ada=key_for(folder, "ada")) as plane:

        async def main() -> None:
            for rows, status in ((plane.good, 200), (plane.strange, 422)):
                start_s = time.monotonic()
                assert (await plane.ada.infer(rows[:1])).status == status
                assert time.monotonic() - start_s >= STEP_MS / 1e3

        plane.run(main)


def test_statistics_count_the_time_until_release(tmp_path: Path) -> None:
    folder = letters(tmp_path, FULL_RATE, GRID)
    with plane_of(folder, ada=key_for(folder, "ada")) as plane:

        async def main() -> None:
            def times() -> dict[str, dict[str, int]]:
                found: dict[str, dict[str, int]] = plane.gateway.statistics.as_dict()["inference_stats"]
                return found

            before = times()
            await plane.ada.infer(plane.good[:1])
            await plane.ada.infer(plane.strange[:1])
            for end in ("success", "fail"):
                assert times()[end]["count"] - before[end]["count"] == 1
                assert times()[end]["ns"] - before[end]["ns"] >= STEP_MS * 1e6

        plane.run(main)


def test_a_key_that_may_read_the_findings_is_answered_at_once(tmp_path: Path) -> None:
    folder = letters(tmp_path, FULL_RATE, GRID)
    scopes = frozenset({"infer", "explain"})
    explaining = add_key(folder / "var", "eve", tier="trusted", per_s=100, scopes=scopes)
    with plane_of(folder, ada=key_for(folder, "ada"), eve=explaining) as plane:

        async def main() -> None:
            before = plane.gateway.statistics.as_dict()["inference_stats"]["success"]["ns"]
            await plane.client(explaining).infer(plane.good[:1])
            after = plane.gateway.statistics.as_dict()["inference_stats"]["success"]["ns"]
            assert after - before < STEP_MS * 1e6

        plane.run(main)
