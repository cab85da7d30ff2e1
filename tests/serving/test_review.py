"""Between the pipeline and the review store: a row becomes a case, a decided case becomes an outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from fallbacks.oip.payload import decode
from fallbacks.review.cases import WAITING, CaseRecord, CaseState
from fallbacks.review.open_store import open_store
from fallbacks.review.store import ReviewStore
from gateway.core.decision import Decision, Degraded, Finding, Reason, Refused, Verdict
from gateway.core.pipeline import ReviewRequest
from gateway.http.replies import reply_infer
from gateway.policy.review import ReviewPolicy
from gateway.protocol.contract import Contract, TensorSpec
from gateway.protocol.endings import BY_REVIEW, Stamp
from gateway.protocol.infer_request import InferRequest
from gateway.protocol.targets import Classes
from gateway.serving import review as serving_review
from gateway.serving.review import QueuedReview
from gateway.serving.review_answers import answer_unsure, answer_with_label, outcome_of
from tests.support.deployments import run

F4 = np.dtype(np.float32)
ROW = np.arange(16, dtype=np.float32)[None]
P = np.array([[0.05, 0.6, 0.0, 0.35]], np.float32)
CONTRACT = Contract(
    "letters",
    (TensorSpec("attributes", F4, (None, 16)),),
    (TensorSpec("probabilities", F4, (None, 4)),),
    8,
    "1",
    target=Classes(("A", "B", "C", "D")),
)
FINDINGS = (
    Finding("rate", 0.1, Verdict.ALLOW, True, 0.0),
    Finding("watched", 9.0, Verdict.REFUSE, False, 0.0),
    Finding("ood", 7.5, Verdict.DEFER, True, 0.0, form="input_only"),
    Finding("primary", None, Verdict.DEGRADE, True, 0.0, error="primary: broken"),
)


def review_request(
    name: str = "c", principal: str = "ada", suggestion: dict[str, Any] | None = None, **other: Any
) -> ReviewRequest:
    fields: dict[str, Any] = {
        "id": name,
        "principal": principal,
        "reason": Reason.ABSTAINED,
        "inputs": {"attributes": ROW},
        "findings": FINDINGS,
        "suggestion": {"probabilities": P} if suggestion is None else suggestion,
    }
    return ReviewRequest(**(fields | other))


class Clock:
    """The wall clock, moved by hand."""

    now_s = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now_s


@contextmanager
def opened(
    folder: Path, capacity: int = 100, expire_after_s: float = 60.0
) -> Iterator[tuple[QueuedReview, Clock]]:
    clock = Clock()
    store = open_store("sqlite:///review.db", folder, capacity=capacity, clock=clock)
    try:
        yield QueuedReview(store, expire_after_s), clock
    finally:
        store.close()


async def found(store: ReviewStore, case_id: str = "c") -> CaseRecord:
    record = await store.find(case_id)
    assert record is not None
    return record


def test_a_case_is_stored_with_what_a_reviewer_needs(tmp_path: Path) -> None:
    async def main() -> None:
        with opened(tmp_path) as (review, clock):
            assert await review.put([review_request()]) == [True]
            record = await found(review.store)
            assert (record.principal, record.state) == ("ada", CaseState.OPEN)
            assert record.created_s == clock.now_s
            assert record.expires_s == clock.now_s + 60
            payload = await review.store.payload("c")
            assert payload is not None
            assert {name: a.tobytes() for name, a in decode(payload).items()} == {"attributes": ROW.tobytes()}

    run(main)


def test_why_has_the_reason_the_rows_beginning_and_only_what_was_raised_and_enforced(tmp_path: Path) -> None:
    async def main() -> None:
        with opened(tmp_path) as (review, _):
            await review.put([review_request()])
            assert orjson.loads((await found(review.store)).why) == {
                "reason": "abstained",
                "brief": "attributes 0 1 2 3 4 5 … (16 numbers)",
                "raised": [
                    {"stage": "ood", "score": 7.5, "error": None, "form": "input_only"},
                    {"stage": "primary", "score": None, "error": "primary: broken", "form": "full"},
                ],
            }

    run(main)


@pytest.mark.parametrize(
    ("suggestion", "shown"),
    [
        ({"probabilities": P}, [[1, 0.6], [3, 0.35], [0, 0.05]]),
        ({"probabilities": np.array([[0.5, 0.5]], np.float32)}, [[0, 0.5], [1, 0.5]]),
        (
            {"value": P[:, 1:2], "lower": P[:, :1]},
            {"value": 0.6000000238418579, "lower": 0.05000000074505806},
        ),
        ({"label": np.array([3])}, {"label": 3}),
        ({"logits": P}, []),
        ({}, []),
    ],
)
def test_the_suggestion_is_stored_as_what_a_model_would_have_said(
    tmp_path: Path, suggestion: Any, shown: Any
) -> None:
    async def main() -> None:
        with opened(tmp_path) as (review, _):
            await review.put([review_request(suggestion=suggestion)])
            assert orjson.loads((await found(review.store)).model_view) == shown

    run(main)


def test_a_row_without_a_suggestion_is_stored_as_well(tmp_path: Path) -> None:
    async def main() -> None:
        with opened(tmp_path) as (review, _):
            assert await review.put([replace(review_request(), suggestion=None)]) == [True]
            assert (await found(review.store)).model_view == "[]"

    run(main)


def test_an_infinite_score_is_kept_as_none(tmp_path: Path) -> None:
    async def main() -> None:
        with opened(tmp_path) as (review, _):
            alarm = Finding("ood", float("inf"), Verdict.DEFER, True, 0.0)
            assert await review.put([review_request(findings=(alarm,))]) == [True]
            assert orjson.loads((await found(review.store)).why)["raised"][0]["score"] is None

    run(main)


def test_a_store_without_room_takes_the_first_in_order(tmp_path: Path) -> None:
    async def main() -> None:
        with opened(tmp_path, capacity=2) as (review, _):
            rows = [review_request(name, inputs={"attributes": ROW + i}) for i, name in enumerate("abcd")]
            assert await review.put(rows[:3]) == [True, True, False]
            assert await review.put(rows[3:]) == [False]
            assert await review.store.find("c") is None

    run(main)


def test_a_caller_over_its_share_is_refused_as_rate_limited_and_others_are_stored(tmp_path: Path) -> None:
    async def main() -> None:
        with opened(tmp_path, capacity=8) as (review, _):
            review.store.quotas = ReviewPolicy(
                store="sqlite:///r.db", capacity=8, expire_after_s=60, anonymous=3
            ).quotas

            def rows(who: str, n: int) -> list[ReviewRequest]:
                return [
                    review_request(f"{who}{i}", principal=who, inputs={"attributes": ROW + i})
                    for i in range(n)
                ]

            refused = Refused(Reason.RATE_LIMITED, 60.0)
            assert await review.put(rows("ada", 3)) == [True, True, refused]
            assert await review.put(rows("anonymous@127.0.0.1", 3)) == [True, True, refused]
            assert await review.put(rows("anonymous@127.0.0.2", 2)) == [True, refused]
            assert await review.put(rows("bob", 2)) == [True, True]
            assert await review.put(rows("eve", 2)) == [True, False], "8 of 8: the whole queue is full"

    run(main)


def test_rows_that_a_reviewer_could_not_tell_apart_are_one_case_of_their_caller(tmp_path: Path) -> None:
    async def main() -> None:
        with opened(tmp_path) as (review, _):
            other_findings = (Finding("ood", 9.75, Verdict.DEFER, True, 0.0),)
            same = [review_request("a"), review_request("b", findings=other_findings)]
            others = [
                review_request("another caller", principal="bob"),
                review_request("another row", inputs={"attributes": np.nextafter(ROW, np.float32(99))}),
                review_request("another reason", reason=Reason.UNAVAILABLE),
                review_request("another suggestion", suggestion={"probabilities": P[:, ::-1]}),
                replace(review_request("no suggestion"), suggestion=None),
            ]
            assert await review.put([*same, *others]) == [True] * 7
            waiting = await review.store.list_cases(WAITING, 99)
            assert sorted(record.id for record in waiting) == sorted(["a", *(one.id for one in others)])

    run(main)


async def decided(review: QueuedReview, answer: str, case_id: str = "c") -> CaseRecord:
    await review.put([review_request(case_id)])
    (claim,) = await review.store.claim("grace", 30)
    await review.store.resolve(case_id, claim.fence, "grace", answer)
    return await found(review.store, case_id)


def test_a_reviewers_label_is_an_answer_in_the_form_of_the_model(tmp_path: Path) -> None:
    async def main() -> None:
        with opened(tmp_path) as (review, _):
            outcome = outcome_of(await decided(review, answer_with_label(2)), CONTRACT, None)
            assert isinstance(outcome, Degraded)
            assert (outcome.by, outcome.reason) == (BY_REVIEW, Reason.ABSTAINED)
            array = outcome.output["probabilities"]
            assert (array.dtype, array.tolist()) == (F4, [[0, 0, 1, 0]])

    run(main)


def test_a_reviewer_who_cannot_tell_refuses_the_row(tmp_path: Path) -> None:
    async def main() -> None:
        with opened(tmp_path) as (review, _):
            assert outcome_of(await decided(review, answer_unsure()), CONTRACT, None) == Refused(
                Reason.ABSTAINED
            )

    run(main)


@pytest.mark.parametrize("label", [-1, 4, 1000])
def test_a_label_that_no_class_has_is_never_an_answer(tmp_path: Path, label: int) -> None:
    """A reload may have changed the classes since the reviewer answered."""

    async def main() -> None:
        with opened(tmp_path) as (review, _):
            outcome = outcome_of(await decided(review, answer_with_label(label)), CONTRACT, None)
            assert isinstance(outcome, Refused)

    run(main)


def test_a_case_that_waits_has_no_outcome_and_one_that_expired_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        with opened(tmp_path, expire_after_s=60) as (review, clock):
            await review.put([review_request()])
            assert outcome_of(await found(review.store), CONTRACT, None) is None
            await review.store.claim("grace", 30)
            assert outcome_of(await found(review.store), CONTRACT, None) is None
            clock.now_s += 61
            assert outcome_of(await found(review.store), CONTRACT, None) == Refused(Reason.UNAVAILABLE)

    run(main)


def test_a_reviewers_answer_makes_a_reply_like_any_other(tmp_path: Path) -> None:
    async def main() -> None:
        with opened(tmp_path) as (review, _):
            outcome = outcome_of(await decided(review, answer_with_label(3)), CONTRACT, None)
            assert outcome is not None
            asked = InferRequest("mine", {}, 1, CONTRACT.default_outputs[False])
            reply = reply_infer(CONTRACT, asked, [Decision("c", outcome)], Stamp("p", "enforce", "c"))
            body = orjson.loads(reply.body)
            assert (reply.status, body["id"]) == (200, "mine")
            assert body["outputs"][0]["data"] == [0, 0, 0, 1]
            assert body["parameters"]["fs_served_by"] == "review"

    run(main)


def test_sweep_marks_expired_cases_and_deletes_old_ones_and_survives_a_closed_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving_review, "SWEEP_EVERY_S", 0.01)

    async def main() -> None:
        with opened(tmp_path, expire_after_s=60) as (review, clock):
            await decided(review, answer_with_label(2), "answered")
            await review.put([review_request("late")])
            sweeping = asyncio.create_task(review.sweep())
            clock.now_s += 61
            await asyncio.sleep(0.1)
            assert (await found(review.store, "late")).state is CaseState.EXPIRED
            assert await review.store.payload("late") is None, "the row goes when the case expires"
            clock.now_s += serving_review.EXPIRED_RETENTION_S[0] - 2
            await asyncio.sleep(0.1)
            assert await review.store.find("late") is not None
            clock.now_s += 2
            await asyncio.sleep(0.1)
            assert await review.store.find("late") is None
            assert (await found(review.store, "answered")).answer is not None
            clock.now_s += serving_review.RETENTION_S
            await asyncio.sleep(0.1)
            for name in ("answered", "late"):
                assert await review.store.find(name) is None
                assert await review.store.payload(name) is None
            review.store.close()
            await asyncio.sleep(0.05)
            assert not sweeping.done(), "a closed store must not end the sweeps"
            sweeping.cancel()
            await asyncio.gather(sweeping, return_exceptions=True)

    run(main)
