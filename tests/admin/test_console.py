"""The review console and its API: answers arrive, stale leases are refused, content is only text."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest

from fallbacks.review.cases import CaseState
from gateway.access.persons_file import add_person
from gateway.admin.pages.cases import labels_of
from gateway.core.decision import Degraded, Refused
from gateway.core.errors import PolicyError
from gateway.serving.gateway import Gateway
from gateway.serving.review_answers import outcome_of
from tests.support.admin_pages import Page
from tests.support.admin_world import (
    HTML,
    OWN_PAGE,
    AdminWorld,
    admin_world,
    deployment,
    on_loop,
)
from tests.support.deployments import rebound

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{ 7777*7777 }}"


async def claimed(one: AdminWorld, client: httpx.AsyncClient | None = None, **more: Any) -> dict[str, Any]:
    reply = await (client or one.script).post("/review/claim", json=more)
    assert reply.status_code == 200
    claim: dict[str, Any] = reply.json()
    return claim


async def state_of(one: AdminWorld, id_: str) -> CaseState:
    record = await one.review.store.find(id_)
    assert record is not None
    return record.state


@on_loop
async def test_an_api_client_claims_and_answers(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        await one.put("x")
        listed = (await one.script.get("/review")).json()
        assert listed["waiting"] == 1 and listed["cases"][0]["id"] == "x" and 89 < listed["oldest_s"] < 95
        assert "suggestion" not in listed["cases"][0] and "fence" not in listed["cases"][0]
        case = await claimed(one)
        assert case["id"] == "x" and case["principal"] == "ada" and case["image"] is None
        assert case["why"] == ["it does not look like the data this model was calibrated on"]
        assert case["labels"] == [chr(ord("A") + i) for i in range(26)]
        assert case["suggestion"][0] == {"label": "D", "probability": 0.5}
        assert 590 < case["expires"] - time.time() <= 600
        answer = {"fence": case["fence"], "label": "C"}
        reply = await one.script.post("/review/x/answer", json=answer)
        assert (reply.status_code, reply.json()) == (200, {"id": "x", "answer": {"label": 2}})
        record = await one.review.store.find("x")
        assert record is not None and record.state is CaseState.DECIDED and record.reviewer == "admin"
        outcome = outcome_of(record, one.gateway.loaded.contract, one.gateway.loaded.policy.review)
        assert isinstance(outcome, Degraded) and outcome.output["probabilities"].argmax() == 2
        assert (await one.script.post("/review/claim")).status_code == 204
        rewritten = (await one.script.get("/review/x")).json()
        assert rewritten["state"] == "decided" and rewritten["answer"]["label"] == "C"


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ({"label": "A"}, {"label": 0}),
        ({"label": 25}, {"label": 25}),
        ({"unsure": True}, {"unsure": True}),
        ({"unsure": False, "label": "Z"}, {"label": 25}),
        ({"label": 26}, None),
        ({"label": -1}, None),
        ({"label": "AA"}, None),
        ({"label": True}, None),
        ({"label": 1.0}, None),
        ({"label": None}, None),
        ({"label": "1"}, None),
        ({"label": ["A"]}, None),
        ({"unsure": "no"}, None),
        ({}, None),
    ],
)
@on_loop
async def test_only_labels_that_exist_are_answers(
    tmp_path: Path, said: dict[str, Any], kept: dict[str, Any] | None
) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        await one.put("x")
        case = await claimed(one)
        answer = {"fence": case["fence"], **said}
        reply = await one.script.post("/review/x/answer", json=answer)
        record = await one.review.store.find("x")
        assert record is not None
        if kept is None:
            assert reply.status_code == 422 and record.state is CaseState.LEASED
        else:
            assert reply.status_code == 200 and orjson.loads(record.answer or "") == kept


@on_loop
async def test_unsure_refuses_the_caller(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        await one.put("x")
        case = await claimed(one)
        answer = {"fence": case["fence"], "unsure": True}
        await one.script.post("/review/x/answer", json=answer)
        record = await one.review.store.find("x")
        assert record is not None and isinstance(
            outcome_of(record, one.gateway.loaded.contract, one.gateway.loaded.policy.review), Refused
        )


@pytest.mark.parametrize("off_by", [1, -1])
@pytest.mark.parametrize("html", [False, True])
@on_loop
async def test_a_reviewer_who_does_not_hold_the_case_gets_409(
    tmp_path: Path, off_by: int, html: bool
) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        await one.put("x")
        case = await claimed(one)
        answer = {"fence": case["fence"] + off_by, "label": "A"}
        if html:
            reply = await one.post("/review/x/answer", **{name: str(value) for name, value in answer.items()})
            assert "Too late for this case" in reply.text and "Back to the cases" in reply.text
            Page(reply).assert_harmless()
        else:
            reply = await one.script.post("/review/x/answer", json=answer)
            assert "not kept" in reply.json()["error"]
        assert reply.status_code == 409 and await state_of(one, "x") is CaseState.LEASED


@on_loop
async def test_an_answer_cannot_be_overwritten(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        await one.put("x")
        case = await claimed(one)
        answer = {"fence": case["fence"], "label": "A"}
        statuses = [
            (await one.script.post(f"/review/{id_}/{verb}", json=answer)).status_code
            for id_, verb in [
                ("x", "answer"),
                ("x", "answer"),
                ("x", "release"),
                ("x", "renew"),
                ("y", "answer"),
            ]
        ]
        assert statuses == [200, 409, 409, 409, 409]


@on_loop
async def test_a_case_is_released_and_renewed(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        await one.put("x")
        case = await claimed(one, lease_s=5)
        assert case["expires"] - time.time() <= 5
        renewed = await one.script.post("/review/x/renew", json={"fence": case["fence"], "lease_s": 60})
        assert 55 < renewed.json()["expires"] - time.time() <= 60
        assert (await one.script.post("/review/x/release", json={"fence": case["fence"]})).status_code == 200
        assert await state_of(one, "x") is CaseState.OPEN
        assert (await claimed(one))["fence"] != case["fence"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("claim", b'{"lease_s": 0}'),
        ("claim", b'{"lease_s": 1e9}'),
        ("claim", b'{"lease_s": true}'),
        ("claim", b'{"lease_s": "x"}'),
        ("claim", b"[]"),
        ("claim", b"{"),
        ("x/answer", b'{"label": "A"}'),
        ("x/answer", b'{"label": "A", "fence": -1}'),
        ("x/answer", b'{"label": "A", "fence": "99999999999999999999"}'),
        ("x/release", b'{"fence": null}'),
        ("x/renew", b'{"fence": 1, "lease_s": -1}'),
    ],
)
@on_loop
async def test_an_invalid_body_is_refused_with_a_reason(tmp_path: Path, path: str, body: bytes) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        await one.put("x")
        reply = await one.script.post(f"/review/{path}", content=body)
        assert reply.status_code == 422 and reply.json()["error"]
        assert await state_of(one, "x") is CaseState.OPEN


@on_loop
async def test_a_reviewer_answers_case_after_case(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        await one.put("first", expires_s=time.time() + 100)
        await one.put("second/2?&", expires_s=time.time() + 200)
        listed = Page(await one.browser.get("/review"))
        listed.assert_harmless()
        assert "calibrated on" in listed.text
        assert {field["name"] for field in listed.all("input")} == {"csrf"}, "who one is is no field"
        started = await one.post("/review/claim", reviewer="Grace")
        assert (started.status_code, one.location(started)) == (303, "/review/first")
        again = await one.post("/review/claim")
        assert one.location(again) == "/review/first", "one's own case comes before a new one"
        shown = Page(await one.browser.get("/review/first"))
        shown.assert_harmless()
        assert "What is this?" in shown.text and "attributes" in shown.text
        fields = shown.fields(f"{one.root}/review/first/answer")
        assert fields == {"csrf": one.csrf, "fence": await one.fence("first")}
        reply = await one.browser.post(
            "/review/first/answer", data={**fields, "label": "B"}, headers=OWN_PAGE
        )
        assert reply.status_code == 303
        assert one.location(reply) == "/review/second%2F2%3F%26?done=one"
        record = await one.review.store.find("first")
        assert record is not None and (record.answer, record.reviewer) == ('{"label":1}', "admin")
        decided = Page(await one.browser.get("/review/first"))
        assert "Answered" in decided.text and "by admin" in decided.text


@on_loop
async def test_only_the_reviewer_who_holds_a_case_gets_its_answer_form(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        await one.put("x")
        token = add_person(one.repository.state, "grace", "reviewer")
        async with one.signed_in(token) as grace:
            await grace.post("/review/claim")
            page = Page(await one.browser.get("/review/x"))
            assert "grace has this case" in page.text and not page.fields(f"{one.root}/review/x/answer")
            held = Page(await grace.client.get("/review/x"))
            assert held.fields(f"{grace.root}/review/x/answer")["fence"] == await one.fence("x")


@on_loop
async def test_a_reviewer_cannot_act_on_the_case_of_another_even_with_its_fence(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        await one.put("x")
        async with one.of_person("alice", "reviewer") as alice, one.of_person("mallory", "reviewer") as other:
            case = await claimed(one, alice)
            for verb in ("answer", "release", "renew"):
                body = {"reviewer": "alice", "fence": case["fence"], "label": 0}
                assert (await other.post(f"/review/x/{verb}", json=body)).status_code == 409
            assert await state_of(one, "x") is CaseState.LEASED
            done = await alice.post("/review/x/answer", json={"fence": case["fence"], "label": 0})
            assert done.status_code == 200
        record = await one.review.store.find("x")
        assert record is not None and record.reviewer == "alice"
        acts = [(act["act"], act["person"], act["on"], act["done"]) for act in one.acts()]
        assert acts[1:] == [
            ("claim", "alice", "x", True),
            ("answer", "mallory", "x", False),
            ("release", "mallory", "x", False),
            ("renew", "mallory", "x", False),
            ("answer", "alice", "x", True),
        ]


@on_loop
async def test_an_answer_of_earlier_versions_shows_the_name_that_was_typed_then(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        await one.put("x")
        (claim,) = await one.review.store.claim("Grace Ö. <b>", 60.0)
        await one.review.store.resolve("x", claim.fence, "Grace Ö. <b>", '{"label": 1}')
        assert "by Grace Ö. <b>" in Page(await one.browser.get("/review/x")).text


@on_loop
async def test_the_last_answer_leads_back_to_the_list(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        await one.put("x")
        await one.post("/review/claim")
        reply = await one.post("/review/x/answer", fence=await one.fence("x"), unsure="1")
        assert one.location(reply) == "/review?done=all"
        text = (await one.browser.get("/review?done=all")).text
        assert "All done" in text and "Everything is answered" in text
        assert one.location(await one.post("/review/claim")) == "/review?done=all"


@on_loop
async def test_buttons_release_and_renew(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        await one.put("x")
        await one.post("/review/claim")
        fence = await one.fence("x")
        assert one.location(await one.post("/review/x/renew", fence=fence)) == "/review/x"
        assert one.location(await one.post("/review/x/release", fence=fence)) == "/review?done=back"
        assert "A case that waits" in (await one.browser.get("/review/x")).text
        for verb in ("renew", "release"):
            assert (await one.post(f"/review/x/{verb}", fence=fence)).status_code == 409


@on_loop
async def test_the_suggestion_is_shown_only_on_request(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        await one.put("x")
        await one.put("y", model_view="[]", expires_s=time.time() + 9000)
        await one.post("/review/claim")
        text = (await one.browser.get("/review/x")).text
        before, _, after = text.partition('<details class="card reveal">')
        assert "<b>D</b>" not in before and "50 %" not in before
        assert "<b>D</b>" in after.partition("</details>")[0] and "<details open" not in text
        assert "reveal" not in (await one.browser.get("/review/y")).text, "only for the reviewer who holds it"


@on_loop
async def test_hostile_content_is_only_text(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        raised = [
            {"stage": EVIL, "score": 1.0, "error": None, "form": "full"},
            {"stage": "ood", "score": None, "error": EVIL, "form": "full"},
            {"stage": "primary", "score": None, "error": EVIL, "form": "full"},
        ]
        why = orjson.dumps({"reason": EVIL, "raised": raised}).decode()
        inputs = {
            EVIL: np.ones((1, 3)),
            "picture" + EVIL: np.ones((1, 3, 2, 2)),
            "b" + EVIL: np.ones((2, 9, 9)),
        }
        await one.put("x", inputs, principal=EVIL, why=why)
        await one.review.store.claim(EVIL, 60.0)
        for path in ("/review", "/review/x", "/status", f"/review/{EVIL[:8]}", f"/login?next=/{EVIL}"):
            reply = await one.browser.get(path)
            page = Page(reply)
            page.assert_harmless()
            assert "alert(1)>{{ 7777" not in reply.text and "60481729" not in page.text, path
        assert EVIL in Page(await one.browser.get("/review/x")).text
        assert EVIL in Page(await one.browser.get("/review")).text


@on_loop
async def test_pictures_are_encoded_by_the_console(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        grey, colour = np.zeros((1, 1, 4, 5)), np.ones((1, 3, 2, 2))
        await one.put("x", {"grey": grey, "side": colour, "row": np.ones((1, 2))})
        await one.put("y")
        for query, size in ("", (5, 4)), ("?input=side", (2, 2)), ("?input=grey", (5, 4)):
            reply = await one.script.get(f"/review/x/image.png{query}")
            assert reply.status_code == 200 and reply.headers["content-type"] == "image/png"
            assert reply.headers["x-content-type-options"] == "nosniff"
            assert reply.content[:8] == b"\x89PNG\r\n\x1a\n"
            assert size == tuple(int.from_bytes(reply.content[at : at + 4]) for at in (16, 20))
        for path in ("x/image.png?input=row", "x/image.png?input=no", "y/image.png", "z/image.png"):
            assert (await one.script.get(f"/review/{path}")).status_code == 404, path
        pictures = Page(await one.browser.get("/review/x")).all("img")
        assert [image["src"] for image in pictures if "image.png" in (image["src"] or "")] == [
            f"{one.root}/review/x/image.png?input=grey",
            f"{one.root}/review/x/image.png?input=side",
        ]


@pytest.mark.parametrize("payload", [b"", b"FST1", b"\x80\x04pickle", b"FST1\x01\x00\xff\xff"])
@on_loop
async def test_a_payload_that_cannot_be_read_does_not_break_the_console(
    tmp_path: Path, payload: bytes
) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        await one.put("x", payload)
        assert "gone or cannot be read" in (await one.browser.get("/review/x")).text
        assert (await one.browser.get("/review")).status_code == 200
        assert (await one.script.get("/review/x/image.png")).status_code == 404
        assert (await claimed(one))["shown"] == []


@on_loop
async def test_an_expired_case_says_so(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        await one.put("x", expires_s=time.time() + 0.05)
        await asyncio.sleep(0.06)
        assert "No answer came in time" in (await one.browser.get("/review/x")).text
        unknown = await one.browser.get("/review/y")
        assert unknown.status_code == 404 and "No such case" in unknown.text


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([], [chr(ord("A") + i) for i in range(26)]),
        ([f"l{i}" for i in range(26)], [f"l{i}" for i in range(26)]),
    ],
)
@on_loop
async def test_the_labels_are_those_of_the_policy_or_else_of_the_certificate(
    tmp_path: Path, labels: list[str], names: list[str]
) -> None:
    folder = deployment(tmp_path)
    lines = (folder / "gateway.yaml").read_text().splitlines()
    rewritten = [f"labels: [{', '.join(labels)}]" if line.startswith("labels:") else line for line in lines]
    (folder / "gateway.yaml").write_text("\n".join(rewritten))
    rebound(folder)
    async with admin_world(folder) as one:
        assert labels_of(one.gateway) == tuple(names)


@pytest.mark.parametrize("count", [2, 25, 27, 40])
def test_labels_that_do_not_fit_the_classes_are_refused_at_start(tmp_path: Path, count: int) -> None:
    folder = deployment(tmp_path)
    lines = (folder / "gateway.yaml").read_text().splitlines()
    labels = f"labels: [{', '.join(f'l{i}' for i in range(count))}]"
    rewritten = [labels if line.startswith("labels:") else line for line in lines]
    (folder / "gateway.yaml").write_text("\n".join(rewritten))
    with pytest.raises(PolicyError, match=f"labels: names {count} labels, but the model has 26 classes"):
        Gateway.open(folder)


@on_loop
async def test_cases_of_a_real_pipeline_are_answered_in_the_console(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        odd = np.load(Path(__file__).parents[2] / "configs" / "letters" / "outliers.npz")["uniform"][:30]
        decisions = await one.decide(odd, "odd")
        tickets = {one.id for one in decisions if type(one.outcome).__name__ == "Deferred"}
        assert tickets
        answered = set()
        while (reply := await one.script.post("/review/claim")).status_code == 200:
            case = reply.json()
            answered.add(case["id"])
            assert [len(part["cells"]) for part in case["shown"]] == [16]
            answer = {"fence": case["fence"], "label": 0}
            assert (await one.script.post(f"/review/{case['id']}/answer", json=answer)).status_code == 200
        assert answered == tickets
        explained = (await one.browser.get(f"/decisions/{min(tickets)}", headers=HTML)).json()
        assert explained["rows"][0]["outcome"] == "deferred"
