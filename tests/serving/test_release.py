"""When an answer is released: the grid on a fake clock, and a served policy that has one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.access.callers import add_key
from gateway.serving.release import ReleaseGrid
from tests.support.core_parts import run
from tests.support.data_planes import plane_of
from tests.support.deployments import FULL_RATE, key_for, letters

STEP_S = 0.010
STEP_MS = 400
GRID = ("serving: {", f"serving: {{release_grid_ms: {STEP_MS}, ")


def released_after(work_s: float, deadline_s: float = 1.0) -> float:
    """Seconds of the fake clock until a request is released whose work takes this long."""

    async def main() -> float:
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        with ReleaseGrid(STEP_S, start_s + deadline_s) as grid:
            await asyncio.sleep(work_s)
            await grid.next_point()
            return loop.time() - start_s

    return run(main)


@pytest.mark.parametrize("work_s", [0.0001, 0.004, 0.0099])
def test_work_that_ends_within_one_step_is_released_at_its_end(work_s: float) -> None:
    assert released_after(work_s) == pytest.approx(STEP_S)


@pytest.mark.parametrize(("work_s", "steps"), [(0.011, 2), (0.0199, 2), (0.0301, 4)])
def test_longer_work_is_released_at_the_next_whole_step(work_s: float, steps: int) -> None:
    assert released_after(work_s) == pytest.approx(steps * STEP_S)


@pytest.mark.parametrize("work_s", [0.001, 0.014, 0.0249])
def test_no_answer_waits_beyond_the_deadline(work_s: float) -> None:
    assert released_after(work_s, deadline_s=0.025) <= 0.025 + 1e-9


def test_work_that_ends_after_the_deadline_does_not_wait() -> None:
    assert released_after(0.03, deadline_s=0.025) == pytest.approx(0.03)


def test_a_request_that_is_cancelled_leaves_no_timer() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(asyncio.CancelledError), ReleaseGrid(STEP_S, loop.time() + 1) as grid:
            raise asyncio.CancelledError
        assert grid._timer.cancelled()

    run(main)


def test_served_and_deferred_rows_are_released_on_the_grid_of_the_policy(tmp_path: Path) -> None:
    folder = letters(tmp_path, FULL_RATE, GRID)
    with plane_of(folder, ada=key_for(folder, "ada")) as plane:

        async def main() -> None:
            clock = asyncio.get_running_loop()
            for rows, status in ((plane.good, 200), (plane.strange, 422)):
                start_s = clock.time()
                assert (await plane.ada.infer(rows[:1])).status == status
                assert clock.time() - start_s >= STEP_MS / 1e3

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
