"""The form of a case by what a person may answer, the row that it shows, and its line in the queue."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest

from gateway.core.decision import Degraded, Refused
from gateway.protocol.contract import TensorSpec
from gateway.protocol.targets import Classes, NoForm, Number, Target
from gateway.serving.review_answers import outcome_of
from tests.support.admin_pages import Page
from tests.support.admin_world import AdminWorld, admin_world, ask_for, deployment, on_loop, rewrite
from tests.support.deployments import clean_rows

F4, TEXT = np.dtype(np.float32), np.dtype(np.object_)
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
METRES = Number(10.0, 30.0)
VALUE = TensorSpec("value", F4, (None, 1))
RAISED = [{"stage": "ood", "score": 9.0, "error": None, "form": "full"}]


def why(**members: Any) -> str:
    return orjson.dumps({"reason": "abstained", "raised": RAISED, **members}).decode()


def text(item: str | bytes) -> np.ndarray[Any, Any]:
    return np.array([[item.encode() if isinstance(item, str) else item]], object)


async def held(one: AdminWorld, path: str = "/review/x") -> Page:
    """The page of a case that this browser's reviewer holds."""
    await one.post("/review/claim")
    found = Page(await one.browser.get(path))
    found.assert_harmless()
    return found


async def send(one: AdminWorld, **said: str) -> httpx.Response:
    return await one.post("/review/x/answer", fence=await one.fence("x"), **said)


async def outcome(one: AdminWorld) -> Any:
    record = await one.review.store.find("x")
    assert record is not None
    return outcome_of(record, one.gateway.loaded.contract, one.gateway.loaded.policy.review)


def buttons(page: Page) -> dict[str, str | None]:
    """The answers that have a button, by name and value, with the key that picks them."""
    names = ("label", "none", "unsure")
    return {
        f"{b['name']}={b['value']}": b.get("data-key") for b in page.all("button") if b.get("name") in names
    }


@pytest.mark.parametrize(
    ("names", "keys"),
    [
        (("ham", "spam"), ("1", "2")),
        (("0", "1", "2"), ("0", "1", "2")),
        (tuple("abcdefghijkl"), (*"123456789", None, None, None)),
    ],
)
@on_loop
async def test_each_label_is_a_button_with_the_key_that_it_shows(
    tmp_path: Path, names: tuple[str, ...], keys: tuple[str | None, ...]
) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        ask_for(one.gateway, Classes(names))
        await one.put("x")
        page = await held(one)
        wanted = {f"label={name}": key for name, key in zip(names, keys, strict=True)}
        assert buttons(page) == {**wanted, "unsure=1": "u", "none=1": "n"}
        assert not any("data-filter" in field for field in page.all("input")), (
            "the labels can be seen at once"
        )


@on_loop
async def test_over_twenty_labels_have_a_filter_and_without_a_script_a_list(tmp_path: Path) -> None:
    names = tuple(f"kind {i}" for i in range(100))
    async with admin_world(deployment(tmp_path)) as one:
        ask_for(one.gateway, Classes(names))
        await one.put("x")
        page = await held(one)
        (field,) = [field for field in page.all("input") if "data-filter" in field]
        assert "name" not in field, "what is typed there is no answer"
        assert len(page.all("option")) == 101 and len(page.all("noscript")) == 1
        assert len([b for b in page.all("button") if b.get("name") == "label"]) == 100
        assert (await send(one, label="kind 73")).status_code == 303
        record = await one.review.store.find("x")
        assert record is not None and record.answer == '{"label":73}'


@pytest.mark.parametrize(
    ("none_of_these", "says", "label"),
    [("refuse", "None of these: the caller is refused as well", None), ("Q", "the caller gets “Q”", 16)],
)
@on_loop
async def test_none_of_these_says_how_it_ends_and_ends_so(
    tmp_path: Path, none_of_these: str, says: str, label: int | None
) -> None:
    folder = deployment(tmp_path)
    rewrite(folder, "on_expire: refuse", f"on_expire: refuse, none_of_these: {none_of_these}")
    async with admin_world(folder) as one:
        await one.put("x")
        assert says in (await held(one)).text
        assert (await send(one, none="1")).status_code == 303
        found = await outcome(one)
        if label is None:
            assert isinstance(found, Refused)
        else:
            assert isinstance(found, Degraded) and found.output["probabilities"].argmax() == label
        assert "none of these" in (await one.browser.get("/review/x")).text
        assert (await one.script.get("/review/x")).json()["answer"]["label"] == "none of these"


