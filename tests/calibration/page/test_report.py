"""The calibration report: what it says, that it loads nothing, and that data cannot write into it."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from html import unescape
from typing import Any

import numpy as np
import pytest

from gateway.calibration.evidence import Evidence
from gateway.calibration.page import render_report
from gateway.deployment.certificate import Certificate
from gateway.deployment.promises import confidence_sentence, promises
from gateway.policy.conditions import conditions_of
from gateway.policy.schema import Policy
from tests.calibration.page.pages import Page, check
from tests.support.calibration_evidence import (
    ALARM,
    NUMBERS,
    OOD,
    certificate_of,
    evidence_of,
    label_evidence_of,
    number_evidence_of,
    number_policy_of,
    policy_of,
)
from tests.support.deployments import CONFIGS

HOSTILE = "<script>alert(1)</script>\"' onload=x {{ 7*7 }} \u202e\x00\ud800"


def report(
    certificate: Certificate | None = None, policy: Policy | None = None, evidence: Evidence | None = None
) -> str:
    chosen = policy or policy_of()
    bound = (certificate or certificate_of()).model_copy(update={"conditions": conditions_of(chosen)})
    return render_report(bound, chosen, evidence or evidence_of(), made_s=1.8e9)


ATTEMPTS = {"each": 0.95, "promises": 5, "together": 0.75, "attempts": 3, "over_attempts": 0.85}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "the usual": ({}, {}, {}),
    "no guards": ({"guards": False}, {"guards": 0}, {"guards": 0}),
    "three guards": ({}, {"guards": 3}, {"guards": 3}),
    "no checks": ({"check": False}, {"check": False}, {"check": False}),
    "labels": ({}, {"labels": ("a", "b", "c", "d")}, {}),
    "no probabilities": ({"check": False}, {"check": False}, {"check": False, "probabilities": False}),
    "no logits": ({}, {}, {"logits": False}),
    "nothing at all": (
        {"guards": False, "check": False},
        {"guards": 0, "check": False},
        {"guards": 0, "check": False, "probabilities": False},
    ),
    "two classes": ({}, {}, {"classes": 2}),
    "a thousand classes": ({}, {}, {"n": 3000, "classes": 1000}),
    "few rows": ({}, {}, {"n": 50}),
    "one row": ({}, {}, {"n": 1}),
    "pictures": ({}, {}, {"x": {"image": np.random.default_rng(0).random((300, 3, 9, 7))}}),
    "texts": ({}, {}, {"x": {"text": np.array([[b"red \xff"], [b"blue"]] * 150, object)}}),
    "several inputs": (
        {},
        {},
        {
            "x": {
                "image": np.zeros((300, 1, 8, 8)),
                "age": np.arange(300)[:, None],
                "flag": np.ones(300, bool),
            }
        },
    ),
    "attempts": ({"confidence": ATTEMPTS}, {}, {}),
    "only observed": ({"false_alarm": ALARM}, {}, {}),
}


@pytest.mark.parametrize("name", CASES)
def test_every_shape_of_calibration_gives_a_whole_page(name: str) -> None:
    certificate, policy, evidence = CASES[name]
    page = check(report(certificate_of(**certificate), policy_of(**policy), evidence_of(**evidence)))
    confidence = ["reliability"] * evidence.get("probabilities", True)
    assert sections(page) == ["promises", "guards", "rungs", *confidence, "slices", "rows", "load", "bound"]


def sections(page: Page) -> list[str | None]:
    """The sections' names; each is linked from the top and no other is."""
    found = [attributes.get("id") for tag, attributes in page.elements if tag == "section"]
    links = [attributes.get("href") for tag, attributes in page.elements if tag == "a"]
    assert links == [f"#{name}" for name in found]
    return found


NUMBER_CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "the usual": ({}, {}),
    "relative widths": ({}, {"relative": True}),
    "no check": ({"check": False}, {"interval": False}),
    "no guards": ({"guards": 0}, {"guards": 0}),
    "one row": ({}, {"n": 1}),
}


