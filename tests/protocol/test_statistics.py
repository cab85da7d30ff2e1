"""What the statistics extension counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.data_planes import Client, plane_of
from tests.support.deployments import FULL_RATE, key_for, letters


async def statistics_of(client: Client, path: str) -> dict[str, Any]:
    (one,) = (await client.get(path)).json["model_stats"]
    return dict(one)


def test_answers_refusals_rows_and_passes_are_counted_and_their_time_is_not_divided(tmp_path: Path) -> None:
    folder = letters(tmp_path, FULL_RATE)
    with plane_of(folder, ada=key_for(folder, "ada")) as plane:

        async def main() -> None:
            paths = ["/v2/models/stats", "/v2/models/letters/stats", "/v2/models/letters/versions/1/stats"]
            before = await statistics_of(plane.ada, paths[0])
            await plane.ada.infer(plane.good[:3])
            await plane.ada.infer(plane.good[:1])
            await plane.ada.infer(plane.strange[:1])
            for path in paths:
                after = await statistics_of(plane.ada, path)
                assert (after["name"], after["version"]) == ("letters", "1")
                assert after["inference_count"] - before["inference_count"] == 4
                assert after["execution_count"] - before["execution_count"] == 3
                assert after["last_inference"] > before["last_inference"]
                ends, were = after["inference_stats"], before["inference_stats"]
                assert ends["success"]["count"] - were["success"]["count"] == 2
                assert ends["fail"]["count"] - were["fail"]["count"] == 1
                assert ends["compute_infer"]["ns"] == ends["success"]["ns"] > 0
                assert [ends[part]["ns"] for part in ("queue", "compute_input", "compute_output")] == [0] * 3
                for part in ("queue", "compute_input", "compute_infer", "compute_output"):
                    assert ends[part]["count"] == ends["success"]["count"]

        plane.run(main)


def test_another_models_statistics_are_not_found(tmp_path: Path) -> None:
    folder = letters(tmp_path, FULL_RATE)
    with plane_of(folder, ada=key_for(folder, "ada")) as plane:

        async def main() -> None:
            assert (await plane.ada.get("/v2/models/other/stats")).status == 404
            assert (await plane.ada.get("/v2/models/letters/versions/2/stats")).status == 404

        plane.run(main)
