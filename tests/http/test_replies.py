"""How requests end on the wire: status, headers and body of every ending."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.core.decision import (
    Decision,
    Deferred,
    Degraded,
    Finding,
    Outcome,
    Reason,
    Refused,
    Served,
    Verdict,
    severity,
)
from gateway.core.errors import InvalidRequest, Problem
from gateway.http.replies import reply_infer, reply_unanswered
from gateway.listener.messages import Reply
from gateway.protocol.contract import RequestedOutput
from gateway.protocol.disclosure import Label, Rounded
from gateway.protocol.endings import (
    STATUSES,
    Deferral,
    Rejection,
    RequestEnd,
    Stamp,
    retry_after_s,
    status_of,
    worst_row,
)
from gateway.protocol.infer_request import InferRequest
from tests.support.wire_parts import Array, contract_of, headers_of, json_of, same_bits, spec_of, tensors_of

STAMP = Stamp("fashion@3#a1b2", "enforce", "01J-id")
CONTRACT = contract_of(
    spec_of("FP32"),
    outputs=[
        spec_of("FP32", (None, 3), "p"),
        spec_of("INT16", (None,), "n"),
        spec_of("UINT8", (None,), "u"),
        spec_of("BOOL", (None,), "b"),
        spec_of("BYTES", (None, 2), "t"),
    ],
)
NAMES = [spec.name for spec in CONTRACT.outputs]
SIX = ["fs_decision_id", "fs_mode", "fs_outcome", "fs_policy", "fs_reason", "fs_served_by"]


def answer(seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {
        "p": rng.dirichlet([1, 1, 1], 1).astype(np.float32),
        "n": rng.integers(-9, 9, 1).astype(np.int16),
        "u": rng.integers(0, 9, 1).astype(np.uint8),
        "b": rng.integers(0, 2, 1).astype(bool),
        "t": np.array([["é", b"\0x"]], object),
        "features": np.full((1, 4), 666.0),
    }


def asking(
    rows: int, binary: bool = False, names: Sequence[str] = NAMES, id_: str | None = "r"
) -> InferRequest:
    outputs = tuple(RequestedOutput(name, binary) for name in names)
    return InferRequest(id_, {}, rows, outputs, wants_row_outcome="fs_row_outcome" in names)


def decided(*outcomes: Outcome) -> list[Decision]:
    return [Decision(f"row{i}", outcome, ()) for i, outcome in enumerate(outcomes)]


def reply_to(*outcomes: Outcome, **kwargs: Any) -> Reply:
    request = kwargs.pop("request", None) or asking(len(outcomes))
    return reply_infer(CONTRACT, request, decided(*outcomes), STAMP, **kwargs)


SERVED, DEGRADED = Served(answer(1), "primary"), Degraded(answer(2), "small", Reason.ABSTAINED)
DEFERRED, ABSTAINED = Deferred("T-1", Reason.ABSTAINED), Refused(Reason.ABSTAINED)

TABLE: list[tuple[RequestEnd, int, str, str, str]] = [
    (SERVED, 200, "OK", "served", "ok"),
    (DEGRADED, 200, "OK", "degraded", "abstained"),
    (DEFERRED, 422, "FAILED_PRECONDITION", "deferred", "abstained"),
    (ABSTAINED, 422, "FAILED_PRECONDITION", "refused", "abstained"),
    (Refused(Reason.RATE_LIMITED), 429, "RESOURCE_EXHAUSTED", "refused", "rate_limited"),
    (Refused(Reason.UNAVAILABLE), 503, "RESOURCE_EXHAUSTED", "refused", "unavailable"),
    (Refused(Reason.STOPPED), 503, "RESOURCE_EXHAUSTED", "refused", "stopped"),
    (Refused(Reason.DEADLINE), 504, "DEADLINE_EXCEEDED", "refused", "deadline"),
    (Refused(Reason.INVALID), 400, "INVALID_ARGUMENT", "refused", "invalid"),
    (Refused(Reason.OK), 503, "RESOURCE_EXHAUSTED", "refused", "ok"),
    (InvalidRequest([Problem("id", "is odd")]), 400, "INVALID_ARGUMENT", "refused", "invalid"),
    (Rejection.INVALID, 400, "INVALID_ARGUMENT", "refused", "invalid"),
    (Rejection.TOO_LARGE, 413, "INVALID_ARGUMENT", "refused", "too_large"),
    (Rejection.UNAUTHENTICATED, 401, "UNAUTHENTICATED", "refused", "unauthenticated"),
    (Rejection.FORBIDDEN, 403, "PERMISSION_DENIED", "refused", "forbidden"),
    (Rejection.NOT_FOUND, 404, "NOT_FOUND", "refused", "not_found"),
    (Rejection.METHOD_NOT_ALLOWED, 405, "UNIMPLEMENTED", "refused", "method_not_allowed"),
    (Rejection.TOO_SLOW, 408, "DEADLINE_EXCEEDED", "refused", "too_slow"),
    (Rejection.UNSUPPORTED, 501, "UNIMPLEMENTED", "refused", "unsupported"),
    (Rejection.UNEXPECTED, 417, "INVALID_ARGUMENT", "refused", "expectation_failed"),
    (Rejection.UNSUPPORTED_MEDIA, 415, "INVALID_ARGUMENT", "refused", "unsupported_media"),
    (Rejection.MISDIRECTED, 421, "PERMISSION_DENIED", "refused", "misdirected"),
    (Rejection.HEAD_TOO_LARGE, 431, "INVALID_ARGUMENT", "refused", "head_too_large"),
]


def full_set(reply: Reply) -> dict[str, str]:
    """The fs_ parameters of a reply, which its headers repeat and none of which is empty."""
    parameters = {k: v for k, v in json_of(reply)["parameters"].items() if k in SIX}
    assert sorted(parameters) == SIX
    assert all(parameters.values())
    for name, value in parameters.items():
        assert headers_of(reply)["x-failsafe-" + name.removeprefix("fs_").replace("_", "-")] == value
    return dict(parameters)


def test_every_cause_has_a_row_in_the_table_of_statuses() -> None:
    assert list(STATUSES) == list(dict.fromkeys([*Deferral, *Reason, *Rejection]))
    assert str(Reason.INVALID) == str(Rejection.INVALID), "one code for both"
    assert all(status.error for status in STATUSES.values())


@pytest.mark.parametrize(("end", "status", "grpc", "outcome", "reason"), TABLE, ids=lambda v: str(v)[:24])
def test_terminal_states(end: RequestEnd, status: int, grpc: str, outcome: str, reason: str) -> None:
    assert status_of(end)[:2] == (status, grpc)
    match end:
        case Served() | Degraded() | Deferred() | Refused():
            reply = reply_to(end)
        case _:
            reply = reply_unanswered(end, STAMP, request_id="r")
    parameters = full_set(reply)
    assert (reply.status, parameters["fs_outcome"], parameters["fs_reason"]) == (status, outcome, reason)
    assert (parameters["fs_policy"], parameters["fs_mode"], parameters["fs_decision_id"]) == (
        "fashion@3#a1b2",
        "enforce",
        "01J-id",
    )
    assert json_of(reply)["id"] == "r"


def test_the_table_leaves_no_rejection_and_no_reason_out() -> None:
    assert {end for end, *_ in TABLE if isinstance(end, Rejection)} == set(Rejection)
    assert {end.reason for end, *_ in TABLE if isinstance(end, Refused)} == set(Reason)


@pytest.mark.parametrize("end", [row[0] for row in TABLE if row[1] != 200], ids=lambda v: str(v)[:24])
def test_an_error_is_a_json_object_with_a_string_and_the_exact_content_type(end: Any) -> None:
    for reply in (reply_unanswered(end, STAMP), reply_unanswered(end)):
        assert headers_of(reply)["content-type"] == "application/json"
        assert isinstance(json.loads(reply.body)["error"], str)
        assert json.loads(reply.body)["error"]
        assert "outputs" not in json.loads(reply.body)


def test_before_there_is_a_decision_id_a_reply_has_no_stamp() -> None:
    reply = reply_unanswered(Rejection.TOO_LARGE)
    assert json_of(reply) == {"error": "the request is too large"}
    assert not any(name.startswith("x-failsafe") for name in headers_of(reply))


def test_retry_after_is_whole_seconds_of_at_least_1() -> None:
    waits = [None, 0.0, 0.2, 1.0, 1.1, 7.0, 1e12, float("inf"), float("nan"), -3.0]
    assert [retry_after_s(Refused(Reason.RATE_LIMITED, w)) for w in waits] == [
        1,
        1,
        1,
        1,
        2,
        7,
        86400,
        86400,
        1,
        1,
    ]
    assert headers_of(reply_to(Refused(Reason.RATE_LIMITED, 2.5)))["retry-after"] == "3"
    assert headers_of(reply_to(Refused(Reason.UNAVAILABLE)))["retry-after"] == "1"
    for outcome in (ABSTAINED, Refused(Reason.DEADLINE, 5.0), DEFERRED, SERVED):
        assert "retry-after" not in headers_of(reply_to(outcome))


def test_a_deferral_names_its_review_and_is_202_only_on_request() -> None:
    reply = reply_to(DEFERRED)
    assert (reply.status, json_of(reply)["review_url"]) == (422, "/reviews/T-1")
    assert "location" not in headers_of(reply)
    accepted = reply_to(DEFERRED, prefer_async=True)
    assert (accepted.status, headers_of(accepted)["location"]) == (202, "/reviews/T-1")
    assert isinstance(json_of(accepted)["error"], str)
    assert reply_to(ABSTAINED, prefer_async=True).status == 422
    assert reply_to(SERVED, prefer_async=True).status == 200


def test_a_ticket_is_quoted_below_the_given_path() -> None:
    assert json_of(reply_to(Deferred("a/b ?", Reason.OK), reviews="/base/reviews/"))["review_url"] == (
        "/base/reviews/a%2Fb%20%3F"
    )
    assert json_of(reply_unanswered(DEFERRED, STAMP))["review_url"] == "/reviews/T-1"
    assert reply_unanswered(DEFERRED, STAMP).status == 422


def test_unauthenticated_says_how_to_authenticate() -> None:
    assert headers_of(reply_unanswered(Rejection.UNAUTHENTICATED))["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("n", "last"), [(1, "f0: is odd"), (8, "f7: is odd"), (9, "and 1 more"), (20, "and 12 more")]
)
def test_invalid_names_fields_and_rules_and_stays_short(n: int, last: str) -> None:
    error = json_of(reply_unanswered(InvalidRequest([Problem(f"f{i}", "is odd") for i in range(n)])))["error"]
    assert error.split("; ")[0] == "f0: is odd"
    assert error.split("; ")[-1] == last
    assert error.count("is odd") == min(n, 8)


def test_more_headers_can_be_added() -> None:
    assert (
        headers_of(reply_unanswered(Rejection.METHOD_NOT_ALLOWED, headers={"allow": "GET"}))["allow"] == "GET"
    )


def test_no_text_can_break_out_of_a_header_or_the_body() -> None:
    stamp = Stamp("p\r\nset-cookie: x", "enforcé", "")
    reply = reply_unanswered(Rejection.INVALID, stamp, error="lone \ud800 surrogate")
    assert headers_of(reply)["x-failsafe-policy"] == "p??set-cookie: x"
    assert headers_of(reply)["x-failsafe-mode"] == "enforc?"
    assert headers_of(reply)["x-failsafe-decision-id"] == "none"
    assert json_of(reply)["error"] == "lone ? surrogate"


# --- batches --------------------------------------------------------------------------------------


@pytest.mark.parametrize("binary", [False, True])
def test_a_batch_of_answers_is_bit_identical_row_by_row(binary: bool) -> None:
    outcomes: list[Served | Degraded] = [
        Served(answer(1), "primary"),
        Degraded(answer(2), "small", Reason.UNAVAILABLE),
        Served(answer(3), "primary"),
    ]
    request = asking(3, binary, ["p", "n", "u", "b", "t"] if binary else ["p", "n", "u", "b"])
    reply = reply_to(*outcomes, request=request)
    got = tensors_of(reply)
    for name in set(got) - {"t"}:
        assert same_bits(got[name], np.concatenate([outcome.output[name] for outcome in outcomes]))
    if binary:
        assert got["t"].tolist() == [["é".encode(), b"\0x"]] * 3
    parameters = full_set(reply)
    assert (parameters["fs_outcome"], parameters["fs_served_by"], parameters["fs_reason"]) == (
        "degraded",
        "primary,small",
        "unavailable",
    )


def test_an_output_that_is_not_exposed_is_never_sent() -> None:
    for binary in (False, True):
        reply = reply_to(SERVED, request=asking(1, binary))
        assert b"666" not in reply.body
        assert [output["name"] for output in json_of(reply)["outputs"]] == NAMES


def test_json_and_binary_differ_in_content_type_and_length() -> None:
    as_json, as_binary = (reply_to(SERVED, request=asking(1, binary)) for binary in (False, True))
    assert headers_of(as_json)["content-type"] == "application/json"
    assert "inference-header-content-length" not in headers_of(as_json)
    assert headers_of(as_binary)["content-type"] == "application/octet-stream"
    assert json.loads(as_binary.body[: int(headers_of(as_binary)["inference-header-content-length"])])


def test_a_body_names_its_model_and_echoes_only_an_id_that_was_given() -> None:
    document = json_of(reply_to(SERVED, request=asking(1, id_=None)))
    assert (document["model_name"], document["model_version"]) == ("m", "1")
    assert "id" not in document
    assert json_of(reply_to(SERVED, request=asking(1, id_="")))["id"] == ""


def test_one_row_unanswered_gives_the_worst_rows_state_and_no_outputs() -> None:
    reply = reply_to(
        SERVED, DEFERRED, Refused(Reason.RATE_LIMITED, 2.0), ABSTAINED, Refused(Reason.RATE_LIMITED, 9.0)
    )
    assert (reply.status, headers_of(reply)["retry-after"]) == (429, "9")
    assert "outputs" not in json_of(reply)
    assert full_set(reply)["fs_served_by"] == "none"
    assert json_of(reply)["parameters"]["fs_review_urls"] == "/reviews/T-1"


def test_a_deferred_batch_names_the_review_of_every_deferred_row() -> None:
    reply = reply_to(SERVED, DEFERRED, Deferred("T-2", Reason.UNAVAILABLE))
    assert (reply.status, full_set(reply)["fs_served_by"]) == (422, "review")
    assert json_of(reply)["review_url"] == "/reviews/T-1"
    assert json_of(reply)["parameters"]["fs_review_urls"] == "/reviews/T-1,/reviews/T-2"


MIXED = (DEFERRED, SERVED, ABSTAINED, DEGRADED)


def test_a_client_that_asks_for_the_row_outcome_gets_partial_answers_in_binary() -> None:
    reply = reply_to(*MIXED, request=asking(4, True, [*NAMES, "fs_row_outcome"]))
    got, parameters = tensors_of(reply), full_set(reply)
    assert reply.status == 200
    assert got["fs_row_outcome"].tolist() == [b"deferred", b"served", b"refused", b"degraded"]
    assert (parameters["fs_outcome"], parameters["fs_served_by"]) == ("refused", "review,primary,none,small")
    assert np.isnan(got["p"][[0, 2]]).all()
    assert same_bits(got["p"][[1, 3]], np.concatenate([answer(1)["p"], answer(2)["p"]]))
    assert got["n"].tolist() == [-32768, answer(1)["n"][0], -32768, answer(2)["n"][0]]
    assert got["u"].tolist() == [0, answer(1)["u"][0], 0, answer(2)["u"][0]]
    assert got["b"].tolist() == [False, answer(1)["b"][0], False, answer(2)["b"][0]]
    assert got["t"].tolist() == [[b"", b""], ["é".encode(), b"\0x"]] * 2
    assert json_of(reply)["parameters"]["fs_review_urls"] == "/reviews/T-1"


def test_a_client_that_asks_for_the_row_outcome_gets_partial_answers_in_json_with_null() -> None:
    reply = reply_to(*MIXED, request=asking(4, False, [*NAMES, "fs_row_outcome"]))
    got = {output["name"]: output["data"] for output in json_of(reply)["outputs"]}
    assert got["fs_row_outcome"] == ["deferred", "served", "refused", "degraded"]
    assert got["p"][:3] == got["p"][6:9] == [None] * 3
    assert np.array(got["p"][3:6], np.float32).tobytes() == answer(1)["p"].tobytes()
    for name in "nub":
        assert got[name] == [None, answer(1)[name].tolist()[0], None, answer(2)[name].tolist()[0]]
    assert got["t"] == [None, None, "é", "\0x"] * 2


def test_a_partial_answer_without_any_answer_is_blank() -> None:
    contract = contract_of(
        spec_of("FP32"), outputs=[spec_of("FP32", (None, 3), "p"), spec_of("INT8", (None, None), "d")]
    )
    for binary in (False, True):
        request = asking(2, binary, ["p", "d", "fs_row_outcome"])
        reply = reply_infer(contract, request, decided(ABSTAINED, ABSTAINED), STAMP)
        got = tensors_of(reply)
        assert (reply.status, got["p"].shape, got["d"].shape) == (200, (2, 3), (2, 0))
        assert got["fs_row_outcome"].tolist() == [b"refused", b"refused"]


def test_classification_gives_the_largest_values_with_their_index() -> None:
    p = np.array([[0.25, 0.5, 0.25]], np.float32)
    outputs = (RequestedOutput("p", False, 2), RequestedOutput("fs_row_outcome", False))
    request = InferRequest(None, {}, 2, outputs, wants_row_outcome=True)
    reply = reply_to(Served({"p": p}, "primary"), ABSTAINED, request=request)
    output = json_of(reply)["outputs"][0]
    assert (output["datatype"], output["shape"]) == ("BYTES", [2, 2])
    assert output["data"] == ["0.5:1", "0.25:0", None, None]
    request = request._replace(outputs=(RequestedOutput("p", True, 9), outputs[1]))
    got = tensors_of(reply_to(Served({"p": p}, "primary"), ABSTAINED, request=request))
    assert got["p"].tolist() == [[b"0.5:1", b"0.25:0", b"0.25:2"], [b"", b"", b""]]


def test_a_tier_is_applied_before_classification() -> None:
    p = np.array([[0.123456, 0.654321, 0.222223]], np.float32)
    served = Served({"p": p}, "primary")
    request = asking(1, names=["p"])
    assert tensors_of(reply_to(served, request=request, tier=Rounded(2)))["p"].tolist() == [
        [np.float32(v) for v in (0.12, 0.65, 0.22)]
    ]
    classified = request._replace(outputs=(RequestedOutput("p", False, 2),))
    reply = reply_to(served, request=classified, tier=Label())
    assert json_of(reply)["outputs"][0]["data"] == ["1.0:1", "0.0:0"]


def test_text_that_is_not_utf8_is_sent_in_binary_and_refused_in_json() -> None:
    odd = Served({"t": np.array([[b"\xff", "\ud800"]], object)}, "primary")
    got = tensors_of(reply_to(odd, request=asking(1, True, ["t"])))
    assert got["t"].tolist() == [[b"\xff", b"\xed\xa0\x80"]]
    reply = reply_to(odd, request=asking(1, False, ["t"]))
    assert reply.status == 400
    assert json_of(reply)["error"] == "outputs.t: is not UTF-8 text: ask for it with binary_data"


@pytest.mark.parametrize(
    "p",
    [
        np.zeros((1, 3)),
        np.zeros((1, 4), np.float32),
        np.zeros((2, 3), np.float32),
        np.zeros(3, np.float32),
        np.zeros((), np.float32),
        None,
    ],
)
def test_an_answer_that_breaks_the_contract_is_not_sent(p: Array | None) -> None:
    broken = Served({} if p is None else {"p": p}, "primary")
    for outcomes in ([broken], [Served(answer(1), "primary"), broken]):
        reply = reply_to(*outcomes, request=asking(len(outcomes), names=["p"]))
        assert (reply.status, full_set(reply)["fs_reason"]) == (503, "unavailable")
        assert "outputs" not in json_of(reply)


def test_rows_of_different_lengths_do_not_stack() -> None:
    contract = contract_of(spec_of("FP32"), outputs=[spec_of("FP32", (None, None), "p")])
    rows = decided(*(Served({"p": np.zeros((1, k), np.float32)}, "primary") for k in (2, 3)))
    assert reply_infer(contract, asking(2, names=["p"]), rows, STAMP).status == 503


def test_fewer_decisions_than_rows_is_unavailable() -> None:
    assert reply_infer(CONTRACT, asking(2), decided(SERVED), STAMP).status == 503
    assert reply_infer(CONTRACT, asking(1), [], STAMP).status == 503


# --- properties -----------------------------------------------------------------------------------

reasons, waits = st.sampled_from(Reason), st.none() | st.floats()
outcomes_ = (
    st.builds(Served, st.integers(0, 9).map(answer), st.sampled_from(["primary", ""]))
    | st.builds(Degraded, st.integers(0, 9).map(answer), st.sampled_from(["small", "prior"]), reasons)
    | st.builds(Deferred, st.text(st.characters(exclude_categories=["Cs"])), reasons)
    | st.builds(Refused, reasons, waits)
)
batches = st.lists(outcomes_, min_size=1, max_size=6)


@given(batches, st.booleans(), st.booleans(), st.booleans())
def test_every_batch_has_one_reply_and_it_keeps_the_rules(
    outcomes: list[Outcome], binary: bool, partial: bool, prefer_async: bool
) -> None:
    names = ["p", "n", *(["fs_row_outcome"] if partial else [])]
    reply = reply_to(*outcomes, request=asking(len(outcomes), binary, names), prefer_async=prefer_async)
    answered = [isinstance(outcome, (Served, Degraded)) for outcome in outcomes]
    parameters = full_set(reply)
    assert (
        parameters["fs_outcome"]
        == ["served", "degraded", "deferred", "refused"][max(map(severity, outcomes))]
    )
    if all(answered) or partial:
        got = tensors_of(reply) if binary else {}
        assert (reply.status, len(json_of(reply)["outputs"])) == (200, len(names))
        if binary:
            assert (~np.isnan(got["p"]).any(axis=1)).tolist() == answered
    else:
        assert reply.status == status_of(worst_row(outcomes), prefer_async).http != 200
        assert "outputs" not in json_of(reply)
        assert headers_of(reply)["content-type"] == "application/json"


@given(batches)
def test_the_worst_row_is_one_of_the_rows_and_its_order_does_not_soften_it(outcomes: list[Outcome]) -> None:
    worst = worst_row(outcomes)
    assert severity(worst) == max(map(severity, outcomes)) == severity(worst_row(outcomes[::-1]))


@given(outcomes_, st.booleans())
def test_no_finding_ever_reaches_a_caller(outcome: Outcome, partial: bool) -> None:
    told = ("canary", "123454321", "cut", "score")
    assume(not (isinstance(outcome, Deferred) and any(word in outcome.ticket for word in told)))
    finding = Finding("canary-stage", 0.123454321, Verdict.REFUSE, True, 1.0, "canary-form", "canary-error")
    names = ["p", *(["fs_row_outcome"] if partial else [])]
    reply = reply_infer(CONTRACT, asking(1, names=names), [Decision("i", outcome, (finding,))], STAMP)
    sent = reply.body.decode() + str(headers_of(reply))
    assert not any(word in sent for word in told)
