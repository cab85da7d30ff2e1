"""Callers read their own decisions and reviews, and no others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gateway.serving.review import QueuedReview
from gateway.serving.review_answers import answer_unsure, answer_with_label
from tests.support.data_planes import (
    PlaneFixture,
    mixed,
    plane_of,
    whole_plane,
)
from tests.support.deployments import (
    FULL_RATE,
    key_for,
    letters,
)


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlaneFixture]:
    with whole_plane(tmp_path_factory) as made:
        yield made


def test_a_caller_can_read_how_a_request_ended_but_neither_scores_nor_guards(plane: PlaneFixture) -> None:
    async def main() -> None:
        asked = await plane.ada.infer(mixed(plane))
        reply = await plane.ada.get(f"/decisions/{asked.parameters['fs_decision_id']}")
        assert reply.status == 200
        document = reply.json
        assert document["policy"] == plane.gateway.loaded.tag
        assert document["mode"] == "enforce"
        id_ = asked.parameters["fs_decision_id"]
        ends = [(row["id"], row["outcome"], row["reason"], row["by"]) for row in document["rows"]]
        assert ends == [
            (f"{id_}.0", "served", "ok", "primary"),
            (f"{id_}.1", "deferred", "abstained", None),
            (f"{id_}.2", "served", "ok", "primary"),
        ]
        one = (await plane.ada.get(f"/decisions/{id_}.1")).json
        assert one["rows"] == document["rows"][1:2]
        for secret in (b"ood", b"score", b"rate", b"confidence"):
            assert secret not in reply.body

    plane.run(main)


def test_results_of_other_callers_and_unknown_ids_are_the_same_404(plane: PlaneFixture) -> None:
    async def main() -> None:
        asked = await plane.ada.infer(plane.strange[:1])
        id_ = asked.parameters["fs_decision_id"]
        bob = plane.client(plane.keys["bob"])
        for kind in ("decisions", "reviews"):
            assert (await plane.ada.get(f"/{kind}/{id_}")).status == 200
            document = set()
            for client, id_or_row in (
                (bob, id_),
                (plane.anonymous, id_),
                (bob, "0" * 24),
                (bob, id_ + ".0"),
                (bob, "*"),
            ):
                reply = await client.get(f"/{kind}/{id_or_row}")
                document.add((reply.status, reply.json["error"]))
            assert len(document) == 1
            assert document.pop()[0] == 404

    plane.run(main)


def test_a_review_can_be_polled_until_a_reviewer_has_answered(plane: PlaneFixture) -> None:
    async def main() -> None:
        asked = await plane.ada.infer(plane.strange[:1])
        url, id_ = asked.json["review_url"], asked.parameters["fs_decision_id"]
        waits = await plane.ada.get(url)
        assert (waits.status, waits.json["state"], waits.json["id"]) == (200, "waiting", id_)
        assert waits.json["expires"] > time.time()
        assert "answer" not in waits.json
        await plane.answer(id_, answer_with_label(3))
        reply = await plane.ada.get(url)
        assert reply.json["state"] == "decided"
        (output,) = reply.json["answer"]["outputs"]
        assert (output["name"], output["shape"]) == ("probabilities", [1, 26])
        assert output["data"] == np.eye(26)[3].tolist()
        assert reply.json["answer"]["parameters"]["fs_served_by"] == "review"
        assert b"ood" not in reply.body

    plane.run(main)


def test_a_row_of_a_batch_has_a_review_of_its_own(plane: PlaneFixture) -> None:
    async def main() -> None:
        asked = await plane.ada.infer(plane.strange[:2])
        urls = asked.parameters["fs_review_urls"].split(",")
        assert len(urls) == 2
        assert [(await plane.ada.get(url)).json["state"] for url in urls] == ["waiting"] * 2

    plane.run(main)


def test_a_reviewers_abstention_is_in_the_review(plane: PlaneFixture) -> None:
    async def main() -> None:
        asked = await plane.ada.infer(plane.strange[:1])
        await plane.answer(asked.parameters["fs_decision_id"], answer_unsure())
        document = (await plane.ada.get(asked.json["review_url"])).json
        assert document["state"] == "decided"
        assert document["answer"]["parameters"]["fs_reason"] == "abstained"
        assert "outputs" not in document["answer"]

    plane.run(main)


def test_a_review_label_without_a_class_is_no_500(plane: PlaneFixture) -> None:
    async def main() -> None:
        asked = await plane.ada.infer(plane.strange[:1])
        await plane.answer(asked.parameters["fs_decision_id"], answer_with_label(26))
        document = (await plane.ada.get(asked.json["review_url"])).json
        assert "outputs" not in document["answer"]

    plane.run(main)


def test_without_the_review_store_polling_is_a_503_and_waiting_a_deferral(
    tmp_path: Path,
) -> None:
    folder = letters(tmp_path, FULL_RATE)
    with plane_of(folder, ada=key_for(folder, "ada")) as plane:

        async def main() -> None:
            assert isinstance(plane.gateway.review, QueuedReview)
            asked = await plane.ada.infer(plane.strange[:1])
            waiting = asyncio.create_task(plane.ada.infer(plane.strange[:1], {"Prefer": "wait=2"}))
            await asyncio.sleep(0.25)
            plane.gateway.review.store.close()
            assert (await plane.ada.get(asked.json["review_url"])).status == 503
            assert (await waiting).outcome == (422, "deferred", "abstained")

        plane.run(main)
