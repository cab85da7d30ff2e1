"""What a request gets of which some rows are answered and some withheld, as the deployment chooses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.decision import Decision, Deferred, Degraded, Outcome, Reason, Refused, Served
from gateway.protocol.answers import Answer, NoAnswer, build_answer
from gateway.protocol.contract import RequestedOutput
from gateway.protocol.disclosure import Full, Label, Rounded, Tier, Top
from gateway.protocol.infer_request import InferRequest
from tests.support.wire_parts import Array, contract_of, same_bits, spec_of

REFUSING = contract_of(
    spec_of("FP32"),
    outputs=[
        spec_of("FP32", (None, 3), "p"),
        spec_of("BF16", (None, 3), "half"),
        spec_of("INT16", (None,), "n"),
        spec_of("BYTES", (None,), "t"),
    ],
)
MARKING = replace(REFUSING, withheld_rows="mark")
TIERS = [Full(), Rounded(2), Top(1), Label()]


def values(seed: int) -> dict[str, Array]:
    p = np.random.default_rng(seed).dirichlet([1, 1, 1], 1).astype(np.float32)
    half = np.array([[0.25, 0.5, 0.125]], np.float32)
    return {"p": p, "half": half, "n": np.array([seed], np.int16), "t": np.array([b"x"], object)}


SERVED, DEGRADED = Served(values(1), "primary"), Degraded(values(2), "small", Reason.ABSTAINED)
DEFERRED, ABSTAINED = Deferred("T.1", Reason.ABSTAINED), Refused(Reason.ABSTAINED)
BUSY = Refused(Reason.UNAVAILABLE, 7.0)


def build(contract: Any, outcomes: Sequence[Outcome], tier: Tier = Full(), *more: str) -> Answer | NoAnswer:
    names = ("p", "half", "n", "t", *more)
    outputs = tuple(RequestedOutput(name, True) for name in names)
    request = InferRequest(None, {}, len(outcomes), outputs, wants_row_outcome=bool(more))
    return build_answer(
        contract, request, [Decision(f"d.{i}", one, ()) for i, one in enumerate(outcomes)], tier
    )


def test_a_deployment_that_marks_answers_a_batch_with_withheld_rows_and_says_how_each_ended() -> None:
    answer = build(MARKING, [SERVED, DEFERRED, ABSTAINED, DEGRADED])
    assert isinstance(answer, Answer)
    assert answer.row_outcomes == ("served", "deferred", "refused", "degraded")
    assert answer.withheld is not None
    assert answer.withheld.tolist() == [False, True, True, False]
    assert answer.urls == ("/reviews/T.1",)
    assert (answer.ending.outcome, answer.ending.by) == ("refused", "primary,review,none,small")
    assert same_bits(answer.outputs["p"][[0, 3]], np.concatenate([values(1)["p"], values(2)["p"]]))
    assert np.isnan(answer.outputs["p"][1:3]).all()
    assert np.isnan(answer.outputs["half"][1:3]).all()
    assert answer.outputs["n"].tolist() == [1, -32768, -32768, 2]
    assert answer.outputs["t"].tolist() == [b"x", b"", b"", b"x"]


def test_without_the_choice_the_same_batch_ends_as_its_worst_row() -> None:
    answer = build(REFUSING, [SERVED, DEFERRED, ABSTAINED, DEGRADED])
    assert answer == NoAnswer(ABSTAINED, ("/reviews/T.1",))


@pytest.mark.parametrize("outcomes", [[DEFERRED], [ABSTAINED], [BUSY], [DEFERRED, BUSY], [ABSTAINED] * 8])
def test_a_request_whose_every_row_is_withheld_ends_as_its_worst_row_under_either_choice(
    outcomes: list[Outcome],
) -> None:
    """A caller that is refused for its rate or for want of capacity must see the status and Retry-After."""
    assert isinstance(build(MARKING, outcomes), NoAnswer)
    assert build(MARKING, outcomes) == build(REFUSING, outcomes)


def test_an_answer_to_a_batch_without_withheld_rows_says_so_only_where_the_deployment_marks() -> None:
    for contract, said in ((MARKING, ("served", "degraded")), (REFUSING, ())):
        answer = build(contract, [SERVED, DEGRADED])
        assert isinstance(answer, Answer)
        assert (answer.row_outcomes, answer.withheld, answer.urls) == (said, None, ())


def test_a_client_that_asks_for_the_row_outcome_gets_it_as_an_output_too() -> None:
    batches: list[list[Outcome]] = [[SERVED, ABSTAINED], [ABSTAINED, DEFERRED]]
    for outcomes in batches:
        marked, asked = (build(c, outcomes, Full(), "fs_row_outcome") for c in (MARKING, REFUSING))
        assert isinstance(marked, Answer)
        assert isinstance(asked, Answer)
        told = [name.decode() for name in marked.outputs["fs_row_outcome"]]
        assert (
            list(marked.row_outcomes) == told == [name.decode() for name in asked.outputs["fs_row_outcome"]]
        )
        assert asked.row_outcomes == ()


@pytest.mark.parametrize("tier", TIERS, ids=str)
def test_a_tier_changes_answered_rows_as_it_does_without_withheld_ones(tier: Tier) -> None:
    mixed, alone = (
        build(MARKING, [DEFERRED, SERVED, ABSTAINED, DEGRADED], tier),
        build(MARKING, [SERVED, DEGRADED], tier),
    )
    assert isinstance(mixed, Answer)
    assert isinstance(alone, Answer)
    for name, array in alone.outputs.items():
        assert same_bits(mixed.outputs[name][[1, 3]], array)
    for name in ("p", "half"):
        assert np.isnan(mixed.outputs[name][[0, 2]]).all()


def test_an_answer_that_breaks_the_contract_is_not_marked_but_not_sent() -> None:
    broken = Served({**values(1), "p": np.zeros((1, 4), np.float32)}, "primary")
    assert build(MARKING, [SERVED, broken, ABSTAINED]) == NoAnswer(Refused(Reason.UNAVAILABLE))


kinds = st.sampled_from([SERVED, DEGRADED, DEFERRED, ABSTAINED, BUSY])


@given(st.lists(kinds, min_size=1, max_size=8))
def test_no_row_is_blank_that_is_said_to_be_answered_and_none_is_filled_that_is_not(
    outcomes: list[Outcome],
) -> None:
    answer = build(MARKING, outcomes)
    answered = [isinstance(one, (Served, Degraded)) for one in outcomes]
    if not any(answered):
        assert isinstance(answer, NoAnswer)
        return
    assert isinstance(answer, Answer)
    assert [said in ("served", "degraded") for said in answer.row_outcomes] == answered
    assert (~np.isnan(answer.outputs["p"]).any(axis=1)).tolist() == answered
    assert len(answer.urls) == sum(isinstance(one, Deferred) for one in outcomes)
