"""The data plane as a client sees it: over a loopback socket, on a real deployment of real models."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from gateway.core.batch import Batch
from gateway.core.deadline import now_s
from gateway.core.decision import Decision, Verdict
from gateway.serving.review_answers import answer_unsure, answer_with_label
from gateway.serving.waits import LONGEST_WAIT_S, preferred_wait_s
from tests.support.data_planes import (
    PlaneFixture,
    Rows,
    mixed,
    plane_of,
    request_of,
    stamped,
    whole_plane,
)
from tests.support.deployments import (
    FULL_RATE,
    Hangs,
    NotANumber,
    Raises,
    key_for,
    letters,
    predictor_of,
    swap,
)


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlaneFixture]:
    with whole_plane(tmp_path_factory) as made:
        yield made


@pytest.fixture(scope="module")
def truth(plane: PlaneFixture) -> Callable[[Rows], Rows]:
    """What onnxruntime itself says of each row alone."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    path = plane.gateway.folder / "primary.onnx"
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda x: np.concatenate(
        [session.run(["probabilities"], {"attributes": x[i : i + 1]})[0] for i in range(len(x))]
    )


# ---------------------------------------------------------------- answers


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
def test_a_trusted_caller_gets_the_models_answer_bit_for_bit(
    plane: PlaneFixture, truth: Callable[[Rows], Rows], binary: bool
) -> None:
    async def main() -> None:
        for i in range(20):
            x = plane.good[i : i + 1]
            reply = stamped(await plane.ada.infer(x, binary=binary))
            assert reply.outcome == (200, "served", "ok")
            assert reply.tensor().tobytes() == truth(x).tobytes()
            assert reply.parameters["fs_served_by"] == "primary"
            assert reply.parameters["fs_policy"] == plane.gateway.loaded.tag
            assert reply.parameters["fs_mode"] == "enforce"

    plane.run(main)


def test_json_and_binary_answers_are_the_same_bits_in_the_form_that_was_asked(plane: PlaneFixture) -> None:
    async def main() -> None:
        as_json, as_binary = (
            await plane.ada.infer(plane.good[:1]),
            await plane.ada.infer(plane.good[:1], binary=True),
        )
        assert as_json.headers["content-type"] == "application/json"
        assert as_binary.headers["content-type"] == "application/octet-stream"
        assert "inference-header-content-length" not in as_json.headers
        assert as_json.tensor().tobytes() == as_binary.tensor().tobytes()

    plane.run(main)


def test_a_raw_request_is_one_tensor_and_gets_every_output_in_binary(plane: PlaneFixture) -> None:
    async def main() -> None:
        x = plane.good[:1]
        raw = await plane.ada.post(x.tobytes(), {"Inference-Header-Content-Length": "0"})
        assert raw.tensor().tobytes() == (await plane.ada.infer(x)).tensor().tobytes()
        assert "inference-header-content-length" in raw.headers

    plane.run(main)


def test_an_anonymous_caller_gets_two_digits_and_the_same_argmax(
    plane: PlaneFixture, truth: Callable[[Rows], Rows]
) -> None:
    async def main() -> None:
        x = plane.good[:30]
        for binary in (False, True):
            shown = (await plane.anonymous.infer(x, binary=binary)).tensor()
            exact = truth(x)
            assert (shown.argmax(axis=1) == exact.argmax(axis=1)).all()
            assert np.abs(shown - exact).max() <= 0.0151
            assert np.abs(shown * 100 - np.rint(shown * 100)).max() < 1e-4

    plane.run(main)


def test_an_output_that_is_not_exposed_cannot_be_seen_or_requested(plane: PlaneFixture) -> None:
    async def main() -> None:
        reply = await plane.ada.infer(plane.good[:1])
        assert [output["name"] for output in reply.json["outputs"]] == ["probabilities"]
        for hidden in ("logits", "features"):
            asked = await plane.ada.infer(plane.good[:1], outputs=[{"name": hidden}])
            assert asked.status == 400
            assert "outputs[0].name" in asked.json["error"]
        about = await plane.ada.get("/v2/models/letters")
        assert b"logits" not in about.body
        assert b"features" not in about.body

    plane.run(main)