@pytest.mark.parametrize("name", NUMBER_CASES)
def test_a_regressor_gets_numbers_and_slices_and_no_word_of_classes(name: str) -> None:
    policy, evidence = NUMBER_CASES[name]
    certificate = certificate_of(target=NUMBERS, check=name != "no check", guards=name != "no guards")
    page = check(report(certificate, number_policy_of(**policy), number_evidence_of(**evidence)))
    seen = ["promises", "guards", "rungs", "numbers", "slices", "rows", "load", "bound"]
    answered = "numbers" in sections(page)
    assert sections(page) == [one for one in seen if answered or one != "numbers"]
    assert answered or name == "one row"
    assert not re.search("is wrong|probabilities|label|Classes", page.text)
    assert ("No rung has a check" in page.text) == (name == "no check")


def test_an_opaque_model_gets_guards_and_load_and_no_word_of_errors() -> None:
    policy = policy_of(check=False, task="opaque", answered_error=None, expose=["boxes"])
    evidence = evidence_of(check=False, probabilities=False)
    page = check(report(certificate_of(check=False, target={"kind": "none"}), policy, evidence))
    assert sections(page) == ["promises", "guards", "rows", "load", "bound"]
    assert not re.search("label|wrong|Worst", page.text)
    assert "Stopped next to the cut" in page.text


def test_slices_with_a_cut_of_their_own_are_listed_of_an_opaque_model_too() -> None:
    slices = [
        {"values": ["north"], "n": 90, "k": 1, "cut": 3.5},
        {"values": [], "n": 110, "k": 2, "cut": 2.5},
    ]
    certificate = certificate_of(check=False, target={"kind": "none"}, false_alarm=ALARM | {"slices": slices})
    policy = policy_of(check=False, task="opaque", answered_error=None, expose=["boxes"])
    page = check(report(certificate, policy, evidence_of(check=False, probabilities=False)))
    assert sections(page) == ["promises", "guards", "slices", "rows", "load", "bound"]
    assert "north" in page.text


def test_of_labels_alone_wrong_answers_and_predicted_classes_are_shown_by_name() -> None:
    names = {
        "kind": "classes",
        "names": ["aphid", "bee", "cricket", "moth"],
        "values": [],
        "by_name": True,
        "unseen": [],
    }
    certificate = certificate_of(check=False, target=names)
    text = check(report(certificate, policy_of(check=False), label_evidence_of())).text
    assert "By the class that the primary predicts" in text
    assert "No judged row was answered wrongly" not in text
    assert all(name in text for name in ("aphid", "bee", "cricket", "moth"))
    assert "least suspicion" not in text


def test_the_labels_of_the_policy_go_before_those_of_the_certificate() -> None:
    names = {"kind": "classes", "names": ["aphid", "bee"], "values": [], "by_name": False, "unseen": []}
    text = check(
        report(certificate_of(target=names), policy_of(labels=("x1", "x2")), evidence_of(300, 2))
    ).text
    assert "x1" in text and "aphid" not in text


def test_inputs_that_no_guard_reads_are_warned_of_beside_the_guards() -> None:
    assert "No guard reads" not in report()
    page = check(report(certificate_of(unguarded={"note": "it is free text", "<i>": HOSTILE})))
    assert "No guard reads these inputs" in page.text
    assert "note: it is free text." in page.text


@pytest.mark.parametrize("warning", [None, "value is another answer than expected in 3.0% of the rows"])
def test_parity_is_a_fact_and_a_warning_only_if_the_model_is_another(warning: str | None) -> None:
    finding = "Beside the original's outputs for 750 rows: value: no row differs."
    page = check(report(certificate_of(parity={"finding": finding, "warning": warning})))
    assert finding in page.text
    assert ("does not answer as its original" in page.text) == (warning is not None)
    assert warning is None or f"{warning}." in page.text


def test_every_promise_is_a_sentence_and_so_is_what_holds_of_all() -> None:
    certificate = certificate_of(not_promised=["Nothing is promised of rows that rate refuses."])
    text = check(report(certificate)).text
    for one in promises(certificate):
        assert one.sentence() in text
    assert confidence_sentence(certificate) in text
    assert certificate.population in text
    assert certificate.not_promised[0] in text
    assert "attacker who adapts" in text
    assert "another population" in text


def test_rows_that_are_not_counted_as_rows_are_warned_of() -> None:
    assert "Rows are not counted as rows" not in report()
    copies = {"rows": 750, "counted": 500, "by": "distinct rows", "warning": "copies", "unused": ["id"]}
    text = check(report(certificate_of(samples=copies))).text
    assert "Rows are not counted as rows" in text
    assert "500 samples, by distinct rows" in text
    assert "Not read" in text and "id: neither an input" in text


