"""Callers read their own decisions and reviews, and no others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fallbacks.review.cases import WAITING, CaseRecord
from gateway.access.callers import Caller
from gateway.access.lookup_rate import BURST
from gateway.core.decision import Refused
from gateway.core.record import RequestRecord
from gateway.http import lookup_routes
from gateway.serving import decisions
from gateway.serving.data_plane import RequestRejected
from gateway.serving.replicas import PeerReplicas, PeerReply
from gateway.serving.review import QueuedReview
from gateway.serving.review_answers import answer_unsure, answer_with_label
from gateway.telemetry.serialize import serialize_record
from tests.support.data_planes import (
    PlaneFixture,
    mixed,
    plane_of,
    whole_plane,
)
from tests.support.deployments import (
    FULL_RATE,
    batch_of,
    clean_rows,
    key_for,
    letters,
    opened,
    outlier_rows,
    run,
)
from tests.support.several import named


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


@pytest.mark.parametrize("kind", ["decisions", "reviews"])
def test_a_caller_that_looks_up_too_often_is_told_when_to_come_back_and_others_are_not(
    tmp_path: Path, kind: str
) -> None:
    folder = letters(tmp_path, FULL_RATE)
    with plane_of(folder, ada=key_for(folder, "ada"), bob=key_for(folder, "bob")) as plane:

        async def main() -> None:
            asked = await plane.ada.infer(plane.strange[:1])
            path = f"/{kind}/{asked.parameters['fs_decision_id']}"
            replies = [await plane.ada.get(path) for _ in range(3 * BURST)]
            assert [one.status for one in replies[:BURST]] == [200] * BURST
            refused = [one for one in replies if one.status == 429]
            assert refused
            for one in refused:
                assert one.outcome == (429, "refused", "rate_limited")
                assert int(one.headers["retry-after"]) >= 1
            assert (await plane.client(plane.keys["bob"]).get(path)).status == 404
            assert (await plane.ada.infer(clean_rows(1))).status == 200, "only look-ups are limited"

        plane.run(main)


def test_addresses_without_a_key_share_one_limit_of_look_ups(tmp_path: Path) -> None:
    folder = letters(tmp_path, FULL_RATE)
    with plane_of(folder, ada=key_for(folder, "ada")) as plane:

        def look_up(address: int) -> None:
            plane.handler.plane.charge_lookup(Caller(f"anonymous@127.0.0.{address}"))

        for i in range(BURST):
            look_up(i)
        with pytest.raises(RequestRejected) as rejected:
            look_up(250)
        assert isinstance(rejected.value.end, Refused)
        plane.handler.plane.charge_lookup(Caller("ada"))


def test_an_id_of_another_caller_takes_the_steps_of_an_unknown_one(
    plane: PlaneFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the time that a reply takes would tell which ids there are."""

    async def main() -> None:
        asked = await plane.ada.infer(plane.strange[:1])
        id_ = asked.parameters["fs_decision_id"]
        assert isinstance(plane.gateway.review, QueuedReview)
        steps: list[str] = []
        serialize, ask = serialize_record, PeerReplicas.ask

        def seen_serialize(record: RequestRecord) -> list[bytes]:
            steps.append("serialize")
            return serialize(record)

        async def seen_ask(peers: PeerReplicas, method: str, path: str) -> list[PeerReply]:
            steps.append(path.replace(id_, "ID").replace("0" * 24, "ID"))
            return await ask(peers, method, path)

        monkeypatch.setattr(decisions, "serialize_record", seen_serialize)
        monkeypatch.setattr(PeerReplicas, "ask", seen_ask)
        bob = plane.client(plane.keys["bob"])
        for other in (id_, "0" * 24):
            assert (await bob.get(f"/decisions/{other}")).status == 404
        assert steps == ["/decisions/ID?principal=bob"] * 2
        assert (await plane.ada.get(f"/decisions/{id_}")).status == 200
        assert steps[2:] == ["serialize"]

    plane.run(main)


def test_a_review_is_looked_up_in_the_queue_of_every_deployment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = named(tmp_path, "first"), named(tmp_path, "second")

    async def main() -> None:
        async with opened(first) as one, opened(second) as two:
            asked: list[str] = []
            for gateway in (one, two):
                assert isinstance(gateway.review, QueuedReview)
                find, name = gateway.review.store.find, gateway.name

                async def seen(
                    id_: str, find: Callable[[str], Any] = find, name: str = name
                ) -> CaseRecord | None:
                    asked.append(name)
                    found: CaseRecord | None = await find(id_)
                    return found

                monkeypatch.setattr(gateway.review.store, "find", seen)
            await one.decide(batch_of(outlier_rows(20), who="ada"))
            assert isinstance(one.review, QueuedReview)
            known = (await one.review.store.list_cases(WAITING, 1))[0].id
            found = await lookup_routes._find_case([one, two], known, "ada")
            assert found is not None
            assert (found[0], found[1].id) == (one, known)
            assert await lookup_routes._find_case([one, two], known, "bob") is None
            assert await lookup_routes._find_case([one, two], "unknown", "ada") is None
            assert asked == ["first", "second"] * 3

    run(main)