def test_a_caller_gets_the_requested_outputs_in_order_and_form(plane: PlaneFixture) -> None:
    async def main() -> None:
        outputs = [
            {"name": "fs_row_outcome"},
            {"name": "probabilities", "parameters": {"classification": 2}},
        ]
        reply = await plane.ada.infer(plane.good[:2], outputs=outputs)
        first, second = reply.json["outputs"]
        assert (first["name"], first["datatype"], first["data"]) == (
            "fs_row_outcome",
            "BYTES",
            ["served"] * 2,
        )
        assert (second["datatype"], second["shape"]) == ("BYTES", [2, 2])
        best = (await plane.ada.infer(plane.good[:1])).tensor().argmax()
        label = plane.gateway.loaded.policy.labels[best]
        assert second["data"][0].endswith(f":{best}:{label}")

    plane.run(main)


@pytest.mark.parametrize("identity", ["mine", "", "é☃", "x" * 1000])
def test_the_id_is_echoed_however_the_request_ends(plane: PlaneFixture, identity: str) -> None:
    async def main() -> None:
        ends = set()
        for x in (plane.good[:1], plane.strange[:1]):
            reply = await plane.ada.infer(x, id=identity)
            assert reply.json["id"] == identity
            ends.add(reply.status)
        with plane.spoiled(Raises(), Raises(), review=False):
            reply = await plane.ada.infer(plane.good[:1], id=identity)
            assert reply.json["id"] == identity
            ends.add(reply.status)
        assert ends == {200, 422, 503}

    plane.run(main)


def test_without_an_id_none_is_invented(plane: PlaneFixture) -> None:
    async def main() -> None:
        assert "id" not in (await plane.ada.infer(plane.good[:1])).json
        assert "id" not in (await plane.ada.infer(plane.good[:1], id=None)).json

    plane.run(main)


def test_every_request_has_a_decision_id_of_its_own(plane: PlaneFixture) -> None:
    async def main() -> None:
        ids = [(await plane.ada.infer(plane.good[:1])).parameters["fs_decision_id"] for _ in range(20)]
        ids += [(await plane.anonymous.get("/nowhere")).parameters["fs_decision_id"] for _ in range(20)]
        assert len(set(ids)) == 40

    plane.run(main)


def test_callers_at_the_same_time_get_their_own_answers(
    plane: PlaneFixture, truth: Callable[[Rows], Rows]
) -> None:
    async def main() -> None:
        x = plane.good[:80]
        replies = await asyncio.gather(
            *(plane.ada.infer(x[i : i + 1], id=str(i), binary=bool(i % 2)) for i in range(80))
        )
        assert [reply.json["id"] for reply in replies] == [str(i) for i in range(80)]
        got = np.concatenate([reply.tensor() for reply in replies])
        assert np.abs(got - truth(x)).max() < 1e-5

    plane.run(main)


# ---------------------------------------------------------------- terminal states


def test_degraded_is_a_200_that_names_the_rung(plane: PlaneFixture) -> None:
    async def main() -> None:
        with plane.spoiled(Raises()):
            reply = stamped(await plane.ada.infer(plane.easy[:1]))
        assert reply.outcome == (200, "degraded", "unavailable")
        assert reply.parameters["fs_served_by"] == "small"
        small = plane.gateway.loaded.artifacts.models["small"].run({"attributes": plane.easy[:1]})
        assert reply.tensor().tobytes() == small["probabilities"].tobytes()

    plane.run(main)


def test_deferred_is_a_422_that_says_where_the_answer_will_be(plane: PlaneFixture) -> None:
    async def main() -> None:
        reply = await plane.ada.infer(plane.strange[:1])
        assert reply.outcome == (422, "deferred", "abstained")
        assert reply.json["review_url"] == f"/reviews/{reply.parameters['fs_decision_id']}"
        assert reply.parameters["fs_served_by"] == "review"
        assert "outputs" not in reply.json
        assert "location" not in reply.headers

    plane.run(main)


