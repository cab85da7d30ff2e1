"""A deployment that marks withheld rows, over gRPC: every client gets the answered rows of its batch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from tests.support.data_planes import LIMITS, SHORT_BUDGET, PlaneFixture, keys_for, limited_plane, mixed
from tests.support.deployments import FULL_RATE, letters
from tests.support.grpc_client import ROW_OUTCOME, grpc_client


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlaneFixture]:
    mark = ("serving: {", "serving: {withheld_rows: mark, ")
    folder = letters(tmp_path_factory.mktemp("marked"), FULL_RATE, SHORT_BUDGET, mark)
    with limited_plane(folder, LIMITS, keys_for(folder)) as made:
        yield made


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
def test_a_client_that_asks_for_nothing_gets_the_answered_rows_and_how_each_ended(
    plane: PlaneFixture, raw: bool
) -> None:
    async def main() -> None:
        x = mixed(plane)
        async with grpc_client(plane) as client:
            alone = (await client.infer(x[[0, 2]], raw)).tensor()
            result = await client.infer(x, raw)
        assert result.outcome == ("OK", "deferred", "abstained", "primary,review")
        response, shown = result.response, result.tensor()
        assert response.parameters["fs_row_outcomes"].string_param == "served,deferred,served"
        assert [output.name for output in response.outputs] == ["probabilities"]
        assert np.isnan(shown[1]).all()
        assert shown[[0, 2]].tobytes() == alone.tobytes()
        url = response.parameters["fs_review_urls"].string_param
        assert url == result.trailers["x-failsafe-review-urls"]
        assert (await plane.ada.get(url)).json["state"] == "waiting"

    plane.run(main)


def test_the_row_outcome_can_be_asked_for_as_an_output_too(plane: PlaneFixture) -> None:
    async def main() -> None:
        async with grpc_client(plane) as client:
            result = await client.infer(mixed(plane), False, outputs=[ROW_OUTCOME])
        held = list(result.response.outputs[0].contents.bytes_contents)
        said = result.response.parameters["fs_row_outcomes"].string_param
        assert b",".join(held).decode() == said == "served,deferred,served"

    plane.run(main)


@pytest.mark.parametrize("rows", [1, 2])
def test_a_request_whose_every_row_is_withheld_is_an_error(plane: PlaneFixture, rows: int) -> None:
    async def main() -> None:
        async with grpc_client(plane) as client:
            result = await client.infer(plane.strange[:rows])
        assert result.outcome == ("FAILED_PRECONDITION", "deferred", "abstained", "review")
        assert len(result.trailers["x-failsafe-review-urls"].split(",")) == rows

    plane.run(main)


def test_the_largest_batch_is_told_in_the_message_and_in_no_trailer(plane: PlaneFixture) -> None:
    async def main() -> None:
        x = np.concatenate([plane.strange[:1], np.repeat(plane.good[:1], 127, axis=0)])
        async with grpc_client(plane) as client:
            result = await client.infer(x)
        said = result.response.parameters["fs_row_outcomes"].string_param
        assert said.split(",") == ["deferred", *["served"] * 127]
        assert "x-failsafe-row-outcomes" not in result.trailers

    plane.run(main)