def test_the_mode_observe_is_warned_of() -> None:
    assert (
        "No promise is in force: the policy's mode is observe."
        in check(report(policy=policy_of(mode="observe"))).text
    )


def test_a_guard_that_is_only_observed_is_marked() -> None:
    evidence = evidence_of()
    observed = replace(evidence, guards=(replace(evidence.guards[0], enforced=False),))
    assert "observed only" in check(report(evidence=observed)).text


def test_a_class_that_is_stopped_too_often_is_named_and_marked() -> None:
    evidence = evidence_of(600, 2)
    evidence.stopped[:] = evidence.rows.y == 1
    text = check(report(policy=policy_of(labels=("fine", "unlucky")), evidence=evidence)).text
    assert "Stopped more than 3 times as often as the budget of 5\xa0%: unlucky" in text
    assert "stopped too often" in text


def test_of_many_classes_the_worst_twenty_are_shown_and_the_rest_counted() -> None:
    html = report(evidence=evidence_of(2000, 50))
    assert html.count("30 more classes are not shown") == 2
    assert report(evidence=evidence_of(2000, 21)).count("1 more class is not shown") == 2


def test_slices_with_a_cut_of_their_own_are_listed() -> None:
    slices = [
        {"values": ["cat", HOSTILE[:8]], "n": 90, "k": 1, "cut": 3.5},
        {"values": [], "n": 110, "k": 2, "cut": 2.5},
    ]
    text = check(report(certificate_of(false_alarm=ALARM | {"slices": slices}))).text
    assert "cat, <script" in text
    assert "every other row" in text


def test_names_texts_and_files_cannot_write_markup_nor_hide_text() -> None:
    n = 200
    texts = np.empty((n, 1), object)
    texts[:] = HOSTILE.encode("utf-8", "surrogatepass")
    evidence = evidence_of(n, 2, x={"text": texts})
    certificate = certificate_of(population=f"rows of {HOSTILE}", not_promised=[HOSTILE], deployment=HOSTILE)
    policy = policy_of(labels=(HOSTILE, "b"), version=HOSTILE)
    html = report(certificate, policy, evidence)
    page = check(html)
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "49" not in re.findall(r"onload=x (\S+)", unescape(html))
    assert not {"\u202e", "\x00", "\ud800"} & set(html)
    assert "\\u202e" in page.text


def test_the_page_states_a_policy_that_lets_nothing_load_or_run() -> None:
    (policy,) = [
        attributes["content"]
        for tag, attributes in check(report()).elements
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_the_review_load_is_the_share_of_rows_that_no_rung_answers() -> None:
    evidence = evidence_of(200)
    evidence.by[:] = np.where(np.arange(200) < 13, -1, 0)
    review = {"store": "sqlite:///r.db", "capacity": 9, "expire_after_s": 60, "on_expire": "refuse"}
    text = check(report(policy=policy_of(review=review), evidence=evidence)).text
    row = re.search(r"1\u202f000\u202f000\s*([\d\u202f]+?)9", text)
    assert row is not None
    assert row[1] == "65\u202f000"
    assert "go to people" in text


def test_without_a_review_queue_rows_are_said_to_be_refused() -> None:
    assert "refused, without a review queue" in check(report()).text


def test_rows_that_a_guard_refuses_are_not_counted_as_sent_to_people() -> None:
    evidence = evidence_of()
    refusing = replace(evidence, guards=(replace(evidence.guards[0], verdict="refuse"),))
    policy = Policy.model_validate(
        policy_of().model_dump(by_alias=True)
        | {"guards": [OOD | {"name": "g0", "cuts": {"refuse": "certified"}}]}
    )
    assert "refused by a guard" in check(report(policy=policy, evidence=refusing)).text


def test_scores_that_are_no_numbers_do_not_reach_the_page() -> None:
    evidence = evidence_of()
    scores = evidence.guards[0].scores.copy()
    scores[:3] = np.nan, np.inf, -np.inf
    check(
        report(evidence=replace(evidence, guards=(replace(evidence.guards[0], scores=scores),), joint=scores))
    )


def test_the_template_and_the_style_are_installed_with_the_package() -> None:
    project = tomllib.loads((CONFIGS.parent / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["package-data"]["gateway.calibration.page"] == ["*.html", "*.css"]