@pytest.mark.parametrize(
    "headers",
    [
        [("Prefer", "respond-async")],
        [("prefer", "handling=lenient, respond-async")],
        [("Prefer", "respond-async"), ("Prefer", "wait=0")],
        [("Prefer", "Respond-Async")],
    ],
    ids=["alone", "among others", "in a header of its own", "in capitals"],
)
def test_deferred_is_a_202_only_with_prefer_respond_async(
    plane: PlaneFixture, headers: list[tuple[str, str]]
) -> None:
    async def main() -> None:
        reply = await plane.ada.infer(plane.strange[:1], headers)
        assert reply.outcome == (202, "deferred", "abstained")
        assert reply.headers["location"] == reply.json["review_url"]
        assert reply.headers["preference-applied"] == "respond-async"

    plane.run(main)


def test_prefer_wait_gets_the_reviewers_answer_as_a_200(plane: PlaneFixture) -> None:
    async def main() -> None:
        await plane.answer_all()
        waiting = asyncio.create_task(plane.ada.infer(plane.strange[:1], {"Prefer": "wait=20"}, id="mine"))
        case_id = await plane.new_case()
        await plane.answer(case_id, answer_with_label(7))
        reply = stamped(await waiting)
        assert reply.outcome == (200, "degraded", "abstained")
        assert reply.parameters["fs_served_by"] == "review"
        assert reply.parameters["fs_decision_id"] == case_id
        assert reply.json["id"] == "mine"
        assert reply.tensor().tolist() == [np.eye(26)[7].tolist()]

    plane.run(main)


def test_prefer_wait_is_refused_if_the_reviewer_is_not_sure(plane: PlaneFixture) -> None:
    async def main() -> None:
        await plane.answer_all()
        waiting = asyncio.create_task(plane.ada.infer(plane.strange[:1], {"Prefer": "wait=20"}))
        await plane.answer(await plane.new_case(), answer_unsure())
        assert (await waiting).outcome == (422, "refused", "abstained")

    plane.run(main)


def test_prefer_wait_without_a_review_gets_the_deferral_after_the_wait(plane: PlaneFixture) -> None:
    async def main() -> None:
        start_s = time.perf_counter()
        reply = await plane.ada.infer(plane.strange[:1], {"Prefer": "wait=1, respond-async"})
        assert 0.9 < time.perf_counter() - start_s < 3
        assert reply.outcome == (202, "deferred", "abstained")

    plane.run(main)


def test_prefer_wait_is_at_most_30_seconds(plane: PlaneFixture) -> None:
    assert LONGEST_WAIT_S <= 30
    assert preferred_wait_s("wait=86400") == 30
    assert preferred_wait_s("wait=" + "9" * 5000) == 30


@pytest.mark.parametrize(
    "prefer",
    ["wait=-1", "wait=soon", "wait=", "wait", "wait=1e9", "wait=\u00b2", "wait=\u00b9\u00b2", "=", ",;,", ""],
)
def test_a_preference_that_means_nothing_is_ignored(plane: PlaneFixture, prefer: str) -> None:
    async def main() -> None:
        start_s = time.perf_counter()
        reply = await plane.ada.infer(plane.strange[:1], {"Prefer": prefer})
        assert reply.outcome == (422, "deferred", "abstained")
        assert time.perf_counter() - start_s < 0.9

    plane.run(main)


def test_a_rate_limited_request_is_a_429_with_retry_after(plane: PlaneFixture) -> None:
    async def main() -> None:
        slow = plane.client(plane.keys["slow"])
        replies = [await slow.infer(plane.good[:1]) for _ in range(3)]
        assert replies[0].status == 200
        assert [reply.outcome for reply in replies[1:]] == [(429, "refused", "rate_limited")] * 2
        assert 900 <= int(replies[1].headers["retry-after"]) <= 1000
        assert replies[1].parameters["fs_served_by"] == "none"

    plane.run(main)