@on_loop
async def test_a_number_is_typed_and_its_caller_gets_it(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        ask_for(one.gateway, METRES, VALUE)
        await one.put("x")
        page = await held(one)
        assert "What is the value?" in page.text and "Usual: 10 to 30" in page.text
        assert "Accepted: -10 to 50" in page.text and "None of these" not in page.text
        (field,) = [field for field in page.all("input") if field.get("name") == "value"]
        assert field["inputmode"] == "decimal" and "autofocus" in field
        assert "type" not in field, "a browser's number field reads 3,5 as 35"
        assert buttons(page) == {"unsure=1": "u"}
        assert (await send(one, value=" 12.5 ")).status_code == 303
        found = await outcome(one)
        assert isinstance(found, Degraded) and found.output["value"].tolist() == [[12.5]]
        assert "12.5" in Page(await one.browser.get("/review/x")).text
        answered = (await one.script.get("/review/x")).json()["answer"]
        assert (answered["value"], answered["label"]) == (12.5, "12.5")


@pytest.mark.parametrize(
    ("typed", "says"),
    [("12,5", "decimal point and no comma"), ("51", "not from -10 to 50"), (EVIL, "is not a number")],
)
@on_loop
async def test_a_wrong_number_comes_back_with_the_field_and_what_is_wrong(
    tmp_path: Path, typed: str, says: str
) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        ask_for(one.gateway, METRES, VALUE)
        await one.put("x")
        await held(one)
        reply = await send(one, value=typed)
        page = Page(reply)
        page.assert_harmless()
        assert reply.status_code == 422 and says in page.text
        (field,) = [field for field in page.all("input") if field.get("name") == "value"]
        assert (field["value"], field["aria-invalid"]) == (typed, "true")
        assert (await send(one, value="12.5")).status_code == 303


@on_loop
async def test_an_api_client_learns_the_form_and_what_is_wrong(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        ask_for(one.gateway, METRES, VALUE)
        await one.put("x", model_view='{"value": 20.0, "lower": 18.5, "upper": 22.0}')
        claim = (await one.script.post("/review/claim")).json()
        assert claim["form"] == {"kind": "number", "low": 10.0, "high": 30.0, "min": -10.0, "max": 50.0}
        assert claim["labels"] == []
        assert claim["suggestion"] == [{"value": 20.0, "lower": 18.5, "upper": 22.0}]
        answer = {"fence": claim["fence"]}
        for said, what in (({"value": 51}, "calibration saw 10 to 30"), ({"label": 0}, "type a number")):
            reply = await one.script.post("/review/x/answer", json=answer | said)
            assert reply.status_code == 422 and what in reply.json()["error"]
        reply = await one.script.post("/review/x/answer", json=answer | {"value": 12.5})
        assert (reply.status_code, reply.json()["answer"]) == (200, {"value": 12.5})


@on_loop
async def test_without_a_form_a_reviewer_can_look_and_refuse(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        ask_for(one.gateway, NoForm())
        await one.put("x")
        page = await held(one)
        assert buttons(page) == {"unsure=1": "u"} and "Seen: refuse" in page.text
        assert (await send(one, label="A")).status_code == 422
        assert (await send(one, unsure="1")).status_code == 303
        assert isinstance(await outcome(one), Refused)


@pytest.mark.parametrize(
    ("target", "view", "shown"),
    [
        (METRES, {"value": 20.25, "lower": 18.5, "upper": 22.0}, "20.25 between 18.5 and 22"),
        (METRES, {"value": 20.25}, "20.25"),
        (Classes(("ham", "spam"), (7, 9)), {"label": 9}, "spam"),
        (Classes(("ham", "spam"), (b"h", b"s\xe9")), {"label": r"s\xe9"}, "spam"),
        (Classes(("ham", "spam")), {"label": "eggs"}, "eggs"),
        (Classes(("ham", "spam")), [[1, 0.75]], "spam 75 %"),
        (NoForm(), [], "No model had a view."),
    ],
)
@on_loop
async def test_the_models_view_is_a_number_with_its_interval_or_a_label(
    tmp_path: Path, target: Target, view: Any, shown: str
) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        ask_for(one.gateway, target, VALUE)
        await one.put("x", model_view=orjson.dumps(view).decode())
        await one.post("/review/claim")
        reply = await one.browser.get("/review/x")
        before, _, after = reply.text.partition('<details class="card reveal">')
        inside = Page(httpx.Response(200, text=after.partition("</details>")[0]))
        assert shown in " ".join(inside.text.split())
        assert "<details open" not in reply.text
        assert isinstance(target, Classes) or shown not in " ".join(before.split())


MIXED = (
    TensorSpec("age", np.dtype(np.int64), (None, 1), 0, 120),
    TensorSpec("plan", TEXT, (None, 1)),
    TensorSpec("note", TEXT, (None, 1)),
)
ROW = {"age": np.array([[30]]), "plan": text("gold"), "note": text("caf\xe9".encode("latin-1"))}


@on_loop
async def test_a_mixed_row_is_a_table_of_names_and_values(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        ask_for(one.gateway, NoForm(), inputs=MIXED)
        await one.put("x", ROW)
        page = await held(one)
        assert "age 30 0 to 120 plan gold note caf\\xe9" in " ".join(page.text.split())
        (table,) = (await one.script.get("/review/x")).json()["shown"]
        assert [(c["name"], c["value"], c["stood_out"]) for c in table["columns"]] == [
            ("age", "30", False),
            ("plan", "gold", False),
            ("note", r"caf\xe9", False),
        ]


@on_loop
async def test_the_columns_of_a_row_that_stand_out_are_marked_in_words(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        odd = clean_rows(1)
        odd[0, 3] = 900.0
        await one.put("x", {"attributes": odd})
        page = await held(one)
        assert "What stood out, the most unusual first: attributes[3]" in " ".join(page.text.split())
        case = (await one.script.get("/review/x")).json()
        assert case["standing_out"][0][0] == "attributes[3]" and case["standing_out"][0][1] > 8
        await one.put("y", {"attributes": clean_rows(1)})
        assert (await one.script.get("/review/y")).json()["standing_out"] == []


@on_loop
async def test_the_queue_has_the_beginning_of_each_row(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        ask_for(one.gateway, NoForm(), inputs=MIXED)
        await one.put("x", ROW, why=why(brief="age 30, plan gold, note caf\u202e"))
        await one.put("old", ROW, expires_s=time.time() + 9000)
        page = Page(await one.browser.get("/review"))
        page.assert_harmless()
        assert r"age 30, plan gold, note caf\u202e" in page.text
        listed = (await one.script.get("/review")).json()["cases"]
        assert [case["brief"] for case in listed] == [r"age 30, plan gold, note caf\u202e", ""]


@on_loop
async def test_a_row_of_the_pipeline_begins_in_the_queue_with_its_values(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        odd = np.load(Path(__file__).parents[2] / "configs" / "letters" / "outliers.npz")["uniform"][:20]
        await one.decide(odd, "odd")
        (first, *_) = (await one.script.get("/review")).json()["cases"]
        row = odd[int(first["id"].partition(".")[2])]
        assert first["brief"].startswith(f"attributes {row[0]:.0f} {row[1]:.0f} ")
        assert first["brief"] in Page(await one.browser.get("/review")).text


@on_loop
async def test_hostile_columns_labels_and_texts_are_only_text(tmp_path: Path) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        inputs = (TensorSpec(EVIL, F4, (None, 1)), TensorSpec("t", TEXT, (None, 1)))
        ask_for(one.gateway, Classes((EVIL, "b")), inputs=inputs)
        row = {EVIL: np.ones((1, 1), np.float32), "t": text(EVIL)}
        hostile = why(brief=EVIL)
        await one.put("x", row, why=hostile, model_view=orjson.dumps({"label": EVIL}).decode())
        page = await held(one)
        assert page.text.count(EVIL) >= 4
        listed = Page(await one.browser.get("/review"))
        listed.assert_harmless()
        assert EVIL in listed.text
