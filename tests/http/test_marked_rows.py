"""A deployment that marks withheld rows, over HTTP: every client gets the answered rows of its batch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import numpy as np
import pytest

from gateway.serving.review_answers import answer_with_label
from tests.support.data_planes import (
    LIMITS,
    SHORT_BUDGET,
    PlaneFixture,
    keys_for,
    limited_plane,
    mixed,
    plane_of,
    stamped,
)
from tests.support.deployments import FULL_RATE, edit, letters
from tests.support.markdown import table

MARK = ("serving: {", "serving: {withheld_rows: mark, ")
ENDS = "served,deferred,served"


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlaneFixture]:
    folder = letters(tmp_path_factory.mktemp("marked"), FULL_RATE, SHORT_BUDGET, MARK)
    with limited_plane(folder, LIMITS, keys_for(folder)) as made:
        yield made


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
def test_a_client_that_asks_for_nothing_gets_the_answered_rows_and_how_each_ended(
    plane: PlaneFixture, binary: bool
) -> None:
    async def main() -> None:
        x = mixed(plane)
        alone = (await plane.ada.infer(x[[0, 2]], binary=True)).tensor()
        reply = stamped(await plane.ada.infer(x, binary=binary))
        assert reply.outcome == (200, "deferred", "abstained")
        assert reply.parameters["fs_row_outcomes"] == ENDS
        assert reply.parameters["fs_served_by"] == "primary,review"
        listed = {row[0].strip("`") for row in table("docs/wire.md", "parameter in the body")}
        assert set(reply.parameters) == listed
        assert [output["name"] for output in reply.json["outputs"]] == ["probabilities"]
        if not binary:
            flat = reply.json["outputs"][0]["data"]
            assert flat[26:52] == [None] * 26
            assert None not in flat[:26] + flat[52:]
        shown = reply.tensor()  # numpy reads null as NaN, as tritonclient does
        assert np.isnan(shown[1]).all()
        assert shown[[0, 2]].tobytes() == alone.tobytes()

    plane.run(main)


def test_the_review_of_a_marked_row_can_be_polled_and_answered(plane: PlaneFixture) -> None:
    async def main() -> None:
        reply = await plane.ada.infer(mixed(plane), binary=True)
        url = reply.parameters["fs_review_urls"]
        assert url == f"/reviews/{reply.parameters['fs_decision_id']}.1"
        assert (await plane.ada.get(url)).json["state"] == "waiting"
        await plane.answer(url.removeprefix("/reviews/"), answer_with_label(3))
        polled = (await plane.ada.get(url)).json
        assert (polled["state"], polled["answer"]["parameters"]["fs_outcome"]) == ("decided", "degraded")
        assert np.argmax(polled["answer"]["outputs"][0]["data"]) == 3

    plane.run(main)


@pytest.mark.parametrize("rows", [1, 2])
def test_a_request_whose_every_row_is_withheld_is_an_error_that_says_where_the_answers_will_be(
    plane: PlaneFixture, rows: int
) -> None:
    async def main() -> None:
        reply = await plane.ada.infer(plane.strange[:rows])
        assert reply.outcome == (422, "deferred", "abstained")
        assert len(reply.parameters["fs_review_urls"].split(",")) == rows
        assert "outputs" not in reply.json
        later = await plane.ada.infer(plane.strange[:rows], {"prefer": "respond-async"})
        assert (later.status, later.headers["location"]) == (202, later.json["review_url"])

    plane.run(main)


def test_a_caller_who_is_too_fast_still_sees_429_and_retry_after(plane: PlaneFixture) -> None:
    async def main() -> None:
        for _ in range(2):
            reply = await plane.client(plane.keys["slow"]).infer(plane.good[:2])
        assert reply.outcome == (429, "refused", "rate_limited")
        assert int(reply.headers["retry-after"]) >= 1

    plane.run(main)


def test_a_batch_without_a_withheld_row_says_so(plane: PlaneFixture) -> None:
    async def main() -> None:
        for x, ends in ((plane.good[:3], "served,served,served"), (plane.good[:1], "served")):
            assert (await plane.ada.infer(x)).parameters["fs_row_outcomes"] == ends

    plane.run(main)


def test_the_largest_batch_is_told_in_the_body_and_in_no_header(plane: PlaneFixture) -> None:
    async def main() -> None:
        x = np.concatenate([plane.strange[:1], np.repeat(plane.good[:1], 127, axis=0)])
        reply = await plane.ada.infer(x, binary=True)
        assert reply.parameters["fs_row_outcomes"].split(",") == ["deferred", *["served"] * 127]
        assert not any("row-outcomes" in name for name in reply.headers)

    plane.run(main)


def test_the_row_outcome_classification_and_a_tier_work_as_they_do_with_the_default(
    plane: PlaneFixture,
) -> None:
    async def main() -> None:
        top: dict[str, Any] = {"name": "probabilities", "parameters": {"classification": 2}}
        reply = await plane.ada.infer(mixed(plane), outputs=[{"name": "fs_row_outcome"}, top])
        ends, best = (output["data"] for output in reply.json["outputs"])
        assert ",".join(ends) == reply.parameters["fs_row_outcomes"] == ENDS
        assert best[2:4] == [None, None]
        assert all(text.count(":") == 2 for text in best[:2] + best[4:])
        rounded = (await plane.anonymous.infer(mixed(plane), binary=True)).tensor()
        assert np.isnan(rounded[1]).all()
        shown = rounded[[0, 2]] * 100
        assert np.abs(shown - np.rint(shown)).max() < 1e-4

    plane.run(main)


def test_metadata_and_the_reply_are_what_the_document_says(plane: PlaneFixture) -> None:
    async def main() -> None:
        about = (await plane.ada.get("/v2/models/letters")).json
        assert about["parameters"] == {"withheld_rows": "mark"}
        document = (await plane.ada.get("/openapi.json")).json
        reply = (await plane.ada.infer(mixed(plane))).json
        for name, got in (("Model", about), ("InferReply", reply)):
            schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
            assert jsonschema_rs.Draft202012Validator(schema).is_valid(got)

    plane.run(main)


def test_a_reload_that_changes_the_choice_takes_effect_at_once(tmp_path: Path) -> None:
    folder = letters(tmp_path, FULL_RATE)
    with plane_of(folder, **keys_for(folder)) as plane:

        async def main() -> None:
            x = mixed(plane)
            chosen = ("refuse_request", 422), ("mark", 200), ("refuse_request", 422)
            for choice, status in chosen:
                about = (await plane.ada.get("/v2/models/letters")).json
                assert about["parameters"] == {"withheld_rows": choice}
                assert (await plane.ada.infer(x)).status == status
                edit(folder, MARK if choice == "refuse_request" else MARK[::-1])
                assert await plane.gateway.reload() is True

        plane.run(main)