def test_the_body_of_a_caller_that_is_over_its_rate_is_not_read_and_the_refusal_is_recorded(
    plane: PlaneFixture,
) -> None:
    async def main() -> None:
        slow = plane.client(plane.keys["slow"])
        served = await slow.infer(plane.good[:1])
        unread = await slow.post(b"this is no JSON")
        assert unread.outcome == (429, "refused", "rate_limited")
        assert 900 <= int(unread.headers["retry-after"]) <= 1000
        assert unread.headers["x-failsafe-policy"] == served.headers["x-failsafe-policy"]
        record = plane.gateway.audit.find(unread.headers["x-failsafe-decision-id"])
        assert record is not None
        (decision,) = record.decisions
        assert [(one.stage, one.verdict) for one in decision.findings] == [("rate", Verdict.REFUSE)]
        assert (await plane.ada.post(b"this is no JSON")).status == 400

    plane.run(main)


def test_without_review_what_a_guard_stops_is_a_422_without_retry_after(plane: PlaneFixture) -> None:
    async def main() -> None:
        with plane.spoiled(review=False):
            reply = await plane.ada.infer(plane.strange[:1])
        assert reply.outcome == (422, "refused", "abstained")
        assert "retry-after" not in reply.headers

    plane.run(main)


def test_without_models_and_review_a_request_is_a_503_with_retry_after(plane: PlaneFixture) -> None:
    async def main() -> None:
        with plane.spoiled(Raises(), Raises(), review=False):
            reply = await plane.ada.infer(plane.good[:1])
        assert reply.outcome == (503, "refused", "unavailable")
        assert int(reply.headers["retry-after"]) >= 1

    plane.run(main)


@pytest.mark.parametrize(
    ("headers", "members"),
    [
        ({"x-request-timeout-seconds": "0.000001"}, {}),
        ({}, {"parameters": {"timeout": 1}}),
        ({"x-request-timeout-seconds": "9"}, {"parameters": {"timeout": 1}}),
        ({"x-request-timeout-seconds": "1e-300"}, {}),
    ],
    ids=["by header", "by parameter", "by the shorter of both", "by next to nothing"],
)
def test_a_deadline_that_passes_is_a_504(
    plane: PlaneFixture, headers: dict[str, str], members: dict[str, Any]
) -> None:
    async def main() -> None:
        reply = await plane.ada.infer(plane.good[:1], headers, **members)
        assert reply.outcome == (504, "refused", "deadline")
        assert reply.parameters["fs_policy"] == plane.gateway.loaded.tag

    plane.run(main)


@pytest.mark.parametrize(
    ("header", "timeout_us", "time_limit_s"),
    [
        (None, None, 10.0),
        ("3600", None, 10.0),
        ("inf", None, 10.0),
        (None, 3_600_000_000, 10.0),
        (None, 2**63, 10.0),
        (None, 0, 10.0),
        ("2.5", None, 2.5),
        ("2.5", 1_500_000, 1.5),
        ("0.5", 1_500_000, 0.5),
    ],
)
def test_a_deadline_can_only_be_shortened(
    plane: PlaneFixture,
    monkeypatch: pytest.MonkeyPatch,
    header: str | None,
    timeout_us: int | None,
    time_limit_s: float,
) -> None:
    seen: list[float] = []
    decide = plane.gateway.decide

    async def spy(batch: Batch, priority: int) -> list[Decision]:
        seen.append(batch.until_s - now_s())
        return await decide(batch, priority)

    monkeypatch.setattr(plane.gateway, "decide", spy)
    assert plane.gateway.loaded.policy.deadline_s == 10.0

    async def main() -> None:
        headers = {} if header is None else {"x-request-timeout-seconds": header}
        parameters: dict[str, Any] = {} if timeout_us is None else {"parameters": {"timeout": timeout_us}}
        body, _ = request_of(plane.good[:1], **parameters)
        assert (await plane.ada.post(body, headers)).status == 200

    plane.run(main)
    assert seen == [pytest.approx(time_limit_s, abs=0.3)]


def test_everything_that_hangs_ends_by_the_policys_deadline(tmp_path: Path) -> None:
    folder = letters(tmp_path, FULL_RATE, patient=False)
    with plane_of(folder, ada=key_for(folder, "ada")) as plane:
        swap(plane.gateway, Hangs(), 0)
        swap(plane.gateway, Hangs(), 1)

        async def main() -> None:
            start_s = time.perf_counter()
            reply = await plane.ada.infer(plane.good[:1], {"x-request-timeout-seconds": "60"})
            assert time.perf_counter() - start_s < 1.0
            assert reply.status in (422, 503, 504)

        plane.run(main)


# ---------------------------------------------------------------- batches


def test_a_batch_in_which_every_row_is_answered_is_a_200(
    plane: PlaneFixture, truth: Callable[[Rows], Rows]
) -> None:
    async def main() -> None:
        others = [row for row in plane.good if (row != plane.easy[0]).any()]
        x = np.stack([*others[:3], plane.easy[0]])
        with plane.spoiled(NotANumber(predictor_of(plane.gateway), plane.easy[0])):
            reply = stamped(await plane.ada.infer(x))
        assert reply.outcome == (200, "degraded", "unavailable")
        assert reply.parameters["fs_served_by"] == "primary,small"
        assert np.abs(reply.tensor()[:3] - truth(x[:3])).max() < 1e-5

    plane.run(main)


def test_a_batch_with_a_row_that_is_not_answered_ends_as_its_worst_row_without_outputs(
    plane: PlaneFixture,
) -> None:
    async def main() -> None:
        reply = await plane.ada.infer(mixed(plane))
        assert reply.outcome == (422, "deferred", "abstained")
        assert "outputs" not in reply.json
        id_ = reply.parameters["fs_decision_id"]
        assert reply.json["review_url"] == reply.parameters["fs_review_urls"] == f"/reviews/{id_}.1"
        with plane.spoiled(review=False):
            assert (await plane.ada.infer(mixed(plane))).outcome == (422, "refused", "abstained")

    plane.run(main)


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
def test_a_request_for_the_row_outcome_gets_the_answered_rows(
    plane: PlaneFixture, truth: Callable[[Rows], Rows], binary: bool
) -> None:
    async def main() -> None:
        x = mixed(plane)
        outputs = [
            {"name": "probabilities"},
            {"name": "fs_row_outcome", "parameters": {"binary_data": False}},
        ]
        reply = stamped(await plane.ada.infer(x, binary=binary, outputs=outputs))
        assert reply.outcome == (200, "deferred", "abstained")
        assert reply.json["outputs"][1]["data"] == ["served", "deferred", "served"]
        if binary:
            shown = reply.tensor()
            assert np.isnan(shown[1]).all()
        else:
            flat = reply.json["outputs"][0]["data"]
            assert flat[26:52] == [None] * 26
            shown = np.array([value or 0.0 for value in flat], np.float32).reshape(3, 26)
        assert np.abs(shown[[0, 2]] - truth(x[[0, 2]])).max() < 1e-5
        assert reply.parameters["fs_review_urls"].endswith(".1")

    plane.run(main)


def test_a_batch_whose_every_row_is_withheld_still_says_how_each_ended(plane: PlaneFixture) -> None:
    async def main() -> None:
        outputs = [{"name": "fs_row_outcome"}, {"name": "probabilities"}]
        reply = await plane.ada.infer(plane.strange[:2], outputs=outputs)
        assert reply.status == 200
        assert reply.json["outputs"][0]["data"] == ["deferred"] * 2
        assert reply.json["outputs"][1]["data"] == [None] * 52

    plane.run(main)
